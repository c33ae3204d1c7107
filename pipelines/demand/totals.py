"""Orders, units and revenue per tumbling window, for each region and for the whole chain.

The totals of a window are never added to: a batch of new ledger rows only says which windows have to be
computed anew from the ledger itself. Late events therefore correct their window, and a repeated batch
changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from pipelines.contracts import topics
from pipelines.contracts.tables import DEMAND_TOTALS, LOCATIONS, STOCK_MOVEMENTS
from pipelines.demand.demand import Period, as_money, revenue_cents
from pipelines.errors import StockcastError, UsageError
from pipelines.io import kafka
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.operations.failpoints import failpoint
from pipelines.operations.settings import Settings

log = logging.getLogger("stockcast.totals")

GLOBAL = "global"
UNKNOWN_REGION = "unknown"
KEYS = ("scope", "window_start")

BATCH_FILES = 20_000
BATCH_BYTES = "1g"
"""A batch's limits. Generous: catching up computes each touched window once per batch, so few batches are best."""

Publish = Callable[[pa.Table], None]


def windows_of(minutes: int) -> Period:
    """Tumbling windows of this length, aligned to the epoch."""
    return Period(DEMAND_TOTALS, "window_start", minutes * 60_000_000)


# Pure functions. ------------------------------------------------------------------------------------------


def location_totals(ledger: DataFrame, windows: Period) -> DataFrame:
    """Orders, units and revenue per location and window with sales.

    An order is a distinct `ticket_id` of the location with a sale in the window; a sale without one is an
    order of its own. Units and revenue are gross (`hourly_demand` defines both).

    Returns:
        location_id, `period` (the window's number since the epoch), `orders`, `units`, `cents`.
    """
    # A ticket and an event may bear the same id: they are kept apart by their place in the struct.
    order = F.struct(
        F.col("ticket_id").alias("ticket"),
        F.when(F.col("ticket_id").isNull(), F.col("event_id")).alias("event"),
    )
    return (
        ledger.where(F.col("kind") == "sale")
        .groupBy("location_id", windows.number("event_time").alias("period"), order.alias("order"))
        .agg(F.sum("quantity").alias("units"), F.sum(revenue_cents()).alias("cents"))
        .groupBy("location_id", "period")
        .agg(F.count(F.lit(1)).alias("orders"), F.sum("units").alias("units"), F.sum("cents").alias("cents"))
    )


def scope_totals(per_location: DataFrame, locations: DataFrame, windows: Period) -> DataFrame:
    """Totals per region and `global`, the exact sums of their locations' (`gold/demand_totals`).

    Args:
        per_location: `location_totals`.
        locations: location_id and region; a location that is not among them counts for region `unknown`.
    """
    region = F.coalesce(F.col("region"), F.lit(UNKNOWN_REGION))
    return (
        per_location.join(F.broadcast(locations.select("location_id", "region")), on="location_id", how="left")
        .withColumn("scope", F.explode(F.array(region, F.lit(GLOBAL))))
        .groupBy("scope", "period")
        .agg(*(F.sum(name).alias(name) for name in ("orders", "units", "cents")))
        .withColumn("next", F.col("period") + 1)
        .select(
            "scope",
            windows.start("period").alias("window_start"),
            windows.start("next").alias("window_end"),
            "orders",
            "units",
            as_money("cents").alias("revenue"),
        )
    )


def changed_totals(before: pa.Table, after: pa.Table, touched: Collection[datetime]) -> pa.Table:
    """The rows by which `before` has to be updated.

    Args:
        before: rows of `gold/demand_totals`; rows of untouched windows are ignored.
        after: the touched windows' rows as computed anew.
        touched: starts of the touched windows.

    Returns:
        New and changed rows, by window and scope; zeros for a scope that no longer has a share in a
        touched window (its last location moved to another region).
    """
    old = {(row["scope"], row["window_start"]): row for row in before.to_pylist()}
    new = {(row["scope"], row["window_start"]): row for row in after.to_pylist()}
    touched = set(touched)
    for key, row in old.items():
        if key not in new and row["window_start"] in touched:
            new[key] = {**row, "orders": 0, "units": 0, "revenue": 0}
    changed = [row for key, row in new.items() if old.get(key) != row]
    changed.sort(key=lambda row: (row["window_start"], row["scope"]))
    return pa.Table.from_pylist(changed, schema=DEMAND_TOTALS.schema)


def message(row: dict[str, Any]) -> bytes:
    """A row as the JSON of a message on `demand.totals`."""
    times = {name: row[name].strftime("%Y-%m-%dT%H:%M:%SZ") for name in ("window_start", "window_end")}
    return orjson.dumps({**row, **times, "revenue": float(row["revenue"])})


# From a batch to table and topic. -------------------------------------------------------------------------


def refresh_totals(batch: DataFrame, spark: SparkSession, tables: Tables, windows: Period, publish: Publish) -> int:
    """Bring the totals of all windows that a batch of ledger rows touches up to date.

    Changed rows are sent before they are stored: after a crash in between they are found changed again and
    sent once more, with the same content; the other order would lose them.

    Returns:
        The number of changed rows.
    """
    sales = batch.where(F.col("kind") == "sale").select(windows.number("event_time").alias("period")).distinct()
    numbers = sorted(row["period"] for row in sales.collect())
    if not numbers:
        return 0
    starts = [_instant(number, windows) for number in numbers]
    ledger = _rows_of_windows(tables.frame(spark, STOCK_MOVEMENTS), spark, windows, numbers)
    locations = tables.frame(spark, LOCATIONS)
    after = scope_totals(location_totals(ledger, windows), locations, windows).toArrow()
    start = pc.field("window_start")
    before = tables.read(DEMAND_TOTALS, where=(start >= starts[0]) & (start <= starts[-1]))
    changed = changed_totals(before, after.cast(DEMAND_TOTALS.schema), starts)
    publish(changed)
    failpoint("totals-sent")
    tables.upsert(DEMAND_TOTALS, changed, KEYS)
    log.info("%d windows computed, %d totals changed", len(numbers), changed.num_rows)
    return int(changed.num_rows)


def _instant(number: int, windows: Period) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=number * windows.microseconds)


def _rows_of_windows(ledger: DataFrame, spark: SparkSession, windows: Period, numbers: list[int]) -> DataFrame:
    """The ledger's rows of the windows: a time range that prunes files, and within it the windows alone."""
    first, end = _instant(numbers[0], windows), _instant(numbers[-1] + 1, windows)
    rows = ledger.where((F.col("event_time") >= F.lit(first)) & (F.col("event_time") < F.lit(end)))
    if len(numbers) == numbers[-1] - numbers[0] + 1:
        return rows
    wanted = spark.createDataFrame(pa.table({"period": pa.array(numbers, pa.int64())}))
    rows = rows.withColumn("period", windows.number("event_time"))
    return rows.join(F.broadcast(wanted), on="period", how="left_semi")


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
    tables.ensure(DEMAND_TOTALS)
    _refuse_other_length(tables, windows)
    publish = _publisher(settings)

    def take(batch: DataFrame, _: int) -> None:
        try:
            refresh_totals(batch, spark, tables, windows, publish)
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
    kafka.ensure_topics(settings, [topics.DEMAND_TOTALS])

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
