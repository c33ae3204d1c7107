"""The live stage's scalar functions: demand between instants, the chance of running out, and when."""

from __future__ import annotations

import timeit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import stats

from pipelines.inventory.lead_time_demand import cumulative_std
from pipelines.inventory.scenarios import LEVEL_CORRELATION
from pipelines.inventory.stockout import demand_between, projected_stockout_days, stockout_probability

MEANS = [float(units) for units in np.cumsum([10, 20, 30, 10, 10, 40, 20, 12, 22, 32, 12, 12, 42, 22])]
DAILY_STD = np.array([3, 5, 6, 3, 3, 8, 5, 4, 5, 7, 4, 4, 9, 6], float)
STDS = [float(value) for value in cumulative_std(DAILY_STD[None])[0]]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 1, 10),
        (0, 3, 60),
        (1, 3, 50),
        (0.5, 1.5, 15),
        (0.25, 0.75, 5),
        (-3, 2, 30),
        (2, 2, 0),
        (5, 4, 0),
        (13, 15, 22 + 12),
        (14, 28, 2 * 154),
        (20.5, 21.5, 11 + 6),
    ],
)
def test_expected_demand_between_two_instants(start, end, expected):
    assert demand_between(MEANS, STDS, start, end)[0] == pytest.approx(expected)


def test_the_variance_is_that_of_the_increment():
    # Given days 3..9, any two correlated by ρ.
    chosen = DAILY_STD[3:9]
    matrix = LEVEL_CORRELATION * np.outer(chosen, chosen)
    np.fill_diagonal(matrix, chosen**2)

    assert demand_between(MEANS, STDS, 3, 9)[1] == pytest.approx(np.sqrt(matrix.sum()), rel=1e-9)


def test_from_the_start_it_is_the_cumulative_deviation_itself():
    for day in range(14):
        assert demand_between(MEANS, STDS, 0, day + 1)[1] == pytest.approx(STDS[day], rel=1e-9)


def test_certain_and_absent_demand():
    assert demand_between([5.0, 10.0], [0.0, 0.0], 0.5, 4) == (pytest.approx(17.5), 0.0)
    assert demand_between([0.0], [0.0], 0, 9) == (0.0, 0.0)
    assert demand_between([], [], 0, 9) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("available", "mean", "std", "expected"),
    [
        (3, 2.0, np.sqrt(2.0), stats.poisson(2).sf(3)),
        (0, 0.04, 0.2, stats.poisson(0.04).sf(0)),
        (25, 15.0, np.sqrt(60.0), stats.nbinom(5, 0.25).sf(25)),
        (12, 12.0, np.sqrt(4.8), stats.binom(20, 0.6).sf(12)),
        (20, 12.0, np.sqrt(4.8), 0.0),
        (1000, 900.0, 60.0, stats.nbinom(900**2 / 2700, 900 / 3600).sf(1000)),
        (-2, 5.0, 3.0, 1.0),
        (0, 0.0, 0.0, 0.0),
        (-2, 0.0, 0.0, 0.0),
        (10, 10.5, 0.0, 1.0),
        (10, 10.0, 0.0, 0.0),
        (3.9, 2.0, np.sqrt(2.0), stats.poisson(2).sf(3)),
    ],
)
def test_stockout_probability_is_exact_where_the_distribution_is_known(available, mean, std, expected):
    assert stockout_probability(available, mean, std) == pytest.approx(expected, abs=1e-9)


def test_the_three_distributions_meet_without_a_jump():
    for mean in (0.3, 4.0, 90.0):
        around = [stockout_probability(int(mean * 1.3), mean, np.sqrt(mean * (1 + e))) for e in (-1e-5, 0, 1e-5)]
        assert max(around) - min(around) < 1e-4


@hypothesis_settings(max_examples=300, deadline=None)
@given(
    available=st.integers(0, 500),
    more=st.integers(1, 100),
    mean=st.floats(0.01, 400),
    ratio=st.floats(0.3, 20),
    larger=st.floats(1.001, 3),
)
def test_stockout_probability_falls_with_stock_and_rises_with_demand(available, more, mean, ratio, larger):
    here = stockout_probability(available, mean, np.sqrt(ratio * mean))

    assert 0 <= here <= 1
    assert stockout_probability(available + more, mean, np.sqrt(ratio * mean)) <= here + 1e-12
    assert stockout_probability(available, mean * larger, np.sqrt(ratio * mean * larger)) >= here - 1e-12


@pytest.mark.parametrize(
    ("available", "start", "expected"),
    [
        (10, 0, 1.0),
        (20, 0, 1.5),
        (20, 0.5, 1.25),
        (0, 3, 0.0),
        (-4, 3, 0.0),
        (140 + 154, 0, 14.0),
        (12, 14, 1.0),
        (140 + 154 + 3 * 154 + 6, 0, 35.5),
        (154 * 2, 14, 14.0),
        (11, -2, 1.05),
    ],
)
def test_when_expected_demand_has_used_up_the_stock(available, start, expected):
    assert projected_stockout_days(available, MEANS, start) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("available", "means"),
    [(5, []), (5, [0.0, 0.0]), (5, [3.0] * 9), (10_000_000, [1.0, 2.0, 3.0])],
    ids=["no forecast", "no demand", "demand ends", "decades"],
)
def test_some_stock_never_runs_out(available, means):
    assert projected_stockout_days(available, means, 0.0) is None


@hypothesis_settings(max_examples=200, deadline=None)
@given(
    daily=st.lists(st.floats(0, 50), min_size=1, max_size=30),
    start=st.floats(0, 40),
    available=st.floats(0.01, 2000),
)
def test_the_projected_time_is_when_expected_demand_equals_the_stock(daily, start, available):
    means = [float(value) for value in np.cumsum(daily)]
    days = projected_stockout_days(available, means, start)
    if days is not None and days < 1000:
        until, _ = demand_between(means, [0.0] * len(means), start, start + days)
        assert until == pytest.approx(available, rel=1e-6, abs=1e-6)


def test_a_call_takes_microseconds():
    def once() -> None:
        mean, std = demand_between(MEANS, STDS, 0.4, 8.4)
        stockout_probability(70, mean, std)
        projected_stockout_days(70, MEANS, 0.4)

    once()
    assert min(timeit.repeat(once, number=500, repeat=5)) / 500 < 200e-6
