"""Positions and orders in their tables: saving them, and starting from what was saved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import INVENTORY_POSITIONS, OPEN_ORDERS, ORDERS, TIME
from pipelines.ingestion.times import as_datetime, as_microseconds
from pipelines.io.delta import Tables
from pipelines.restocking.decisions import Record
from pipelines.restocking.orders import OrderChange, next_state
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
        "hold_until": times([row.hold_until for row in rows]),
        "sequence": pa.array([sequence] * len(rows), pa.int64()),
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
                        order["outstanding"],
                        as_microseconds(order["expected_receipt"]),
                        order["received"],
                        as_microseconds(order["reported_received"]) if order["reported_received"] else None,
                    )
                    for order in row["open_orders"] or ()
                },
                flag_severity=row["flag_severity"],
                hold_until=_time(row["hold_until"]),
                complete_since=clock,
            )
        )
        sequence = row["sequence"]
    return positions, sequence


def save_orders(tables: Tables, decided: Sequence[Record], changes: Sequence[OrderChange]) -> None:
    """Enter newly decided orders and what happened to orders: one commit, harmless when repeated."""
    if not decided and not changes:
        return
    tables.ensure(ORDERS)
    known: dict[str, dict[str, Any]] = {}
    asked = sorted({change.order_id for change in changes} | {order["order_id"] for order in decided})
    for row in tables.read(ORDERS, where=pc.field("order_id").isin(asked)).to_pylist():
        known[row["order_id"]] = row
    for order in decided:
        if order["order_id"] not in known:
            created = as_datetime(order["created_at"])
            known[order["order_id"]] = {
                **order,
                "created_at": created,
                "expected_receipt": as_datetime(order["expected_receipt"]),
                "state": "proposed",
                "state_time": created,
                "received": 0,
            }
    for change in changes:
        if (row := known.get(change.order_id)) is not None:
            _enter(row, change)
    tables.upsert(ORDERS, pa.Table.from_pylist(list(known.values()), schema=ORDERS.schema), keys=("order_id",))


def _enter(row: dict[str, Any], change: OrderChange) -> None:
    state = next_state(row["state"], change.status)
    if state != row["state"]:
        row["state"] = state
        row["state_time"] = as_datetime(change.at)
    if change.received is not None:
        row["received"] = change.received


def _open_orders(position: Position) -> list[dict[str, Any]]:
    return [
        {
            "order_id": order_id,
            "outstanding": order.outstanding,
            "received": order.received,
            "expected_receipt": as_datetime(order.expected_receipt),
            "reported_received": None if order.reported_received is None else as_datetime(order.reported_received),
        }
        for order_id, order in position.open_orders.items()
    ]


def _time(value: int | None) -> int:
    return NEVER if value is None else value
