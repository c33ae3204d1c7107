"""Orders and flags depend on the order of the ledger alone, never on how it is cut into steps."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import nbinom

from pipelines.contracts.tables import INVENTORY_POLICIES, ORDER_STATUS, STOCK_MOVEMENTS
from pipelines.inventory.scenarios import LEVEL_CORRELATION
from pipelines.operations.settings import RestockSettings
from pipelines.restocking.decisions import encode_flag, encode_order
from pipelines.restocking.fold import Fold
from pipelines.restocking.orders import next_state
from pipelines.restocking.policy_book import PolicyBook
from pipelines.restocking.snapshots import load_positions, save_positions

AS_OF = date(2026, 3, 1)
START = datetime(2026, 3, 2, tzinfo=UTC)
SIGNS = {"sale": -1, "receipt": 1, "adjustment": 1}


def policy(sku, reorder_point=10, order_up_to=30, pack=6, **extra):
    return {
        "location_id": "s-1",
        "sku": sku,
        "policy_version": "p-1",
        "forecast_version": "f-1",
        "reorder_point": reorder_point,
        "order_up_to": order_up_to,
        "safety_stock": 3.0,
        "lead_time_days": 2.0,
        "review_days": 1.0,
        "service_level": 0.95,
        "method": "order_up_to",
        "binding_constraint": "service_level",
        "supplier_id": "u-1",
        "pack_size": pack,
        "minimum_order": 1,
        "as_of": AS_OF,
        "cumulative_mean": [4.0 * day for day in range(1, 29)],
        "cumulative_std": [2.0 * day**0.5 for day in range(1, 29)],
        **extra,
    }


BOOK = PolicyBook("p-1", pa.Table.from_pylist([policy("a"), policy("b", pack=1)], schema=INVENTORY_POLICIES.schema))


def ledger(*rows, first=1):
    """Rows (sku, kind, quantity[, order_id]), an hour apart."""
    records = []
    for place, (sku, kind, quantity, *order) in enumerate(rows, start=first):
        records.append(
            {
                "event_id": f"e-{place}",
                "event_time": START + timedelta(hours=place),
                "kafka_timestamp": START + timedelta(hours=place, seconds=1),
                "location_id": "s-1",
                "sku": sku,
                "kind": kind,
                "quantity": quantity,
                "change": None if kind == "count" else SIGNS[kind] * quantity,
                "order_id": order[0] if order else None,
                "sequence": place,
            }
        )
    return pa.Table.from_pylist(records, schema=STOCK_MOVEMENTS.schema)


def status(order_id, state, place, **extra):
    row = {
        "event_id": f"d-{place}",
        "event_time": START + timedelta(hours=place),
        "kafka_timestamp": START + timedelta(hours=place),
        "order_id": order_id,
        "status": state,
        "sequence": place,
        **extra,
    }
    return pa.Table.from_pylist([row], schema=ORDER_STATUS.schema)


NO_STATUS = ORDER_STATUS.schema.empty_table()
NO_ROWS = STOCK_MOVEMENTS.schema.empty_table()


def fold_of(book=BOOK, **options):
    fold = Fold(RestockSettings(**options))
    fold.policies = book
    return fold


def no_history(key, since):
    raise AssertionError("nothing here reaches behind what is remembered")


def run(fold, rows, statuses=NO_STATUS):
    return fold.advance(rows, statuses, no_history)


def test_an_order_fills_the_position_up_to_the_level_in_whole_packs():
    # given 30 counted and 21 sold: position 9, reorder point 10, order up to 30, packs of 6
    fold = fold_of()
    outcome = run(fold, ledger(("a", "count", 30), ("a", "sale", 15), ("a", "sale", 6)))
    # then one order of 24 (21 rounded up), counted as on order
    ((sequence, order),) = outcome.orders
    assert (sequence, order["quantity"], order["trigger_event_id"]) == (3, 24, "e-3")
    assert order["on_hand"] == 9
    assert order["expected_receipt"] - order["created_at"] == 2 * 86_400_000_000
    assert fold.positions["s-1", "a"].on_order == 24
    assert "24" in order["explanation"]


def test_what_is_on_order_is_not_ordered_again():
    fold = fold_of()
    first = run(fold, ledger(("a", "count", 9)))
    second = run(fold, ledger(("a", "sale", 3), ("a", "sale", 3), first=2))
    assert len(first.orders) == 1
    assert second.orders == []


def test_a_receipt_turns_on_order_into_on_hand():
    fold = fold_of()
    ((_, order),) = run(fold, ledger(("a", "count", 9))).orders
    outcome = run(
        fold, ledger(("a", "receipt", 10, order["order_id"]), ("a", "receipt", 14, order["order_id"]), first=2)
    )
    position = fold.positions["s-1", "a"]
    assert (position.on_hand, position.on_order) == (33, 0)
    assert [(change.status, change.received) for change in outcome.changes] == [
        ("partly_received", 10),
        ("received", 24),
    ]


def test_a_cancelled_order_is_ordered_anew_and_a_rejected_one_is_not():
    for state, again in (("cancelled", 1), ("rejected", 0)):
        fold = fold_of()
        ((_, order),) = run(fold, ledger(("a", "count", 9))).orders
        outcome = run(fold, NO_ROWS, status(order["order_id"], state, 2))
        assert len(outcome.orders) == again, state
        assert len({order["order_id"], *(other["order_id"] for _, other in outcome.orders)}) == 1 + again


def test_a_rejection_holds_for_a_day():
    fold = fold_of()
    ((_, order),) = run(fold, ledger(("a", "count", 9))).orders
    run(fold, NO_ROWS, status(order["order_id"], "rejected", 2))
    assert run(fold, ledger(("a", "sale", 1), first=20)).orders == []
    assert len(run(fold, ledger(("a", "sale", 1), first=27)).orders) == 1


def test_an_announced_receipt_still_counts_until_the_goods_are_booked():
    fold = fold_of()
    ((_, order),) = run(fold, ledger(("a", "count", 9))).orders
    assert run(fold, NO_ROWS, status(order["order_id"], "received", 2)).orders == []
    outcome = run(fold, ledger(("a", "sale", 1), ("a", "receipt", 24, order["order_id"]), first=3))
    assert outcome.orders == []
    assert fold.positions["s-1", "a"].on_hand == 32


def test_nothing_is_decided_for_days_before_the_policy():
    late = pa.Table.from_pylist(
        [policy("a", as_of=date(2026, 4, 1))],
        schema=INVENTORY_POLICIES.schema,
    )
    outcome = run(fold_of(PolicyBook("p-1", late)), ledger(("a", "count", 1)))
    assert (outcome.orders, outcome.flags) == ([], [])


def test_a_product_without_expected_demand_is_not_ordered():
    dead = pa.Table.from_pylist([policy("a", binding_constraint="no_demand")], schema=INVENTORY_POLICIES.schema)
    assert run(fold_of(PolicyBook("p-1", dead)), ledger(("a", "count", 0))).orders == []


def test_flags_rise_by_class_and_start_anew_after_a_recovery():
    fold = fold_of()
    rows = [
        ("b", "count", 60),
        ("b", "sale", 49),
        ("b", "sale", 5),
        ("b", "sale", 5),
        ("b", "sale", 1),
        ("b", "count", 200),
        ("b", "sale", 200),
    ]
    outcome = run(fold, ledger(*rows))
    severities = [flag["severity"] for flag in outcome.flags]
    assert severities[-1] == "critical"
    assert len(severities) == len({flag["flag_id"] for flag in outcome.flags})
    before_count = [flag for flag in outcome.flags if flag["source_event_id"] < "e-6"]
    ranks = [("low", "high", "critical").index(flag["severity"]) for flag in before_count]
    assert ranks == sorted(set(ranks))
    assert outcome.flags[-1]["stockout_probability"] == 1.0
    assert all(0 <= flag["stockout_probability"] <= 1 for flag in outcome.flags)


def test_a_flags_chance_is_that_of_the_correlation_which_the_plan_was_made_with():
    # given days of mean 4 and deviation 2, any two of them correlated by a half: a day's variance counts by itself
    # with one half, all days' deviations together with the other
    days = np.arange(1, 29)
    deviation = np.sqrt(0.5 * 4 * days + 0.5 * (2 * days) ** 2)
    row = policy("a", reorder_point=0, correlation=0.5, cumulative_std=deviation.tolist())
    fold = fold_of(PolicyBook("p-1", pa.Table.from_pylist([row], schema=INVENTORY_POLICIES.schema)))
    # when ten are left and nothing can come for two days
    flag = run(fold, ledger(("a", "count", 10))).flags[0]
    # then the demand has mean 8 and variance 0.5 * 2 * 4 + 0.5 * 4 * 4
    mean, variance = 8, 12
    chance = nbinom.sf(10, mean**2 / (variance - mean), mean / variance)
    assert flag["stockout_probability"] == pytest.approx(chance, abs=2e-4)


def priced(**prices):
    rows = [policy(sku, unit_cost=2.0, unit_price=price, reorder_point=0) for sku, price in prices.items()]
    return PolicyBook("p-1", pa.Table.from_pylist(rows, schema=INVENTORY_POLICIES.schema))


def test_a_flags_severity_is_the_margin_expected_to_be_lost():
    # given three products that sell alike, with margins of 1, 10 and 100, a shelf with 5 units and demand of 8 to come
    fold = fold_of(priced(a=3.0, b=12.0, c=102.0), money_at_risk=(10, 50, 250))
    outcome = run(fold, ledger(("a", "count", 5), ("b", "count", 5), ("c", "count", 5)))
    # then the flags are equally likely (an hour apart), and as grave as the loss, which can be redone by hand
    assert [flag["stockout_probability"] for flag in outcome.flags] == pytest.approx([0.81] * 3, abs=0.002)
    assert [flag["severity"] for flag in outcome.flags] == ["low", "medium", "critical"]
    units, mean = np.arange(6, 400), 8  # two days of mean 4 and deviation 2, correlated as the plan presumes
    variance = (1 - LEVEL_CORRELATION) * 8 + LEVEL_CORRELATION * 16
    lost = ((units - 5) * nbinom.pmf(units, mean**2 / (variance - mean), mean / variance)).sum()
    positions = [fold.positions["s-1", sku] for sku in "abc"]
    assert [position.lost_units for position in positions] == pytest.approx([lost] * 3, rel=0.01)
    assert [position.lost_margin / position.lost_units for position in positions] == pytest.approx([1, 10, 100])


def test_a_flag_is_raised_again_when_the_money_has_risen_a_class_though_the_chance_has_not():
    # given a product that runs out almost certainly, then one unit after the other is sold
    fold = fold_of(priced(a=12.0), money_at_risk=(10, 50, 250))
    rows = [("a", "count", 5), ("a", "sale", 1), ("a", "sale", 1), ("a", "sale", 1), ("a", "sale", 1)]
    flags = run(fold, ledger(*rows)).flags
    # then it is flagged once more, when the loss reaches the next class
    assert [flag["severity"] for flag in flags] == ["medium", "high"]
    assert all(flag["stockout_probability"] > 0.8 for flag in flags)
    # and after a recovery and another fall anew
    again = run(fold, ledger(("a", "count", 90), ("a", "sale", 85), first=6)).flags
    assert [flag["severity"] for flag in again] == ["medium"]


def test_without_a_price_the_severity_is_that_of_the_chance():
    fold = fold_of()
    (flag,) = run(fold, ledger(("a", "count", 0))).flags
    assert flag["severity"] == "critical"
    assert fold.positions["s-1", "a"].lost_margin is None
    assert fold.positions["s-1", "a"].lost_units > 0


row = st.tuples(
    st.sampled_from("ab"),
    st.sampled_from(["sale", "sale", "sale", "receipt", "count", "adjustment"]),
    st.integers(1, 12),
)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(row, min_size=1, max_size=40), cuts=st.lists(st.integers(1, 7), min_size=1, max_size=40))
def test_any_cut_of_the_ledger_gives_the_same_orders_byte_for_byte(rows, cuts):
    # given a ledger
    whole = ledger(*rows)
    # when it is folded at once, and in steps
    together = run(fold_of(), whole)
    stepwise, start = fold_of(recent_changes=64), 0
    orders, flags = [], []
    for cut in [*cuts, len(rows)]:
        outcome = run(stepwise, whole.slice(start, cut))
        orders += outcome.orders
        flags += outcome.flags
        start += cut
    # then every order and flag is the same
    assert [(place, encode_order(order)) for place, order in orders] == [
        (place, encode_order(order)) for place, order in together.orders
    ]
    assert [encode_flag(flag) for flag in flags] == [encode_flag(flag) for flag in together.flags]
    # and at rest no position lies at or below its reorder point, nor above order-up-to plus a pack by an order
    for (_, sku), position in stepwise.positions.items():
        assert position.on_hand + position.on_order > BOOK.get(("s-1", sku)).reorder_point


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["approved", "shipped", "acknowledged"], "shipped"),
        (["received", "shipped"], "received"),
        (["rejected", "approved"], "rejected"),
        (["acknowledged", "acknowledged"], "acknowledged"),
    ],
)
def test_late_and_repeated_statuses_do_no_harm(states, expected):
    state = "proposed"
    for status_ in states:
        state = next_state(state, status_)
    assert state == expected


OFFER = {
    "transfer_offer": "p-1", "transfer_source": "s-2", "transfer_quantity": 8, "transfer_days": 0.5,
    "transfer_cost": 3.0, "transfer_reason": "s-2 has 50 beyond what it needs",
}  # fmt: skip


def book_of(**extra):
    return PolicyBook("p-1", pa.Table.from_pylist([policy("a", **extra)], schema=INVENTORY_POLICIES.schema))


def asked(outcome):
    return [(order["supplier_id"], order["quantity"]) for _, order in outcome.orders]


def test_what_a_sibling_offers_is_taken_before_the_rest_is_bought():
    # given an offer of 8 where 30 - 1 are needed and 10 is the reorder point
    fold = fold_of(book_of(**OFFER))
    outcome = run(fold, ledger(("a", "count", 1)))
    # then both orders follow from one event, with ids of their own, and say why
    assert asked(outcome) == [("s-2", 8), ("u-1", 24)]
    (_, moved), (_, bought) = outcome.orders
    assert moved["order_id"] != bought["order_id"]
    assert moved["trigger_event_id"] == bought["trigger_event_id"]
    assert "transfer of 8 from s-2 (s-2 has 50 beyond what it needs)" in moved["explanation"]
    assert (moved["on_order"], bought["on_order"]) == (0, 8)
    assert moved["expected_receipt"] - moved["created_at"] == 43_200_000_000


def test_where_the_offer_is_enough_nothing_is_bought_until_the_position_falls_again():
    fold = fold_of(book_of(**OFFER))
    assert asked(run(fold, ledger(("a", "count", 6)))) == [("s-2", 8)]
    assert asked(run(fold, ledger(("a", "sale", 2), ("a", "sale", 2), first=2))) == [("u-1", 24)]


def test_an_offer_is_taken_once_even_if_what_came_of_it_was_called_off():
    fold = fold_of(book_of(**OFFER))
    ((_, moved),) = run(fold, ledger(("a", "count", 6))).orders
    outcome = run(fold, NO_ROWS, status(moved["order_id"], "cancelled", 2))
    assert asked(outcome) == [("u-1", 24)]
    # and a later version that renews the offer does not bring it back, while a new offer counts
    for version, expected in (("p-1", []), ("p-3", [("s-2", 8)])):
        fold.positions["s-1", "a"].open_orders.clear()
        rows = [policy("a", **{**OFFER, "transfer_offer": version}, policy_version="p-2")]
        book = PolicyBook("p-2", pa.Table.from_pylist(rows, schema=INVENTORY_POLICIES.schema))
        outcome = fold.activate(book, 3, 0)
        assert [one for one in asked(outcome) if one[0] == "s-2"] == expected


def test_an_offer_of_stock_seen_days_ago_is_not_taken():
    fold = fold_of(book_of(**OFFER))
    assert asked(run(fold, ledger(("a", "count", 6), first=49))) == [("u-1", 24)]


def test_a_transfer_arrives_as_a_receipt_or_as_a_transfer():
    for kind in ("receipt", "transfer_in"):
        fold = fold_of(book_of(**OFFER))
        ((_, moved),) = run(fold, ledger(("a", "count", 6))).orders
        rows = ledger(("a", "receipt", 8, moved["order_id"]), first=2)
        rows = rows.set_column(rows.schema.get_field_index("kind"), "kind", pa.array([kind]))
        run(fold, rows)
        position = fold.positions["s-1", "a"]
        assert (position.on_hand, position.on_order) == (14, 0), kind


def test_no_more_than_the_maximum_is_bought_in_a_day():
    fold = fold_of(book_of(maximum_order=13))
    first = run(fold, ledger(("a", "count", 2), ("a", "sale", 1), ("a", "sale", 1)))
    assert asked(first) == [("u-1", 12)]
    assert "28 needed, cut to 12 by the most that may be ordered in a day" in first.orders[0][1]["explanation"]
    # the next day there is room again
    run(fold, ledger(("a", "sale", 4), first=10))
    assert asked(run(fold, ledger(("a", "sale", 1), first=26))) == [("u-1", 12)]


def test_an_allowance_is_kept_to_and_what_was_called_off_is_free_again():
    fold = fold_of(book_of(allowance=12, allowance_reason="budget"))
    ((_, order),) = run(fold, ledger(("a", "count", 2))).orders
    assert (order["quantity"], "cut to 12 by its share of the day's budget" in order["explanation"]) == (12, True)
    assert run(fold, ledger(("a", "sale", 9), first=2)).orders == []
    again = run(fold, NO_ROWS, status(order["order_id"], "cancelled", 3))
    assert asked(again) == [("u-1", 12)]


def test_an_allowance_below_the_smallest_order_buys_nothing():
    fold = fold_of(book_of(allowance=17, allowance_reason="budget", minimum_order=18))
    assert run(fold, ledger(("a", "count", 2))).orders == []


def test_what_was_bought_and_taken_survives_a_restart(tables):
    fold = fold_of(book_of(**OFFER, allowance=18, allowance_reason="warehouse_shortage"))
    run(fold, ledger(("a", "count", 1)))
    save_positions(tables, fold.positions.values(), 1)
    positions, _ = load_positions(tables)
    assert [(one.offer_taken, one.bought, one.bought_day) for one in positions] == [
        (one.offer_taken, one.bought, one.bought_day) for one in fold.positions.values()
    ]
    assert positions[0].offer_taken == "p-1"
    assert list(positions[0].bought.values()) == [18]


def test_an_order_outside_the_suppliers_hours_counts_from_its_next_order_day():
    # given order days from midnight to noon of the second and the fourth of March
    days = [START, START + timedelta(hours=12), START + timedelta(days=2), START + timedelta(days=2.5)]
    for hour, taken in ((3, 3), (13, 48)):
        fold = fold_of(book_of(order_windows=days))
        ((_, order),) = run(fold, ledger(("a", "count", 2), first=hour)).orders
        assert order["expected_receipt"] - order["created_at"] == (taken - hour + 48) * 3_600_000_000
        assert ("; the supplier takes it on 2026-03-04" in order["explanation"]) == (taken > hour)
