"""Whether Kafka still holds what is to be read next, and reading on where it does not.

`silver/ingest_sources` records which topic, by Kafka's own id, is read under each name. A gap (records removed by
retention before they were read, a topic created anew or cut back) stops the stream until a person acknowledges it:
`stockcast ingest acknowledge` enters it into `silver/ingest_gaps` and lets reading go on behind it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from pipelines.contracts.alerts import CRITICAL, Alert
from pipelines.contracts.tables import INGEST_BATCHES, INGEST_GAPS, INGEST_SOURCES
from pipelines.errors import SourceGapError
from pipelines.io.delta import Tables
from pipelines.io.topic_state import TopicState

log = logging.getLogger("stockcast.ingestion")

RECREATED, RETENTION, TRUNCATED = "recreated", "retention", "truncated"
ACKNOWLEDGE = "stockcast ingest acknowledge"
ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)

Offsets = dict[str, dict[int, int]]
"""By topic and partition, the offset that is to be read next."""


@dataclass(frozen=True)
class Source:
    """The topic that is read under a name; batches finished after `since` read it."""

    topic: str
    topic_id: str
    first_offsets: Mapping[int, int]
    since: datetime


@dataclass(frozen=True)
class Gap:
    """What can no longer be read of a partition: offsets from `from_offset` on, up to before `to_offset`, where
    reading can go on. A topic created anew has its own offsets: `to_offset` is then its first."""

    kind: str
    topic: str
    partition: int
    from_offset: int
    to_offset: int
    topic_id_before: str
    topic_id_after: str

    def __str__(self) -> str:
        place = f"{self.topic}[{self.partition}]"
        if self.kind == RECREATED:
            return (
                f"{place} is another topic now (id {self.topic_id_after}, was {self.topic_id_before}): read up to "
                f"offset {self.from_offset} of the old one, the new one begins at {self.to_offset}"
            )
        if self.kind == RETENTION:
            lost = self.to_offset - self.from_offset
            return f"{place} no longer holds offsets {self.from_offset} to {self.to_offset - 1} ({lost} not read)"
        return f"{place} ends at offset {self.to_offset}, and {self.from_offset} was to be read next"


def sources(tables: Tables) -> dict[str, Source]:
    """The topic being read under each name."""
    newest: dict[str, Source] = {}
    for row in tables.read(INGEST_SOURCES).sort_by("recorded_at").to_pylist():
        first = {int(partition): offset for partition, offset in json.loads(row["first_offsets"]).items()}
        newest[row["topic"]] = Source(row["topic"], row["topic_id"], first, row["since"])
    return newest


def next_offsets(tables: Tables) -> Offsets:
    """By topic and partition, what is to be read after all that finished batches have taken in."""
    known = sources(tables)
    found: Offsets = {topic: dict(source.first_offsets) for topic, source in known.items()}
    rows = tables.read(INGEST_BATCHES, ("topic", "end_offsets", "finished_at"))
    for topic, ends, finished_at in zip(*(rows.column(name).to_pylist() for name in rows.column_names), strict=True):
        if topic in known and finished_at <= known[topic].since:
            continue
        places = found.setdefault(topic, {})
        for partition, offset in json.loads(ends).items():
            places[int(partition)] = max(offset, places.get(int(partition), 0))
    return found


def find_gaps(known: Mapping[str, Source], reading: Offsets, states: Mapping[str, TopicState]) -> list[Gap]:
    """What the broker no longer holds of what is to be read.

    Args:
        known: the topics that were being read.
        reading: what is to be read next.
        states: what the broker says; a topic that is missing there was deleted, and none took its place.
    """
    gaps: list[Gap] = []
    for topic, source in known.items():
        state, places = states.get(topic), reading.get(topic, {})
        if state is None:
            continue
        if state.topic_id != source.topic_id:
            for partition in sorted({*places, *state.beginnings}):
                first = state.beginnings.get(partition, 0)
                ids = (source.topic_id, state.topic_id)
                gaps.append(Gap(RECREATED, topic, partition, places.get(partition, 0), first, *ids))
            continue
        for partition, first in sorted(state.beginnings.items()):
            wanted, end = places.get(partition, 0), state.ends[partition]
            kind = RETENTION if first > wanted else TRUNCATED if end < wanted else None
            if kind is not None:
                resumed = first if kind == RETENTION else end
                gaps.append(Gap(kind, topic, partition, wanted, resumed, source.topic_id, state.topic_id))
    return gaps


def gap_error(gaps: list[Gap]) -> SourceGapError:
    """The one line that says what happened and what to do."""
    return SourceGapError(
        f"reading stopped before a gap: {'; '.join(map(str, gaps))}. Nothing was taken in beyond it; restore the "
        f"topic, or accept the loss with `{ACKNOWLEDGE}` and start again"
    )


def gap_alerts(gaps: list[Gap], now: datetime) -> list[Alert]:
    """An alert for each gap."""
    return [
        Alert(
            "source_gap",
            CRITICAL,
            gap.topic,
            f"Ingestion stopped before a gap: {gap}; `{ACKNOWLEDGE}` accepts the loss",
            now,
            now,
            f"{gap.partition}/{gap.from_offset}/{gap.topic_id_after}",
            vars(gap),
        )
        for gap in gaps
    ]


def check_sources(tables: Tables, states: Mapping[str, TopicState], now: datetime) -> None:
    """Compare what is to be read with what is there; record topics that are met for the first time.

    Raises:
        SourceGapError: there is a gap; names topic, partition, offsets and the command that acknowledges it.
    """
    known = sources(tables)
    reading = next_offsets(tables)
    if gaps := find_gaps(known, reading, states):
        raise gap_error(gaps)
    rows = []
    for topic, state in states.items():
        if topic in known:
            continue
        taken = reading.get(topic, {})
        for partition, first in state.beginnings.items():
            if first > taken.get(partition, 0):
                log.warning(
                    "%s[%d] begins at offset %d: what came before was removed before this home first read it",
                    *(topic, partition, first),
                )
        first_offsets = {number: max(first, taken.get(number, 0)) for number, first in state.beginnings.items()}
        rows.append(_source_row(topic, state.topic_id, first_offsets, ALWAYS, now))
    if rows:
        tables.append(INGEST_SOURCES, pa.Table.from_pylist(rows, schema=INGEST_SOURCES.schema))


def acknowledge(tables: Tables, states: Mapping[str, TopicState], now: datetime, actor: str, gaps: list[Gap]) -> None:
    """Enter gaps, and the places behind them as those to be read next. The caller owns `ingest_events`, and has
    removed the checkpoint.

    Args:
        gaps: what `find_gaps` found.
    """
    reading = next_offsets(tables)
    newest = tables.largest(INGEST_BATCHES, "finished_at")
    if newest is not None:
        # Whatever the clocks say, later batches are later. (Statistics of times are cut to whole milliseconds.)
        now = max(now, (newest if newest.tzinfo else newest.replace(tzinfo=UTC)) + timedelta(milliseconds=1))
    rows = []
    for topic in dict.fromkeys(gap.topic for gap in gaps):
        mine = {gap.partition: gap for gap in gaps if gap.topic == topic}
        recreated = any(gap.kind == RECREATED for gap in mine.values())
        first = {} if recreated else dict(reading.get(topic, {}))
        first |= {number: gap.to_offset for number, gap in mine.items() if number in states[topic].beginnings}
        rows.append(_source_row(topic, states[topic].topic_id, first, now, now))
    entries = [vars(gap) | {"acknowledged_at": now, "acknowledged_by": actor} for gap in gaps]
    tables.append(INGEST_GAPS, pa.Table.from_pylist(entries, schema=INGEST_GAPS.schema))
    tables.append(INGEST_SOURCES, pa.Table.from_pylist(rows, schema=INGEST_SOURCES.schema))


def _source_row(
    topic: str, topic_id: str, first_offsets: Mapping[int, int], since: datetime, now: datetime
) -> dict[str, object]:
    offsets = json.dumps({str(partition): offset for partition, offset in first_offsets.items()})
    return {"topic": topic, "topic_id": topic_id, "first_offsets": offsets, "since": since, "recorded_at": now}
