"""The hourly refresh: today's hours anew from today's sales, published beside the night's forecasts.

A refreshed version is the night's version with `-rYYYYMMDDTHH` after its name: the UTC day and the first hour that was
still to come. It holds the 24 hours of that day for every series and nothing else (hours that have passed as they
were published, the others updated), so that an hour's refresh writes a small fraction of what a night writes. The
pointer row of `forecasts` stays where it is; that of `forecasts_today` names the refreshed version. A reader of hours
takes today's from `refreshed_hours` where there is one, and everything else from the version in force.

Every refresh starts from the night's version and all of today's sales, never from the last refresh: one that was
missed, repeated or late makes no difference to the next.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.contracts.tables import (
    FORECASTS,
    INVENTORY_POSITIONS,
    QUANTILE_COLUMNS,
    QUANTILES,
    STOCK_MOVEMENTS,
    TRAINING,
)
from pipelines.demand.demand import HOUR, SERIES, hourly_sales, stockouts
from pipelines.errors import MissingDataError, PublishingError
from pipelines.forecasting import publishing, releasing
from pipelines.forecasting.distributions import variance_from_quantiles
from pipelines.forecasting.intraday import rest_of_day
from pipelines.forecasting.selection import OK
from pipelines.forecasting.series import Floats
from pipelines.io import published
from pipelines.io.delta import Tables, spark_schema
from pipelines.io.ownership import ownership
from pipelines.io.published import Published
from pipelines.operations.settings import Settings

log = logging.getLogger("stockcast.forecasting")

HOURS = 24
VALUES = ("yhat", *QUANTILE_COLUMNS)


@dataclass(frozen=True)
class RefreshReport:
    """What a refresh did; `version` is None where there was nothing to do, `reason` says why."""

    version: str | None
    reason: str = ""


def refresh(spark: SparkSession, settings: Settings, tables: Tables, now: datetime) -> RefreshReport:
    """Publish today's hours as they look at `now`, from the hours of the UTC day that are over.

    Takes the ownership of the forecasts and, for the moment of the switch, of `publishing`. Does nothing where
    the hour was refreshed already, or no hour of the day is over.

    Raises:
        MissingDataError: no forecasts are in force, or they have no hours for today.
        PublishingError: the refreshed hours are incomplete or malformed; those in force stay.
        OwnershipError: forecasts are being trained, or refreshed, by another process.
    """
    now = now.astimezone(UTC)
    hour = now.replace(minute=0, second=0, microsecond=0)
    today = hour.replace(hour=0)
    with ownership(settings, TRAINING):
        base = published.in_force(tables, published.FORECASTS)
        if base is None:
            raise MissingDataError("no forecasts are in force to refresh; train first (jobs/train_forecasts.py)")
        version = publishing.refreshed_version(base.version, hour)
        done = published.refreshed_hours(tables)
        if hour == today:
            return RefreshReport(None, f"no hour of {today:%Y-%m-%d} is over yet")
        if done is not None and done.version == version:
            return RefreshReport(None, f"{version} is in force already")
        rows = _rows(spark, tables, base, today, hour).withColumns(
            {"forecast_version": F.lit(version), "created_at": F.lit(now)}
        )
        _write(tables, rows, version)
        _check(spark, tables, base, version, today)
        pointer = Published(published.FORECASTS_TODAY, version, base.as_of, base.training_run, now)
        releasing.put_in_force(settings, tables, pointer)
        publishing.delete_old_refreshed(tables)
    log.info("hours of %s refreshed from %s on: %s", today.date(), f"{hour:%H:%M}", version)
    return RefreshReport(version)


def _write(tables: Tables, rows: DataFrame, version: str) -> None:
    tables.overwrite_frame(FORECASTS, rows, predicate=f"forecast_version = '{publishing.safe(version)}'")


def _check(spark: SparkSession, tables: Tables, base: Published, version: str, today: datetime) -> None:
    forecasts = tables.frame(spark, FORECASTS)
    stored = forecasts.where(F.col("forecast_version") == version)
    expected = forecasts.where((F.col("forecast_version") == base.version) & (F.col("grain") == "day"))
    series = expected.select(*SERIES, F.lit(OK).alias("status")).distinct()
    try:
        publishing.check(stored, series, today.date() - timedelta(days=1), 0, HOURS)
    except PublishingError:
        publishing.discard(tables, version)
        raise


def _rows(spark: SparkSession, tables: Tables, base: Published, today: datetime, hour: datetime) -> DataFrame:
    forecasts = tables.frame(spark, FORECASTS).where(F.col("forecast_version") == base.version)
    ledger = tables.frame(spark, STOCK_MOVEMENTS).where((F.col("event_time") >= today) & (F.col("event_time") < hour))
    found = forecast_of_day(forecasts, today)
    if found.limit(1).count() == 0:
        raise MissingDataError(
            f"the forecasts in force ({base.version}) have no hours for {today:%Y-%m-%d}; train again "
            "(jobs/train_forecasts.py), or raise forecast.hourly_horizon_hours"
        )
    sold = sold_today(ledger, today)
    empty = out_of_stock_today(ledger, tables.frame(spark, INVENTORY_POSITIONS), today, hour)
    joined = found.join(sold, on=list(SERIES), how="left").join(empty, on=list(SERIES), how="left")
    passed = int((hour - today) / timedelta(hours=1))
    return joined.mapInArrow(partial(_refreshed, today=today, passed=passed), spark_schema(FORECASTS))


# Frames ------------------------------------------------------------------------------------------------


def forecast_of_day(forecasts: DataFrame, today: datetime) -> DataFrame:
    """One row a series: its published hours of the UTC day in order, and the day.

    Args:
        forecasts: rows of one version.

    Returns:
        location_id, sku, model, `hours` (array of structs of yhat and the quantiles) and `day` (such a struct).
    """
    values = F.struct(*VALUES)
    at = F.col("target_time")
    hours = forecasts.where((F.col("grain") == "hour") & (at >= today) & (at < today + timedelta(hours=HOURS)))
    days = forecasts.where((F.col("grain") == "day") & (at == today)).select(*SERIES, values.alias("day"))
    ordered = F.sort_array(F.collect_list(F.struct(at, values.alias("values"))))
    grouped = hours.groupBy(*SERIES).agg(F.first("model").alias("model"), ordered.alias("ordered"))
    return grouped.join(days, on=list(SERIES), how="inner").select(
        *SERIES, "model", F.col("ordered.values").alias("hours"), "day"
    )


def sold_today(ledger: DataFrame, today: datetime) -> DataFrame:
    """Units sold in each hour since `today`: location_id, sku, arrays `sold_hour` (0 to 23) and `sold_units`."""
    first = int(today.timestamp()) // 3600
    sold = F.struct((F.col("period") - first).cast("int").alias("hour"), F.col("demand").alias("units"))
    return (
        hourly_sales(ledger)
        .where("demand > 0")
        .groupBy(*SERIES)
        .agg(F.collect_list(sold).alias("sold"))
        .select(*SERIES, F.col("sold.hour").alias("sold_hour"), F.col("sold.units").alias("sold_units"))
    )


def out_of_stock_today(ledger: DataFrame, positions: DataFrame, today: datetime, hour: datetime) -> DataFrame:
    """The share of each hour from `today` to `hour` without stock, from today's ledger and the live positions.

    Stock at midnight is today's position less today's changes; a series without a position, or whose stock was
    never counted and went below zero, is taken to be in stock.

    Returns:
        location_id, sku, arrays `out_hour` (0 to 23) and `out_share`.
    """
    opening = _opening(ledger, positions, today)
    empty = stockouts(ledger.select(*opening.columns).unionByName(opening))
    start, length = int(today.timestamp()) * 1_000_000, HOUR.microseconds
    passed = int((hour - today) / timedelta(hours=1))
    end = F.coalesce("out_to", F.lit(start + passed * length))
    return (
        empty.select(*SERIES, "out_from", end.alias("out_to"), F.explode(F.lit(list(range(passed)))).alias("hour"))
        .withColumn("begins", F.lit(start) + F.col("hour").cast("long") * length)
        .withColumn("share", (F.least("out_to", F.col("begins") + length) - F.greatest("out_from", "begins")) / length)
        .where("share > 0")
        .groupBy(*SERIES)
        .agg(F.collect_list(F.struct("hour", "share")).alias("out"))
        .select(*SERIES, F.col("out.hour").alias("out_hour"), F.col("out.share").alias("out_share"))
    )


def _opening(ledger: DataFrame, positions: DataFrame, today: datetime) -> DataFrame:
    """Stock at midnight as ledger rows of kind count."""
    counted_today = F.col("count_time") >= today
    known = F.col("count_time").isNotNull() | (F.col("on_hand") >= 0)
    reached = F.when(counted_today, F.col("event_time") <= F.col("count_time")).otherwise(
        F.col("sequence") <= F.col("complete")
    )
    changes = ledger.select(*SERIES, "event_time", "sequence", "change")
    levels = positions.where(known).select(
        *SERIES,
        "count_time",
        F.col("sequence").alias("complete"),
        F.when(counted_today, F.col("counted")).otherwise(F.col("on_hand")).alias("level"),
    )
    return (
        levels.join(changes, on=list(SERIES), how="left")
        .groupBy(*SERIES, "level")
        .agg(F.coalesce(F.sum(F.when(reached, F.col("change"))), F.lit(0)).alias("since"))
        .select(
            *SERIES,
            F.lit(today).alias("event_time"),
            F.lit("").alias("event_id"),
            F.lit("count").alias("kind"),
            F.greatest(F.col("level") - F.col("since"), F.lit(0)).alias("quantity"),
            F.lit(None).cast("long").alias("change"),
        )
    )


# Arrow -------------------------------------------------------------------------------------------------


def _refreshed(batches: Iterator[pa.RecordBatch], today: datetime, passed: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if batch.num_rows:
            yield refreshed_rows(batch, today, passed)


def refreshed_rows(batch: pa.RecordBatch, today: datetime, passed: int) -> pa.RecordBatch:
    """`gold/forecasts` rows of the day's 24 hours (version and time of creation null).

    Args:
        batch: columns of `forecast_of_day`, `sold_today` and `out_of_stock_today`.
        passed: hours of the day that are over; their forecasts stay as they are.
    """
    count = batch.num_rows
    hours = _values(batch.column("hours").flatten()).reshape(count, -1, len(VALUES))
    if hours.shape[1] != HOURS:
        raise PublishingError(f"expected {HOURS} forecast hours a series for {today:%Y-%m-%d}, found {hours.shape[1]}")
    day = _values(batch.column("day"))
    sold, out = _cells(batch, "sold_hour", "sold_units", passed), _cells(batch, "out_hour", "out_share", passed)
    # Sales in an hour that is recorded as without any stock: the record is wrong, the sales are not.
    in_stock = np.where((sold > 0) & (out >= 1), 1.0, np.clip(1.0 - out, 0.0, 1.0))
    mean, quantiles = rest_of_day(
        hours[:, :, 0], variance_from_quantiles(day[:, 1:], QUANTILES), sold, in_stock, QUANTILES
    )
    hours[:, passed:, 0], hours[:, passed:, 1:] = mean, quantiles
    place = np.repeat(np.arange(count), HOURS)
    times = np.tile(np.arange(HOURS) * HOUR.microseconds + int(today.timestamp()) * 1_000_000, count)
    named = {name: batch.column(name).take(pa.array(place)) for name in ("location_id", "sku", "model")}
    columns = {
        **named,
        "grain": pa.array(["hour"] * len(place)),
        "target_time": pa.array(times, pa.int64()).cast(pa.timestamp("us", tz="UTC")),
        **{name: pa.array(hours[:, :, index].ravel()) for index, name in enumerate(VALUES)},
    }
    schema = FORECASTS.schema
    nothing = {field.name: pa.nulls(len(place), field.type) for field in schema if field.name not in columns}
    return pa.RecordBatch.from_pydict({**columns, **nothing}, schema=schema)


def _values(structs: pa.StructArray) -> Floats:
    fields = dict(zip((field.name for field in structs.type), structs.flatten(), strict=True))
    return np.stack([fields[name].to_numpy(zero_copy_only=False) for name in VALUES], axis=-1).astype(float)


def _cells(batch: pa.RecordBatch, hour: str, value: str, passed: int) -> Floats:
    """(n, passed) sums of the values of each hour."""
    lists = batch.column(hour)
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    places = lists.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    values = batch.column(value).flatten().to_numpy(zero_copy_only=False).astype(float)
    inside = (places >= 0) & (places < passed)
    index = np.repeat(np.arange(batch.num_rows), lengths)[inside] * passed + places[inside]
    sums = np.bincount(index, weights=values[inside], minlength=batch.num_rows * passed)
    return np.asarray(sums.reshape(batch.num_rows, passed), float)
