"""Sending quarantined records again. A replayed record carries where it was first seen as a header."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Producer

from pipelines.contracts.tables import QUARANTINE, TIME
from pipelines.errors import BrokerError
from pipelines.ingestion.judging import judge_table
from pipelines.ingestion.limits import CatalogLimits
from pipelines.ingestion.validation import Limits
from pipelines.io.delta import Tables

log = logging.getLogger("stockcast.ingestion")

_ORIGIN = re.compile(rb"([A-Za-z0-9._-]{1,249})/(\d{1,9})/(\d{1,18})")

REPLAY_HEADER = "stockcast-replay-of"
UNKNOWN_REASONS = ("unknown_product", "unknown_location")
"""Reasons that pass by themselves when the catalog learns the name."""


def send_again(tables: Tables, producer: Producer, reason: str | None = None) -> int:
    """Send records that were set aside, and not yet replayed, to their topics again, byte for byte.

    Returns:
        How many. The ingest stream marks each as replayed when it takes the new record in; one that is still
        bad is set aside again under its new offset.

    Raises:
        BrokerError: a record could not be delivered.
    """
    where = pc.field("replayed_at").is_null()
    if reason is not None:
        where &= pc.field("reason") == reason
    return send_rows(producer, tables.read(QUARANTINE, where=where))


def send_rows(producer: Producer, rows: pa.Table) -> int:
    """Send these rows of quarantine again, in the order in which they came within each partition.

    Raises:
        BrokerError: a record could not be delivered.
    """
    failures: list[str] = []
    order = [("topic", "ascending"), ("partition", "ascending"), ("offset", "ascending")]
    for row in rows.sort_by(order).to_pylist():
        headers = [(header["key"], header["value"]) for header in row["headers"] or ()]
        origin = f"{row['topic']}/{row['partition']}/{row['offset']}"
        _produce(producer, row, [*headers, (REPLAY_HEADER, origin.encode())], failures)
    producer.flush()
    if failures:
        raise BrokerError(f"{len(failures)} records were not delivered; the first: {failures[0]}")
    return int(rows.num_rows)


def _produce(producer: Producer, row: dict[str, Any], headers: list[Any], failures: list[str]) -> None:
    while True:
        try:
            producer.produce(
                row["topic"],
                row["value"],
                key=row["key"],
                headers=headers,
                on_delivery=lambda error, _: failures.append(error.str()) if error is not None else None,
            )
        except BufferError:
            producer.poll(0.1)
        else:
            producer.poll(0)
            return


class UnknownAgain:
    """Sends records of unknown products and locations again once the catalog knows them.

    Each is a new record of its topic, counted and deduplicated as any other, so that a crash between sending and
    marking costs a counted duplicate and nothing else.

    Args:
        tables: handles of its own.
        limits: of the catalog in force.
        send: sends rows of quarantine again.
    """

    def __init__(self, tables: Tables, limits: CatalogLimits, send: Callable[[pa.Table], int]) -> None:
        self._tables = tables
        self._limits = limits
        self._send = send
        self._looked_at: tuple[int, int] | None = None
        self._sent: set[tuple[str, int, int]] = set()

    def tick(self, now: datetime) -> int:
        """Look, where the catalog has changed since the last look; returns how many were sent."""
        versions = self._limits.versions
        if versions == self._looked_at:
            return 0
        limits, _ = self._limits.current()
        where = pc.field("reason").isin(UNKNOWN_REASONS) & pc.field("replayed_at").is_null()
        waiting = self._tables.read(QUARANTINE, where=where)
        self._sent.intersection_update(_places(waiting))
        rows = fit_now(waiting, limits, now)
        rows = rows.filter(pa.array([place not in self._sent for place in _places(rows)], pa.bool_()))
        if rows.num_rows:
            self._send(rows)
            log.info("sent %d records again whose products and locations are known now", rows.num_rows)
            self._sent.update(_places(rows))
        self._looked_at = versions
        return int(rows.num_rows)


def _places(rows: pa.Table) -> list[tuple[str, int, int]]:
    columns = (rows.column(name).to_pylist() for name in ("topic", "partition", "offset"))
    return list(zip(*columns, strict=True))


def fit_now(rows: pa.Table, limits: Limits, now: datetime) -> pa.Table:
    """The rows of quarantine that would be taken in if they arrived now."""
    if rows.num_rows == 0:
        return rows
    raw = rows.append_column("kafka_timestamp", pa.array([now] * rows.num_rows, TIME))
    judged = judge_table(raw, limits)
    places = sorted(place for events in judged.events.values() for place in events.rows.tolist())
    return rows.take(pa.array(places, pa.int64()))


def replayed_origins(headers: list[list[dict[str, object]] | None]) -> list[tuple[str, int, int]]:
    """(topic, partition, offset) of the quarantined records that these headers replay."""
    origins = []
    for header in (header for record in headers for header in record or ()):
        if header["key"] == REPLAY_HEADER and isinstance(header["value"], bytes):
            origin = _ORIGIN.fullmatch(header["value"])
            if origin is not None:
                topic, partition, offset = (part.decode() for part in origin.groups())
                origins.append((topic, int(partition), int(offset)))
    return origins
