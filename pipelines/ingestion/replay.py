"""Sending quarantined records again. A replayed record carries where it was first seen as a header."""

from __future__ import annotations

import re

import pyarrow.compute as pc
from confluent_kafka import Producer

from pipelines.contracts.tables import QUARANTINE
from pipelines.errors import BrokerError
from pipelines.io.delta import Tables

_ORIGIN = re.compile(rb"([A-Za-z0-9._-]{1,249})/(\d{1,9})/(\d{1,18})")

REPLAY_HEADER = "stockcast-replay-of"


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
    failures: list[str] = []
    rows = tables.read(QUARANTINE, where=where).sort_by([("topic", "ascending"), ("offset", "ascending")])
    for row in rows.to_pylist():
        headers = [(header["key"], header["value"]) for header in row["headers"] or ()]
        origin = f"{row['topic']}/{row['partition']}/{row['offset']}"
        producer.produce(
            row["topic"],
            row["value"],
            key=row["key"],
            headers=[*headers, (REPLAY_HEADER, origin.encode())],
            on_delivery=lambda error, _: failures.append(error.str()) if error is not None else None,
        )
        producer.poll(0)
    producer.flush()
    if failures:
        raise BrokerError(f"{len(failures)} records were not delivered; the first: {failures[0]}")
    return int(rows.num_rows)


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
