"""Bottlenecks as they begin and end: entered into `gold/bottlenecks`, told on `alerts`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.alerts import HIGH, INFO, Alert
from pipelines.contracts.tables import BOTTLENECKS, SHIPMENT_EVENTS
from pipelines.io.delta import Tables
from pipelines.shipments.bottlenecks import LOOK_BACK, NodeState, changes, node_states, stays

log = logging.getLogger("stockcast.shipments")

BOTTLENECK, BOTTLENECK_OVER = "bottleneck", "bottleneck_over"
_COLUMNS = ("shipment_id", "event_time", "node", "status")


class BottleneckWatch:
    """Looks for bottlenecks. What was told is entered afterwards, so that after a crash it is told again, alike.

    Args:
        send: publishes alerts and returns when the broker has them.
    """

    def __init__(self, tables: Tables, send: Callable[[Sequence[Alert]], None]) -> None:
        self._tables, self._send = tables, send

    def look(self, now: datetime) -> list[Alert]:
        """Open and close what has changed; returns the alerts that were sent."""
        self._tables.ensure(BOTTLENECKS)
        held = self._tables.read(BOTTLENECKS, where=pc.field("closed_at").is_null()).to_pylist()
        lasting = {row["node"]: row for row in held}
        since = pa.scalar(now - LOOK_BACK, pa.timestamp("us", "UTC"))
        events: pd.DataFrame = self._tables.read(SHIPMENT_EVENTS, _COLUMNS, pc.field("event_time") > since).to_pandas()
        begun, ended = changes(node_states(stays(events), now), set(lasting))
        # An episode is named by the hour in which it began: told twice, it is the same.
        hour = now.replace(minute=0, second=0, microsecond=0)
        opened = [_row(state, hour) for state in begun]
        closed = [{**lasting[node], "closed_at": now} for node in ended]
        alerts = [_begins(row, now) for row in opened] + [_is_over(row, now) for row in closed]
        self._send(alerts)
        rows = pa.Table.from_pylist([*opened, *closed], schema=BOTTLENECKS.schema)
        self._tables.upsert(BOTTLENECKS, rows, keys=("node", "opened_at"))
        for alert in alerts:
            log.info("%s", alert.message)
        return alerts


def _row(state: NodeState, opened_at: datetime) -> dict[str, Any]:
    return {
        **{"node": state.node, "opened_at": opened_at, "closed_at": None, "queue": state.queue},
        **{"beyond": state.beyond, "usual_hours": state.usual_hours, "limit_hours": state.limit_hours},
        **{"implied_hours": state.implied_hours, "message": state.tell()},
    }


def _begins(row: dict[str, Any], now: datetime) -> Alert:
    facts = {name: row[name] for name in ("queue", "beyond", "usual_hours", "limit_hours", "implied_hours")}
    return Alert(BOTTLENECK, HIGH, row["node"], row["message"], row["opened_at"], now, _occasion(row), facts)


def _is_over(row: dict[str, Any], now: datetime) -> Alert:
    message = f"shipments move on at {row['node']}: the bottleneck since {row['opened_at']:%Y-%m-%d %H:%M} is over"
    facts = {"opened_at": row["opened_at"]}
    return Alert(BOTTLENECK_OVER, INFO, row["node"], message, now, now, _occasion(row), facts)


def _occasion(row: dict[str, Any]) -> str:
    return str(row["opened_at"].isoformat())
