"""Orders, units and revenue per tumbling window, for each region and for the whole chain, kept up to date.

What a batch of new ledger rows says is which windows it touches; their totals are a function of the set of
ledger rows. Late events therefore correct their window, and a repeated batch changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from pipelines.contracts import topics
from pipelines.contracts.tables import DEMAND_TOTALS, LOCATIONS, STOCK_MOVEMENTS
from pipelines.demand.demand import Period
from pipelines.demand.open_windows import OpenWindows
from pipelines.demand.windows import (
    changed_totals,
    location_totals,
    message,
    sale_lines,
    scope_totals,
    scope_totals_of_few,
    window_start,
    windows_of,
)
from pipelines.errors import StockcastError, UsageError
from pipelines.io import kafka
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.operations.failpoints import failpoint
from pipelines.operations.logs import about
from pipelines.operations.maintenance import TableKeeper
from pipelines.operations.settings import Settings

log = logging.getLogger("stockcast.totals")

KEYS = ("scope", "window_start")

BATCH_FILES = 20_000
BATCH_BYTES = "1g"
"""A batch's limits. Generous: catching up computes each touched window once per batch, so few batches are best."""

LIVE_WINDOWS = 24
LIVE_SALES = 50_000
"""Up to so many windows and sales a batch is a live one. Well below `BATCH_FILES` and `BATCH_BYTES`: a batch that
stops in the middle of a commit, whose other half would have lower sequences, is never a live one."""

Publish = Callable[[pa.Table], None]


# From a batch to table and topic. -------------------------------------------------------------------------


class Totals:
    """Keeps `gold/demand_totals` true to the ledger, batch by batch.

    A batch of many sales or windows (catching up) is computed by Spark; a live one adds its sales to the
    windows that are open in memory. Both count the same `sale_lines`.

    Args:
        publish: sends rows on; returns when they are safe.
    """

    def __init__(self, spark: SparkSession, tables: Tables, windows: Period, publish: Publish) -> None:
        self._spark = spark
        self._tables = tables
        self._windows = windows
        self._publish = publish
        self._open = OpenWindows(lambda numbers: self._ledger_lines(numbers).drop("event_id").toArrow())
        tables.ensure(DEMAND_TOTALS)

    def refresh(self, batch: DataFrame) -> int:
        """Bring the totals of all windows that a batch of ledger rows touches up to date.

        Changed rows are sent before they are stored: after a crash in between they are found changed again
        and sent once more, with the same content; the other order would lose them.

        Returns:
            The number of changed rows.
        """
        lines = sale_lines(batch, self._windows)
        sales = {row["period"]: row["count"] for row in lines.groupBy("period").count().collect()}
        if not sales:
            return 0
        numbers = sorted(sales)
        if len(numbers) <= LIVE_WINDOWS and sum(sales.values()) <= LIVE_SALES:
            after = self._few(lines)
        else:
            self._open.forget(numbers)
            after = self._many(numbers)
        changed = changed_totals(
            self._stored(numbers), after, [window_start(number, self._windows) for number in numbers]
        )
        self._publish(changed)
        failpoint("totals-sent")
        self._tables.upsert(DEMAND_TOTALS, changed, KEYS)
        log.info("%d windows touched, %d totals changed", len(numbers), changed.num_rows)
        return int(changed.num_rows)

    def _few(self, lines: DataFrame) -> pa.Table:
        per_location = self._open.add(lines.drop("event_id").toArrow())
        locations = self._tables.read(LOCATIONS, columns=["location_id", "region"])
        regions = dict(zip(*(column.to_pylist() for column in locations.columns), strict=True))
        return scope_totals_of_few(per_location, regions, self._windows)

    def _many(self, numbers: list[int]) -> pa.Table:
        locations = self._tables.frame(self._spark, LOCATIONS)
        totals = scope_totals(location_totals(self._ledger_lines(numbers)), locations, self._windows)
        return totals.toArrow().cast(DEMAND_TOTALS.schema)

    def _stored(self, numbers: list[int]) -> pa.Table:
        start = pc.field("window_start")
        first, last = (window_start(numbers[place], self._windows) for place in (0, -1))
        return self._tables.read(DEMAND_TOTALS, where=(start >= first) & (start <= last))

    def _ledger_lines(self, numbers: list[int]) -> DataFrame:
        """The sales of windows: a time range that prunes files, and within it the windows alone."""
        first, end = (window_start(number, self._windows) for number in (numbers[0], numbers[-1] + 1))
        ledger = self._tables.frame(self._spark, STOCK_MOVEMENTS)
        in_range = (F.col("event_time") >= F.lit(first)) & (F.col("event_time") < F.lit(end))
        lines = sale_lines(ledger.where(in_range), self._windows)
        if len(numbers) == numbers[-1] - numbers[0] + 1:
            return lines
        wanted = self._spark.createDataFrame(pa.table({"period": pa.array(numbers, pa.int64())}))
        return lines.join(F.broadcast(wanted), on="period", how="left_semi")


# The stream. ----------------------------------------------------------------------------------------------


def start_totals(
    spark: SparkSession,
    settings: Settings,
    tables: Tables,
    *,
    once: bool = False,
    failures: list[StockcastError] | None = None,
) -> StreamingQuery:
    """Start the query that keeps `gold/demand_totals` and `demand.totals` up to date with the ledger.

    The caller holds the ownership of `aggregate_totals`. With `totals.publish` false nothing is sent.

    Args:
        once: everything that is there now, then end.
        failures: receives the error that stopped the query, where it is one of ours.

    Raises:
        BrokerError: totals have to be sent and no broker answers.
        UsageError: the stored totals are of windows of another length.
    """
    windows = windows_of(settings.totals.window_minutes)
    _refuse_other_length(tables, windows)
    totals = Totals(spark, tables, windows, _publisher(settings))
    keeper = TableKeeper(tables, settings, (DEMAND_TOTALS,))

    def take(batch: DataFrame, batch_id: int) -> None:
        try:
            with about(query="totals", batch=batch_id):
                totals.refresh(batch)
                keeper.tick()
        except StockcastError as error:
            if failures is not None:
                failures.append(error)
            raise

    source = tables.stream(spark, STOCK_MOVEMENTS, maxFilesPerTrigger=str(BATCH_FILES), maxBytesPerTrigger=BATCH_BYTES)
    writer = source.writeStream.queryName("totals").foreachBatch(take)
    writer = writer.option("checkpointLocation", settings.under_home("checkpoints", "totals"))
    if once:
        writer = writer.trigger(availableNow=True)
    else:
        writer = writer.trigger(processingTime=f"{settings.totals.trigger_seconds} seconds")
    return writer.start()


def run_totals(spark: SparkSession, settings: Settings, tables: Tables, once: bool) -> None:
    """Keep the totals up to date until stopped, or up to now with `once`.

    Raises:
        OwnershipError: another process keeps them.
        BrokerError, UsageError: as `start_totals`.
    """
    with ownership(settings, DEMAND_TOTALS.owner):
        failures: list[StockcastError] = []
        query = start_totals(spark, settings, tables, once=once, failures=failures)
        try:
            query.awaitTermination()
        except Exception:
            if failures:
                raise failures[0] from None
            raise
        finally:
            query.stop()


def _publisher(settings: Settings) -> Publish:
    if not settings.totals.publish:
        log.warning("totals.publish is false: totals are stored and not sent to %s", topics.DEMAND_TOTALS)
        return lambda rows: None
    kafka.prepare(settings, write=(topics.DEMAND_TOTALS,))

    def publish(rows: pa.Table) -> None:
        if rows.num_rows:
            messages = ((row["scope"], message(row)) for row in rows.to_pylist())
            kafka.send(kafka.producer(settings), topics.DEMAND_TOTALS, messages)

    return publish


def _refuse_other_length(tables: Tables, windows: Period) -> None:
    stored = tables.read(DEMAND_TOTALS, columns=["window_start", "window_end"])
    lengths = set(pc.unique(pc.subtract(stored["window_end"], stored["window_start"])).to_pylist())
    wanted = timedelta(microseconds=windows.microseconds)
    if lengths - {wanted}:
        raise UsageError(
            f"totals.window_minutes asks for windows of {wanted}, but {DEMAND_TOTALS.name} holds windows of "
            f"{', '.join(map(str, sorted(lengths)))}; set it back, or remove that table and checkpoints/totals "
            "to compute all totals anew"
        )
