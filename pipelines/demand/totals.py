"""Orders, units and revenue per window, for each region and for the whole chain, kept up to date.

Windows are tumbling, and sliding ones where asked for; locations may be scopes as well. What a batch of new ledger
rows says is which windows it touches; their totals are a function of the set of ledger rows. Late events therefore
correct every window that covers them, and a repeated batch changes nothing. All scopes of a window are stored in one
commit.
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
from pipelines.contracts.tables import DEMAND_TOTALS, LOCATION_SCOPE, LOCATIONS, STOCK_MOVEMENTS
from pipelines.demand.open_windows import OpenWindows
from pipelines.demand.sliding import KEYS, changed_totals, message, totals_of, touched_bounds
from pipelines.demand.windows import (
    MEASURES,
    NO_REPEATS,
    Facts,
    Shape,
    location_repeats,
    location_totals,
    sale_lines,
    scope_sums,
    scope_sums_of_few,
    shape_of,
    standing,
    touched_windows,
    window_start,
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
    windows that are open in memory. Both count the same `sale_lines`, and their facts are made totals by the same
    function.

    Args:
        publish: sends rows on; returns when they are safe.
    """

    def __init__(self, spark: SparkSession, tables: Tables, shape: Shape, publish: Publish) -> None:
        self._spark = spark
        self._tables = tables
        self._shape = shape
        self._publish = publish
        # Room for the newest windows, for some late ones, and for all that slide over either.
        self._most_windows = LIVE_WINDOWS + 4 * shape.reach
        self._open = OpenWindows(
            lambda numbers: self._ledger_lines(numbers).drop("event_id").toArrow(), shape.reach, self._most_windows
        )
        tables.ensure(DEMAND_TOTALS)

    def refresh(self, batch: DataFrame) -> int:
        """Bring the totals of all windows that a batch of ledger rows touches up to date.

        Changed rows are sent before they are stored: after a crash in between they are found changed again
        and sent once more, with the same content; the other order would lose them.

        Returns:
            The number of changed rows.
        """
        windows = self._shape.windows
        touched = {row["period"]: row for row in touched_windows(batch, windows).collect()}
        if not touched:
            return 0
        numbers = sorted(touched)
        needed = self._shape.needed(numbers)
        few = len(numbers) <= LIVE_WINDOWS and len(needed) <= self._most_windows
        if few and sum(row["sales"] for row in touched.values()) <= LIVE_SALES:
            stale = [number for number in numbers if touched[number]["corrected"]]
            facts = self._few(sale_lines(batch, windows), needed, stale)
        else:
            self._open.forget(numbers)
            facts = self._many(needed)
        after = totals_of(facts, numbers, self._shape)
        changed = changed_totals(self._stored(numbers), after, touched_bounds(numbers, self._shape))
        self._publish(changed)
        failpoint("totals-sent")
        self._tables.upsert(DEMAND_TOTALS, changed, KEYS)
        log.info("%d windows touched, %d totals changed", len(numbers), changed.num_rows)
        return int(changed.num_rows)

    def _few(self, lines: DataFrame, needed: list[int], stale: list[int]) -> Facts:
        facts = self._open.add(lines.drop("event_id").toArrow(), needed, stale)
        locations = self._tables.read(LOCATIONS, columns=["location_id", "region"])
        regions = dict(zip(*(column.to_pylist() for column in locations.columns), strict=True))
        return Facts(
            scope_sums_of_few(facts.totals, regions, MEASURES, self._shape),
            scope_sums_of_few(facts.repeats, regions, ("tickets",), self._shape),
        )

    def _many(self, needed: list[int]) -> Facts:
        locations = self._tables.frame(self._spark, LOCATIONS)
        lines = self._ledger_lines(needed)
        totals = scope_sums(location_totals(lines), locations, MEASURES, self._shape)
        if not self._shape.reach:
            return Facts(totals.toArrow(), NO_REPEATS)
        repeats = scope_sums(location_repeats(lines, self._shape.reach), locations, ("tickets",), self._shape)
        return Facts(totals.toArrow(), repeats.toArrow())

    def _stored(self, numbers: list[int]) -> pa.Table:
        start, windows = pc.field("window_start"), self._shape.windows
        first, last = window_start(numbers[0] - self._shape.reach, windows), window_start(numbers[-1], windows)
        return self._tables.read(DEMAND_TOTALS, where=(start >= first) & (start <= last))

    def _ledger_lines(self, numbers: list[int]) -> DataFrame:
        """The sales of windows: a time range that prunes files, and within it the windows alone."""
        windows = self._shape.windows
        first, end = (window_start(number, windows) for number in (numbers[0], numbers[-1] + 1))
        ledger = self._tables.frame(self._spark, STOCK_MOVEMENTS)
        in_range = (F.col("event_time") >= F.lit(first)) & (F.col("event_time") < F.lit(end))
        lines = sale_lines(standing(ledger.where(in_range)), windows)
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
        UsageError: the stored totals are of windows of other lengths, or with locations and these are not to be.
    """
    chosen = settings.totals
    shape = shape_of(chosen.window_minutes, chosen.sliding_minutes, chosen.locations)
    _refuse_other_shape(tables, shape)
    totals = Totals(spark, tables, shape, _publisher(settings))
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


def _refuse_other_shape(tables: Tables, shape: Shape) -> None:
    """Windows and scopes that came or went half-way would be missing, or no longer be corrected."""
    stored = tables.read(DEMAND_TOTALS, columns=["scope", "window_start", "window_end"])
    if stored.num_rows == 0:
        return
    there = set(pc.unique(pc.subtract(stored["window_end"], stored["window_start"])).to_pylist())
    wanted = {timedelta(microseconds=length * shape.windows.microseconds) for length in shape.lengths}
    locations = pc.any(pc.starts_with(stored["scope"], LOCATION_SCOPE)).as_py()
    if (there, locations) != (wanted, shape.locations):
        raise UsageError(
            f"totals.window_minutes, sliding_minutes and locations ask for {_described(wanted, shape.locations)}, but "
            f"{DEMAND_TOTALS.name} holds {_described(there, locations)}; set them back, or remove that table and "
            "checkpoints/totals to compute all totals anew"
        )


def _described(lengths: set[timedelta], locations: bool) -> str:
    return f"windows of {', '.join(map(str, sorted(lengths)))} {'with' if locations else 'without'} locations"
