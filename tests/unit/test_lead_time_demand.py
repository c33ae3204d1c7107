"""Demand over lead time and review as one distribution, against closed forms and an independent simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import stats

from pipelines.contracts.tables import QUANTILES
from pipelines.inventory.forecast_distribution import day_moments, quantile_knots
from pipelines.inventory.lead_time_demand import (
    DailyForecasts,
    LeadTimeDemand,
    Protection,
    expected_demand,
    lead_time_demand,
    source_day,
)
from pipelines.inventory.scenarios import LEVEL_CORRELATION

PATHS = 2048
PROBABILITIES = np.array(QUANTILES)


def forecast_of(distributions: list) -> DailyForecasts:
    """One series: the mean and quantiles of each day's (scipy) distribution."""
    quantiles = np.array([day.ppf(PROBABILITIES) for day in distributions])
    return DailyForecasts(np.array([[day.mean() for day in distributions]]), quantiles[None])


def protection_of(lead_time: float, std: float = 0.0, review: float = 1.0) -> Protection:
    return Protection(np.array([lead_time]), np.array([std]), np.array([review]))


def quantile(demand: LeadTimeDemand, probability: float) -> float:
    return float(demand.quantile(np.array([probability]))[0])


# One day's distribution. ------------------------------------------------------------------------------------


def test_a_normal_day_is_recovered_exactly():
    mean, std = day_moments(quantile_knots(np.array([50.0]), stats.norm(50, 8).ppf(PROBABILITIES)[None]))

    assert mean[0] == pytest.approx(50)
    assert std[0] == pytest.approx(8, rel=1e-6)


@pytest.mark.parametrize(
    ("day", "tolerance"),
    [
        (stats.gamma(4, scale=5), 0.03),
        (stats.lognorm(0.5, scale=20), 0.05),
        (stats.poisson(0.04), 0.15),
        (stats.poisson(0.5), 0.1),
        (stats.poisson(3), 0.05),
        (stats.nbinom(5, 0.25), 0.05),
        (stats.nbinom(40, 0.4), 0.05),
    ],
    ids=["gamma", "lognormal", "Poisson 0.04", "Poisson 0.5", "Poisson 3", "NB 15", "NB 60"],
)
def test_a_days_mean_is_yhat_and_its_deviation_is_found(day, tolerance):
    forecasts = forecast_of([day])

    mean, std = day_moments(quantile_knots(forecasts.yhat, forecasts.quantiles))

    assert mean[0, 0] == pytest.approx(day.mean(), rel=1e-9)
    assert std[0, 0] == pytest.approx(day.std(), rel=tolerance)


@pytest.mark.parametrize("units", [0.0, 10.0, 7.3])
def test_a_day_that_is_certain_stays_certain(units):
    mean, std = day_moments(quantile_knots(np.array([units]), np.full((1, 7), units)))

    assert mean[0] == pytest.approx(units)
    assert std[0] == pytest.approx(0, abs=1e-9)


# Sums over the protection interval. -------------------------------------------------------------------------


@pytest.mark.parametrize("probability", [0.5, 0.8, 0.9, 0.95, 0.98])
@pytest.mark.parametrize("days", [1, 3, 8, 21])
def test_independent_normal_days_and_constant_lead_time_give_the_closed_form(days, probability):
    forecasts = forecast_of([stats.norm(100, 12)] * 28)

    demand = lead_time_demand(forecasts, protection_of(days - 1.0), PATHS, correlation=0.0)

    std = 12 * np.sqrt(days)
    expected = 100 * days + stats.norm.ppf(probability) * std
    assert quantile(demand, probability) == pytest.approx(expected, abs=0.06 * std)
    assert demand.mean[0] == pytest.approx(100 * days, abs=0.02 * std)
    assert demand.std[0] == pytest.approx(std, rel=0.02)


def test_a_level_error_widens_the_sum_but_stays_below_the_sum_of_daily_quantiles():
    # Given eight days N(100, 10²) whose errors correlate by 0.1: variance 800 + 0.1 * 56 * 100 = 1360.
    forecasts = forecast_of([stats.norm(100, 10)] * 28)

    demand = lead_time_demand(forecasts, protection_of(7.0), PATHS)

    assert demand.cumulative_std[0, 7] == pytest.approx(np.sqrt(1360), rel=1e-6)
    assert demand.std[0] == pytest.approx(np.sqrt(1360), rel=0.02)
    assert quantile(demand, 0.95) == pytest.approx(800 + 1.645 * 36.88, abs=2)
    assert quantile(demand, 0.95) < 8 * (100 + 1.645 * 10) - 60


def test_lead_time_variability_agrees_with_the_textbook_formula():
    # Given demand of 40 ± 6 a day, independent, and 9 ± 2 days: std² = 9 * 6² + 40² * 2² (Silver et al., ch. 6).
    forecasts = forecast_of([stats.norm(40, 6)] * 28)

    demand = lead_time_demand(forecasts, protection_of(8.0, 2.0, 1.0), PATHS, correlation=0.0)

    assert demand.mean[0] == pytest.approx(360, rel=0.005)
    assert demand.std[0] == pytest.approx(np.sqrt(9 * 36 + 1600 * 4), rel=0.02)


def brute_force(days: list, lead_time: float, std: float, review: float, rng: np.random.Generator) -> np.ndarray:
    """Another way to the same: 50,000 independent paths, each day from its own distribution's inverse."""
    paths = 50_000
    level = rng.standard_normal(paths)
    lead = rng.gamma((lead_time / std) ** 2, std**2 / lead_time, paths) if std else np.full(paths, lead_time)
    left = lead + review
    total = np.zeros(paths)
    for day in days[: int(np.ceil(left.max()))]:
        noise = rng.standard_normal(paths)
        score = np.sqrt(LEVEL_CORRELATION) * level + np.sqrt(1 - LEVEL_CORRELATION) * noise
        total += np.clip(left, 0, 1) * np.maximum(day.ppf(stats.norm.cdf(score)), 0)
        left -= 1
    return total


@pytest.mark.parametrize(
    ("day", "lead_time", "std", "review"),
    [
        (lambda weekend: stats.gamma(6, scale=4 * weekend), 6.0, 0.0, 1.0),
        (lambda weekend: stats.gamma(3, scale=2 * weekend), 5.5, 1.5, 1.0),
        (lambda weekend: stats.norm(20 * weekend, 6), 3.0, 1.0, 7.0),
        (lambda weekend: stats.poisson(0.3 * weekend), 7.0, 2.0, 1.0),
        (lambda weekend: stats.nbinom(4 * weekend, 0.3), 6.0, 1.0, 1.0),
    ],
    ids=["gamma, constant", "gamma, random", "normal, weekly review", "slow Poisson", "negative binomial"],
)
def test_quantiles_agree_with_brute_force(day, lead_time, std, review):
    days = [day(1.6 if number % 7 in (4, 5) else 1.0) for number in range(28)]

    demand = lead_time_demand(forecast_of(days), protection_of(lead_time, std, review), PATHS)

    expected = brute_force(days, lead_time, std, review, np.random.default_rng(5))
    spread = expected.std()
    for probability in (0.5, 0.75, 0.9, 0.95, 0.99):
        tolerance = (0.25 if probability == 0.99 else 0.1) * spread + 0.5
        assert quantile(demand, probability) == pytest.approx(np.quantile(expected, probability), abs=tolerance)


def test_beyond_the_horizon_the_last_week_repeats():
    # Given a fortnight of certain demand, 1 a day and then 2 a day with 9 on the last day.
    daily = np.array([1.0] * 7 + [2, 2, 2, 2, 2, 2, 9])
    forecasts = DailyForecasts(daily[None], np.repeat(daily, 7).reshape(1, 14, 7))

    demand = lead_time_demand(forecasts, protection_of(29.0, review=1.0), PATHS)

    assert demand.mean[0] == pytest.approx(7 + 3 * 21 + 2 * 2, abs=1e-6)
    assert [source_day(day, 14) for day in (13, 14, 20, 21)] == [13, 7, 13, 7]
    assert expected_demand(demand.daily_mean, np.array([30.0]))[0] == pytest.approx(demand.mean[0])


def test_of_a_partial_day_the_same_share_counts():
    forecasts = DailyForecasts(np.full((1, 28), 10.0), np.full((1, 28, 7), 10.0))

    demand = lead_time_demand(forecasts, protection_of(2.5, review=1.25), PATHS)

    assert demand.mean[0] == pytest.approx(37.5)
    assert expected_demand(demand.daily_mean, np.array([3.75]))[0] == pytest.approx(37.5)


def test_a_series_does_not_depend_on_its_neighbours():
    rng = np.random.default_rng(3)
    mean = rng.gamma(2, 10, (40, 1)) * np.ones((1, 28))
    quantiles = np.maximum(mean[..., None] + stats.norm.ppf(PROBABILITIES) * np.sqrt(mean)[..., None], 0)
    protection = Protection(rng.uniform(1, 12, 40), rng.uniform(0, 4, 40), np.ones(40))
    together = lead_time_demand(DailyForecasts(mean, quantiles), protection, PATHS)

    for one in (0, 17, 39):
        row = slice(one, one + 1)
        alone = lead_time_demand(
            DailyForecasts(mean[row], quantiles[row]),
            Protection(protection.lead_time[row], protection.lead_time_std[row], protection.review[row]),
            PATHS,
        )
        np.testing.assert_allclose(alone.sums[0], together.sums[one], rtol=1e-12)


def test_expected_shortage_is_the_normal_loss():
    # Given N(50, 8²) and a level of 56.6: n(z) = σ (φ(z) - z (1 - Φ(z))).
    demand = lead_time_demand(forecast_of([stats.norm(50, 8)] * 7), protection_of(0.0), PATHS, correlation=0.0)

    z = (56.6 - 50) / 8
    assert demand.expected_shortage(np.array([56.6]))[0] == pytest.approx(
        8 * (stats.norm.pdf(z) - z * stats.norm.sf(z)), rel=0.05
    )


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    mean=st.floats(0.2, 200),
    variation=st.floats(0.05, 0.6),
    lead_time=st.floats(0.5, 20),
    longer=st.floats(0.0, 10),
    wider=st.floats(1.0, 1.5),
    probability=st.floats(0.8, 0.99),
)
def test_more_lead_time_variance_or_service_never_lowers_the_quantile(
    mean, variation, lead_time, longer, wider, probability
):
    # The gamma family: its quantiles above the 80th rise with the variance in this range.
    def level(lead: float, deviation: float, spread: float, wanted: float) -> float:
        shape = (1 / spread) ** 2
        day = stats.gamma(shape, scale=mean / shape)
        return quantile(lead_time_demand(forecast_of([day] * 14), protection_of(lead, deviation), 512), wanted)

    base = level(lead_time, 0.2 * lead_time, variation, probability)
    slack = 1e-6 + 0.01 * base
    assert level(lead_time + longer, 0.2 * (lead_time + longer), variation, probability) >= base - 1e-6
    assert level(lead_time, 0.2 * lead_time, variation, (1 + probability) / 2) >= base - 1e-6
    assert level(lead_time, 0.2 * lead_time, variation * wider, probability) >= base - slack
    assert level(lead_time, 0.2 * lead_time * wider, variation, probability) >= base - slack
