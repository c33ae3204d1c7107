from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from utilsforecast import losses

from pipelines.contracts.tables import QUANTILES
from pipelines.forecasting.distributions import demand_quantiles, variance_from_quantiles
from pipelines.forecasting.metrics import Scores, naive_scale, score
from pipelines.forecasting.summary import sample_keys, summarise


class TestScoresByHand:
    # given y = 10, 20, unknown, 30 and ŷ = 12, 18, 99, 30
    scores = score(
        actual=np.array([[10.0, 20.0, np.nan, 30.0]]),
        yhat=np.array([[12.0, 18.0, 99.0, 30.0]]),
        low=np.array([[11.0, 15.0, 0.0, 25.0]]),
        high=np.array([[13.0, 20.0, 0.0, 35.0]]),
        scale=np.array([2.0]),
    )

    @pytest.mark.parametrize(
        ("name", "value"),
        [("WAPE", 4 / 60), ("MASE", 4 / 3 / 2), ("bias", 0.0), ("coverage", 2 / 3), ("days", 3.0)],
    )
    def test_value(self, name, value):
        assert getattr(self.scores, name)[0] == pytest.approx(value)


def test_ratios_without_a_denominator_are_nan_not_infinite():
    scores = score(np.zeros((1, 2)), np.ones((1, 2)), np.zeros((1, 2)), np.ones((1, 2)), np.zeros(1))
    assert np.isnan(scores.WAPE[0])
    assert np.isnan(scores.MASE[0])
    assert scores.coverage[0] == 1


def test_series_that_were_not_scored_have_no_ratio():
    scores = Scores.none(2)
    assert np.isnan([scores.WAPE, scores.MASE, scores.bias, scores.coverage]).all()


def test_naive_scale_skips_pairs_with_an_unknown_day():
    demand = np.array([[1.0, 0, 0, 0, 0, 0, 0, 4.0, np.nan, 2.0]])
    assert naive_scale(demand)[0] == pytest.approx((3 + 2) / 2)
    assert np.isnan(naive_scale(np.ones((1, 7)))[0])


def test_agrees_with_utilsforecast():
    # given three random series
    rng = np.random.default_rng(4)
    train, actual = rng.poisson(9, (3, 50)).astype(float), rng.poisson(9, (3, 14)).astype(float)
    yhat = actual + rng.normal(0, 2, actual.shape)
    low, high = yhat - 2, yhat + 2
    # when
    scores = score(actual, yhat, low, high, naive_scale(train))
    # then

    def long(values, first):
        return [
            {"unique_id": f"s{row}", "ds": first + column, "y": values[row, column]}
            for row in range(3)
            for column in range(values.shape[1])
        ]

    frame = pd.DataFrame(long(actual, 50)).assign(m=yhat.ravel(), lo=low.ravel(), hi=high.ravel())
    history = pd.DataFrame(long(train, 0))
    frame = frame.rename(columns={"lo": "m-lo-80", "hi": "m-hi-80"})
    np.testing.assert_allclose(scores.WAPE, losses.nd(frame, ["m"])["m"])
    np.testing.assert_allclose(scores.MASE, losses.mase(frame, ["m"], 7, history)["m"])
    np.testing.assert_allclose(scores.coverage, losses.coverage(frame, ["m"], 80)["m"])


class TestDemandQuantiles:
    @pytest.mark.parametrize(
        ("mean", "variance"),
        [(0.05, 0.2), (0.05, 0.05), (0.05, 0.0495), (3, 3), (3, 9), (8, 2), (150, 400), (900, 100), (1e9, 1e14)],
    )
    def test_they_have_the_mean_and_variance_asked_for(self, mean, variance):
        # given the quantile function on a fine grid of probabilities
        grid = (np.arange(20_000) + 0.5) / 20_000
        # when
        values = demand_quantiles(np.array([float(mean)]), np.array([float(variance)]), grid)[0]
        # then its moments are those asked for (rounding a binomial's trials up costs a little variance)
        assert values.mean() == pytest.approx(mean, rel=0.02)
        assert values.var() == pytest.approx(variance, rel=0.12)
        assert (np.diff(values) >= 0).all()
        assert values.min() >= 0

    def test_no_demand_and_certain_demand(self):
        quantiles = demand_quantiles(np.array([0.0, 5.0, 500.0]), np.array([3.0, 0.0, 0.0]), QUANTILES)
        np.testing.assert_allclose(quantiles, np.array([[0.0], [5.0], [500.0]]) * np.ones(len(QUANTILES)))

    def test_variance_comes_back_from_normal_quantiles(self):
        from scipy.stats import norm

        quantiles = norm.ppf(QUANTILES, 100, 7)[None, None]
        assert variance_from_quantiles(quantiles, QUANTILES)[0, 0] == pytest.approx(49)


def status(**columns) -> pd.DataFrame:
    count = len(columns["status"])
    blank = dict.fromkeys(
        ("WAPE", "MASE", "days", "absolute_error", "baseline_absolute_error", "error", "actual", "covered")
    )
    frame = pd.DataFrame({**{name: [np.nan] * count for name in blank}, **columns})
    return frame.assign(
        location_id="north", sku=[f"s{row}" for row in range(count)], model=columns.get("model", "prophet")
    )


class TestSummary:
    def test_pools_sums_and_not_ratios(self):
        # given a large series that is forecast well and a small one that is not, and an unscored one
        frame = status(
            status=["ok", "ok", "fallback"],
            WAPE=[0.1, 1.0, np.nan],
            MASE=[0.5, 1.5, np.nan],
            days=[10, 10, np.nan],
            absolute_error=[100, 10, np.nan],
            baseline_absolute_error=[200, 20, np.nan],
            error=[-100, 10, np.nan],
            actual=[1000, 10, np.nan],
            covered=[9, 5, np.nan],
        )
        # when
        summary = summarise(frame)
        # then
        assert summary.wape == pytest.approx(110 / 1010)
        assert summary.baseline_wape == pytest.approx(220 / 1010)
        assert summary.bias == pytest.approx(-90 / 1010)
        assert summary.coverage == pytest.approx(0.7)
        assert summary.mase == pytest.approx(1.0)
        assert summary.status == {"ok": 2, "fallback": 1, "failed": 0}
        assert summary.scored == 2

    def test_nothing_scored_is_nan_and_still_prints(self):
        summary = summarise(status(status=["fallback"]))
        assert np.isnan(summary.wape)
        assert "1 fallback" in str(summary)

    def test_the_sample_shows_best_median_worst_and_a_fallback(self):
        frame = status(status=["ok"] * 5 + ["fallback"], WAPE=[0.3, 0.1, 0.5, 0.2, 0.4, np.nan])
        assert sample_keys(frame) == [("north", "s1"), ("north", "s0"), ("north", "s2"), ("north", "s5")]
