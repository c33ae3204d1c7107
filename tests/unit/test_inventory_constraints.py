"""Orders within their limits, and when they can be placed; what bound is said."""

from __future__ import annotations

from datetime import date, datetime, time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipelines.errors import UsageError
from pipelines.inventory.constraints import Orders, Worth, order_quantities, within_budget
from pipelines.inventory.lead_time_demand import LeadTimeDemand
from pipelines.inventory.quantity import order_quantity
from pipelines.inventory.supplier_calendar import SupplierCalendar


def row(*values: float) -> np.ndarray:
    return np.array(values, float)


@pytest.mark.parametrize(
    ("needed", "minimum", "maximum", "expected", "binding"),
    [
        (12, 0, np.inf, 12, "order_up_to"),
        (13, 0, np.inf, 18, "pack_size"),
        (3, 20, np.inf, 24, "minimum_order"),
        (40, 0, 20, 18, "maximum_order"),
        (3, 20, 8, 6, "maximum_order"),
        (40, 0, 2, 6, "maximum_order"),
        (0, 20, np.inf, 0, "above_reorder_point"),
    ],
)
def test_what_bound_an_order(needed, minimum, maximum, expected, binding):
    found = order_quantities(row(needed), row(6), row(minimum), row(maximum))

    assert (found.quantity[0], found.binding[0]) == (expected, binding)


@hypothesis_settings(max_examples=100, deadline=None)
@given(st.integers(-20, 300), st.integers(1, 40), st.integers(0, 100))
def test_many_at_once_are_as_one_by_one(position, pack, minimum):
    one, binding = order_quantity(position, 50, 90, pack, minimum)
    needed = 90 - position if position <= 50 else 0
    many = order_quantities(row(needed), row(pack), row(minimum), row(np.inf))

    assert (many.quantity[0], many.binding[0]) == (one, binding)
    assert many.quantity[0] >= needed


# A budget. ---------------------------------------------------------------------------------------------------


def demand_of(*means: float) -> LeadTimeDemand:
    rng = np.random.default_rng(0)
    sums = np.sort(rng.poisson(np.array(means)[:, None], (len(means), 2000)).astype(float), axis=1)
    empty = np.zeros((len(means), 1))
    return LeadTimeDemand(sums, empty, empty, empty)


def worth_of(count: int, **values: float | np.ndarray) -> Worth:
    given_values = {"position": 0.0, "margin": 1.0, "unit_cost": 2.0, "pack_size": 1.0, "minimum_order": 0.0, **values}
    return Worth(**{name: np.broadcast_to(np.asarray(value, float), count) for name, value in given_values.items()})


def orders_of(*units: float) -> Orders:
    return Orders(row(*units), np.full(len(units), "order_up_to", dtype="<U20"))


def test_a_budget_that_suffices_changes_nothing():
    orders = orders_of(10, 20)

    assert within_budget(orders, demand_of(10, 20), worth_of(2), 60.0) is orders


@hypothesis_settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.floats(0, 100), st.sampled_from([1.0, 6.0]))
def test_a_budget_is_never_exceeded_and_nothing_grows(units, budget, pack):
    orders = orders_of(*(pack * np.asarray(units)))
    found = within_budget(orders, demand_of(*[20.0] * len(units)), worth_of(len(units), pack_size=pack), budget)

    assert 2.0 * found.quantity.sum() <= max(budget, 0) + 1e-6 or (found.quantity == orders.quantity).all()
    assert (found.quantity <= orders.quantity).all()
    assert (found.quantity % pack == 0).all()
    assert ((found.binding == "budget") == (found.quantity < orders.quantity)).all()


def test_money_goes_where_it_saves_the_most_margin():
    # The same demand: the second earns three times as much per unit, the third is in stock already.
    worth = worth_of(3, margin=row(1, 3, 3), position=row(0, 0, 40))
    found = within_budget(orders_of(20, 20, 20), demand_of(20, 20, 20), worth, 50.0)

    assert found.quantity[1] > found.quantity[0] > found.quantity[2]
    assert found.quantity.sum() == 25
    assert found.binding.tolist()[2] == "budget"


def test_a_split_by_greed_is_as_good_as_trying_all():
    demand, worth = demand_of(6, 9), worth_of(2, margin=row(1.0, 1.4))
    found = within_budget(orders_of(10, 12), demand, worth, 22.0)

    def lost(first: float, second: float) -> float:
        return float(demand.expected_shortage(row(first, second)) @ row(1.0, 1.4))

    best = min(lost(first, 11 - first) for first in range(11) if 11 - first <= 12)
    assert lost(*found.quantity) == pytest.approx(best)


def test_a_minimum_order_is_bought_as_a_whole_or_not_at_all():
    worth = worth_of(2, minimum_order=row(12, 0), margin=row(1, 1))
    found = within_budget(orders_of(12, 12), demand_of(12, 12), worth, 20.0)

    assert found.quantity[0] in {0.0, 12.0}
    assert found.quantity[1] == 10.0


# Calendars. --------------------------------------------------------------------------------------------------

WEDNESDAY = date(2024, 5, 1)
TWICE_A_WEEK = SupplierCalendar(weekdays={0, 3}, closed={date(2024, 5, 6)}, cut_off=time(14, 0))


@pytest.mark.parametrize(
    ("moment", "day", "review"),
    [
        (datetime(2024, 5, 1, 9), date(2024, 5, 2), 7),  # Monday the 6th is off
        (datetime(2024, 5, 2, 13, 59), date(2024, 5, 2), 7),
        (datetime(2024, 5, 2, 14, 0), date(2024, 5, 9), 4),
        (datetime(2024, 5, 9, 10), date(2024, 5, 9), 4),
    ],
    ids=["before", "just in time", "past the cut-off", "on the day"],
)
def test_the_order_day_and_how_long_an_order_must_last(moment, day, review):
    assert TWICE_A_WEEK.counts_as_of(moment) == day
    assert TWICE_A_WEEK.review_days(moment) == review


def test_open_days_are_the_weekdays_without_those_off():
    opened = TWICE_A_WEEK.open_days(WEDNESDAY, 9)

    assert np.flatnonzero(opened).tolist() == [1, 8]


def test_a_calendar_without_order_days_is_refused():
    with pytest.raises(UsageError, match="expected some of 0"):
        SupplierCalendar(weekdays=())
    never = SupplierCalendar(weekdays={0}, closed={date(2024, 1, 1 + 7 * week) for week in range(4)})
    assert never.counts_as_of(datetime(2024, 1, 1)) == date(2024, 1, 29)
