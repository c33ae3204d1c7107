"""Fits of whole batches: an optimum each, and the same whatever else is in the batch."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.contracts.tables import QUANTILES
from pipelines.forecasting.engines import EngineOptions, ForecastBatch, create
from pipelines.forecasting.prophet_map import fitting
from pipelines.forecasting.prophet_map.features import ADDITIVE, MULTIPLICATIVE, Specification, calendar
from pipelines.forecasting.prophet_map.posterior import log_posterior
from pipelines.forecasting.series import SeriesBatch, from_matrix
from pipelines.operations.settings import ForecastSettings

END = date(2024, 3, 10)
HORIZON = 14
MODES = [ADDITIVE, MULTIPLICATIVE]
SEEDS = st.integers(0, 2**32 - 1)
examples = settings(derandomize=True, max_examples=40, deadline=None)
modes = pytest.mark.parametrize("mode", MODES)


def demand(seed: int, count: int, days: int) -> np.ndarray:
    """Weekly series with a changing trend, of unequal lengths and with unknown days."""
    rng = np.random.default_rng(seed)
    day = np.arange(days)
    weekly = 1 + 0.3 * np.sin(2 * np.pi * day / 7 + rng.uniform(0, 6, (count, 1)))
    bends = rng.laplace(0, 0.2, (count, days)) * (rng.random((count, days)) < 0.03)
    trend = 20 + np.abs(np.cumsum(np.cumsum(bends, axis=1), axis=1))
    values = rng.poisson(trend * weekly).astype(float)
    values[rng.random((count, days)) < rng.choice([0, 0, 0.05], (count, 1))] = np.nan
    start = rng.choice([0, 0, days // 3, days - 20], count)
    values[day < start[:, None]] = np.nan
    values[:, -1] = np.where(np.isnan(values[:, -1]), 3.0, values[:, -1])
    return values


def engine(mode: str, **changes):
    return create("prophet_batched", EngineOptions(ForecastSettings(seasonality_mode=mode, **changes)))


def fit(batch: SeriesBatch, mode: str, **changes) -> ForecastBatch:
    return engine(mode, **changes).fit_forecast(batch, HORIZON, QUANTILES)


def parameters(forecast: ForecastBatch) -> list[dict]:
    """What was fitted, without the length of the calendar that the features were taken from."""
    return [{k: v for k, v in json.loads(text).items() if k != "calendar_days"} for text in forecast.parameters]


# An optimum --------------------------------------------------------------------------------------------


@modes
@examples
@given(seed=SEEDS)
def test_no_small_change_of_the_parameters_improves_the_posterior(mode, seed):
    rng = np.random.default_rng(seed)
    values = demand(seed, 1, 150)
    (group,) = fitting.fit(values, END, Specification(seasonality_mode=mode))
    known = calendar(group.specification, END, 150, 1)
    observed = np.flatnonzero(np.isfinite(values[0])) + known.days - 150
    t = (observed - observed[0]) / (observed[-1] - observed[0])
    data = (values[0][np.isfinite(values[0])] / group.scale[0], t, known.features[observed], known.scales)
    best = {name: getattr(group, name)[0] for name in ("k", "m", "delta", "beta")}
    best["sigma_obs"] = group.sigma[0]

    def value(changed: dict) -> float:
        return log_posterior(*data, group.changepoints / group.span, changed, group.specification)

    top = value(best)
    for size in (1e-5, 1e-3):
        for _ in range(20):
            changed = {name: part + size * rng.normal(size=np.shape(part)) for name, part in best.items()}
            changed["delta"] = np.where(rng.random(best["delta"].shape) < 0.5, best["delta"], changed["delta"])
            changed["sigma_obs"] = abs(changed["sigma_obs"])
            assert value(changed) <= top + 1e-7 * (1 + abs(top))


@modes
def test_a_warm_start_from_the_day_before_ends_where_a_cold_one_does(mode):
    # given yesterday's fits of the same series in another order, one of them unknown
    values = demand(11, 6, 150)
    specification = Specification(seasonality_mode=mode)
    order = np.array([4, 1, 0, 5, 2])
    earlier = [
        replace(group, rows=order[group.rows])
        for group in fitting.fit(values[order, :-1], END - timedelta(days=1), specification)
    ]
    # when today's begin with them
    cold = fitting.fit(values, END, specification)
    warm = fitting.fit(values, END, specification, start=earlier)
    # then they end at the same optimum
    for one, other in zip(cold, warm, strict=True):
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_allclose(other.sigma, one.sigma, rtol=1e-4)
        np.testing.assert_allclose(other.beta, one.beta, atol=1e-3)


def test_a_warm_start_from_the_optimum_stays_there():
    values = demand(12, 5, 150)
    specification = Specification(seasonality_mode=MULTIPLICATIVE)
    once = fitting.fit(values, END, specification)
    # when the same days are fitted again, in other units
    again = fitting.fit(8 * values, END, specification, start=once)
    for one, other in zip(once, again, strict=True):
        np.testing.assert_allclose(other.k, one.k, atol=1e-4)
        np.testing.assert_allclose(other.delta, one.delta, atol=1e-3)


# Independence of the batch -----------------------------------------------------------------------------


@modes
@examples
@given(seed=SEEDS, count=st.integers(2, 9), days=st.sampled_from([90, 131]))
def test_order_and_company_change_nothing(mode, seed, count, days):
    # given a batch of series of unequal lengths
    rng = np.random.default_rng(seed)
    batch = from_matrix(demand(seed, count, days), END)
    whole = fit(batch, mode)
    # when it is fitted in another order, and in parts, whose columns begin with their own first day
    order = rng.permutation(count)
    parts = np.split(order, [int(rng.integers(1, count))])
    for rows in (order, *parts):
        again = fit(batch.take(rows), mode)
        # then all is the same: to the last bit, but for an eigendecomposition, whose last bits depend on where the
        # matrix lies in memory
        if mode == MULTIPLICATIVE:
            np.testing.assert_array_equal(again.yhat, whole.yhat[rows])
            np.testing.assert_array_equal(again.quantiles, whole.quantiles[rows])
            assert parameters(again) == [parameters(whole)[row] for row in rows]
        else:
            np.testing.assert_allclose(again.yhat, whole.yhat[rows], rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(again.quantiles, whole.quantiles[rows], rtol=1e-9, atol=1e-9)


@modes
def test_with_holidays_company_changes_nothing_to_speak_of(mode):
    # given a long series, which saw holidays that the short one did not
    values = np.vstack([demand(1, 1, 500), demand(2, 1, 500)])
    values[:, -1], values[1, :380] = 20, np.nan
    batch = from_matrix(values, END)
    whole = fit(batch, mode, holidays_country="US")
    alone = fit(batch.take(np.array([1])), mode, holidays_country="US")
    np.testing.assert_allclose(alone.yhat[0], whole.yhat[1], rtol=1e-6)
    np.testing.assert_allclose(alone.quantiles[0], whole.quantiles[1], rtol=1e-5, atol=1e-6)


# Units and days ----------------------------------------------------------------------------------------


@modes
@examples
@given(seed=SEEDS, factor=st.floats(1e-9, 1e9))
def test_other_units_give_the_same_forecast_in_those_units(mode, seed, factor):
    values = demand(seed, 3, 120)
    one = fit(from_matrix(values, END), mode)
    other = fit(from_matrix(values * factor, END), mode)
    np.testing.assert_allclose(other.yhat, one.yhat * factor, rtol=1e-4)
    exact = fit(from_matrix(values * 2.0**20, END), mode)
    np.testing.assert_array_equal(exact.quantiles, one.quantiles * 2.0**20)


@modes
def test_unknown_days_at_the_end_are_forecast_over(mode):
    # given a series whose last ten days are unknown, and the same one that ends before them
    values = demand(5, 1, 200)
    values[0, :-10] = np.where(np.isnan(values[0, :-10]), 20, values[0, :-10])
    open_end = values.copy()
    open_end[:, -10:] = np.nan
    # when both are forecast
    late = fit(from_matrix(open_end, END), mode)
    early = engine(mode).fit_forecast(from_matrix(values[:, :-10], END - timedelta(days=10)), HORIZON + 10, QUANTILES)
    # then the days after the end are the same days
    np.testing.assert_allclose(late.yhat[0], early.yhat[0, 10:], rtol=1e-9)
    np.testing.assert_allclose(late.quantiles[0], early.quantiles[0, 10:], rtol=1e-6)


def test_a_short_history_has_no_week_and_less_than_two_years_no_year():
    values = np.random.default_rng(0).poisson(9, (3, 740)).astype(float)
    values[0, :-14], values[1, :-730] = np.nan, np.nan
    found = {}
    for group in fitting.fit(values, END, Specification()):
        found.update({int(row): (group.specification.weekly, group.specification.yearly) for row in group.rows})
    assert found == {0: (False, False), 1: (True, False), 2: (True, True)}


@pytest.mark.parametrize("known", [0, 1])
def test_fewer_than_two_known_days_are_a_failure_of_that_series_alone(known):
    values = demand(0, 2, 60)
    values[1, : 60 - known] = np.nan
    forecast = fit(from_matrix(values, END), ADDITIVE)
    assert forecast.failures == (None, "fewer than two known days")
    assert np.isnan(forecast.yhat[1]).all()
    assert np.isfinite(forecast.yhat[0]).all()


# What is left to Prophet itself ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{"growth": "logistic"}, {"mcmc_samples": 10}], ids=["logistic growth", "sampling of the posterior"]
)
def test_what_has_no_batched_form_is_fitted_by_prophet(changes):
    batch = from_matrix(np.random.default_rng(1).poisson(8, (1, 40)).astype(float), END)
    options = EngineOptions(ForecastSettings(uncertainty_samples=50, **changes))
    batched, stock = create("prophet_batched", options), create("prophet", options)
    forecast = batched.fit_forecast(batch, 5, QUANTILES)
    expected = stock.fit_forecast(batch, 5, QUANTILES)
    np.testing.assert_array_equal(forecast.yhat, expected.yhat)
    yhat, quantiles = batched.replay(forecast.parameters[0], 5, QUANTILES)
    np.testing.assert_allclose(yhat, forecast.yhat[0], rtol=1e-9)
    np.testing.assert_allclose(quantiles, forecast.quantiles[0], rtol=1e-9)
