"""Policies: every registered one keeps the contract; formulas against published examples and closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import stats

from pipelines.contracts.tables import QUANTILES
from pipelines.errors import UsageError
from pipelines.inventory.economics import critical_ratio, economic_order_quantity, round_up
from pipelines.inventory.lead_time_demand import DailyForecasts, Protection, lead_time_demand
from pipelines.inventory.policies import (
    BINDING_CONSTRAINTS,
    Levels,
    SeriesBatch,
    Terms,
    get_policy,
    policy_names,
)

BASE_STOCKS = {"newsvendor", "periodic_base_stock"}

DEFAULTS = {
    "service_level": 0.95,
    "pack_size": 6.0,
    "minimum_order": 1.0,
    "order_cost": 20.0,
    "holding_cost": 0.5,
    "unit_cost": 2.0,
    "unit_price": 3.0,
    "shelf_life_days": np.nan,
    "review_days": 1.0,
}


def batch_of(mean=20.0, std=5.2, lead_time=6.0, lead_time_std=0.0, correlation=0.1, **terms) -> SeriesBatch:
    """One series with normal days."""
    quantiles = np.maximum(stats.norm(mean, std).ppf(QUANTILES), 0) if std else np.full(7, mean)
    forecasts = DailyForecasts(np.full((1, 28), mean), np.tile(quantiles, (1, 28, 1)))
    values = {**DEFAULTS, **terms}
    protection = Protection(np.array([lead_time]), np.array([lead_time_std]), np.array([float(values["review_days"])]))
    return SeriesBatch(
        lead_time_demand(forecasts, protection, 2048, correlation),
        Terms(**{name: np.array([float(value)]) for name, value in values.items()}),
    )


def plan_one(method: str = "order_up_to", **given_terms) -> Levels:
    return get_policy(method).levels(batch_of(**given_terms))


def numbers(levels: Levels) -> tuple[float, float]:
    return float(levels.reorder_point[0]), float(levels.order_up_to[0])


# Published examples. ----------------------------------------------------------------------------------------


def test_economic_order_quantity_of_the_textbook_example():
    # Snyder and Shen, example 3.1: K = 8, h = 0.225, λ = 1300 give Q* = 304.1.
    quantity = economic_order_quantity(np.array([8.0]), np.array([0.225]), np.array([1300.0]))

    assert quantity[0] == pytest.approx(304.0467800264368)


def test_the_economic_order_quantity_is_the_cheapest():
    order_cost, holding, demand = 45.0, 0.8, 900.0
    best = float(economic_order_quantity(np.array([order_cost]), np.array([holding]), np.array([demand]))[0])

    def yearly_cost(quantity: float) -> float:
        return order_cost * demand / quantity + holding * quantity / 2

    assert min(yearly_cost(quantity) for quantity in np.arange(1, 900, 0.5)) >= yearly_cost(best) - 1e-9


@pytest.mark.parametrize(
    ("order_cost", "holding", "demand", "expected"),
    [(0.0, 1.0, 100.0, 0.0), (5.0, 0.0, 100.0, 0.0), (5.0, 1.0, 0.0, 0.0), (5000.0, 0.01, 100.0, 100.0)],
    ids=["free ordering", "no holding cost", "no demand", "at most a year"],
)
def test_where_there_is_no_economic_order_quantity(order_cost, holding, demand, expected):
    quantity = economic_order_quantity(np.array([order_cost]), np.array([holding]), np.array([demand]))

    assert quantity[0] == expected


def test_newsvendor_of_the_textbook_example():
    # Snyder and Shen, example 4.3: h = 0.18, p = 0.70, demand N(50, 8²) give a ratio of 0.7955 and S* = 56.6.
    ratio = critical_ratio(np.array([0.70]), np.array([0.18]))
    levels = plan_one(
        "newsvendor", mean=50, std=8, lead_time=0.0, correlation=0.0, pack_size=1,
        unit_cost=0.18, unit_price=0.88, shelf_life_days=20, holding_cost=0.0,
    )  # fmt: skip

    assert ratio[0] == pytest.approx(0.7954545)
    assert levels.service_level[0] == pytest.approx(0.7954545)
    assert levels.order_up_to[0] == np.ceil(56.60395592743389)


def test_newsvendor_weighs_holding_until_the_next_review_where_nothing_spoils():
    # Margin 1, held for a week at 5.2 a year: 1 / (1 + 5.2 * 7 / 365).
    levels = plan_one("newsvendor", holding_cost=5.2, review_days=7.0)

    assert levels.service_level[0] == pytest.approx(1 / (1 + 5.2 * 7 / 365))


def test_newsvendor_without_a_margin_keeps_the_service_level():
    assert plan_one("newsvendor", unit_price=1.5).service_level[0] == 0.95


def test_base_stock_for_normal_demand():
    # N(20, 5.2²) a day, independent, over 7 days: 140 + 1.6449 * 5.2 * √7 = 162.63.
    levels = plan_one("periodic_base_stock", correlation=0.0)

    assert numbers(levels) == (162, 163)
    assert levels.binding_constraint[0] == "service_level"


# The spine's own policy. ------------------------------------------------------------------------------------


def test_reorder_point_and_order_up_to_by_hand():
    # s = ⌈162.63⌉; EOQ = √(2 * 20 * 7300 / 0.5) = 764.2, in packs of 6: 768.
    levels = plan_one(correlation=0.0)

    assert numbers(levels) == (163, 163 + 768)
    assert levels.safety_stock[0] == pytest.approx(23, abs=0.2)
    assert levels.binding_constraint[0] == "economic_order_quantity"


@pytest.mark.parametrize(
    ("terms", "size", "binding"),
    [
        ({"order_cost": 0.0, "pack_size": 1}, 1, "service_level"),
        ({"order_cost": 0.0, "pack_size": 6}, 6, "pack_size"),
        ({"order_cost": 0.0, "minimum_order": 6}, 6, "minimum_order"),
        ({"order_cost": 0.0, "minimum_order": 7}, 12, "minimum_order"),
        ({"minimum_order": 1000}, 1002, "minimum_order"),
        ({"minimum_order": 700}, 768, "economic_order_quantity"),
        ({"order_cost": 0.0, "minimum_order": 0, "pack_size": 1}, 1, "service_level"),
        ({"unit_cost": np.nan, "holding_cost": 0.0}, 6, "pack_size"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_what_decides_the_size_of_an_order(terms, size, binding):
    levels = plan_one(correlation=0.0, **terms)

    assert numbers(levels) == (163, 163 + size)
    assert levels.binding_constraint[0] == binding


@pytest.mark.parametrize(
    ("shelf_life", "expected", "binding"),
    [
        (100, (163, 931), "economic_order_quantity"),  # 2,000 sell in 100 days
        (10, (163, 199), "shelf_life"),  # 200: 6 packs above 163
        (8, (154, 160), "shelf_life"),  # 160: below 163, so the reorder point gives way
        (0.1, (0, 6), "shelf_life"),  # 2 units, and a pack is the least there is
    ],
)
def test_nothing_is_stocked_beyond_what_sells_within_its_shelf_life(shelf_life, expected, binding):
    levels = plan_one(correlation=0.0, shelf_life_days=shelf_life)

    assert numbers(levels) == expected
    assert levels.binding_constraint[0] == binding


def test_certain_demand_needs_no_safety_stock():
    levels = plan_one(mean=10.0, std=0.0, lead_time=7.0)

    assert levels.reorder_point[0] == 80
    assert levels.safety_stock[0] == pytest.approx(0, abs=1e-6)


def test_a_product_that_nobody_buys_says_so():
    levels = plan_one(mean=0.0, std=0.0)

    assert numbers(levels) == (0, 6)
    assert levels.binding_constraint[0] == "no_demand"


# The contract of every policy. ------------------------------------------------------------------------------


def test_an_unknown_method_is_refused_naming_the_known_ones():
    with pytest.raises(UsageError, match=r"'magic'.*newsvendor, order_up_to, .*periodic_base_stock"):
        get_policy("magic")


@pytest.mark.parametrize("method", policy_names())
@hypothesis_settings(max_examples=40, deadline=None)
@given(
    mean=st.floats(0, 300),
    variation=st.floats(0, 1.5),
    lead_time=st.floats(0.2, 40),
    lead_time_std=st.floats(0, 10),
    service_level=st.floats(0.01, 0.999),
    pack_size=st.integers(1, 50),
    minimum_order=st.integers(0, 500),
    order_cost=st.floats(0, 100),
    holding_cost=st.floats(0, 10),
    unit_cost=st.floats(0, 20),
    unit_price=st.floats(0, 40),
    shelf_life_days=st.one_of(st.just(np.nan), st.integers(1, 60)),
    review_days=st.floats(0, 14),
)
def test_every_policy_keeps_the_contract(method, mean, variation, **terms):
    batch = batch_of(mean=mean, std=variation * mean, **terms)

    levels = get_policy(method).levels(batch)

    reorder_point, order_up_to = numbers(levels)
    assert reorder_point == int(reorder_point) >= 0
    assert order_up_to == int(order_up_to) > reorder_point
    assert levels.safety_stock[0] == pytest.approx(reorder_point - batch.demand.mean[0])
    assert levels.binding_constraint[0] in BINDING_CONSTRAINTS
    assert 0 < levels.service_level[0] < 1
    again = get_policy(method).levels(batch)
    assert numbers(again) == (reorder_point, order_up_to)
    if method == "order_up_to":
        assert (order_up_to - reorder_point) % terms["pack_size"] == 0
    if method.endswith("fill_rate"):
        return
    if levels.binding_constraint[0] != "shelf_life":
        need = batch.demand.quantile(levels.service_level)[0]
        assert (order_up_to if method in BASE_STOCKS else reorder_point) >= need - 1e-5


@pytest.mark.parametrize("method", policy_names())
@hypothesis_settings(max_examples=25, deadline=None)
@given(
    mean=st.floats(1, 200),
    variation=st.floats(0.05, 0.3),
    lead_time=st.floats(1, 20),
    service_level=st.floats(0.8, 0.98),
    pack_size=st.integers(1, 24),
    order_cost=st.floats(0, 50),
)
def test_levels_never_fall_with_service_level_lead_time_or_variance(method, mean, variation, lead_time, **terms):
    def levels(lead: float, spread: float, wanted: float) -> np.ndarray:
        values = {**terms, "service_level": wanted, "unit_price": 9.0}
        return np.array(numbers(plan_one(method, mean=mean, std=spread * mean, lead_time=lead, **values)))

    wanted = terms["service_level"]
    base = levels(lead_time, variation, wanted)
    assert (levels(lead_time, variation, (1 + wanted) / 2) >= base).all()
    assert (levels(lead_time + 2.5, variation, wanted) >= base).all()
    assert (levels(lead_time, variation + 0.03, wanted) >= base).all()


def test_rounding_up_forgives_arithmetic_but_not_demand():
    assert list(round_up(np.array([80.0000000001, 80.01, 79.9, 0.0]))) == [80, 81, 80, 0]
    assert list(round_up(np.array([12.0, 12.5, 18.0000000001]), np.array([6.0, 6.0, 6.0]))) == [12, 18, 18]


def test_a_batch_gives_each_series_its_own_levels():
    one, two = batch_of(), batch_of(mean=3.0, std=1.0, pack_size=1, service_level=0.9)
    both = SeriesBatch(
        replace(
            one.demand,
            **{name: np.concatenate([getattr(one.demand, name), getattr(two.demand, name)])
               for name in ("sums", "daily_mean", "cumulative_mean", "cumulative_std")},
        ),
        Terms(**{name: np.concatenate([getattr(one.terms, name), getattr(two.terms, name)])
                 for name in DEFAULTS}),
    )  # fmt: skip

    for method in policy_names():
        policy = get_policy(method)
        together, first, second = policy.levels(both), policy.levels(one), policy.levels(two)
        assert list(together.order_up_to) == [first.order_up_to[0], second.order_up_to[0]]
        assert list(together.reorder_point) == [first.reorder_point[0], second.reorder_point[0]]


# Fill rate and cycle service are two things. -----------------------------------------------------------------


@pytest.mark.parametrize("target", [0.9, 0.97, 0.995])
@pytest.mark.parametrize(
    ("method", "cycle"), [("order_up_to_fill_rate", 240.0), ("periodic_base_stock_fill_rate", 20.0)]
)
def test_a_fill_rate_bounds_what_a_cycle_loses(method, cycle, target):
    # EOQ = √(2 · 2 · 7300 / 0.5) = 241.7, in packs of 6: 246 for (s, S); a day's 20 units for the base stock.
    batch = batch_of(lead_time_std=1.5, service_level=target, order_cost=2.0)
    reorder_point, order_up_to = numbers(get_policy(method).levels(batch))
    level = order_up_to if method in {"periodic_base_stock_fill_rate"} else reorder_point
    allowed = (1 - target) / target * (246.0 if cycle > 20 else 20.0)

    assert batch.demand.expected_shortage(np.array([level]))[0] <= allowed + 1e-6
    assert batch.demand.expected_shortage(np.array([level - 1.01]))[0] > allowed


def test_with_large_orders_the_same_fill_rate_takes_less_safety_stock_and_cycle_service_does_not_change():
    few, many = ({"order_cost": cost} for cost in (200.0, 0.0))

    fill = [numbers(plan_one("order_up_to_fill_rate", **terms))[0] for terms in (few, many)]
    cycle = [numbers(plan_one("order_up_to", **terms))[0] for terms in (few, many)]

    assert fill[0] < fill[1]
    assert cycle[0] == cycle[1]


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1000), min_size=2, max_size=40), st.floats(0, 500))
def test_the_level_for_a_shortage_has_that_shortage(sums, shortage):
    batch = batch_of()
    demand = replace(batch.demand, sums=np.sort(np.array([sums])))
    level = demand.level_for_shortage(np.array([shortage]))

    if level[0] > 0:
        assert demand.expected_shortage(level)[0] == pytest.approx(min(shortage, demand.mean[0]), abs=1e-6)
    else:
        assert demand.mean[0] <= shortage + 1e-9
