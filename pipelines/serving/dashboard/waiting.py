"""The orders that wait for a person, followed through every table in which a decision shows first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import ORDER_AUDIT, ORDER_PROPOSALS, ORDER_STATUS, ORDERS
from pipelines.ingestion.times import as_datetime, as_microseconds, parse_time
from pipelines.io.delta import Tables
from pipelines.restocking.decisions import decode_order
from pipelines.restocking.orders import PROPOSED
from pipelines.serving.dashboard.follow import Moved, Tail, any_of
from pipelines.serving.dashboard.risk import Risk, risk_of
from pipelines.serving.dashboard.stock import PolicyShelf, Row, SeriesKey, chain_time, positions_of

PROPOSAL = ("order_id", "payload", "decided_at")


@dataclass(frozen=True)
class WaitingOrder:
    """A line of what needs a decision. `on_order`: what else is under way; `proposed`: units at first."""

    order_id: str
    location_id: str
    sku: str
    quantity: int
    proposed: int
    on_hand: int
    on_order: int
    waiting_since: datetime
    explanation: str
    risk: Risk | None

    @property
    def money(self) -> float:
        """What is at risk, in the catalog's currency."""
        return 0.0 if self.risk is None else self.risk.money


class Waiting:
    """Which proposals wait: those of `gold/order_proposals` that no decision has reached in the audit of the API,
    in the ledger of statuses or in `gold/orders`."""

    def __init__(self, tables: Tables, shelf: PolicyShelf) -> None:
        self._tables = tables
        self._shelf = shelf
        self._orders: dict[str, Row] = {}
        self._quantities: dict[str, tuple[int, int]] = {}
        self._early: dict[str, None] = {}
        self._started = False
        self._orders_moved = Moved(tables, ORDERS)

    def poll(self) -> bool:
        """Whether a proposal came, changed or went."""
        if not self._started:
            self._start()
            return True
        before = (tuple(self._orders), tuple(self._quantities.values()))
        if (rows := self._proposals.look()) is not None:
            self._add(rows)
        if (rows := self._audit.look()) is not None:
            self._hear(orjson.loads(event) for event in rows.column("event").to_pylist())
        if (rows := self._statuses.look()) is not None:
            self._hear(rows.to_pylist())
        if self._orders_moved.look() and self._orders:
            self._drop_decided()
        return before != (tuple(self._orders), tuple(self._quantities.values()))

    @property
    def keys(self) -> set[SeriesKey]:
        """The series that they are for."""
        return {(row["location_id"], row["sku"]) for row in self._orders.values()}

    def __len__(self) -> int:
        return len(self._orders)

    def ranked(self, now: datetime) -> list[WaitingOrder]:
        """All of them, the most money at risk first."""
        positions = positions_of(self._tables, self.keys)
        policies = self._shelf.of(self.keys)
        clock = chain_time(self._tables, now)
        lines = [self._line(row, positions, policies, clock) for row in self._orders.values()]
        return sorted(lines, key=lambda line: (-line.money, line.order_id))

    def _line(
        self, row: Row, positions: Mapping[SeriesKey, Row], policies: Mapping[SeriesKey, Row], now: datetime
    ) -> WaitingOrder:
        key = (row["location_id"], row["sku"])
        on_hand, on_order = row["on_hand"], row["on_order"]
        under_way = on_order
        if (position := positions.get(key)) is not None and _is_newer(position, row):
            others = [order for order in position["open_orders"] or () if order["order_id"] != row["order_id"]]
            on_hand = position["on_hand"]
            on_order = sum(order["outstanding"] for order in others)
            under_way = sum(order["outstanding"] for order in others if order["released"])
        policy = policies.get(key)
        return WaitingOrder(
            order_id=row["order_id"],
            location_id=key[0],
            sku=key[1],
            quantity=self._quantities.get(row["order_id"], (0, row["quantity"]))[1],
            proposed=row["quantity"],
            on_hand=on_hand,
            on_order=on_order,
            waiting_since=row["waiting_since"],
            explanation=row["explanation"],
            risk=None if policy is None else risk_of(on_hand, under_way, policy, now),
        )

    def _start(self) -> None:
        """What waits now, and from where each table is followed."""
        tables = self._tables
        columns = ("order_id", "event_time", "status", "quantity")
        self._proposals = Tail(tables, ORDER_PROPOSALS, "sequence", PROPOSAL, _newest(tables, ORDER_PROPOSALS))
        self._audit = Tail(tables, ORDER_AUDIT, "sequence", ("event",), _newest(tables, ORDER_AUDIT))
        self._statuses = Tail(tables, ORDER_STATUS, "sequence", columns, _newest(tables, ORDER_STATUS))
        decided = tables.read(ORDERS, ("order_id",), pc.field("state") != PROPOSED).column("order_id")
        proposed = tables.read(ORDER_PROPOSALS, ("order_id",)).column("order_id")
        open_ones = proposed.filter(pc.invert(pc.is_in(proposed, value_set=decided.combine_chunks())))
        self._add(tables.read(ORDER_PROPOSALS, PROPOSAL, any_of("order_id", open_ones.to_pylist())))
        waiting = any_of("order_id", self._orders)
        self._hear(tables.read(ORDER_STATUS, columns, waiting).to_pylist())
        self._hear(
            orjson.loads(event) for event in tables.read(ORDER_AUDIT, ("event",), waiting).column("event").to_pylist()
        )
        self._started = True

    def _add(self, rows: pa.Table) -> None:
        for row in rows.to_pylist():
            if row["order_id"] not in self._early:
                self._orders[row["order_id"]] = {**decode_order(row["payload"]), "waiting_since": row["decided_at"]}

    def _hear(self, events: Iterable[Mapping[str, Any]]) -> None:
        """A decision takes its order away, another quantity changes it; the newest by its own time stands."""
        for event in events:
            order_id = event["order_id"]
            if event["status"] != PROPOSED:
                self._drop(order_id)
            elif event.get("quantity") is not None:
                said = event["event_time"]
                at = parse_time(said) if isinstance(said, str) else as_microseconds(said)
                if at >= self._quantities.get(order_id, (at, 0))[0]:
                    self._quantities[order_id] = (at, event["quantity"])

    def _drop_decided(self) -> None:
        where = any_of("order_id", self._orders) & (pc.field("state") != PROPOSED)
        for order_id in self._tables.read(ORDERS, ("order_id",), where).column("order_id").to_pylist():
            self._drop(order_id)

    def _drop(self, order_id: str) -> None:
        self._orders.pop(order_id, None)
        self._quantities.pop(order_id, None)
        # Its proposal may show only now, in a table that was looked at before.
        self._early[order_id] = None
        while len(self._early) > 10_000:
            del self._early[next(iter(self._early))]


def _newest(tables: Tables, table: Any) -> pa.Scalar:
    return pa.scalar(tables.largest(table, "sequence") or 0, pa.int64())


def _is_newer(position: Row, order: Row) -> bool:
    """Whether a saved position has the order in it already."""
    return position["last_event_time"] is not None and position["last_event_time"] >= as_datetime(order["created_at"])
