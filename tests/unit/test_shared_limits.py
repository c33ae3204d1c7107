"""What series compete for: excess goes where it saves most, never more than there is, and is never promised twice."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, time
from itertools import product
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import nbinom, poisson

from pipelines.contracts.tables import INVENTORY_POLICIES
from pipelines.errors import UsageError
from pipelines.inventory.live_stock import LiveStock, Offer
from pipelines.inventory.shared_limits import Chain, quantile, with_limits
from pipelines.inventory.supplier_calendar import SupplierCalendar
from pipelines.inventory.supplier_terms import (
    calendar_of,
    longest_wait,
    order_windows,
    read_closed_days,
    read_cut_off,
    read_quantity_breaks,
    read_weekdays,
)
from pipelines.inventory.transfers import Moves, best_transfers, stock_cost
from pipelines.operations.settings import PlanningSettings

STORES = ("s-1", "s-2", "s-3", "s-4")
HORIZON = 28


def policy(location, sku="a", daily=4.0, **changes):
    """Demand of `daily` a day, Poisson; reorder point and level for three days and a week."""
    return {
        "location_id": location, "sku": sku, "policy_version": "p-2", "forecast_version": "f-2",
        "reorder_point": round(3 * daily + 4), "order_up_to": round(7 * daily + 4), "safety_stock": 4.0,
        "lead_time_days": 3.0, "review_days": 1.0, "service_level": 0.95, "method": "order_up_to",
        "binding_constraint": "service_level", "supplier_id": "u-1", "pack_size": 1, "minimum_order": 1,
        "unit_cost": 10.0, "unit_price": 15.0, "as_of": date(2026, 3, 1), "correlation": 0.1,
        "cumulative_mean": [daily * day for day in range(1, HORIZON + 1)],
        "cumulative_std": [(daily * day) ** 0.5 for day in range(1, HORIZON + 1)], **changes,
    }  # fmt: skip


def chain_of(rows, region=None, warehouses=()):
    keys = [(row["location_id"], row["sku"]) for row in rows]
    return Chain(
        region=region or dict.fromkeys((*STORES, *warehouses), "north"),
        warehouses=frozenset(warehouses),
        order_cost=dict.fromkeys(keys, 3.0),
        holding_rate=dict.fromkeys(keys, 0.25),
    )


def limited(rows, stock, planning=None, chain=None, version="p-2"):
    table = pa.Table.from_pylist(rows, schema=INVENTORY_POLICIES.schema)
    planning = planning or PlanningSettings(transfer_cost=5.0, transfer_unit_cost=0.1)
    found = with_limits(table, chain or chain_of(rows), stock, planning, version)
    assert found.schema == INVENTORY_POLICIES.schema
    return {(row["location_id"], row["sku"]): row for row in found.to_pylist()}


def stock_of(levels, sku="a", **more):
    return LiveStock(on_hand={(location, sku): level for location, level in levels.items()}, **more)


# The linear program. -----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_without_fixed_costs_no_other_shares_save_more(seed):
    # given two sources and two targets, each of which can get from either
    rng = np.random.default_rng(seed)
    spare, needed = rng.integers(0, 5, 2).astype(float), rng.integers(0, 5, 2).astype(float)
    source, target = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    moves = Moves(source, target, rng.uniform(-1, 3, 4), np.zeros(4), np.minimum(spare[source], needed[target]))
    # when the excess is shared out
    found = best_transfers(spare, needed, moves)
    # then none of the sharings in which each target has one giver saves more, and none breaks a limit
    assert (np.bincount(source, found, 2) <= spare).all()
    assert (np.bincount(target, found, 2) <= needed).all()
    best = max(
        float(np.dot(units, moves.unit_value))
        for units in product(*(range(int(most) + 1) for most in moves.most))
        if (np.bincount(source, units, 2) <= spare).all() and (np.bincount(target, units, 2) <= needed).all()
        and not (units[0] and units[2]) and not (units[1] and units[3])
    )  # fmt: skip
    # A target gets all from one giver, which is chosen by the program in which it may have several.
    assert 0.5 * best - 1e-9 <= np.dot(found, moves.unit_value) <= best + 1e-9


def test_a_move_that_does_not_pay_its_cost_is_not_made():
    moves = Moves(np.array([0]), np.array([0]), np.array([1.0]), np.array([6.0]), np.array([5.0]))
    assert best_transfers(np.array([5.0]), np.array([5.0]), moves).tolist() == [0.0]
    assert best_transfers(np.array([9.0]), np.array([9.0]), Moves(
        moves.source, moves.target, moves.unit_value, moves.fixed_cost, np.array([9.0])
    )).tolist() == [9.0]  # fmt: skip


def test_stock_that_lies_costs_its_keep_and_at_most_what_was_paid():
    cost = stock_cost(np.array([10.0, 10.0, 10.0]), np.array([0.25, 0.25, 0.25]), np.array([73.0, 1e6, np.inf]))
    assert cost.tolist() == pytest.approx([0.5, 10.0, 10.0])


def test_quantiles_are_those_of_counts():
    mean, std = np.array([4.0, 4.0, 0.0]), np.array([2.0, 4.0, 0.0])
    assert quantile(mean, std, 0.95).tolist() == [poisson.ppf(0.95, 4), nbinom.ppf(0.95, 16 / 12, 4 / 16), 0.0]


# Offers. -----------------------------------------------------------------------------------------------------


def test_an_excess_is_offered_to_who_may_come_to_order():
    # given one store with ten weeks of stock, one about to order and one with enough
    rows = [policy(location) for location in STORES[:3]]
    found = limited(rows, stock_of({"s-1": 280, "s-2": 14, "s-3": 30}))
    # then the second is offered what it needs at worst tomorrow, with the arithmetic of why
    offer = found["s-2", "a"]
    assert (offer["transfer_source"], offer["transfer_offer"], offer["transfer_days"]) == ("s-1", "p-2", 1.0)
    assert offer["transfer_quantity"] == 32 - (14 - poisson.ppf(0.95, 4))
    assert offer["transfer_cost"] == pytest.approx(5 + 0.1 * offer["transfer_quantity"])
    assert "s-1 has" in offer["transfer_reason"]
    assert [found[location, "a"]["transfer_offer"] for location in ("s-1", "s-3")] == [None, None]


@pytest.mark.parametrize(
    ("what", "planning", "region"),
    [
        ("too dear", {"transfer_cost": 500.0}, None),
        ("too slow", {"transfer_cost": 5.0, "transfer_days": 4.0}, None),
        ("in another region", {"transfer_cost": 5.0}, {"s-1": "north", "s-2": "south"}),
        ("not known what it costs", {}, None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_where_buying_is_better_nothing_is_offered(what, planning, region):
    rows = [policy(location) for location in STORES[:2]]
    chain = chain_of(rows, region)
    found = limited(rows, stock_of({"s-1": 280, "s-2": 10}), PlanningSettings(**planning), chain)
    assert all(row["transfer_offer"] is None for row in found.values()), what


def test_what_others_were_promised_is_not_excess():
    rows = [policy(location) for location in STORES[:2]]
    free = limited(rows, stock_of({"s-1": 150, "s-2": 0}))["s-2", "a"]["transfer_quantity"]
    less = limited(rows, stock_of({"s-1": 150, "s-2": 0}, promised={("s-1", "a"): 10}))["s-2", "a"]
    gone = limited(rows, stock_of({"s-1": 150, "s-2": 0}, promised={("s-1", "a"): 150}))["s-2", "a"]
    assert free == less["transfer_quantity"] + 10
    assert gone["transfer_offer"] is None


def test_an_offer_that_nobody_took_is_renewed_as_the_same_one():
    rows = [policy(location) for location in STORES[:3]]
    offers = {("s-2", "a"): Offer("p-1", "s-1", 12)}
    found = limited(rows, stock_of({"s-1": 280, "s-2": 10, "s-3": 10}, offers=offers))
    assert (found["s-2", "a"]["transfer_offer"], found["s-2", "a"]["transfer_quantity"]) == ("p-1", 12)
    assert found["s-3", "a"]["transfer_offer"] == "p-2"


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 400), min_size=4, max_size=4), st.integers(0, 10**6))
def test_a_unit_is_never_promised_twice(levels, seed):
    # given any stock, any promises, and offers of the night before that may still be taken
    rng = np.random.default_rng(seed)
    rows = [policy(location) for location in STORES]
    promised = {(location, "a"): int(rng.integers(0, 60)) for location in STORES[:2]}
    offers = {
        (target, "a"): Offer("p-1", STORES[int(rng.integers(0, 2))], int(rng.integers(1, 80))) for target in STORES[2:]
    }
    found = limited(rows, stock_of(dict(zip(STORES, levels, strict=True)), promised=promised, offers=offers))
    # then what old and new offers can come to together is there, beside all promises and the source's own need
    given_away = defaultdict(int)
    for key, row in found.items():
        old = offers.get(key)
        if row["transfer_offer"] is None:
            continue
        same = old is not None and old.offer == row["transfer_offer"]
        assert same == (old is not None)
        if same:
            assert row["transfer_source"] == old.source
            assert row["transfer_quantity"] <= old.quantity
        given_away[row["transfer_source"]] += row["transfer_quantity"]
    for source, units in given_away.items():
        level = levels[STORES.index(source)]
        assert units <= level - promised.get((source, "a"), 0) - 32
        fresh = sum(
            row["transfer_quantity"] for row in found.values()
            if row["transfer_source"] == source and row["transfer_offer"] == "p-2"
        )  # fmt: skip
        untaken = sum(offer.quantity for offer in offers.values() if offer.source == source)
        assert fresh == 0 or fresh + untaken <= level - promised.get((source, "a"), 0) - 32


# Allowances. -------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-5, 60), min_size=4, max_size=4), st.floats(0, 3000), st.floats(0, 500))
def test_allowances_together_cost_no_more_than_what_is_left_of_the_day(levels, budget, spent):
    rows = [policy(location, unit_cost=cost) for location, cost in zip(STORES, (1.0, 5.0, 10.0, 40.0), strict=True)]
    planning = PlanningSettings(daily_budget=budget)
    found = limited(rows, stock_of(dict(zip(STORES, levels, strict=True)), spent=spent), planning)
    cost = sum(row["allowance"] * row["unit_cost"] for row in found.values())
    assert cost <= max(budget - spent, 0.0) + 1e-6
    assert {row["allowance_reason"] for row in found.values()} == {"budget"}


def test_scarce_money_goes_where_most_margin_would_be_lost():
    # given two stores as short as each other, one of which earns four times as much
    rows = [policy("s-1", unit_price=12.0), policy("s-2", unit_price=18.0)]
    found = limited(rows, stock_of({"s-1": 2, "s-2": 2}), PlanningSettings(daily_budget=150.0))
    assert found["s-2", "a"]["allowance"] > found["s-1", "a"]["allowance"]


def test_a_short_warehouse_is_shared_by_expected_lost_margin():
    # given two stores that a warehouse serves, which has less than they need
    rows = [policy("s-1", supplier_id="w-1", unit_price=12.0), policy("s-2", supplier_id="w-1", unit_price=20.0)]
    stock = LiveStock(on_hand={("s-1", "a"): 4, ("s-2", "a"): 4, ("w-1", "a"): 20}, promised={("w-1", "a"): 5})
    found = limited(rows, stock, PlanningSettings(), chain_of(rows, warehouses=("w-1",)))
    shares = [found[location, "a"]["allowance"] for location in ("s-1", "s-2")]
    assert sum(shares) <= 15
    assert shares[1] > shares[0]
    assert found["s-1", "a"]["allowance_reason"] == "warehouse_shortage"


def test_without_budget_or_warehouse_there_are_no_allowances():
    rows = [policy("s-1")]
    assert limited(rows, stock_of({"s-1": 0}))["s-1", "a"]["allowance"] is None


def test_the_digest_tells_one_stock_from_another():
    one = LiveStock(on_hand={("s-1", "a"): 4, ("s-2", "a"): 5})
    assert one.digest == LiveStock(on_hand={("s-2", "a"): 5, ("s-1", "a"): 4}).digest
    for other in ({"on_hand": {("s-1", "a"): 4}}, {"on_hand": one.on_hand, "spent": 1.0},
                  {"on_hand": one.on_hand, "offers": {("s-1", "a"): Offer("p", "s-2", 1)}}):  # fmt: skip
        assert one.digest != LiveStock(**other).digest


# What the catalog writes as text. ----------------------------------------------------------------------------


def test_terms_in_words():
    assert read_weekdays("Mon wed FRI") == {0, 2, 4}
    assert read_cut_off("14:30") == time(14, 30)
    assert read_closed_days("2026-12-25 2026-12-26") == {date(2026, 12, 25), date(2026, 12, 26)}
    assert read_quantity_breaks("500:9 100:9.50") == ((100, 9.5), (500, 9.0))


@pytest.mark.parametrize(
    ("read", "text"),
    [(read_weekdays, "Mon Holiday"), (read_weekdays, " "), (read_cut_off, "25:00"), (read_cut_off, "14:00+02:00"),
     (read_closed_days, "Christmas"), (read_quantity_breaks, "100"), (read_quantity_breaks, "100:9 500:9.5"),
     (read_quantity_breaks, "0:9"), (read_quantity_breaks, "5:nan"), (read_quantity_breaks, "")],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(read, text):
    with pytest.raises(UsageError, match="expected"):
        read(text)


def test_order_days_become_windows_of_time():
    # given a supplier in Berlin that takes orders on Mondays and Thursdays until two o'clock, and not on one Monday
    row = {
        "order_weekdays": "Mon Thu",
        "order_cut_off": "14:00",
        "closed_days": "2026-03-09",
        "timezone": "Europe/Berlin",
    }
    calendar, zone = calendar_of(row)
    windows = order_windows(calendar, zone, date(2026, 3, 3))
    # then the first is Thursday's, from midnight to the cut-off, and the closed Monday has none
    assert windows[:2] == [datetime(2026, 3, 4, 23, tzinfo=UTC), datetime(2026, 3, 5, 13, tzinfo=UTC)]
    assert windows[2] == datetime(2026, 3, 11, 23, tzinfo=UTC)
    # and an order may have to last from one Thursday to the next
    assert longest_wait(calendar, date(2026, 3, 3)) == 7.0
    assert calendar_of(dict.fromkeys(row)) is None
    assert order_windows(SupplierCalendar(), ZoneInfo("UTC"), date(2026, 3, 3))[1] == datetime(2026, 3, 4, tzinfo=UTC)
