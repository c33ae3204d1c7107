"""A batch of raw Kafka records sorted into what it holds: events by topic, quarantine, duplicates, tombstones.

A pure function of the records, the limits and the ids seen before; nothing is read or written here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipelines.contracts import topics
from pipelines.contracts.events import SIGNS
from pipelines.contracts.tables import (
    ORDER_STATUS,
    QUARANTINE,
    SHIPMENT_EVENTS,
    STOCK_MOVEMENTS,
    Table,
)
from pipelines.ingestion.seen import SeenIds, id_key
from pipelines.ingestion.validation import Event, Limits, Rejected, payload_hash, validate

SILVER_TABLES = {
    topics.POS_SALES: STOCK_MOVEMENTS,
    topics.INVENTORY_MOVEMENTS: STOCK_MOVEMENTS,
    topics.SHIPMENT_EVENTS: SHIPMENT_EVENTS,
    topics.ORDER_STATUS: ORDER_STATUS,
}
"""Where the valid events of each topic go. Event ids are unique within a table."""

Coordinates = dict[str, tuple[float | None, float | None]]


@dataclass(frozen=True)
class Verdict:
    """What validation says of one record: an event, a rejection, or neither (a tombstone)."""

    event: Event | None = None
    payload: int = 0
    reason: str | None = None
    detail: str | None = None


@dataclass
class TopicCount:
    """What became of a topic's records in one batch; the four parts add up to `consumed`."""

    consumed: int = 0
    good: int = 0
    quarantined: int = 0
    duplicates: int = 0
    tombstones: int = 0


@dataclass
class SortedBatch:
    """A batch, sorted: Arrow tables in the contract's schemas, and the counts per topic."""

    silver: dict[str, pa.Table]
    quarantine: pa.Table
    counts: dict[str, TopicCount]
    keys: list[tuple[int, int]]
    payloads: list[int]
    last_sequence: int
    reasons: Counter[str] = field(default_factory=Counter)


def judge(topic: str, key: bytes | None, value: bytes | None, kafka_timestamp: int, limits: Limits) -> Verdict:
    """Validate one record."""
    try:
        event = validate(topic, key, value, kafka_timestamp, limits)
    except Rejected as rejected:
        return Verdict(reason=rejected.reason, detail=rejected.detail)
    return Verdict() if event is None else Verdict(event, payload_hash(event))


def judge_table(raw: pa.Table, limits: Limits) -> list[Verdict]:
    """Validate records of the bronze schema, in their order."""
    topic, key, value = (raw.column(name).to_pylist() for name in ("topic", "key", "value"))
    stamps = raw.column("kafka_timestamp").cast(pa.int64()).to_pylist()
    return [
        judge(record_topic, record_key, record_value, stamp, limits)
        for record_topic, record_key, record_value, stamp in zip(topic, key, value, stamps, strict=True)
    ]


def in_arrival_order(raw: pa.Table) -> pa.Table:
    """Records in the one order in which the batch is taken in: broker time, then topic, partition, offset."""
    keys = ("kafka_timestamp", "topic", "partition", "offset")
    return raw.sort_by([(key, "ascending") for key in keys])


def sort_batch(
    raw: pa.Table,
    verdicts: Iterable[Verdict],
    seen: SeenIds,
    last_sequence: int,
    coordinates: Coordinates,
) -> SortedBatch:
    """Sort a batch, in arrival order, into events, quarantine, duplicates and tombstones.

    Args:
        raw: records of the bronze schema, `ingested_at` filled in.
        verdicts: one per record.
        seen: ids taken in before this batch; not changed here.
        last_sequence: place in the ledger's order of the newest event before this batch.
        coordinates: latitude and longitude by location, for shipment nodes.
    """
    records = raw.to_pylist()
    stamped = zip(
        raw.column("kafka_timestamp").cast(pa.int64()).to_pylist(),
        raw.column("ingested_at").cast(pa.int64()).to_pylist(),
        strict=True,
    )
    judged = list(verdicts)
    keys = [_key(record, verdict) for record, verdict in zip(records, judged, strict=True)]
    known = dict(_known(keys, seen))
    new: dict[tuple[int, int], int] = {}
    good: dict[str, list[dict[str, Any]]] = {}
    set_aside: list[dict[str, Any]] = []
    counts: dict[str, TopicCount] = {}
    reasons: Counter[str] = Counter()

    for record, verdict, key, (kafka_us, ingested_us) in zip(records, judged, keys, stamped, strict=True):
        count = counts.setdefault(record["topic"], TopicCount())
        count.consumed += 1
        reason, detail = verdict.reason, verdict.detail
        if verdict.event is not None and key is not None:
            earlier = new.get(key, known.get(key))
            if earlier is None:
                last_sequence += 1
                new[key] = verdict.payload
                row = {
                    **verdict.event,
                    "topic": record["topic"],
                    "partition": record["partition"],
                    "offset": record["offset"],
                    "kafka_timestamp": kafka_us,
                    "ingested_at": ingested_us,
                    "sequence": last_sequence,
                    "payload_hash": verdict.payload,
                }
                good.setdefault(SILVER_TABLES[record["topic"]].name, []).append(row)
                count.good += 1
                continue
            if earlier == verdict.payload:
                count.duplicates += 1
                continue
            reason = "conflicting_event"
            detail = f"event_id {verdict.event['event_id']} was taken in before with another content; the first stands"
        if reason is None:
            count.tombstones += 1
            continue
        count.quarantined += 1
        reasons[reason] += 1
        set_aside.append({**record, "reason": reason, "detail": detail, "quarantined_at": record["ingested_at"]})

    return SortedBatch(
        silver=_silver_tables(good, coordinates),
        quarantine=pa.Table.from_pylist(set_aside, schema=QUARANTINE.schema),
        counts=counts,
        keys=list(new),
        payloads=list(new.values()),
        last_sequence=last_sequence,
        reasons=reasons,
    )


def _key(record: dict[str, Any], verdict: Verdict) -> tuple[int, int] | None:
    if verdict.event is None:
        return None
    return id_key(SILVER_TABLES[record["topic"]].name, verdict.event["event_id"])


def _known(keys: list[tuple[int, int] | None], seen: SeenIds) -> Iterator[tuple[tuple[int, int], int]]:
    asked = [key for key in keys if key is not None]
    for key, payload in zip(asked, seen.find(asked), strict=True):
        if payload is not None:
            yield key, payload


def _silver_tables(good: dict[str, list[dict[str, Any]]], coordinates: Coordinates) -> dict[str, pa.Table]:
    if rows := good.get(STOCK_MOVEMENTS.name):
        for row in rows:
            sign = SIGNS.get(row["kind"])
            row["change"] = None if sign is None else sign * row["quantity"]
            row["reported_on_hand"] = row.get("on_hand")
    for row in good.get(SHIPMENT_EVENTS.name, ()):
        row["latitude"], row["longitude"] = coordinates.get(row["node"], (None, None))
    return {
        table.name: _to_arrow(rows, table)
        for table in (SHIPMENT_EVENTS, ORDER_STATUS, STOCK_MOVEMENTS)
        if (rows := good.get(table.name))
    }


def _to_arrow(rows: list[dict[str, Any]], table: Table) -> pa.Table:
    """Rows by column; times are microseconds since 1970."""
    arrays = []
    for column in table.schema:
        values = [row.get(column.name) for row in rows]
        if pa.types.is_timestamp(column.type):
            arrays.append(pa.array(values, pa.int64()).cast(column.type))
        else:
            arrays.append(pa.array(values, column.type))
    return pa.Table.from_arrays(arrays, schema=table.schema)
