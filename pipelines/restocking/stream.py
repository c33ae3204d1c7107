"""The restock stage in a Spark application: behind the ingest query in its own process, or as a query of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from pipelines.contracts import topics
from pipelines.contracts.alerts import Alert
from pipelines.contracts.tables import INGEST_BATCHES
from pipelines.io import kafka
from pipelines.io.delta import Tables
from pipelines.operations.logs import about
from pipelines.operations.maintenance import TableKeeper
from pipelines.operations.settings import Settings
from pipelines.restocking.engine import OWNED, RestockEngine

log = logging.getLogger("stockcast.restocking")

TICK_SECONDS = 1.0


@contextmanager
def running_engine(settings: Settings, tables: Tables) -> Iterator[RestockEngine]:
    """A resumed engine that saves itself while no events come, and once more at the end.

    The caller holds the ownership of `restock`.
    """
    kafka.prepare(settings, write=(topics.STOCKOUT_FLAGS, topics.ALERTS))
    producer = kafka.producer(settings)

    def send_flags(messages: Iterable[tuple[str, bytes]]) -> None:
        kafka.send(producer, topics.STOCKOUT_FLAGS, messages)

    def tell(alert: Alert) -> None:
        log.error("%s", alert.message)
        producer.produce(topics.ALERTS, alert.encode(), key=alert.subject)
        producer.poll(0)

    engine = RestockEngine(
        tables,
        settings.restock,
        send_flags,
        lambda: datetime.now(UTC),
        approval_value=settings.orders.approval_value,
        upkeep=TableKeeper(tables, settings, OWNED).tick,
        tell=tell,
    )
    engine.resume()
    engine.catch_up()
    stop = threading.Event()
    failure: list[BaseException] = []

    def keep_ticking() -> None:
        while not stop.wait(TICK_SECONDS):
            try:
                engine.tick()
            except BaseException as error:
                failure.append(error)
                return

    ticker = threading.Thread(target=keep_ticking, name="restock-ticker", daemon=True)
    ticker.start()
    try:
        yield engine
    finally:
        stop.set()
        ticker.join()
    if failure:
        raise failure[0]
    engine.catch_up()
    engine.save()
    producer.flush(10)


def start_restock(
    spark: SparkSession, settings: Settings, tables: Tables, engine: RestockEngine, *, once: bool
) -> StreamingQuery:
    """Follow the ledger as a query of its own: each finished ingest batch brings the engine forward."""

    def follow(_: DataFrame, batch_id: int) -> None:
        with about(query="restock", batch=batch_id, version=engine.policy_version):
            engine.catch_up()

    writer = (
        tables.stream(spark, INGEST_BATCHES, ignoreChanges="true")
        .writeStream.queryName("restock")
        .option("checkpointLocation", settings.under_home("checkpoints", "restock"))
        .foreachBatch(follow)
    )
    return (writer.trigger(availableNow=True) if once else writer).start()
