"""Proposals that nobody decided on expire: an `expired` event says so, and the restock stage frees what they held.

The clock stays outside the decisions: the event enters the ledger like a person's, and a replay sees it where it
came. Its id and its content follow from the proposal, so one that is sent twice is recognised.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

import orjson
import pyarrow.compute as pc

from pipelines.contracts import topics
from pipelines.contracts.identifiers import identifier
from pipelines.contracts.tables import ORDER_PROPOSALS, ORDERS
from pipelines.ingestion.times import as_microseconds, format_time
from pipelines.io import kafka
from pipelines.io.delta import Tables
from pipelines.operations.settings import Settings
from pipelines.restocking.orders import EXPIRED, PROPOSED

log = logging.getLogger("stockcast.orders")

SendEvents = Callable[[Iterable[tuple[str, bytes]]], None]


class Expiry:
    """Watches over the proposals.

    Args:
        hours: how long a proposal waits, from when it was decided.
        send: publishes (key, event) pairs to `restock.order_status`.
    """

    def __init__(self, tables: Tables, hours: float, send: SendEvents) -> None:
        self._tables = tables
        self._wait = timedelta(hours=hours)
        self._send = send
        self._sequence = 0
        self._version = -1
        self._waiting: dict[str, datetime] = {}

    def expire(self, now: datetime) -> int:
        """Expire the proposals that are due; returns their number."""
        self._learn()
        due = {order_id: since for order_id, since in self._waiting.items() if since + self._wait <= now}
        if not due:
            return 0
        rows = self._tables.read(ORDERS, ("order_id", "state"), pc.field("order_id").isin(list(due))).to_pylist()
        decided = {row["order_id"] for row in rows if row["state"] != PROPOSED}
        events = [
            (order_id, _event(order_id, since + self._wait, self._wait))
            for order_id, since in due.items()
            if order_id not in decided
        ]
        if events:
            self._send(events)
            log.info("%d proposals expired", len(events))
        for order_id in due:
            del self._waiting[order_id]
        return len(events)

    def _learn(self) -> None:
        """The proposals that have come since the last look."""
        version = self._tables.version(ORDER_PROPOSALS)
        if version == self._version:
            return
        new = self._tables.read(
            ORDER_PROPOSALS, ("sequence", "order_id", "decided_at"), pc.field("sequence") > self._sequence
        )
        for row in new.to_pylist():
            self._waiting[row["order_id"]] = row["decided_at"]
            self._sequence = max(self._sequence, row["sequence"])
        self._version = version


def kafka_expiry(settings: Settings, tables: Tables) -> Expiry:
    """The expiry that sends to Kafka."""
    kafka.prepare(settings, write=(topics.ORDER_STATUS,))
    producer = kafka.producer(settings)

    def send(events: Iterable[tuple[str, bytes]]) -> None:
        kafka.send(producer, topics.ORDER_STATUS, events)

    return Expiry(tables, settings.orders.expiry_hours, send)


def _event(order_id: str, at: datetime, wait: timedelta) -> bytes:
    event: dict[str, Any] = {
        "event_id": identifier("x", order_id),
        "event_time": format_time(as_microseconds(at)),
        "order_id": order_id,
        "status": EXPIRED,
        "actor": "expiry",
        "reason": f"nobody decided within {wait.total_seconds() / 3600:g} hours",
    }
    return orjson.dumps(event)
