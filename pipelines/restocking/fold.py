"""Folding ledger rows and order statuses, in the ledger's order, into positions, orders and flags."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.operations.settings import RestockSettings
from pipelines.restocking.decisions import (
    HOUR,
    LivePolicy,
    Record,
    Trigger,
    decide_flag,
    decide_order,
)
from pipelines.restocking.orders import OrderChange
from pipelines.restocking.policy_book import PolicyBook, SeriesKey
from pipelines.restocking.positions import Change, Position

History = Callable[[SeriesKey, int], Iterable[Change]]
Step = tuple[Any, ...]

_LEDGER = ("sequence", "event_id", "event_time", "kafka_timestamp", "location_id", "sku", "kind", "quantity",
           "change", "order_id")  # fmt: skip
_STATUSES = ("sequence", "event_id", "event_time", "kafka_timestamp", "order_id", "status", "quantity", "eta")


@dataclass
class Outcome:
    """What a fold decided: orders with the place in the ledger that triggered them, flags, order changes."""

    orders: list[tuple[int, Record]] = field(default_factory=list)
    flags: list[Record] = field(default_factory=list)
    changes: list[OrderChange] = field(default_factory=list)


class Fold:
    """The live state of all series, and the one function that moves it on.

    Not a pure function only because the state is large: the same rows from the same state always give the same
    outcome, however they are cut into calls.
    """

    def __init__(self, settings: RestockSettings) -> None:
        self._settings = settings
        self.positions: dict[SeriesKey, Position] = {}
        self._order_series: dict[str, SeriesKey] = {}
        self.policies: PolicyBook | None = None

    def restore(self, positions: Iterable[Position]) -> None:
        """Start from saved positions."""
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
        outcome = Outcome()
        for key in sorted(policies.keys()):
            position = self.positions.get(key)
            policy = policies.get(key)
            if position is not None and policy is not None:
                trigger = Trigger(f"policy-{policies.version}", max(position.clock, policy.in_force_from), at)
                self._decide(position, policy, trigger, sequence, outcome)
        return outcome

    def advance(self, ledger: pa.Table, statuses: pa.Table, history: History) -> Outcome:
        """Fold rows in: of the silver schemas, sorted or not; decisions follow the order of `sequence`."""
        outcome = Outcome()
        touched: dict[int, Position] = {}
        for row in merge(_rows(ledger, _LEDGER), _rows(statuses, _STATUSES), key=itemgetter(0)):
            position = (
                self._apply_stock(row, history, outcome)
                if len(row) == len(_LEDGER)
                else self._apply_status(row, outcome)
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
        if kind == "receipt" and order_id is not None and order_id in position.open_orders:
            order = position.receive(order_id, quantity)
            complete = order.outstanding <= 0
            status = "received" if complete else "partly_received"
            outcome.changes.append(OrderChange(order_id, status, event_time, order.received))
            if complete:
                self._order_series.pop(order_id, None)
        return position

    def _apply_status(self, row: Step, outcome: Outcome) -> Position | None:
        _, _, event_time, _, order_id, status, quantity, eta = row
        outcome.changes.append(OrderChange(order_id, status, event_time))
        key = self._order_series.get(order_id)
        if key is None:
            return None
        position = self.positions[key]
        order = position.open_orders[order_id]
        position.clock = max(position.clock, event_time)
        if status in {"rejected", "cancelled"}:
            del position.open_orders[order_id]
            del self._order_series[order_id]
            if status == "rejected":
                hold = round(self._settings.hold_hours_after_rejection * HOUR)
                position.hold_until = max(position.hold_until, position.clock + hold)
        elif status == "received":
            order.reported_received = event_time
        elif quantity is not None:
            order.outstanding = quantity
        if eta is not None:
            order.expected_receipt = eta
        return position

    def _decide(
        self, position: Position, policy: LivePolicy, trigger: Trigger, sequence: int, outcome: Outcome
    ) -> None:
        now = max(position.clock, trigger.event_time)
        if now < policy.in_force_from:
            return
        self._release_announced(position, now)
        order = decide_order(position, policy, trigger, now)
        if order is not None:
            outcome.orders.append((sequence, order))
            self._order_series[order["order_id"]] = (position.location_id, position.sku)
        flag = decide_flag(position, policy, trigger, now, self._settings)
        if flag is not None:
            outcome.flags.append(flag)

    def _release_announced(self, position: Position, now: int) -> None:
        """Drop orders whose receipt was announced long ago and never came into the ledger by their number."""
        grace = round(self._settings.receipt_grace_hours * HOUR)
        for order_id, order in list(position.open_orders.items()):
            if order.reported_received is not None and now > order.reported_received + grace:
                del position.open_orders[order_id]
                self._order_series.pop(order_id, None)


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
