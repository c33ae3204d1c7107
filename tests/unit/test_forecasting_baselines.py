"""Baselines and models of intermittent demand: what each is, by hand or by a library's own answer."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from statsforecast.ets import ets_f, forecast_ets
from statsforecast.theta import auto_theta, forecast_theta

from pipelines.contracts.tables import QUANTILES
from pipelines.forecasting.croston import smooth_rates
from pipelines.forecasting.engines import EngineOptions, create, fit_safely
from pipelines.forecasting.filled import filled
from pipelines.forecasting.series import from_matrix
from pipelines.operations.settings import ForecastSettings

END = date(2024, 3, 10)
OPTIONS = EngineOptions()


def weekly(days: int, level: float = 20.0, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.poisson(level * (1 + 0.5 * np.sin(2 * np.pi * np.arange(days) / 7))).astype(float)


class TestReferences:
    def test_ets_gives_statsforecasts_forecast_and_interval(self):
        demand = weekly(200)
        found = fit_safely(create("ets", OPTIONS), from_matrix(demand, END), 21, QUANTILES)
        theirs = forecast_ets(ets_f(demand / demand.mean(), 7, model="ANA", damped=False), 21, level=[80])
        np.testing.assert_allclose(found.yhat[0], theirs["mean"] * demand.mean(), rtol=1e-6)
        width = (theirs["hi-80"] - theirs["lo-80"]) * demand.mean()
        np.testing.assert_allclose(found.quantiles[0, :, 5] - found.quantiles[0, :, 1], width, rtol=0.05)

    def test_theta_gives_statsforecasts_forecast(self):
        demand = weekly(200)
        found = fit_safely(create("theta", OPTIONS), from_matrix(demand, END), 21, QUANTILES)
        theirs = forecast_theta(auto_theta(demand / demand.mean(), 7, model="STM"), 21)
        np.testing.assert_allclose(found.yhat[0], theirs["mean"] * demand.mean(), rtol=1e-6)

    def test_moving_average_is_the_mean_of_four_weeks(self):
        demand = np.concatenate([np.full(60, 99.0), np.tile([1.0, 2, 3, 4, 5, 6, 7], 4)])
        found = fit_safely(create("moving_average", OPTIONS), from_matrix(demand, END), 14, QUANTILES)
        assert found.yhat[0].mean() == pytest.approx(4.0)


class TestCroston:
    def test_regular_demand_every_fourth_day(self):
        # given 8 units every fourth day: 2 a day; SBA takes half the smoothing parameter off
        demand = np.tile([0.0, 0, 0, 8], 60)[None]
        sba = smooth_rates(demand, np.ones_like(demand), probability=False)
        assert sba.level[0] == pytest.approx(2.0 * (1 - sba.smoothing[0] / 2), rel=1e-6)

    def test_tsb_follows_its_recursion(self):
        # given one parameter's recursion by hand
        rng = np.random.default_rng(2)
        demand = (rng.random(150) < 0.3) * rng.integers(1, 6, 150).astype(float)
        tsb = smooth_rates(demand[None], np.ones((1, 150)), probability=True)
        alpha, sold = tsb.smoothing[0], np.flatnonzero(demand)[:8]
        size, chance = demand[sold].mean(), 8 / (sold[-1] + 1)
        for y in demand:
            chance += alpha * ((y > 0) - chance)
            if y > 0:
                size += alpha * (y - size)
        assert tsb.level[0] == pytest.approx(chance * size)

    def test_what_stopped_selling_fades_by_tsb_and_stays_by_sba(self):
        rng = np.random.default_rng(4)
        demand = np.concatenate([(rng.random(300) < 0.3) * 5.0, np.zeros(200)])[None]
        tsb, sba = (smooth_rates(demand, np.ones_like(demand), probability) for probability in (True, False))
        assert tsb.level[0] < 0.1 * sba.level[0]

    def test_unknown_days_are_skipped_and_no_demand_is_none(self):
        demand = np.tile([0.0, 0, 4], 40)[None]
        gaps = np.insert(demand[0], 30, np.full(25, np.nan))[None]
        ones = np.ones_like
        assert smooth_rates(gaps, ones(gaps), True).level[0] == smooth_rates(demand, ones(demand), True).level[0]
        assert smooth_rates(np.zeros((1, 50)), np.ones((1, 50)), True).level[0] == 0

    @pytest.mark.parametrize("name", ["sba", "tsb"])
    def test_quantiles_are_those_of_the_counts_that_come(self, name):
        # given 200 series of rare counts, a month of each kept from the model
        rng = np.random.default_rng(6)
        demand = rng.negative_binomial(0.4, 0.25, (200, 428)).astype(float)
        found = fit_safely(create(name, OPTIONS), from_matrix(demand[:, :400], END), 28, QUANTILES)
        # then as many lie above each quantile as the true distribution has there
        came = demand[:, 400:, None]
        above, reached = (came > found.quantiles).mean(axis=(0, 1)), (came >= found.quantiles).mean(axis=(0, 1))
        wanted = 1 - np.asarray(QUANTILES)
        assert (above <= wanted + 0.02).all()
        assert (reached >= wanted - 0.02).all()


class TestMedianEnsemble:
    settings = ForecastSettings(ensemble=("seasonal_naive", "moving_average", "tsb"))

    def test_a_member_that_fails_is_left_out(self):
        # given a series too short for seasonal naive
        options = EngineOptions(self.settings)
        batch = from_matrix(weekly(14)[None, -9:], END)
        assert fit_safely(create("seasonal_naive", options), batch, 5, QUANTILES).failures[0]
        assert fit_safely(create("moving_average", options), batch, 5, QUANTILES).failures[0]
        found = fit_safely(create("median_ensemble", options), batch, 5, QUANTILES)
        expected = fit_safely(create("tsb", options), batch, 5, QUANTILES)
        assert found.failures[0] is None
        np.testing.assert_array_equal(found.yhat, expected.yhat)

    def test_one_wild_member_moves_nothing_far(self):
        options = EngineOptions(self.settings)
        demand = weekly(100)
        demand[-7:-3] *= 50
        batch = from_matrix(demand, END)
        wild = fit_safely(create("seasonal_naive", options), batch, 7, QUANTILES)
        found = fit_safely(create("median_ensemble", options), batch, 7, QUANTILES)
        assert found.yhat.max() < 0.5 * wild.yhat.max()


def test_filling_takes_the_nearest_known_day_of_the_weekday():
    demand = np.array([np.nan, 1, 2, 3, 4, 5, 6, np.nan, 8, np.nan, 10, 11, 12, 13, 14.0])
    np.testing.assert_array_equal(filled(demand), [1, 2, 3, 4, 5, 6, 14, 8, 2, 10, 11, 12, 13, 14])
    assert len(filled(np.full(5, np.nan))) == 0
