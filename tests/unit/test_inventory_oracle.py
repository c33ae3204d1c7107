"""The formulas against stockpyl, on its documented examples and on random cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import stats

from pipelines.contracts.tables import QUANTILES
from pipelines.inventory.economics import (
    Costs,
    QuantityBreaks,
    critical_ratio,
    economic_order_quantity,
    order_quantity_with_breaks,
    power_approximation,
)
from pipelines.inventory.lead_time_demand import DailyForecasts, Protection, lead_time_demand
from pipelines.inventory.policies import SeriesBatch, Terms, get_policy

eoq = pytest.importorskip("stockpyl.eoq")
newsvendor = pytest.importorskip("stockpyl.newsvendor")
rq = pytest.importorskip("stockpyl.rq")
ss = pytest.importorskip("stockpyl.ss")


def one(value: float) -> np.ndarray:
    return np.array([float(value)])


def batch_of(mean: float, deviation: float, lead_time: float, review: float = 0.0, **terms: float) -> SeriesBatch:
    """One series: independent normal days, constant lead time."""
    quantiles = stats.norm(mean, deviation).ppf(QUANTILES)
    forecasts = DailyForecasts(np.full((1, 28), mean), np.tile(quantiles, (1, 28, 1)))
    values = {
        "service_level": 0.95, "pack_size": 1, "minimum_order": 0, "order_cost": 0, "holding_cost": 0.5,
        "unit_cost": 0, "unit_price": 1, "shelf_life_days": np.nan, "review_days": review, **terms,
    }  # fmt: skip
    protection = Protection(one(lead_time), one(0.0), one(review))
    return SeriesBatch(
        lead_time_demand(forecasts, protection, 4096, 0.0),
        Terms(**{name: one(value) for name, value in values.items()}),
    )


# Economic order quantity. ------------------------------------------------------------------------------------


@hypothesis_settings(max_examples=100, deadline=None)
@given(st.floats(0.5, 500), st.floats(0.05, 20), st.floats(10, 1e5))
def test_economic_order_quantity(order_cost, holding, demand):
    expected, _ = eoq.economic_order_quantity(order_cost, holding, demand)
    assume(expected <= demand)

    assert economic_order_quantity(one(order_cost), one(holding), one(demand))[0] == pytest.approx(expected)


def test_quantity_breaks_of_the_documented_example():
    breaks = QuantityBreaks(np.array([[0.0, 400.0, 800.0]]), np.array([[0.75, 0.72, 0.68]]))

    quantity, region = order_quantity_with_breaks(one(8), one(0.3), one(1300), breaks)

    expected = eoq.economic_order_quantity_with_all_units_discounts(8, 0.3, 1300, [0, 400, 800], [0.75, 0.72, 0.68])
    assert (quantity[0], region[0]) == (800, 2) == expected[:2]


@hypothesis_settings(max_examples=150, deadline=None)
@given(
    st.floats(1, 300),
    st.floats(0.05, 0.6),
    st.floats(50, 20_000),
    st.lists(st.floats(10, 5000), min_size=1, max_size=3, unique=True),
    st.lists(st.floats(0.5, 0.999), min_size=3, max_size=3),
)
def test_quantity_breaks_of_random_prices(order_cost, rate, demand, starts, falls):
    least = [0.0, *sorted(starts)]
    prices = list(np.cumprod([3.0, *falls])[: len(least)])
    expected, region, cost = eoq.economic_order_quantity_with_all_units_discounts(
        order_cost, rate, demand, least, prices
    )

    wide = np.full((1, 5), np.inf)
    wide[0, : len(prices)] = prices
    found, place = order_quantity_with_breaks(
        one(order_cost), one(rate), one(demand), QuantityBreaks(np.array([[*least, *[1e9] * (5 - len(least))]]), wide)
    )

    price = prices[int(place[0])]
    paid = order_cost * demand / found[0] + rate * price * found[0] / 2 + price * demand
    assert paid == pytest.approx(cost)
    assert found[0] == pytest.approx(expected)
    assert place[0] == region


# Newsvendor and base stock. ----------------------------------------------------------------------------------


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.floats(20, 200), st.floats(0.05, 0.25), st.floats(0.05, 2), st.floats(0.2, 10))
def test_newsvendor(mean, variation, overage, underage):
    expected, _ = newsvendor.newsvendor_normal(overage, underage, mean, variation * mean)
    ratio = critical_ratio(one(underage), one(overage))[0]
    assume(0.05 < ratio < 0.99)
    batch = batch_of(
        mean, variation * mean, 0.0, 1.0, unit_cost=overage, unit_price=overage + underage, shelf_life_days=60
    )

    levels = get_policy("newsvendor").levels(batch)

    assert ratio == pytest.approx(underage / (underage + overage))
    assert batch.demand.quantile(one(ratio))[0] == pytest.approx(expected, abs=2e-3 * mean)
    assert levels.order_up_to[0] - expected == pytest.approx(0.5, abs=0.5 + 2e-3 * mean)


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.floats(20, 200), st.floats(0.05, 0.25), st.integers(1, 14), st.floats(0.05, 0.95), st.floats(1, 30))
def test_base_stock_over_a_lead_time(mean, variation, lead_time, holding, ratio):
    expected, _ = newsvendor.newsvendor_normal(holding, holding * ratio, mean, variation * mean, lead_time=lead_time)
    wanted = ratio / (1 + ratio)
    batch = batch_of(mean, variation * mean, float(lead_time), 1.0, service_level=wanted)

    level = get_policy("periodic_base_stock").levels(batch).order_up_to[0]

    assert level - expected == pytest.approx(0.5, abs=0.5 + 3e-3 * mean * np.sqrt(lead_time + 1))


# (R, Q). -----------------------------------------------------------------------------------------------------


def test_reorder_point_and_quantity_of_the_documented_example():
    # Snyder and Shen, example 5.2: λ = 1300 and σ = 150 a year, a month's lead time. In days demand would often be
    # negative, which it may not be here: so the oracle is asked for the month's deviation that is left.
    batch = batch_of(1300 / 365, 150 / np.sqrt(365), 365 / 12, holding_cost=0.225, order_cost=8, unit_price=7.5)
    deviation = batch.demand.std[0] * np.sqrt(12)
    point, quantity, _ = rq.r_q_eil_approximation(0.225, 7.5, 8, 1300, deviation, 1 / 12)

    levels = get_policy("reorder_point_quantity").levels(batch)

    assert batch.demand.mean[0] == pytest.approx(1300 / 12, rel=1e-3)
    assert levels.reorder_point[0] == pytest.approx(point, rel=0.04)
    assert levels.order_up_to[0] - levels.reorder_point[0] == pytest.approx(quantity, rel=0.01)


@hypothesis_settings(max_examples=25, deadline=None)
@given(st.floats(30, 200), st.floats(0.05, 0.25), st.integers(2, 14), st.floats(5, 200), st.floats(2, 60))
def test_reorder_point_and_quantity(mean, variation, lead_time, order_cost, margin):
    yearly, deviation = 365 * mean, variation * mean * np.sqrt(365)
    holding = 2.0
    quantity = np.sqrt(2 * order_cost * yearly / holding)
    assume(0.01 < quantity * holding / (margin * yearly) < 0.3)
    point, quantity, _ = rq.r_q_eil_approximation(holding, margin, order_cost, yearly, deviation, lead_time / 365)
    batch = batch_of(
        mean, variation * mean, float(lead_time), holding_cost=holding, order_cost=order_cost, unit_price=margin
    )

    levels = get_policy("reorder_point_quantity").levels(batch)

    assert levels.reorder_point[0] == pytest.approx(point + 0.5, abs=1 + 5e-3 * mean * np.sqrt(lead_time))
    assert levels.order_up_to[0] - levels.reorder_point[0] == pytest.approx(quantity + 0.5, abs=1 + 2e-3 * quantity)


# (s, S). -----------------------------------------------------------------------------------------------------


def test_power_approximation_of_the_documented_example():
    found = power_approximation(one(50), one(50), one(8), one(2.5), Costs(one(0.18), one(0.70)))

    assert tuple(float(level[0]) for level in found) == pytest.approx((40.19461695647407, 74.29017010980579))


@hypothesis_settings(max_examples=100, deadline=None)
@given(st.floats(1, 300), st.floats(0.05, 1.5), st.floats(0.5, 300), st.floats(0.01, 5), st.floats(0.1, 50))
def test_power_approximation(mean, variation, order_cost, holding, shortage):
    expected = ss.s_s_power_approximation(holding, shortage, order_cost, mean, variation * mean)

    found = power_approximation(
        one(mean), one(mean), one(variation * mean), one(order_cost), Costs(one(holding), one(shortage))
    )

    assert tuple(float(level[0]) for level in found) == pytest.approx(expected)


def test_power_approximation_knows_where_it_does_not_apply():
    found = power_approximation(one(0), one(0), one(0), one(2.5), Costs(one(0.18), one(0.70)))

    assert all(np.isnan(level[0]) for level in found)
