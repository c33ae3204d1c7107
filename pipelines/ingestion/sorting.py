"""A batch of raw Kafka records sorted into what it holds: events by topic, quarantine, duplicates, tombstones.

A pure function of the records, the verdicts on them and the ids seen before; nothing is read or written here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts import topics
from pipelines.contracts.events import SIGNS
from pipelines.contracts.tables import (
    ORDER_STATUS,
    QUARANTINE,
    SHIPMENT_EVENTS,
    STOCK_MOVEMENTS,
    Table,
)
from pipelines.ingestion.judging import Events, Judged
from pipelines.ingestion.seen import SeenIds, first_of_each, id_keys
from pipelines.ingestion.validation import Rejected

SILVER_TABLES = {
    topics.POS_SALES: STOCK_MOVEMENTS,
    topics.INVENTORY_MOVEMENTS: STOCK_MOVEMENTS,
    topics.SHIPMENT_EVENTS: SHIPMENT_EVENTS,
    topics.ORDER_STATUS: ORDER_STATUS,
}
"""Where the valid events of each topic go. Event ids are unique within a table."""

Coordinates = dict[str, tuple[float | None, float | None]]
Longs = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_ORIGIN = ("topic", "partition", "offset", "kafka_timestamp", "ingested_at")


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
    """A batch, sorted: Arrow tables in the contract's schemas, and the counts per topic.

    `keys` (rows of `id_keys`) and `payloads` are those of the new events.
    """

    silver: dict[str, pa.Table]
    quarantine: pa.Table
    counts: dict[str, TopicCount]
    keys: Longs
    payloads: Longs
    last_sequence: int
    reasons: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Recognised:
    """By record: whether it is a new event, repeats one, or contradicts one; and the event's key and payload."""

    new: Mask
    duplicate: Mask
    conflicting: Mask
    keys: Longs
    payloads: Longs


def in_arrival_order(raw: pa.Table) -> pa.Table:
    """Records in the one order in which the batch is taken in: broker time, then topic, partition, offset."""
    keys = ("kafka_timestamp", "topic", "partition", "offset")
    return raw.sort_by([(key, "ascending") for key in keys])


def sort_batch(
    raw: pa.Table,
    judged: Judged,
    seen: SeenIds,
    last_sequence: int,
    coordinates: Coordinates,
) -> SortedBatch:
    """Sort a batch, in arrival order, into events, quarantine, duplicates and tombstones.

    Args:
        raw: records of the bronze schema, `ingested_at` filled in.
        judged: the verdicts on them.
        seen: ids taken in before this batch; not changed here.
        last_sequence: place in the ledger's order of the newest event before this batch.
        coordinates: latitude and longitude by location, for shipment nodes.
    """
    recognised = _recognise(raw.num_rows, judged, seen)
    rejected = {**judged.rejected, **_conflicts(judged, recognised.conflicting)}
    sequence = last_sequence + np.cumsum(recognised.new)
    return SortedBatch(
        silver=_silver_tables(raw, judged, recognised, sequence, coordinates),
        quarantine=_quarantine(raw, rejected),
        counts=_counts(raw, recognised, rejected),
        keys=recognised.keys[recognised.new],
        payloads=recognised.payloads[recognised.new],
        last_sequence=int(sequence[-1]) if len(sequence) else last_sequence,
        reasons=Counter(verdict.reason for verdict in rejected.values()),
    )


def _recognise(records: int, judged: Judged, seen: SeenIds) -> _Recognised:
    """Tell new events from those taken in before, in this batch or an earlier one: the first content stands."""
    keys, payloads = np.zeros((records, 2), np.int64), np.zeros(records, np.int64)
    is_event = np.zeros(records, bool)
    for topic, events in judged.events.items():
        keys[events.rows] = id_keys(SILVER_TABLES[topic].name, events.ids)
        payloads[events.rows] = events.payloads
        is_event[events.rows] = True
    places = np.flatnonzero(is_event)
    known, earlier = seen.look_up(keys[places])
    first = first_of_each(keys[places])
    earlier = np.where(known, earlier, payloads[places][first])
    is_new = ~known & (first == np.arange(len(places)))
    same = earlier == payloads[places]
    new, duplicate, conflicting = (np.zeros(records, bool) for _ in range(3))
    new[places] = is_new
    duplicate[places] = ~is_new & same
    conflicting[places] = ~is_new & ~same
    return _Recognised(new, duplicate, conflicting, keys, payloads)


def _conflicts(judged: Judged, conflicting: Mask) -> dict[int, Rejected]:
    if not conflicting.any():
        return {}
    return {
        row: Rejected(
            "conflicting_event",
            f"event_id {event_id} was taken in before with another content; the first stands",
        )
        for events in judged.events.values()
        for row, event_id in zip(events.rows.tolist(), events.ids, strict=True)
        if conflicting[row]
    }


def _counts(raw: pa.Table, recognised: _Recognised, rejected: dict[int, Rejected]) -> dict[str, TopicCount]:
    set_aside = np.zeros(raw.num_rows, bool)
    set_aside[list(rejected)] = True
    topic_of = raw.column("topic").combine_chunks().dictionary_encode()
    codes = topic_of.indices.to_numpy()
    counts = {}
    for code, topic in enumerate(topic_of.dictionary.to_pylist()):
        here = codes == code
        count = TopicCount(
            consumed=int(here.sum()),
            good=int((here & recognised.new).sum()),
            quarantined=int((here & set_aside).sum()),
            duplicates=int((here & recognised.duplicate).sum()),
        )
        count.tombstones = count.consumed - count.good - count.quarantined - count.duplicates
        counts[topic] = count
    return counts


def _quarantine(raw: pa.Table, rejected: dict[int, Rejected]) -> pa.Table:
    rows = sorted(rejected)
    records = raw.take(pa.array(rows, pa.int64()))
    columns = {
        **{name: records.column(name) for name in ("topic", "partition", "offset", "key", "value", "headers")},
        "reason": pa.array([rejected[row].reason for row in rows], pa.string()),
        "detail": pa.array([rejected[row].detail for row in rows], pa.string()),
        "quarantined_at": records.column("ingested_at"),
    }
    return _table(columns, len(rows), QUARANTINE)


def _silver_tables(
    raw: pa.Table, judged: Judged, recognised: _Recognised, sequence: Longs, coordinates: Coordinates
) -> dict[str, pa.Table]:
    parts: dict[str, list[pa.Table]] = {}
    origin = raw.select(_ORIGIN)
    for topic, events in judged.events.items():
        new = recognised.new[events.rows]
        if not new.any():
            continue
        table, rows = SILVER_TABLES[topic], events.rows[new]
        columns = _event_columns(events, new, table, coordinates)
        recorded = origin if len(rows) == raw.num_rows else origin.take(pa.array(rows))
        columns |= {name: recorded.column(name) for name in _ORIGIN}
        columns["sequence"] = pa.array(sequence[rows])
        columns["payload_hash"] = pa.array(recognised.payloads[rows])
        parts.setdefault(table.name, []).append(_table(columns, len(rows), table))
    return {
        name: tables[0] if len(tables) == 1 else pa.concat_tables(tables).sort_by("sequence")
        for name, tables in parts.items()
    }


def _event_columns(events: Events, new: Mask, table: Table, coordinates: Coordinates) -> dict[str, pa.Array]:
    """What the new events say, and what follows from it: the signed change of stock, the node's coordinates."""
    columns = (
        events.columns if new.all() else {name: column.filter(pa.array(new)) for name, column in events.columns.items()}
    )
    columns = dict(columns)
    if table is STOCK_MOVEMENTS:
        columns["change"] = pc.multiply(_signs(columns["kind"]), columns["quantity"])
        if "on_hand" in columns:
            columns["reported_on_hand"] = columns["on_hand"]
    if table is SHIPMENT_EVENTS:
        nodes = [coordinates.get(node, (None, None)) for node in columns["node"].to_pylist()]
        columns["latitude"] = pa.array([latitude for latitude, _ in nodes], pa.float64())
        columns["longitude"] = pa.array([longitude for _, longitude in nodes], pa.float64())
    return columns


def _signs(kinds: pa.Array) -> pa.Array:
    """The effect of one unit of each kind; null for a count."""
    places = pc.index_in(kinds, pa.array(list(SIGNS)))
    return pa.array(list(SIGNS.values()), pa.int64()).take(places)


def _table(columns: dict[str, pa.Array], rows: int, table: Table) -> pa.Table:
    """The columns in the table's schema; those that are absent are null."""
    return pa.Table.from_arrays(
        [columns.get(column.name, pa.nulls(rows, column.type)) for column in table.schema],
        schema=table.schema,
    )
