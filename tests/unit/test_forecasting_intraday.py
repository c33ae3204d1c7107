from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.contracts.tables import QUANTILES
from pipelines.forecasting import publishing
from pipelines.forecasting.distributions import demand_quantiles
from pipelines.forecasting.intraday import day_factor, rest_of_day
from pipelines.simulation.demand import DISPERSION, expected_demand, true_demand
from pipelines.simulation.plan import Plan
from pipelines.simulation.world import World

SHARES = np.exp(-((np.arange(24) - 13.0) ** 2) / 18)
SHARES = SHARES / SHARES.sum()


def day(mean: float, relative_variance: float, count: int = 1):
    return np.tile(mean * SHARES, (count, 1)), np.full(count, mean + relative_variance * mean**2)


class TestRestOfDay:
    def test_a_strong_morning_raises_the_rest_a_weak_one_lowers_it_a_normal_one_leaves_it(self):
        hours, variance = day(60.0, 0.1, 3)
        morning = hours[:, :12] * np.array([[2.0], [0.3], [1.0]])
        mean, quantiles = rest_of_day(hours, variance, morning, np.ones((3, 12)), QUANTILES)
        factor = mean[:, 0] / hours[:, 12]
        assert 1.3 < factor[0] < 2.0
        assert 0.3 < factor[1] < 0.8
        assert factor[2] == pytest.approx(1)
        assert quantiles[0, 0, 3] > quantiles[2, 0, 3] > quantiles[1, 0, 3]

    def test_the_posterior_is_that_of_the_conjugate_gamma(self):
        # given a prior of shape 10, and little expected, so that hardly anything is tempered
        factor, spread = day_factor(np.array([0.5]), np.array([3.0]), np.array([0.1]))
        weight = 1 / (1 + 0.01 * 0.5)
        assert factor[0] == pytest.approx((10 + 3 * weight) / (10 + 0.5 * weight))
        assert spread[0] == pytest.approx(1 / (10 + 3 * weight))

    def test_an_empty_shelf_tells_nothing(self):
        hours, variance = day(60.0, 0.1)
        in_stock = np.ones((1, 12))
        in_stock[:, 6:] = 0.0
        sold = np.where(in_stock > 0, hours[:, :12], 0.0)
        mean, _ = rest_of_day(hours, variance, sold, in_stock, QUANTILES)
        np.testing.assert_allclose(mean, hours[:, 12:])

    def test_a_day_that_leaves_no_room_stays(self):
        hours, variance = day(60.0, -0.005)
        mean, _ = rest_of_day(hours, variance, 3 * hours[:, :12], np.ones((1, 12)), QUANTILES)
        np.testing.assert_allclose(mean, hours[:, 12:])

    def test_before_anything_has_passed_the_hours_are_those_of_the_published_day(self):
        # given the published spread of an hour: s (1 - s) ŷ + s² Var(D)
        hours, variance = day(60.0, 0.1)
        _, quantiles = rest_of_day(hours, variance, np.zeros((1, 0)), np.zeros((1, 0)), QUANTILES)
        published = demand_quantiles(hours, (1 - SHARES) * hours + SHARES**2 * variance[:, None], QUANTILES)
        np.testing.assert_allclose(quantiles, published, rtol=1e-12)

    def test_coverage_holds_on_days_of_the_assumed_law_and_the_spread_narrows(self):
        # given gamma-Poisson days
        rng = np.random.default_rng(3)
        hours, variance = day(80.0, 0.15, 4000)
        wanted = rng.poisson(rng.gamma(1 / 0.15, 0.15, (4000, 1)) * hours)
        # when the rest of each is forecast at 14 o'clock
        mean, quantiles = rest_of_day(hours, variance, wanted[:, :14].astype(float), np.ones((4000, 14)), QUANTILES)
        # then
        rest = wanted[:, 14:18]
        inside = (rest >= quantiles[:, :4, 1]) & (rest <= quantiles[:, :4, 5])
        published = demand_quantiles(hours, (1 - SHARES) * hours + SHARES**2 * variance[:, None], QUANTILES)[:, 14:18]
        before = (rest >= published[..., 1]) & (rest <= published[..., 5])
        assert 0.8 <= inside.mean() <= 0.88  # whole numbers: at least the nominal 80 %
        assert abs(inside.mean() - before.mean()) < 0.04
        assert (quantiles[:, :4, 5] - quantiles[:, :4, 1]).mean() < 0.9 * (published[..., 5] - published[..., 1]).mean()
        assert np.abs(mean[:, :4] - rest).mean() < 0.93 * np.abs(hours[:, 14:18] - rest).mean()
        assert mean.sum() == pytest.approx(wanted[:, 14:].sum(), rel=0.02)

    def test_on_a_simulated_chain_the_rest_of_the_day_is_forecast_better_and_covered(self):
        # given a chain whose expected hours are known, and whose days differ from them by a gamma factor
        plan = Plan(date(2025, 6, 1), seed=11, stores=4, products=12, days=40, low_stock=0)
        model = World(plan).model
        mean = expected_demand(model, plan.start_hour, 24 * 40).reshape(40, 24, -1).transpose(0, 2, 1).reshape(-1, 24)
        real = true_demand(model, plan.start_hour, 24 * 40).reshape(40, 24, -1).transpose(0, 2, 1).reshape(-1, 24)
        variance = mean.sum(axis=1) + mean.sum(axis=1) ** 2 / DISPERSION
        # when
        sold = real[:, :14].astype(float)
        rest, quantiles = rest_of_day(mean, variance, sold, np.ones_like(sold), QUANTILES)
        # then
        big = mean.sum(axis=1) > 15
        assert (
            np.abs(rest.sum(axis=1) - real[:, 14:].sum(axis=1))[big].mean()
            < 0.97 * np.abs(mean[:, 14:].sum(axis=1) - real[:, 14:].sum(axis=1))[big].mean()
        )
        selling = rest > 1
        inside = (real[:, 14:] >= quantiles[..., 1]) & (real[:, 14:] <= quantiles[..., 5])
        assert 0.8 <= inside[selling].mean() <= 0.95  # small whole numbers

    @settings(max_examples=100, deadline=None)
    @given(st.integers(0, 2**31), st.integers(0, 24), st.sampled_from([0.0, 0.02, 3.0, 500.0, 1e9]))
    def test_whatever_comes_is_finite_non_negative_and_does_not_cross(self, seed, passed, level):
        rng = np.random.default_rng(seed)
        hours = level * rng.random((5, 24)) * rng.integers(0, 2, (5, 1))
        variance = hours.sum(axis=1) * rng.choice([0.0, 0.5, 1.0, 30.0], 5)
        sold = rng.poisson(min(level, 1e6) * rng.random((5, passed)) * 3).astype(float)
        mean, quantiles = rest_of_day(hours, variance, sold, rng.choice([0.0, 0.4, 1.0], (5, passed)), QUANTILES)
        assert mean.shape == (5, 24 - passed)
        assert np.isfinite(quantiles).all()
        assert np.isfinite(mean).all()
        assert (mean >= 0).all()
        assert (quantiles >= 0).all()
        assert (np.diff(quantiles, axis=2) >= 0).all()


@pytest.mark.parametrize(
    ("version", "refreshed"),
    [
        ("f-20240329-20240330T020000", False),
        ("f-20240329-20240330T020000-r20240330T14", True),
        ("f-20240329-20240330T020000-r20240330T14'; --", False),
        ("p-20240329-abc", False),
    ],
)
def test_names_of_refreshed_versions(version, refreshed):
    assert publishing.is_refreshed(version) == refreshed
