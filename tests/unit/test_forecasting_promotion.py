"""The gates between a new model and what is in force, and the backtests they look at."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from pipelines.forecasting.backtests import Backtests, Comparison, compare, first_day
from pipelines.forecasting.promotion import Champion, Evidence, decide
from pipelines.operations.settings import PromotionSettings

GOOD = Evidence(wape=0.14, baseline_wape=0.20, bias=0.01, coverage=0.79)
AS_OF = date(2024, 3, 29)
NIGHT_BEFORE = date(2024, 3, 28)


def compared(gain: float, spread: float = 0.05, series: int = 400) -> Comparison:
    """A comparison of many series whose errors the challenger cuts by `gain` on average."""
    rng = np.random.default_rng(3)
    p = rng.uniform(50, 150, series)
    c = p * (1 - gain + spread * rng.standard_normal(series))
    return Comparison(series, 27, 1000.0 * series, p.sum(), c.sum(), (p @ p, p @ c, c @ c))


def champion(comparison: Comparison, as_of: date = NIGHT_BEFORE, evidence: Evidence = GOOD) -> Champion:
    return Champion("f-20240328-20240329T020000", as_of, evidence, comparison)


def refused(decision) -> list[str]:
    return [verdict.gate for verdict in decision.verdicts if not verdict.passed]


@pytest.mark.parametrize(
    ("evidence", "gain", "gates"),
    [
        (GOOD, 0.03, []),
        (GOOD, -0.01, []),
        (GOOD, -0.10, ["gain"]),
        (Evidence(0.14, 0.2, 0.30, 0.79), 0.03, ["bias"]),
        (Evidence(0.14, 0.2, -0.30, 0.79), 0.03, ["bias"]),
        (Evidence(0.14, 0.2, 0.01, 0.40), 0.03, ["coverage"]),
        (Evidence(0.14, 0.2, 0.01, 1.00), 0.03, ["coverage"]),
        (Evidence(0.14, 0.2, 0.30, 0.40), -0.10, ["gain", "bias", "coverage"]),
    ],
    ids=["better", "worse within the allowance", "worse", "too high", "too low", "too narrow", "too wide", "all"],
)
def test_each_gate_refuses_for_its_own_reason(evidence, gain, gates):
    decision = decide(evidence, AS_OF, champion(compared(gain)), PromotionSettings())
    assert refused(decision) == gates
    assert decision.promoted == (not gates)
    assert decision.tags()["promotion"] == ("refused" if gates else "promoted")
    for gate in ("gain", "bias", "coverage"):
        verdict = "refused" if gate in gates else "passed"
        assert decision.tags()[f"promotion.{gate}"].startswith(verdict)
        assert f"{gate}: {verdict}" in str(decision)
    assert "\n" not in str(decision)


def test_a_loss_within_the_noise_is_no_loss():
    # given the same mean loss on many series and on a few noisy ones
    many, few = compared(-0.06, spread=0.3), compared(-0.06, spread=0.3, series=4)
    assert few.noise > many.noise
    assert refused(decide(GOOD, AS_OF, champion(many), PromotionSettings())) == ["gain"]
    assert refused(decide(GOOD, AS_OF, champion(few), PromotionSettings())) == []


def test_the_noise_of_a_gain_is_that_of_drawing_other_series():
    # given the gains of many samples of 300 series
    rng = np.random.default_rng(11)
    p = rng.gamma(2.0, 30.0, (3000, 300))
    c = p * rng.normal(0.95, 0.2, p.shape)
    gains = 1 - c.sum(axis=1) / p.sum(axis=1)
    told = [Comparison(300, 28, 1.0, a.sum(), b.sum(), (a @ a, a @ b, b @ b)).noise for a, b in zip(p, c, strict=True)]
    # then their spread is what each alone says of itself
    assert np.median(told) == pytest.approx(gains.std(), rel=0.05)


BAD = Evidence(0.3, 0.2, 0.5, 0.3)


@pytest.mark.parametrize(
    ("against", "settings", "why"),
    [
        (None, PromotionSettings(), "nothing else is in force"),
        (champion(compared(-0.5), date(2024, 3, 20)), PromotionSettings(), "9 days away"),
        (champion(compared(-0.5)), PromotionSettings(gated=False), "gated is off"),
    ],
    ids=["no forecasts at all", "very old forecasts", "switched off"],
)
def test_a_refusal_is_overruled_where_it_would_cost_more_and_says_so(against, settings, why):
    decision = decide(BAD, AS_OF, against, settings)
    assert decision.promoted
    assert why in str(decision)
    assert {"bias", "coverage"} <= set(refused(decision))


def test_without_common_days_each_model_is_held_against_seasonal_naive():
    nothing = Comparison()
    worse = Evidence(0.16, 0.20, 0.0, 0.8)
    assert decide(GOOD, AS_OF, champion(nothing), PromotionSettings()).promoted
    told = decide(worse, AS_OF, champion(nothing), PromotionSettings())
    assert refused(told) == ["gain"]
    assert "no common days" in str(told)
    unscored = Evidence(*[float("nan")] * 4)
    assert refused(decide(unscored, AS_OF, champion(nothing), PromotionSettings())) == ["gain"]
    # and where neither could be scored, nothing speaks against the newer one
    assert decide(unscored, AS_OF, champion(nothing, evidence=unscored), PromotionSettings()).promoted


def backtests(keys, first, actual, yhat) -> Backtests:
    first = np.full(len(keys), first_day(first)) if isinstance(first, date) else np.array(first, np.int64)
    return Backtests(np.array(keys, object), first, np.array(actual, float), np.array(yhat, float))


def test_only_common_known_days_of_common_series_are_compared():
    nan = float("nan")
    # given windows a day apart, an unknown day, and a series on each side that the other lacks
    before = backtests(["a|x", "b|x"], date(2024, 3, 1), [[9, 9, 9], [5, 5, 5]], [[10, 11, 12], [5, 5, 5]])
    after = backtests(["a|x", "c|x"], date(2024, 3, 2), [[10, nan, 10], [1, 1, 1]], [[9, 9, 9], [1, 1, 1]])
    # then only 2 March of a|x counts: the champion said 11, the challenger 9, 10 came
    found = compare(before, after)
    assert (found.series, found.days, found.actual, found.champion, found.challenger) == (1, 1, 10.0, 1.0, 1.0)
    assert found.gain == 0
    assert found.noise == float("inf")


def test_windows_that_never_meet_leave_nothing_to_compare():
    one = backtests(["a|x"], date(2024, 1, 1), [[1, 2]], [[1, 2]])
    other = backtests(["a|x"], date(2024, 2, 1), [[1, 2]], [[1, 2]])
    found = compare(one, other)
    assert (found.series, found.days, found.champion) == (0, 0, 0.0)
    assert np.isnan(found.gain)


def test_parts_add_up_to_the_whole():
    rng = np.random.default_rng(5)
    keys = [f"s{row:02d}|x" for row in range(40)]
    actual, p, c = (rng.poisson(9, (40, 14)).astype(float) for _ in range(3))
    whole = compare(backtests(keys, date(2024, 3, 1), actual, p), backtests(keys, date(2024, 3, 1), actual, c))
    parts = Comparison()
    for rows in (slice(0, 15), slice(15, 40)):
        parts += compare(
            backtests(keys[rows], date(2024, 3, 1), actual[rows], p[rows]),
            backtests(keys[rows], date(2024, 3, 1), actual[rows], c[rows]),
        )
    assert parts.gain == pytest.approx(whole.gain)
    assert parts.noise == pytest.approx(whole.noise)
    assert (parts.series, parts.days) == (whole.series, whole.days) == (40, 14)
