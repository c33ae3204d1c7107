"""Positions and orders in their tables: saving them, and starting from what was saved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import BOUGHT, INVENTORY_POSITIONS, OPEN_ORDERS, ORDER_PROPOSALS, ORDERS, TIME
from pipelines.ingestion.times import as_datetime, as_microseconds
from pipelines.io.delta import Tables
from pipelines.restocking.decisions import Record, decode_order
from pipelines.restocking.orders import APPROVED, EXPIRED, PROPOSED, OrderChange, next_state
from pipelines.restocking.positions import NEVER, OpenOrder, Position


def save_positions(tables: Tables, positions: Iterable[Position], sequence: int) -> None:
    """Replace the positions by these, complete up to a place in the ledger: one commit."""
    rows = list(positions)

    def times(values: list[int]) -> pa.Array:
        return pa.array([None if value == NEVER else value for value in values], pa.int64()).cast(TIME)

    columns = {
        "location_id": pa.array([row.location_id for row in rows], pa.string()),
        "sku": pa.array([row.sku for row in rows], pa.string()),
        "on_hand": pa.array([row.on_hand for row in rows], pa.int64()),
        "on_order": pa.array([row.on_order for row in rows], pa.int64()),
        "last_event_time": times([row.clock for row in rows]),
        "count_time": times([row.count_time for row in rows]),
        "count_event_id": pa.array([row.count_event_id or None for row in rows], pa.string()),
        "counted": pa.array([None if row.count_time == NEVER else row.counted for row in rows], pa.int64()),
        "open_orders": pa.array([_open_orders(row) for row in rows], OPEN_ORDERS),
        "flag_severity": pa.array([row.flag_severity for row in rows], pa.string()),
        "flag_chance": pa.array([row.flag_chance for row in rows], pa.string()),
        "lost_units": pa.array([row.lost_units for row in rows], pa.float64()),
        "lost_margin": pa.array([row.lost_margin for row in rows], pa.float64()),
        "hold_until": times([row.hold_until for row in rows]),
        "sequence": pa.array([sequence] * len(rows), pa.int64()),
        "offer_taken": pa.array([row.offer_taken or None for row in rows], pa.string()),
        "bought_day": pa.array([row.bought_day if row.bought else None for row in rows], pa.int64()),
        "bought": pa.array([_bought(row) for row in rows], BOUGHT),
    }
    schema = INVENTORY_POSITIONS.schema
    tables.overwrite(INVENTORY_POSITIONS, pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema))


def load_positions(tables: Tables) -> tuple[list[Position], int]:
    """The saved positions, and the place in the ledger that they are complete up to (0: nothing saved)."""
    table = tables.read(INVENTORY_POSITIONS)
    for name in ("last_event_time", "count_time", "hold_until"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, table.column(name).cast(pa.int64()))
    positions = []
    sequence = 0
    for row in table.to_pylist():
        clock = _time(row["last_event_time"])
        positions.append(
            Position(
                location_id=row["location_id"],
                sku=row["sku"],
                on_hand=row["on_hand"],
                count_time=_time(row["count_time"]),
                count_event_id=row["count_event_id"] or "",
                counted=row["counted"] or 0,
                clock=clock,
                open_orders={
                    order["order_id"]: OpenOrder(
                        quantity=order["quantity"],
                        expected_receipt=as_microseconds(order["expected_receipt"]),
                        received=order["received"],
                        reported_received=_as_microseconds(order["reported_received"]),
                        state=order["state"],
                        released=order["released"],
                        quantity_time=_time(_as_microseconds(order["quantity_time"])),
                        promised_time=_time(_as_microseconds(order["promised_time"])),
                    )
                    for order in row["open_orders"] or ()
                },
                flag_severity=row["flag_severity"],
                flag_chance=row["flag_chance"],
                lost_units=row["lost_units"],
                lost_margin=row["lost_margin"],
                hold_until=_time(row["hold_until"]),
                offer_taken=row["offer_taken"] or "",
                bought_day=row["bought_day"] or 0,
                bought={item["order_id"]: item["quantity"] for item in row["bought"] or ()},
                complete_since=clock,
            )
        )
        sequence = row["sequence"]
    return positions, sequence


def load_proposals(tables: Tables, positions: Iterable[Position]) -> dict[str, Record]:
    """The orders of these positions that wait for approval, as they were proposed, by id."""
    waiting = [
        order_id for position in positions for order_id, order in position.open_orders.items() if not order.released
    ]
    if not waiting:
        return {}
    rows = tables.read(ORDER_PROPOSALS, ("order_id", "payload"), pc.field("order_id").isin(waiting)).to_pylist()
    return {row["order_id"]: decode_order(row["payload"]) for row in rows}


def save_orders(tables: Tables, decided: Sequence[tuple[Record, str]], changes: Sequence[OrderChange]) -> None:
    """Enter newly decided orders and what happened to orders: one commit, harmless when repeated.

    Args:
        decided: orders with the state that the decision gave them, `proposed` or `approved`; a later one of the
            same order (its approval) replaces the earlier.
    """
    if not decided and not changes:
        return
    tables.ensure(ORDERS)
    known: dict[str, dict[str, Any]] = {}
    asked = sorted({change.order_id for change in changes} | {order["order_id"] for order, _ in decided})
    for row in tables.read(ORDERS, where=pc.field("order_id").isin(asked)).to_pylist():
        known[row["order_id"]] = row
    for order, state in decided:
        row = known.get(order["order_id"])
        if row is None or state == APPROVED:
            known[order["order_id"]] = _row(order, state, row)
    for change in changes:
        if (row := known.get(change.order_id)) is not None:
            _enter(row, change)
    tables.upsert(ORDERS, pa.Table.from_pylist(list(known.values()), schema=ORDERS.schema), keys=("order_id",))


def _row(order: Record, state: str, before: dict[str, Any] | None) -> dict[str, Any]:
    created = as_datetime(order["created_at"])
    row = before or {"state": state, "state_time": created, "received": 0}
    times = {"created_at": created, "expected_receipt": as_datetime(order["expected_receipt"])}
    return {**row, **order, **times}


def _enter(row: dict[str, Any], change: OrderChange) -> None:
    state = next_state(row["state"], change.status)
    if state != row["state"]:
        row["state"] = state
        row["state_time"] = as_datetime(change.at)
    if change.received is not None:
        row["received"] = change.received
    if change.quantity is not None and state in {PROPOSED, EXPIRED}:
        row["quantity"] = change.quantity


def _open_orders(position: Position) -> list[dict[str, Any]]:
    return [
        {
            "order_id": order_id,
            "outstanding": order.outstanding,
            "received": order.received,
            "expected_receipt": as_datetime(order.expected_receipt),
            "reported_received": None if order.reported_received is None else as_datetime(order.reported_received),
            "state": order.state,
            "released": order.released,
            "quantity": order.quantity,
            "quantity_time": _as_datetime(order.quantity_time),
            "promised_time": _as_datetime(order.promised_time),
        }
        for order_id, order in position.open_orders.items()
    ]


def _bought(position: Position) -> list[dict[str, Any]]:
    return [{"order_id": order_id, "quantity": quantity} for order_id, quantity in position.bought.items()]


def _time(value: int | None) -> int:
    return NEVER if value is None else value


def _as_datetime(time: int) -> datetime | None:
    return None if time == NEVER else as_datetime(time)


def _as_microseconds(instant: datetime | None) -> int | None:
    return None if instant is None else as_microseconds(instant)
