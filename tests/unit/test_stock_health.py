"""Expected losses against brute force; too much stock and dead stock; severity by money."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import stats

from pipelines.errors import UsageError
from pipelines.inventory.lead_time_demand import DailyForecasts, Protection, lead_time_demand
from pipelines.inventory.stock_health import RiskLimits, cover_days, find_excess
from pipelines.inventory.stockout import expected_lost_units, stockout_probability


def brute_force(distribution, available: float) -> float:
    units = np.arange(0, 3000)
    return float((np.maximum(units - available, 0) * distribution.pmf(units)).sum())


@pytest.mark.parametrize("available", [0, 1, 5, 20, 33])
@pytest.mark.parametrize(
    "distribution",
    [stats.poisson(20), stats.nbinom(8, 0.3), stats.nbinom(0.4, 0.02), stats.binom(40, 0.4), stats.poisson(0.2)],
    ids=["Poisson", "negative binomial", "very uneven", "binomial", "slow"],
)
def test_lost_units_are_those_of_the_distribution(distribution, available):
    found = expected_lost_units(available, float(distribution.mean()), float(distribution.std()))

    assert found == pytest.approx(brute_force(distribution, available), abs=1e-8)


@hypothesis_settings(max_examples=150, deadline=None)
@given(st.floats(0.01, 300), st.floats(0.0, 2.0), st.floats(-10, 400))
def test_lost_units_fall_by_the_chance_of_running_out(mean, variation, available):
    std = variation * mean
    here, more = (expected_lost_units(units, mean, std) for units in (available, available + 1))

    assert 0 <= more <= here + 1e-9
    if available >= 0 and available == int(available) and std * std >= mean:
        assert here - more == pytest.approx(stockout_probability(available, mean, std), abs=1e-7)


def horizon_of(*means: float):
    mean = np.array(means, float)[:, None].repeat(28, axis=1)
    quantiles = mean[..., None] * np.array([0.4, 0.5, 0.75, 1.0, 1.25, 1.5, 1.6])
    count = len(means)
    return lead_time_demand(
        DailyForecasts(mean, quantiles), Protection(np.full(count, 28.0), np.zeros(count), np.zeros(count)), 512, 0.0
    )


def test_excess_is_what_lies_beyond_the_horizons_95th_percentile():
    demand = horizon_of(2.0, 2.0, 2.0, 0.0)
    limit = demand.quantile(np.full(4, 0.95))[0]

    found = find_excess(
        np.array([limit - 1, limit + 30, 40.0, 7.0]), demand, np.array([1.0, 1, 200, np.inf]), np.array([3.0, 3, 3, 3])
    )

    assert found.kind.tolist() == ["", "overstock", "dead_stock", "dead_stock"]
    assert found.units.tolist() == pytest.approx([0, 30, 40, 7], abs=1)
    assert found.value[2:].tolist() == [120, 21]
    assert found.cover_days.tolist() == pytest.approx([(limit - 1) / 2, (limit + 30) / 2, 20, np.inf])


def test_cover_follows_the_days_expected_demand():
    cumulative = np.array([[1.0, 3.0, 3.0, 7.0]] * 5)

    assert cover_days(np.array([0.0, 0.5, 2.0, 5.0, 14.0]), cumulative).tolist() == [0.0, 0.5, 1.5, 3.5, 8.0]


def test_severity_is_by_money():
    limits = RiskLimits(10, 100, 1000)

    assert [limits.severity(money) for money in (0.0, 10, 99, 100, 5000)] == [
        "low", "medium", "medium", "high", "critical",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="expected ascending"):
        RiskLimits(10, 5, 20)
