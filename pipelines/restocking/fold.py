"""Folding ledger rows and order statuses, in the ledger's order, into positions, orders and flags."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import merge
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.operations.settings import RestockSettings
from pipelines.restocking.decisions import (
    Record,
    Trigger,
    decide_flag,
    decide_orders,
)
from pipelines.restocking.degradation import age_note, fixed_rule, is_too_old
from pipelines.restocking.live_policy import HOUR, LivePolicy
from pipelines.restocking.orders import (
    ACKNOWLEDGED,
    APPROVED,
    CANCELLED,
    PARTLY_RECEIVED,
    PROPOSED,
    RECEIVED,
    REJECTED,
    SENT,
    SHIPPED,
    OrderChange,
    next_state,
)
from pipelines.restocking.policy_book import PolicyBook, SeriesKey
from pipelines.restocking.positions import NEVER, Change, Position
from pipelines.restocking.proposals import Approval, HandOrder, approved_order, order_by_hand, place_order

History = Callable[[SeriesKey, int], Iterable[Change]]
Step = tuple[Any, ...]

_LEDGER = ("sequence", "event_id", "event_time", "kafka_timestamp", "location_id", "sku", "kind", "quantity",
           "change", "order_id")  # fmt: skip
_STATUSES = ("sequence", "event_id", "event_time", "kafka_timestamp", "order_id", "status", "quantity", "eta",
             "actor", "reason", "location_id", "sku", "supplier_id")  # fmt: skip
_QUANTITY_COUNTS = frozenset({PROPOSED, APPROVED, SENT, ACKNOWLEDGED, SHIPPED})
"""Statuses whose quantity is that of the order: a person's change, or what the supplier confirms."""


_ARRIVALS = frozenset({"receipt", "transfer_in"})
"""What takes goods off an open order: from a supplier, or from a sibling location."""


@dataclass
class Outcome:
    """What a fold decided: released orders and those that wait for approval, each with the place in the ledger of
    the event that it follows from; flags; order changes."""

    orders: list[tuple[int, Record]] = field(default_factory=list)
    proposals: list[tuple[int, Record]] = field(default_factory=list)
    flags: list[Record] = field(default_factory=list)
    changes: list[OrderChange] = field(default_factory=list)


class Fold:
    """The live state of all series, and the one function that moves it on.

    Not a pure function only because the state is large: the same rows from the same state always give the same
    outcome, however they are cut into calls.

    Args:
        approval: which orders wait for a person.
    """

    def __init__(self, settings: RestockSettings, approval: Approval | None = None) -> None:
        self._settings = settings
        self._approval = approval or Approval()
        self.positions: dict[SeriesKey, Position] = {}
        self._order_series: dict[str, SeriesKey] = {}
        self._proposals: dict[str, Record] = {}
        self.policies: PolicyBook | None = None
        self._fixed: dict[SeriesKey, LivePolicy] = {}

    def restore(self, positions: Iterable[Position], proposals: Mapping[str, Record] | None = None) -> None:
        """Start from saved positions, and the orders among them that wait for approval, by id."""
        self._proposals = dict(proposals or {})
        for position in positions:
            key = (position.location_id, position.sku)
            self.positions[key] = position
            self._order_series.update(dict.fromkeys(position.open_orders, key))

    def activate(self, policies: PolicyBook, sequence: int, at: int) -> Outcome:
        """Put a policy version into force and look at every series that it covers.

        Args:
            sequence: the last place in the ledger before it.
            at: when, in microseconds since 1970; recorded, so that a replay sees the same.
        """
        self.policies = policies
        self._fixed.clear()
        outcome = Outcome()
        for key in sorted(policies.keys()):
            position = self.positions.get(key)
            policy = policies.get(key)
            if position is not None and policy is not None:
                trigger = Trigger(f"policy-{policies.version}", max(position.clock, policy.in_force_from), at)
                self._decide(position, policy, trigger, sequence, outcome)
        return outcome

    def advance(self, ledger: pa.Table, statuses: pa.Table, history: History, placed: Collection[str] = ()) -> Outcome:
        """Fold rows in: of the silver schemas, sorted or not; decisions follow the order of `sequence`.

        Args:
            placed: which orders that the statuses place by hand were placed before this step.
        """
        outcome = Outcome()
        placed_now = set(placed)
        touched: dict[int, Position] = {}
        for row in merge(_rows(ledger, _LEDGER), _rows(statuses, _STATUSES), key=itemgetter(0)):
            position = (
                self._apply_stock(row, history, outcome)
                if len(row) == len(_LEDGER)
                else self._apply_status(row, placed_now, outcome)
            )
            if position is None:
                continue
            touched[id(position)] = position
            sequence, event_id, event_time, arrived_at = row[:4]
            policy = self.policies.get((position.location_id, position.sku)) if self.policies else None
            if policy is not None:
                self._decide(position, policy, Trigger(event_id, event_time, arrived_at), sequence, outcome)
        for position in touched.values():
            position.settle(self._settings.recent_changes)
        return outcome

    def _apply_stock(self, row: Step, history: History, outcome: Outcome) -> Position:
        _, event_id, event_time, _, location_id, sku, kind, quantity, change, order_id = row
        key = (location_id, sku)
        position = self.positions.get(key)
        if position is None:
            position = self.positions[key] = Position(location_id, sku)
        if kind == "count":
            position.apply_count(event_time, event_id, quantity, lambda since: history(key, since))
        else:
            position.apply_change(event_time, change)
        if kind in _ARRIVALS and order_id is not None and order_id in position.open_orders:
            order = position.receive(order_id, quantity)
            complete = order_id not in position.open_orders
            status = RECEIVED if complete else PARTLY_RECEIVED
            outcome.changes.append(OrderChange(order_id, status, event_time, order.received))
            if complete:
                self._order_series.pop(order_id, None)
                self._proposals.pop(order_id, None)
        return position

    def _apply_status(self, row: Step, placed: set[str], outcome: Outcome) -> Position | None:
        _, _, event_time, _, order_id, status, quantity, eta, _, _, location_id, sku, _ = row
        key = self._order_series.get(order_id)
        if key is None:
            if order_by_hand(status, quantity, location_id, sku):
                return self._place_by_hand(row, placed, outcome)
            # Whatever a closed order came to outranks these two; an expired one that nobody waits for stays so.
            if status not in {PROPOSED, APPROVED}:
                outcome.changes.append(OrderChange(order_id, status, event_time))
            return None
        position = self.positions[key]
        order = position.open_orders[order_id]
        position.clock = max(position.clock, event_time)
        order.state = next_state(order.state, status)
        if quantity is not None and status in _QUANTITY_COUNTS and not (status == PROPOSED and order.released):
            order.confirm(quantity, event_time)
        changed = order.quantity if status == PROPOSED and not order.released else None
        outcome.changes.append(OrderChange(order_id, status, event_time, quantity=changed))
        if eta is not None:
            order.promise(eta, event_time)
        if status == RECEIVED:
            order.report_received(event_time)
        if status == APPROVED and not order.released:
            self._release(position, row, outcome)
        if order.state in {CANCELLED, REJECTED} or status in {CANCELLED, REJECTED}:
            position.bought.pop(order_id, None)
            self._close(position, order_id)
            if status == REJECTED:
                hold = round(self._settings.hold_hours_after_rejection * HOUR)
                position.hold_until = max(position.hold_until, position.clock + hold)
        return position

    def _release(self, position: Position, row: Step, outcome: Outcome) -> None:
        """A person approved a proposal: it goes out as approved."""
        sequence, _, event_time, _, order_id, _, _, _, actor, reason, *_ = row
        order = position.open_orders[order_id]
        proposal = self._proposals.pop(order_id)
        if order.promised_time == NEVER:
            order.expected_receipt += max(0, event_time - proposal["created_at"])
        order.released = True
        outcome.orders.append(
            (sequence, approved_order(proposal, order.quantity, order.expected_receipt, actor, reason))
        )

    def _place_by_hand(self, row: Step, placed: set[str], outcome: Outcome) -> Position | None:
        """A person ordered by hand: released at once, unless it was before."""
        sequence, event_id, event_time, _, order_id, _, quantity, eta, actor, reason, location_id, sku, supplier_id = (
            row
        )
        if order_id in placed:
            return None
        placed.add(order_id)
        key = (location_id, sku)
        position = self.positions.setdefault(key, Position(location_id, sku))
        position.clock = max(position.clock, event_time)
        policy = self.policies.get(key) if self.policies else None
        hand = HandOrder(order_id, quantity, eta, event_id, actor, reason, supplier_id)
        outcome.orders.append((sequence, place_order(position, policy, hand)))
        self._order_series[order_id] = key
        return position

    def _close(self, position: Position, order_id: str) -> None:
        del position.open_orders[order_id]
        self._order_series.pop(order_id, None)
        self._proposals.pop(order_id, None)

    def _decide(
        self, position: Position, policy: LivePolicy, trigger: Trigger, sequence: int, outcome: Outcome
    ) -> None:
        now = max(position.clock, trigger.event_time)
        if now < policy.in_force_from:
            return
        self._let_go(position, now)
        if is_too_old(policy, now, self._settings):
            policy = self._fixed_rule((position.location_id, position.sku), policy)
        for order in decide_orders(position, policy, trigger, now):
            order["explanation"] += age_note(policy, now, self._settings)
            order_id = order["order_id"]
            self._order_series[order_id] = (position.location_id, position.sku)
            if self._approval.is_needed(order, policy.unit_cost):
                open_order = position.open_orders[order_id]
                open_order.state, open_order.released = PROPOSED, False
                self._proposals[order_id] = order
                outcome.proposals.append((sequence, order))
            else:
                outcome.orders.append((sequence, order))
        flag = decide_flag(position, policy, trigger, now, self._settings)
        if flag is not None:
            outcome.flags.append(flag)

    def _fixed_rule(self, key: SeriesKey, policy: LivePolicy) -> LivePolicy:
        known = self._fixed.get(key)
        if known is None:
            known = self._fixed[key] = fixed_rule(policy)
        return known

    def _let_go(self, position: Position, now: int) -> None:
        """Drop orders of which nothing is to be expected any more: receipts announced long ago that never came into
        the ledger by their number; those reduced to what had come; proposals that nobody wanted in time."""
        grace = round(self._settings.receipt_grace_hours * HOUR)
        for order_id, order in list(position.open_orders.items()):
            overdue = now > order.expected_receipt + grace
            announced = order.reported_received is not None and now > order.reported_received + grace
            if announced or (overdue and order.outstanding == 0):
                self._close(position, order_id)


def counts_without_history(ledger: pa.Table, positions: dict[SeriesKey, Position]) -> dict[SeriesKey, int]:
    """Series whose counts reach back before what is remembered, with the earliest such count's time."""
    wanted: dict[SeriesKey, int] = {}
    counts = ledger.filter(pc.equal(ledger.column("kind"), "count"))
    for location_id, sku, time in _rows(counts, ("location_id", "sku", "event_time")):
        key = (location_id, sku)
        position = positions.get(key)
        if position is not None and position.needs_history(time):
            wanted[key] = min(time, wanted.get(key, time))
    return wanted


def _rows(table: pa.Table, columns: tuple[str, ...]) -> Iterator[Step]:
    """Rows as tuples, times in microseconds, by `sequence` where it is the first column."""
    if columns[0] == "sequence":
        table = table.sort_by("sequence")
    lists = []
    for name in columns:
        column = table.column(name)
        lists.append((column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist())
    return zip(*lists, strict=True)
