"""The replay: day by day as a plain loop does it, limits kept, nothing known before its time."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import stats

from pipelines.contracts.tables import QUANTILES
from pipelines.errors import MissingDataError
from pipelines.forecasting.series import from_matrix
from pipelines.inventory.lead_time_demand import Protection
from pipelines.inventory.policies import Terms
from pipelines.inventory.replay.candidates import Clairvoyant, Planned, UsualRule
from pipelines.inventory.replay.history import (
    History,
    Rolling,
    RollingForecasts,
    forecast_rolling,
    sampled_lead_times,
)
from pipelines.inventory.replay.kernel import Buying, Days, run
from pipelines.inventory.replay.results import buying_of, replay, stock_at

END = date(2024, 6, 30)


def plain_replay(demand, lead_time, is_open, pack, minimum, maximum, review, low, high, opening):
    """One series under one policy, from the rules alone: returns what each evening looks like."""
    on_hand, coming, evenings = opening, [], []
    for day, wanted in enumerate(demand):
        arrived = sum(units for due, units in coming if due == day)
        coming = [order for order in coming if order[0] != day]
        on_hand += arrived
        sold = min(on_hand, wanted)
        on_hand -= sold
        ordered = 0
        position = on_hand + sum(units for _, units in coming)
        if is_open[day] and day % review == 0 and position <= low[day]:
            packs = int(np.ceil((high[day] - position) / pack))
            ordered = max(packs, int(np.ceil(minimum / pack))) * pack
            if maximum:
                ordered = min(ordered, maximum // pack * pack)
            coming.append((day + 1 + lead_time[day], ordered))
        evenings.append((arrived, sold, ordered, on_hand, sum(units for _, units in coming)))
    return np.array(evenings)


@st.composite
def scenes(draw):
    length = draw(st.integers(5, 60))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    pack = draw(st.sampled_from([1, 4, 6]))
    return {
        "demand": rng.poisson(draw(st.sampled_from([0.3, 5.0, 40.0])), length),
        "lead_time": rng.integers(0, 9, length),
        "is_open": rng.random(length) < draw(st.sampled_from([1.0, 0.7])),
        "pack": pack,
        "minimum": draw(st.sampled_from([0, 1, 10])),
        "maximum": draw(st.sampled_from([0, pack, 25])) if pack <= 25 else 0,
        "review": draw(st.sampled_from([1, 7])),
        "low": (low := rng.integers(0, 120, length)),
        "high": low + rng.integers(1, 40, length),
        "opening": int(rng.integers(0, 100)),
    }


def by_kernel(scene, first=0):
    """The same scene by the compiled code, beside another series and another policy."""

    def twice(values):
        return np.ascontiguousarray(np.tile(np.asarray(values, np.int64), (2, 1)))

    days = Days(twice(scene["demand"]), twice(scene["lead_time"]), np.tile(scene["is_open"], (2, 1)), first)
    buying = Buying(*(np.full(2, scene[name], np.int64) for name in ("pack", "minimum", "maximum", "review")))
    low, high = (np.stack([twice(scene[name])] * 3) for name in ("low", "high"))
    return run(days, buying, low, high, np.full((3, 2), scene["opening"], np.int64))


@given(scenes(), st.integers(0, 4))
@hypothesis_settings(max_examples=60, deadline=None)
def test_the_compiled_days_are_those_of_a_plain_loop(scene, first):
    evenings = plain_replay(**scene)[first:]
    totals, ordered = by_kernel(scene, first)

    expected = {
        "days": len(evenings),
        "demand": scene["demand"][first:].sum(),
        "sold": evenings[:, 1].sum(),
        "on_hand": evenings[:, 3].sum(),
        "short_days": (evenings[:, 1] < scene["demand"][first:]).sum(),
        "cycles": (evenings[:, 0] > 0).sum(),
        "orders": (evenings[:, 2] > 0).sum(),
        "ordered": evenings[:, 2].sum(),
        "received": evenings[:, 0].sum(),
        "on_order": evenings[:, 4].sum(),
        "highest_position": (evenings[:, 3] + evenings[:, 4]).max(),
    }
    assert {name: totals[name][2, 1] for name in expected} == expected
    assert (totals["on_hand"] == totals["on_hand"][0, 0]).all()
    assert (ordered[0, first:] == 2 * evenings[:, 2]).all()


@given(scenes())
@hypothesis_settings(max_examples=40, deadline=None)
def test_the_position_stays_within_a_pack_of_the_order_up_to_level(scene):
    scene = {**scene, "minimum": 0}
    totals, _ = by_kernel(scene)

    highest = max(int(scene["high"].max()) + scene["pack"] - 1, scene["opening"])
    assert totals["highest_position"].max() <= highest


def test_a_cycle_with_a_lost_sale_is_not_served():
    # Five a day from ten on hand: gone after day 1, what is ordered on day 1 is there on day 3; day 2 sells nothing.
    scene = {
        "demand": [5, 5, 5, 5, 5, 5], "lead_time": [1] * 6, "is_open": np.ones(6, bool), "pack": 1, "minimum": 0,
        "maximum": 0, "review": 1, "low": [0] * 6, "high": [10] * 6, "opening": 10,
    }  # fmt: skip
    totals, _ = by_kernel(scene)

    assert (totals["cycles"][0, 0], totals["served_cycles"][0, 0]) == (1, 0)
    assert (totals["sold"][0, 0], totals["short_days"][0, 0]) == (20, 2)


# Candidates. -------------------------------------------------------------------------------------------------


def history_of(demand: np.ndarray, mean: np.ndarray, days: int = 90, lead_times=(6, 7, 8)) -> History:
    """The last `days` of the demand are replayed; the forecasts are normal around the true means."""
    series = len(demand)
    start = END - timedelta(days=days - 1)
    origins = tuple(start - timedelta(days=1) + timedelta(days=7 * week) for week in range(days // 7 + 1))
    first = [demand.shape[1] - (END - origin).days for origin in origins]
    padded = np.hstack([mean, mean[:, -35:]])
    yhat = np.stack([padded[:, column : column + 28] for column in first])
    quantiles = np.maximum(stats.norm.ppf(QUANTILES) * np.sqrt(yhat)[..., None] + yhat[..., None], 0)
    return History(
        from_matrix(demand, END),
        RollingForecasts(origins, yhat, quantiles),
        sampled_lead_times(lead_times, series, days, np.random.default_rng(5)),
        start,
        start + timedelta(days=20),
    )


def seasonal(series: int = 40, length: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    week = np.array([0.6, 0.8, 0.9, 1.0, 1.1, 1.4, 1.2])
    slow = 1 + 0.4 * np.sin(2 * np.pi * np.arange(length) / 120)
    mean = rng.uniform(10, 60, (series, 1)) * week[np.arange(length) % 7] * slow
    return rng.poisson(mean).astype(float), mean


def terms_of(series: int, **values: float) -> Terms:
    given_values = {
        "service_level": 0.95, "pack_size": 6.0, "minimum_order": 1.0, "order_cost": 0.0, "holding_cost": 0.5,
        "unit_cost": 2.0, "unit_price": 3.0, "shelf_life_days": np.nan, "review_days": 1.0, **values,
    }  # fmt: skip
    return Terms(**{name: np.full(series, float(value)) for name, value in given_values.items()})


def six_to_eight(series: int) -> Protection:
    return Protection.observed(np.tile([6.0, 7.0, 8.0], (series, 1)), np.ones(series))


SERVICE = (0.7, 0.85, 0.95, 0.99, 0.999)
PLANNED = Planned("planned", "periodic_base_stock", paths=256, correlation=0.0)


@pytest.fixture(scope="module")
def played():
    demand, mean = seasonal()
    history, protection, terms = history_of(demand, mean), six_to_eight(40), terms_of(40)
    candidates = [PLANNED, UsualRule("usual"), Clairvoyant("clairvoyant")]
    return replay(history, candidates, protection, terms, SERVICE), terms


def test_more_service_wanted_is_more_service_and_more_stock(played):
    for name in ("planned", "usual", "clairvoyant"):
        chosen = [outcome for outcome in played[0] if outcome.name == name]
        assert (np.diff([outcome.average_stock for outcome in chosen]) > 0).all()
        assert (np.diff([outcome.fill_rate for outcome in chosen]) >= 0).all()


def test_a_forecast_of_the_season_needs_less_stock_than_the_last_weeks_and_more_than_knowing_the_future(played):
    stock = {name: stock_at(played[0], name, [0.98])[0] for name in ("planned", "usual", "clairvoyant")}

    assert stock["clairvoyant"] < 0.97 * stock["planned"] < 0.97 * 0.92 * stock["usual"]


def test_a_summary_adds_up(played):
    outcomes, terms = played
    for outcome in outcomes:
        told = outcome.summary(terms)
        assert told["cost"] == pytest.approx(told["holding_cost"] + told["order_cost"] + told["lost_margin"])
        assert told["lost_margin"] == pytest.approx(told["lost_units"] * 1.0)
        # Half a unit of money a year each, over 70 days and 40 series.
        assert told["holding_cost"] == pytest.approx(0.5 * told["average_stock"] * 40 * 70 / 365)


def test_levels_know_nothing_of_the_day_after():
    demand, mean = seasonal(series=5)
    history = history_of(demand, mean)
    changed = demand.copy()
    changed[:, -10:] = 999
    other = history_of(changed, mean)
    for candidate in (PLANNED, UsualRule("usual")):
        before, after = (
            candidate.levels(scene, six_to_eight(5), terms_of(5), (0.95,)).order_up_to for scene in (history, other)
        )
        assert (before[:, :, :-10] == after[:, :, :-10]).all()


def test_the_usual_rule_is_the_textbooks():
    demand = np.tile([10.0, 14.0], (1, 60))
    history = history_of(demand, demand, days=10)
    levels = UsualRule("usual").levels(history, six_to_eight(1), terms_of(1, order_cost=1.0), (0.95,))

    # Mean 12, deviation 2.0367 (of a sample) over 8 days, lead time's deviation 0.8165: 96 + 1.6449 * 11.37 = 114.7.
    assert levels.reorder_point[0, 0, 5] == 115
    # √(2 * 1 * 12 * 365 / 0.5) = 132.4 and whole packs: 138.
    assert levels.order_up_to[0, 0, 5] == 115 + 138


def test_order_sizes_are_the_same_for_all(played):
    demand, mean = seasonal(series=3)
    history = history_of(demand, np.tile(mean.mean(axis=1)[:, None], (1, 200)), days=30)
    for order_cost, method in ((0.0, "periodic_base_stock"), (20.0, "order_up_to")):
        terms = terms_of(3, order_cost=order_cost)
        ours = Planned("ours", method, 256).levels(history, six_to_eight(3), terms, (0.95,))
        usual = UsualRule("usual").levels(history, six_to_eight(3), terms, (0.95,))
        sizes = [(made.order_up_to - made.reorder_point).mean() for made in (ours, usual)]
        assert sizes[0] == pytest.approx(sizes[1], rel=0.25)


# Forecasts of the past. --------------------------------------------------------------------------------------


def test_a_forecast_of_the_past_is_not_told_the_future():
    demand, _ = seasonal(series=6, length=300)
    changed = demand.copy()
    changed[:, -14:] *= 5
    rolling = Rolling(horizon=14)
    last = END - timedelta(days=14)
    made = [
        forecast_rolling(from_matrix(values, END), last - timedelta(days=14), last, rolling)
        for values in (demand, changed)
    ]

    assert made[0].origins == (last - timedelta(days=14), last - timedelta(days=7), last)
    assert (made[0].yhat == made[1].yhat).all()
    assert made[0].yhat.mean() == pytest.approx(demand[:, -60:].mean(), rel=0.3)


def test_a_series_without_a_past_is_forecast_all_the_same():
    demand = np.vstack([seasonal(series=1, length=100)[0], np.full((1, 100), np.nan)])
    made = forecast_rolling(from_matrix(demand, END), END, END, Rolling(horizon=7))

    assert np.isfinite(made.yhat).all()
    assert (made.yhat[0, 1] == 0).all()


def test_the_newest_forecast_known_is_taken_and_its_end_is_said():
    demand, mean = seasonal(series=2)
    forecasts = history_of(demand, mean, days=21).forecasts
    origin = forecasts.origins[1]
    taken = forecasts.known_on(origin + timedelta(days=3), 10)

    assert (taken.yhat == forecasts.yhat[1, :, 3:13]).all()
    with pytest.raises(MissingDataError, match="no forecast reaches beyond"):
        forecasts.known_on(forecasts.origins[0] - timedelta(days=1), 10)


def test_buying_is_whole_units_and_at_least_a_pack():
    buying = buying_of(terms_of(2, pack_size=6.0, review_days=0.5), np.array([0.0, 2.0]))

    assert buying.review.tolist() == [1, 1]
    assert buying.maximum_order.tolist() == [0, 6]
