"""The figures of a chain, taken from its tables and from Kafka: the same for `stockcast status` and for Prometheus."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from pipelines.contracts import topics
from pipelines.contracts.tables import (
    INGEST_BATCHES,
    INGEST_SOURCES,
    INVENTORY_POSITIONS,
    ORDER_OUTBOX,
    ORDERS,
    QUARANTINE,
    SERIES_STATUS,
    STOCK_MOVEMENTS,
    SUPPLIER_CALLS,
)
from pipelines.errors import BrokerError
from pipelines.ingestion.sources import ALWAYS, Source, sources
from pipelines.io import kafka, published
from pipelines.io.delta import Tables
from pipelines.io.topic_state import topic_states
from pipelines.operations.settings import Settings
from pipelines.restocking.relay import GROUP, PLACE
from pipelines.restocking.supplier import parked_orders
from pipelines.serving.dashboard.follow import Moved, Tail
from pipelines.serving.dashboard.health import ReasonLine, lag_of, reason_lines

log = logging.getLogger("stockcast.monitoring")

COUNTED = ("consumed", "good", "quarantined", "duplicates", "tombstones")
ARTEFACTS = (published.FORECASTS, published.POLICIES)
KAFKA_SECONDS = 3.0
LEARNED_BATCHES = 5_000
"""A batch names only the partitions that it read: so many of a topic are looked at to know them all."""

Places = Mapping[tuple[str, int], int]


@dataclass(frozen=True)
class KafkaFigures:
    """What a broker says. `ends`: by topic and partition, the offset after the newest record, None where it does not
    tell; `relayed`: the outbox place that the relay has reached, likewise."""

    answers: bool = False
    ends: Places | None = None
    relayed: int | None = None


@dataclass(frozen=True)
class InForce:
    """The version of an artefact that is in force."""

    version: str
    as_of: str
    age_seconds: float


@dataclass(frozen=True)
class Figures:
    """How a chain fares at a time.

    Attributes:
        records: by outcome, how many were taken in.
        lag: by topic, records in Kafka that were not taken in; None while Kafka does not tell.
        quarantine: records set aside, by reason.
        last_batch_age, event_time_age: seconds since a batch was finished, and between now and the newest event
            time in the ledger; None before the first.
        in_force: forecasts and policies, where there are some.
        series_status: of the training behind the forecasts in force.
        orders: by state.
        decided: orders released so far.
        backlog: of them, those that have not left; None while Kafka does not tell.
        backlog_age: seconds since the oldest of them was decided; None where there is none.
        parked: orders that the supplier did not take.
    """

    broker_answers: bool
    records: Mapping[str, int]
    lag: Mapping[str, int] | None
    quarantine: tuple[ReasonLine, ...]
    last_batch_age: float | None
    event_time_age: float | None
    in_force: Mapping[str, InForce]
    series_status: Mapping[str, int]
    positions: int
    orders: Mapping[str, int]
    decided: int
    backlog: int | None
    backlog_age: float | None
    parked: int


class KafkaLook:
    """Asks a broker, and keeps the connection. One that is away is a finding, not an error.

    Args:
        settings: where it is.
    """

    def __init__(self, settings: Settings) -> None:
        self._client: AdminClient = kafka.admin(settings)
        self._relay: Consumer = kafka.consumer(settings, GROUP)

    def look(self) -> KafkaFigures:
        """What it says now, within some seconds."""
        try:
            self._client.list_topics(timeout=KAFKA_SECONDS)
        except KafkaException:
            return KafkaFigures()
        return KafkaFigures(True, self._ends(), self._relayed())

    def _ends(self) -> Places | None:
        try:
            states = topic_states(self._client, topics.INPUT_TOPICS)
        except BrokerError as error:
            log.debug("Kafka does not tell where topics end: %s", error)
            return None
        return {(name, number): end for name, state in states.items() for number, end in state.ends.items()}

    def _relayed(self) -> int | None:
        """A user without the right to look at the relay's group does not learn it.

        A consumer is asked, not the admin client: librdkafka 2.16's `ListConsumerGroupOffsets` takes the process down
        (a null group in `rd_kafka_handle_OffsetFetch`) where the answer is that a transaction is open.
        """
        try:
            (place,) = self._relay.committed([TopicPartition(*PLACE)], timeout=KAFKA_SECONDS)
        except KafkaException as error:
            log.debug("Kafka does not tell how far the relay is: %s", error)
            return None
        return None if place.error is not None else max(0, int(place.offset))


@dataclass
class _Taken:
    """What was taken in, added up as batches come."""

    records: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    offsets: dict[str, dict[int, int]] = field(default_factory=dict)
    known: dict[str, Source] = field(default_factory=dict)
    newest: datetime | None = None


class ChainLook:
    """Takes the figures of a home; each look after the first costs as much as what is new. For one thread at a time.

    Args:
        tables: handles of its own.
        ask: what Kafka says.
    """

    def __init__(self, tables: Tables, ask: Callable[[], KafkaFigures]) -> None:
        self._tables = tables
        self._ask = ask
        self._sources = Moved(tables, INGEST_SOURCES)
        self._kept: dict[str, tuple[int, Any]] = {}
        self._taken = _Taken()
        self._batches = self._tail()

    def figures(self, now: datetime) -> Figures:
        """How the chain fares at `now`."""
        said = self._ask()
        self._follow()
        in_force = self._in_force(now)
        decided = int(self._tables.largest(ORDER_OUTBOX, "sequence") or 0)
        backlog = None if said.relayed is None else max(0, decided - said.relayed)
        newest_event = self._tables.largest(STOCK_MOVEMENTS, "event_time")
        return Figures(
            broker_answers=said.answers,
            records=dict(self._taken.records),
            lag=None if said.ends is None else self._lag(said.ends),
            quarantine=self._current(QUARANTINE, lambda: reason_lines(self._read(QUARANTINE, *_REASONS))),
            last_batch_age=None if self._taken.newest is None else _seconds(now, self._taken.newest),
            event_time_age=None if newest_event is None else _seconds(now, newest_event),
            in_force=in_force,
            series_status=self._series_status(in_force.get(published.FORECASTS)),
            positions=self._current(INVENTORY_POSITIONS, lambda: self._read(INVENTORY_POSITIONS, "sku").num_rows),
            orders=self._current(ORDERS, lambda: _counts(self._read(ORDERS, "state").column("state"))),
            decided=decided,
            backlog=backlog,
            backlog_age=self._backlog_age(now, said.relayed) if backlog else None,
            parked=self._current(SUPPLIER_CALLS, lambda: len(parked_orders(self._tables))),
        )

    def _tail(self) -> Tail:
        return Tail(self._tables, INGEST_BATCHES, "finished_at", (*COUNTED, "topic", "end_offsets"))

    def _follow(self) -> None:
        if self._sources.look():
            # Another topic under a known name, or a gap that was accepted: places are learnt anew.
            self._taken = _Taken(known=sources(self._tables))
            self._taken.offsets = {name: dict(source.first_offsets) for name, source in self._taken.known.items()}
            self._batches = self._tail()
        rows = self._batches.look()
        if rows is None:
            return
        for name in COUNTED:
            self._taken.records[name] += pc.sum(rows.column(name)).as_py() or 0
        self._taken.newest = pc.max(rows.column("finished_at")).as_py()
        for topic in pc.unique(rows.column("topic")).to_pylist():
            mine = rows.filter(pc.equal(rows.column("topic"), topic)).sort_by("finished_at")
            self._follow_offsets(topic, mine.slice(max(0, mine.num_rows - LEARNED_BATCHES)))

    def _follow_offsets(self, topic: str, rows: pa.Table) -> None:
        since = self._taken.known[topic].since if topic in self._taken.known else ALWAYS
        places = self._taken.offsets.setdefault(topic, {})
        for row in rows.select(["finished_at", "end_offsets"]).to_pylist():
            if row["finished_at"] > since:
                for partition, offset in orjson.loads(row["end_offsets"]).items():
                    places[int(partition)] = max(offset, places.get(int(partition), 0))

    def _lag(self, ends: Places) -> dict[str, int]:
        names = sorted({topic for topic, _ in ends})
        return {name: lag_of(name, self._taken.offsets.get(name, {}), ends) for name in names}

    def _in_force(self, now: datetime) -> dict[str, InForce]:
        pointers = {name: published.in_force(self._tables, name) for name in ARTEFACTS}
        return {
            name: InForce(pointer.version, pointer.as_of.isoformat(), _seconds(now, pointer.published_at))
            for name, pointer in pointers.items()
            if pointer is not None
        }

    def _series_status(self, forecasts: InForce | None) -> dict[str, int]:
        if forecasts is None:
            return {}
        run = pc.field("forecast_version") == forecasts.version

        def count() -> dict[str, int]:
            return _counts(self._tables.read(SERIES_STATUS, ("status",), run).column("status"))

        return dict(self._current(SERIES_STATUS, count, forecasts.version))

    def _backlog_age(self, now: datetime, relayed: int | None) -> float | None:
        where = pc.field("sequence") > relayed
        oldest = pc.min(self._tables.read(ORDER_OUTBOX, ("decided_at",), where).column(0)).as_py()
        return None if oldest is None else _seconds(now, oldest)

    def _read(self, table: Any, *columns: str) -> pa.Table:
        return self._tables.read(table, columns)

    def _current(self, table: Any, take: Callable[[], Any], of: str = "") -> Any:
        """What `take` gives, taken again when the table has moved."""
        version = self._tables.version(table)
        kept = self._kept.get(table.name + of)
        if kept is None or kept[0] != version:
            kept = (version, take())
            self._kept = {name: value for name, value in self._kept.items() if not name.startswith(table.name)}
            self._kept[table.name + of] = kept
        return kept[1]


class RecentFigures:
    """Figures that are at most some seconds old, for whoever asks, from any thread.

    Args:
        look: takes them.
        clock: the time.
        seconds: how old they may be.
    """

    def __init__(self, look: Callable[[datetime], Figures], clock: Callable[[], datetime], seconds: float) -> None:
        self._look = look
        self._clock = clock
        self._seconds = seconds
        self._lock = threading.Lock()
        self._taken: tuple[datetime, Figures] | None = None

    def get(self) -> Figures:
        """The figures; taken now where the last are too old."""
        with self._lock:
            now = self._clock()
            if self._taken is None or (now - self._taken[0]).total_seconds() >= self._seconds:
                self._taken = (now, self._look(now))
            return self._taken[1]


_REASONS = ("reason", "topic", "replayed_at")


def _counts(column: Any) -> dict[str, int]:
    return {item["values"]: item["counts"] for item in pc.value_counts(column).to_pylist()}


def _seconds(now: datetime, then: datetime) -> float:
    return (now - (then if then.tzinfo else then.replace(tzinfo=UTC))).total_seconds()
