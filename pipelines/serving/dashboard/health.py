"""Whether the data are sound: streams, batches, and what was set aside."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts import topics
from pipelines.contracts.tables import QUARANTINE
from pipelines.io.delta import Tables
from pipelines.serving.dashboard.counters import Batch
from pipelines.serving.dashboard.follow import Moved

SAMPLES = 20
SHOWN_BYTES = 400
LEAST_PAUSE = 0.5
COST_SHARE = 20.0


@dataclass(frozen=True)
class StreamLine:
    """A topic: what was taken in of it lately, and what waits."""

    topic: str
    last_batch: datetime | None
    records: int
    set_aside: int
    batches: int
    lag: int | None


@dataclass(frozen=True)
class ReasonLine:
    """Records set aside for one reason; `waiting`: not replayed yet."""

    reason: str
    records: int
    waiting: int
    topics: tuple[str, ...]


class QuarantineSource:
    """Counts of `silver/quarantine`, taken again when it moved, and not so often that it costs much."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._moved = Moved(tables, QUARANTINE)
        self._pending = False
        self._next = 0.0
        self.reasons: tuple[ReasonLine, ...] = ()

    def poll(self) -> bool:
        """Whether counts changed."""
        self._pending |= self._moved.look()
        started = time.monotonic()
        if not self._pending or started < self._next:
            return False
        self._pending = False
        rows = self._tables.read(QUARANTINE, ("reason", "topic", "replayed_at"))
        before, self.reasons = self.reasons, reason_lines(rows)
        self._next = time.monotonic() + max(LEAST_PAUSE, COST_SHARE * (time.monotonic() - started))
        return before != self.reasons


def reason_lines(rows: pa.Table) -> tuple[ReasonLine, ...]:
    """Counts by reason, the most first."""
    waits = pc.cast(pc.is_null(rows.column("replayed_at")), pa.int64())
    grouped = (
        rows.select(("reason", "topic"))
        .append_column("waiting", waits)
        .group_by(["reason", "topic"])
        .aggregate([("waiting", "sum"), ("waiting", "count")])
    )
    records, waiting, found = Counter[str](), Counter[str](), dict[str, list[str]]()
    for row in grouped.to_pylist():
        reason = str(row["reason"])
        records[reason] += row["waiting_count"]
        waiting[reason] += row["waiting_sum"]
        found.setdefault(reason, []).append(str(row["topic"]))
    return tuple(
        ReasonLine(reason, count, waiting[reason], tuple(sorted(found[reason])))
        for reason, count in records.most_common()
    )


def samples(tables: Tables, reason: str) -> list[dict[str, Any]]:
    """The newest records set aside for a reason, with key and value as text."""
    where = pc.field("reason") == reason
    columns = ("topic", "partition", "offset", "key", "value", "detail", "quarantined_at", "replayed_at")
    rows = tables.read(QUARANTINE, columns, where)
    newest = rows.sort_by([("quarantined_at", "descending"), ("offset", "descending")]).slice(0, SAMPLES)
    return [{**row, "key": printable(row["key"]), "value": printable(row["value"])} for row in newest.to_pylist()]


def printable(value: bytes | None) -> str:
    """Bytes as text in which nothing is hidden: what cannot be printed is written as an escape."""
    if value is None:
        return ""
    text = value[:SHOWN_BYTES].decode("utf-8", "backslashreplace")
    shown = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
    return shown + ("…" if len(value) > SHOWN_BYTES else "")


def stream_lines(
    batches: Iterable[Batch],
    taken: Mapping[str, Mapping[int, int]],
    ends: Mapping[tuple[str, int], int],
    answers: bool,
) -> list[StreamLine]:
    """A line for each input topic.

    Args:
        batches: of the last half hour.
        taken: by topic and partition, the offset after the last record taken in.
        ends: the offset after the newest record in Kafka.
        answers: whether Kafka does, so that `ends` are of now.
    """
    by_topic: dict[str, list[Batch]] = {name: [] for name in topics.INPUT_TOPICS}
    for batch in batches:
        by_topic.setdefault(batch.topic, []).append(batch)
    return [
        StreamLine(
            topic,
            found[-1].finished_at if found else None,
            sum(batch.consumed for batch in found),
            sum(batch.quarantined for batch in found),
            len(found),
            lag_of(topic, taken.get(topic, {}), ends) if answers else None,
        )
        for topic, found in by_topic.items()
    ]


def batch_sizes(batches: Iterable[Batch], limit: int) -> tuple[tuple[datetime, int], ...]:
    """Records of the newest batches, all topics together, with the time that each was finished."""
    sizes: dict[datetime, int] = {}
    for batch in batches:
        sizes[batch.finished_at] = sizes.get(batch.finished_at, 0) + batch.consumed
    return tuple(sizes.items())[-limit:]


def lag_of(topic: str, taken: Mapping[int, int], ends: Mapping[tuple[str, int], int]) -> int:
    """Offsets between what was taken in and the end of a topic. Transaction markers count, so a topic that is written
    in transactions never comes to 0."""
    return sum(max(0, end - taken.get(partition, 0)) for (name, partition), end in ends.items() if name == topic)
