"""The ingest query: all input topics through one `foreachBatch`."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from pipelines.contracts import topics
from pipelines.ingestion.ingestor import OWNED, Ingestor, TakenIn, end_offsets
from pipelines.io import kafka
from pipelines.io.delta import Tables, local_path
from pipelines.operations.maintenance import TableKeeper
from pipelines.operations.settings import Settings

log = logging.getLogger("stockcast.ingestion")

Stage = Callable[[TakenIn], None]


def start_ingest(
    spark: SparkSession,
    settings: Settings,
    tables: Tables,
    *,
    once: bool,
    then: Stage | None = None,
) -> StreamingQuery:
    """Start taking in all input topics. The caller holds the ownership of `ingest_events`.

    Args:
        once: take in what is there now, then end.
        then: called with each finished batch, in order, in the query's own thread.
    """
    kafka.ensure_topics(settings)
    checkpoint = settings.under_home("checkpoints", "ingest")
    new_stream = not _has_offsets(checkpoint)
    source = kafka.stream(spark, settings, topics.INPUT_TOPICS, _starting_offsets(settings, tables, new_stream))
    ready = threading.Event()
    holder: list[Ingestor] = []
    keeper = TableKeeper(tables, settings, OWNED)

    def take_in(frame: DataFrame, batch_id: int) -> None:
        ready.wait()
        taken = holder[0].take_in(batch_id, raw_table(frame))
        if then is not None:
            then(taken)
        keeper.tick()

    writer = source.writeStream.queryName("ingest").option("checkpointLocation", checkpoint).foreachBatch(take_in)
    if once:
        writer = writer.trigger(availableNow=True)
    elif settings.ingest.trigger_seconds:
        writer = writer.trigger(processingTime=f"{settings.ingest.trigger_seconds} seconds")
    query = writer.start()
    ingestor = Ingestor(tables, settings.ingest, f"ingest-{query.id}", lambda: datetime.now(UTC))
    try:
        ingestor.resume(new_stream)
    except BaseException:
        ready.set()
        query.stop()
        raise
    holder.append(ingestor)
    ready.set()
    return query


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


def _has_offsets(checkpoint: str) -> bool:
    path = local_path(checkpoint)
    # On a remote store the question is left to the tables: offsets then start where they left off.
    return path is not None and any(Path(path, "offsets").glob("[0-9]*"))


def _starting_offsets(settings: Settings, tables: Tables, new_stream: bool) -> str:
    """Where a stream without checkpoint begins: after what the tables already hold."""
    taken = end_offsets(tables) if new_stream else {}
    if not taken:
        return "earliest"
    log.warning("no checkpoint: going on after the records that the tables hold")
    offsets: dict[str, dict[str, int]] = {}
    for topic, partition in kafka.end_offsets(settings, topics.INPUT_TOPICS):
        offsets.setdefault(topic, {})[str(partition)] = taken.get(topic, {}).get(str(partition), -2)
    return json.dumps(offsets)
