"""The ingest query: all input topics through one `foreachBatch`."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from confluent_kafka import Producer
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.contracts import topics
from pipelines.contracts.tables import INGEST_ALERTS
from pipelines.errors import BrokerError
from pipelines.ingestion import sources
from pipelines.ingestion.alerts import IngestAlerts
from pipelines.ingestion.checkpoint import Checkpoint, checkpoint_error
from pipelines.ingestion.ingestor import OWNED, Ingestor, TakenIn
from pipelines.ingestion.limits import CatalogLimits
from pipelines.ingestion.replay import UnknownAgain, send_rows
from pipelines.ingestion.run import IngestRun, cause
from pipelines.ingestion.unfinished import unfinished_records
from pipelines.io import kafka
from pipelines.io.alerts import send_alerts
from pipelines.io.delta import Tables
from pipelines.io.topic_state import topic_ids, topic_states
from pipelines.operations.logs import about
from pipelines.operations.maintenance import TableKeeper
from pipelines.operations.settings import Settings

log = logging.getLogger("stockcast.ingestion")

Stage = Callable[[TakenIn], None]

QUERY = "ingest"
SETTLING_SECONDS = 10.0
"""A broker that was killed knows the end of a topic for certain only after so long."""


class IngestStream:
    """Everything around the query: what it may read, what it takes in, and what is watched meanwhile.

    Args:
        tables: for the query's own thread; others get handles of their own.
        then: called with each finished batch, in order, in the query's own thread.
    """

    def __init__(self, settings: Settings, tables: Tables, then: Stage | None) -> None:
        self._settings = settings
        self._tables = tables
        self._then = then
        self.checkpoint = Checkpoint(settings)
        self._client = kafka.admin(settings)
        self._keeper = TableKeeper(tables, settings, (*OWNED, INGEST_ALERTS))
        producer: Producer = kafka.producer(settings)
        self._alerts = IngestAlerts(Tables(settings), settings.ingest, lambda found: send_alerts(producer, found))
        beside = Tables(settings)
        self._unknown = UnknownAgain(
            beside, CatalogLimits(beside, settings.ingest), lambda rows: send_rows(producer, rows)
        )
        self._ids: dict[str, str] = {}
        self._reading: sources.Offsets = {}
        self._ingestor: Ingestor | None = None
        self._ready = threading.Event()

    def prepare(self) -> str:
        """What has to be in order before the query starts; returns where it begins without a checkpoint.

        Raises:
            CheckpointError, SourceGapError, BrokerError: it is not; each says what to do.
        """
        self.checkpoint.check(topics.INPUT_TOPICS)
        if self.checkpoint.empty and unfinished_records(self._tables).num_rows:
            self._new_ingestor("recovery").resume(new_stream=True)
        self.check_gaps()
        self._ids = {topic: source.topic_id for topic, source in sources.sources(self._tables).items()}
        self._reading = sources.next_offsets(self._tables)
        self._alerts.resume()
        self._unknown.tick(datetime.now(UTC))
        return starting_offsets(self._reading, topic_ids(self._client, topics.INPUT_TOPICS))

    def resume(self, query_id: str) -> None:
        """Take up where the last batch ended; batches wait for this."""
        try:
            ingestor = self._new_ingestor(f"ingest-{query_id}")
            ingestor.resume(new_stream=False)
            self._ingestor = ingestor
        finally:
            self._ready.set()

    def take_in(self, frame: DataFrame, batch_id: int) -> None:
        """One batch, from Kafka to the stage behind."""
        self._ready.wait()
        ingestor = self._ingestor
        if ingestor is None:
            raise RuntimeError("the stream was not resumed")
        raw = raw_table(frame)
        self._check_identity(patient=True)
        self._check_place(raw, finished=batch_id <= ingestor.finished)
        taken = ingestor.take_in(batch_id, raw)
        for row in _spans(raw):
            self._reading.setdefault(row["topic"], {})[row["partition"]] = row["offset_max"] + 1
        if self._then is not None:
            self._then(taken)
        self._alerts.after(taken.batches, taken.quarantine)
        self._keeper.tick()

    def remembered(self) -> int:
        """How many event ids are known; 0 before the stream has been resumed."""
        return 0 if self._ingestor is None else self._ingestor.remembered

    def watch(self, now: datetime) -> None:
        """What is looked at beside the query: topics, catalog, alerts."""
        self._check_identity(patient=False)
        self._unknown.tick(now)
        self._alerts.tick(now)

    def check_gaps(self) -> None:
        """Whether Kafka holds what is to be read next.

        Raises:
            SourceGapError: it does not; an alert says so too.
        """
        tables = Tables(self._settings)
        deadline = time.monotonic() + SETTLING_SECONDS
        while True:
            now = datetime.now(UTC)
            states = topic_states(self._client, topics.INPUT_TOPICS)
            gaps = sources.find_gaps(sources.sources(tables), sources.next_offsets(tables), states)
            unsettled = bool(gaps) and all(gap.kind == sources.TRUNCATED for gap in gaps)
            if not unsettled or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        if gaps:
            self._alerts.tell(sources.gap_alerts(gaps, now))
        sources.check_sources(tables, states, now)

    def explain(self, error: BaseException) -> BaseException:
        """The cause behind a failure of the query."""
        return cause(
            error,
            self._settings.home,
            self._settings.kafka.bootstrap_servers,
            self.check_gaps,
            lambda: self.checkpoint.check(topics.INPUT_TOPICS),
        )

    def _new_ingestor(self, application: str) -> Ingestor:
        return Ingestor(self._tables, self._settings.ingest, application, lambda: datetime.now(UTC))

    def _check_identity(self, *, patient: bool) -> None:
        """Refuse what was read from a topic that was created anew under a name that we read.

        Args:
            patient: wait for a broker that is away.

        Raises:
            SourceGapError: it was.
        """
        while True:
            try:
                found = topic_ids(self._client, topics.INPUT_TOPICS)
                break
            except BrokerError:
                if not patient:
                    raise
                time.sleep(0.5)
        if any(found.get(topic, (known, ()))[0] != known for topic, known in self._ids.items()):
            self.check_gaps()

    def _check_place(self, raw: pa.Table, *, finished: bool) -> None:
        """Refuse a batch that does not follow on what the tables hold: its checkpoint is of another time.

        Raises:
            CheckpointError: it does not.
        """
        for row in _spans(raw):
            expected = self._reading.get(row["topic"], {}).get(row["partition"], 0)
            wrong = row["offset_max"] >= expected if finished else row["offset_min"] < expected
            if wrong:
                place = f"{row['topic']}[{row['partition']}]"
                raise checkpoint_error(
                    self.checkpoint.uri,
                    f"it offers offsets {row['offset_min']} to {row['offset_max']} of {place}, and the tables hold "
                    f"all before {expected}",
                )


def start_ingest(
    spark: SparkSession, settings: Settings, tables: Tables, *, once: bool, then: Stage | None = None
) -> IngestRun:
    """Start taking in all input topics. The caller holds the ownership of `ingest_events`.

    Args:
        once: take in what is there now, then end.
        then: called with each finished batch, in order, in the query's own thread.

    Raises:
        CheckpointError, SourceGapError, BrokerError: it cannot start; says what to do.
    """
    # Written, too: what could not be placed comes again by itself once the catalog knows it.
    kafka.prepare(settings, read=topics.INPUT_TOPICS, write=(topics.ALERTS, *topics.INPUT_TOPICS))
    stream = IngestStream(settings, tables, then)
    source = kafka.stream(spark, settings, topics.INPUT_TOPICS, stream.prepare())
    run: list[IngestRun] = []
    failures: list[BaseException] = []

    def take_in(frame: DataFrame, batch_id: int) -> None:
        try:
            with about(query=QUERY, batch=batch_id):
                stream.take_in(frame, batch_id)
        except BaseException as error:
            failures.append(error)
            if run:
                run[0].failure = error
            raise

    writer = source.writeStream.queryName(QUERY).foreachBatch(take_in)
    writer = writer.option("checkpointLocation", stream.checkpoint.uri)
    if once:
        writer = writer.trigger(availableNow=True)
    elif settings.ingest.trigger_seconds:
        writer = writer.trigger(processingTime=f"{settings.ingest.trigger_seconds} seconds")
    query = writer.start()
    try:
        stream.resume(query.id)
    except BaseException:
        query.stop()
        raise
    failure = failures[0] if failures else None
    run.append(
        IngestRun(query, stream.watch, stream.explain, settings.ingest.watch_seconds, failure, stream.remembered)
    )
    run[0].start_watching()
    return run[0]


def raw_table(frame: DataFrame) -> pa.Table:
    """A batch of Spark's Kafka source as Arrow, in the columns of bronze without `ingested_at`."""
    return frame.select(
        "topic",
        "partition",
        "offset",
        F.col("timestamp").alias("kafka_timestamp"),
        "key",
        "value",
        "headers",
    ).toArrow()


def starting_offsets(reading: sources.Offsets, found: dict[str, tuple[str, tuple[int, ...]]]) -> str:
    """Where a stream without checkpoint begins, as Spark wants it: after what the tables hold, else at the earliest."""
    if not any(reading.values()):
        return "earliest"
    return json.dumps(
        {
            topic: {str(partition): reading.get(topic, {}).get(partition, -2) for partition in partitions}
            for topic, (_, partitions) in found.items()
        }
    )


def _spans(raw: pa.Table) -> list[dict[str, Any]]:
    """The first and last offset of each topic's partitions."""
    spans: list[dict[str, Any]] = (
        raw.group_by(["topic", "partition"]).aggregate([("offset", "min"), ("offset", "max")]).to_pylist()
    )
    return spans
