"""The life of an order in the restock stage: approval, change, expiry, orders by hand; late and repeated statuses."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.contracts.tables import (
    INGEST_BATCHES,
    INVENTORY_POLICIES,
    INVENTORY_POSITIONS,
    ORDER_OUTBOX,
    ORDER_PROPOSALS,
    ORDER_STATUS,
    ORDERS,
    STOCK_MOVEMENTS,
)
from pipelines.operations.settings import RestockSettings
from pipelines.restocking.engine import RestockEngine
from pipelines.restocking.expiry import Expiry
from pipelines.restocking.fold import Fold
from pipelines.restocking.orders import STATES, TERMINAL, next_state
from pipelines.restocking.policy_book import PolicyBook
from pipelines.restocking.proposals import Approval
from tests.chain import plant_policies
from tests.unit.test_fold import NO_ROWS, ledger, no_history, policy, run, status

COSTED = PolicyBook("p-1", pa.Table.from_pylist([policy("a", unit_cost=2.5)], schema=INVENTORY_POLICIES.schema))
UNCOSTED = PolicyBook("p-1", pa.Table.from_pylist([policy("a")], schema=INVENTORY_POLICIES.schema))


def fold_with(limit, book=COSTED):
    fold = Fold(RestockSettings(), Approval(limit))
    fold.policies = book
    return fold


def proposed(limit=10.0):
    """A fold with a proposal of 24 units at 2.50, decided at the first place of the ledger."""
    fold = fold_with(limit)
    outcome = run(fold, ledger(("a", "count", 9)))
    ((_, order),) = outcome.proposals
    return fold, order


def on_order(fold):
    return fold.positions["s-1", "a"].on_order


@pytest.mark.parametrize(("limit", "waits"), [(None, False), (0.0, True), (59.99, True), (60.0, False), (1e9, False)])
def test_an_order_waits_when_it_is_worth_more_than_the_limit(limit, waits):
    # given an order of 24 units at 2.50 each
    outcome = run(fold_with(limit), ledger(("a", "count", 9)))
    assert (len(outcome.proposals), len(outcome.orders)) == (int(waits), int(not waits))


def test_an_order_whose_value_nobody_knows_waits_where_there_is_a_limit():
    assert len(run(fold_with(1e9, UNCOSTED), ledger(("a", "count", 9))).proposals) == 1
    assert len(run(fold_with(None, UNCOSTED), ledger(("a", "count", 9))).orders) == 1


def test_a_proposal_counts_as_on_order_and_goes_out_when_approved():
    fold, order = proposed()
    assert on_order(fold) == 24
    assert run(fold, ledger(("a", "sale", 3), first=2)).proposals == []
    outcome = run(fold, NO_ROWS, status(order["order_id"], "approved", 3, actor="anna"))
    ((sequence, released),) = outcome.orders
    assert (sequence, released["quantity"], released["order_id"]) == (3, 24, order["order_id"])
    assert released["explanation"] == f"{order['explanation']}; approved by anna"
    assert released["expected_receipt"] == order["expected_receipt"] + 2 * 3_600_000_000
    assert run(fold, NO_ROWS, status(order["order_id"], "approved", 4)).orders == []
    assert on_order(fold) == 24


def test_a_changed_proposal_goes_out_as_changed():
    fold, order = proposed()
    run(fold, NO_ROWS, status(order["order_id"], "proposed", 2, quantity=18))
    assert on_order(fold) == 18
    outcome = run(
        fold, NO_ROWS, status(order["order_id"], "approved", 3, quantity=12, actor="anna", reason="no\nspace")
    )
    ((_, released),) = outcome.orders
    assert (released["quantity"], on_order(fold)) == (12, 12)
    assert released["explanation"].endswith("; 24 proposed, 12 approved by anna (no space)")
    # and a change that comes too late changes nothing
    run(fold, NO_ROWS, status(order["order_id"], "proposed", 4, quantity=99))
    assert on_order(fold) == 12


def test_an_expired_proposal_frees_what_it_held_and_is_proposed_anew():
    fold, order = proposed()
    outcome = run(fold, NO_ROWS, status(order["order_id"], "expired", 2))
    ((_, anew),) = outcome.proposals
    assert anew["order_id"] != order["order_id"]
    assert on_order(fold) == anew["quantity"]


def test_an_expiry_does_nothing_to_an_order_that_went_out():
    fold, order = proposed()
    run(fold, NO_ROWS, status(order["order_id"], "approved", 2))
    assert run(fold, NO_ROWS, status(order["order_id"], "expired", 3)).proposals == []
    assert on_order(fold) == 24


def test_a_rejected_proposal_never_goes_out():
    fold, order = proposed()
    run(fold, NO_ROWS, status(order["order_id"], "rejected", 2))
    assert run(fold, NO_ROWS, status(order["order_id"], "approved", 3)).orders == []
    assert on_order(fold) == 0


def by_hand(place, order_id="m-1", quantity=30, location="s-1", sku="a", **extra):
    return status(
        order_id,
        "approved",
        place,
        quantity=quantity,
        location_id=location,
        sku=sku,
        actor="anna",
        reason="fair",
        **extra,
    )


def test_an_order_by_hand_goes_out_at_once_and_once():
    fold = fold_with(10.0)
    run(fold, ledger(("a", "count", 50)))
    first = run(fold, NO_ROWS, by_hand(2))
    again = run(fold, NO_ROWS, by_hand(3))
    ((_, order),) = first.orders
    assert (order["quantity"], order["supplier_id"], order["trigger_event_id"]) == (30, "u-1", "d-2")
    assert "by hand by anna: 30 units at position 50" in order["explanation"]
    assert again.orders == []
    assert on_order(fold) == 30


def test_an_order_by_hand_that_was_received_is_not_placed_again_by_a_late_repetition():
    fold = fold_with(None)
    run(fold, NO_ROWS, by_hand(1))
    run(fold, ledger(("a", "receipt", 30, "m-1"), first=2))
    assert fold.advance(NO_ROWS, by_hand(3), no_history, placed={"m-1"}).orders == []
    assert on_order(fold) == 0


def test_an_order_by_hand_for_a_series_without_policy_and_stock():
    fold = fold_with(None, None)
    ((_, order),) = run(fold, NO_ROWS, by_hand(1, sku="new")).orders
    assert (order["reorder_point"], order["supplier_id"], order["on_hand"]) == (None, None, 0)
    assert order["expected_receipt"] > order["created_at"]


def test_a_supplier_who_confirms_less_and_delivers_that():
    fold = fold_with(None)
    ((_, order),) = run(fold, ledger(("a", "count", 9))).orders
    run(fold, ledger(("a", "receipt", 6, order["order_id"]), first=2))
    run(fold, NO_ROWS, status(order["order_id"], "acknowledged", 3, quantity=18))
    assert on_order(fold) == 12
    outcome = run(fold, ledger(("a", "receipt", 12, order["order_id"]), first=4))
    assert [(change.status, change.received) for change in outcome.changes] == [("received", 18)]
    assert on_order(fold) == 0


event = st.tuples(
    st.sampled_from(["expired", "sent", "acknowledged", "shipped", "received", "cancelled", "rejected"]),
    st.integers(2, 12),  # hour of the event
    st.one_of(st.none(), st.integers(1, 40)),  # quantity
)


@settings(max_examples=300, deadline=None)
@given(
    events=st.lists(event, max_size=7),
    approved=st.one_of(
        st.none(), st.tuples(st.just("approved"), st.integers(2, 12), st.one_of(st.none(), st.integers(1, 40)))
    ),
    limit=st.sampled_from([None, 10.0]),
    receipt=st.integers(0, 1),
    order=st.randoms(),
)
def test_any_order_and_repetition_of_statuses_gives_the_same_state_and_on_order(
    events, approved, limit, receipt, order
):
    # given an order, some of it booked in, and statuses, each an event with an id and a time of its own
    named = [(f"d-{place}", *what) for place, what in enumerate([*events, *([approved] if approved else [])])]

    def ends_at(sequence_of_events):
        fold = fold_with(limit)
        outcome = run(fold, ledger(("a", "count", 9)))
        ((_, decided),) = outcome.orders + outcome.proposals
        order_id, state = decided["order_id"], "approved" if outcome.orders else "proposed"
        rows = [row for place, (event_id, name, hour, quantity) in enumerate(sequence_of_events, start=2)
                for row in status(order_id, name, hour, quantity=quantity).to_pylist()
                for row in [{**row, "event_id": event_id, "sequence": place}]]  # fmt: skip
        changes = []
        if receipt:
            changes += run(fold, ledger(("a", "receipt", receipt, order_id), first=2)).changes
        for row in rows:
            changes += run(fold, NO_ROWS, pa.Table.from_pylist([row], schema=ORDER_STATUS.schema)).changes
        for change in changes:
            state = next_state(state, change.status) if change.order_id == order_id else state
        open_order = fold.positions["s-1", "a"].open_orders.get(order_id)
        return state, 0 if open_order is None else open_order.outstanding

    # when they come in any order, some of them more than once
    shuffled = named + [what for what in named if order.random() < 0.4]
    order.shuffle(shuffled)
    # then all is the same
    assert ends_at(shuffled) == ends_at(named)


def test_an_ended_state_is_only_left_for_one_that_outranks_it():
    for state in STATES:
        for other in STATES:
            reached = next_state(state, other)
            assert reached == next_state(other, state)
            assert next_state(reached, other) == reached
    assert all(next_state(ended, "shipped") == ended for ended in TERMINAL - {"expired"})


# The engine: what is kept in tables ----------------------------------------------------------------------------

NOW = datetime.now(UTC).replace(microsecond=0)


class Ledger:
    """Ingest's tables, filled by hand."""

    def __init__(self, tables):
        self._tables, self.place = tables, 0

    def take_in(self, *rows):
        """Ledger rows (kind, quantity) or statuses (order_id, status, more)."""
        for row in rows:
            self.place += 1
            at = NOW - timedelta(hours=2) + timedelta(minutes=self.place)
            common = {"event_id": f"e-{self.place}", "event_time": at, "kafka_timestamp": at, "ingested_at": at,
                      "sequence": self.place}  # fmt: skip
            if len(row) == 2:
                kind, quantity = row
                change = None if kind == "count" else -quantity
                table = STOCK_MOVEMENTS
                content = {"location_id": "s-1", "sku": "a", "kind": kind, "quantity": quantity, "change": change}
            else:
                order_id, name, more = row
                table, content = ORDER_STATUS, {"order_id": order_id, "status": name, **more}
            self._tables.append(table, pa.Table.from_pylist([common | content], schema=table.schema))
        batch = {"batch_id": self.place, "topic": "pos.sales", "last_sequence": self.place, "finished_at": NOW}
        self._tables.append(INGEST_BATCHES, pa.Table.from_pylist([batch], schema=INGEST_BATCHES.schema))


@pytest.fixture
def taken(tables):
    for table in (STOCK_MOVEMENTS, ORDER_STATUS):
        tables.ensure(table)
    plant_policies(tables, [("s-1", "a")])
    return Ledger(tables)


def engine_on(tables, limit=10.0):
    engine = RestockEngine(tables, RestockSettings(), lambda flags: None, lambda: NOW, approval_value=limit)
    engine.resume()
    engine.catch_up()
    return engine


def payloads(tables, table=ORDER_OUTBOX):
    return [json.loads(row["payload"]) for row in tables.read(table).sort_by("sequence").to_pylist()]


def row_of(tables, order_id):
    (row,) = [row for row in tables.read(ORDERS).to_pylist() if row["order_id"] == order_id]
    return row


@pytest.mark.parametrize("saved", [True, False], ids=["saved between", "nothing saved"])
def test_a_proposal_outlives_a_restart_and_is_approved_after_it(tables, taken, saved):
    # given a proposal, and an engine that ends with or without saving
    taken.take_in(("count", 9))
    engine = engine_on(tables)
    (proposal,) = payloads(tables, ORDER_PROPOSALS)
    assert payloads(tables) == []
    if saved:
        engine.save()
        assert row_of(tables, proposal["order_id"])["state"] == "proposed"
    # when it is changed and approved in other lives of the engine
    taken.take_in((proposal["order_id"], "proposed", {"quantity": 18}))
    engine_on(tables).save()
    assert row_of(tables, proposal["order_id"])["quantity"] == 18
    taken.take_in((proposal["order_id"], "approved", {"actor": "anna"}))
    engine_on(tables)
    engine_on(tables).save()
    # then it went out once, as changed
    (released,) = payloads(tables)
    assert (released["order_id"], released["quantity"]) == (proposal["order_id"], 18)
    row = row_of(tables, proposal["order_id"])
    assert (row["state"], row["quantity"], row["explanation"]) == ("approved", 18, released["explanation"])
    (position,) = tables.read(INVENTORY_POSITIONS).to_pylist()
    assert position["on_order"] == 18
    assert len(payloads(tables, ORDER_PROPOSALS)) == 1


@pytest.mark.parametrize(("before", "after"), [(10.0, None), (None, 10.0)])
def test_a_limit_that_changes_before_a_replay_changes_nothing_that_was_decided(tables, taken, before, after):
    taken.take_in(("count", 9))
    engine_on(tables, before)
    first = (payloads(tables), payloads(tables, ORDER_PROPOSALS))
    engine_on(tables, after).save()
    assert (payloads(tables), payloads(tables, ORDER_PROPOSALS)) == first
    assert tables.read(ORDERS).column("state").to_pylist() == ["proposed" if before else "approved"]


def test_an_order_by_hand_enters_the_outbox_once_whenever_it_is_repeated(tables, taken):
    hand = ("m-1", "approved", {"quantity": 30, "location_id": "s-1", "sku": "a", "actor": "anna"})
    taken.take_in(("count", 60), hand)
    engine_on(tables)
    engine_on(tables).save()
    taken.take_in(("m-1", "received", {}), ("m-1", "cancelled", {}), hand)
    engine_on(tables).save()
    assert [order["order_id"] for order in payloads(tables)] == ["m-1"]
    assert row_of(tables, "m-1")["state"] == "received"


def test_proposals_expire_once_and_only_where_nobody_decided(tables, taken):
    # given a proposal that waits since NOW
    taken.take_in(("count", 9))
    engine = engine_on(tables)
    engine.save()
    (proposal,) = payloads(tables, ORDER_PROPOSALS)
    sent = []
    expiry = Expiry(tables, 48.0, sent.extend)
    # when time passes
    assert expiry.expire(NOW + timedelta(hours=47)) == 0
    assert expiry.expire(NOW + timedelta(hours=48)) == 1
    assert expiry.expire(NOW + timedelta(hours=49)) == 0
    # then one event says so, the same from whoever says it
    Expiry(tables, 48.0, sent.extend).expire(NOW + timedelta(hours=50))
    assert sent[0] == sent[1]
    key, value = sent[0]
    assert (key, json.loads(value)["status"]) == (proposal["order_id"], "expired")
    # and what was decided meanwhile does not expire
    taken.take_in((proposal["order_id"], "approved", {}))
    engine_on(tables).save()
    assert Expiry(tables, 48.0, sent.extend).expire(NOW + timedelta(hours=50)) == 0
