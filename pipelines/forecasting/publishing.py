"""Forecasts out: written beside those in force, checked as written, then put in force by one pointer row."""

from __future__ import annotations

import logging
import re
from datetime import date, datetime
from itertools import pairwise

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.contracts.tables import BACKTESTS, FORECAST_TOTALS, FORECASTS, QUANTILE_COLUMNS, SERIES_STATUS
from pipelines.errors import PublishingError
from pipelines.forecasting.selection import FAILED
from pipelines.io import published
from pipelines.io.delta import Tables

log = logging.getLogger("stockcast.forecasting")

VERSION = re.compile(r"(?P<base>f-\d{8}-\d{8}T\d{6})(?P<refreshed>-r\d{8}T\d{2})?")
REFRESHED_KEPT = 2
"""Refreshed versions of the night in force that are kept: a reader may still be busy with the last but one."""


def forecast_version(as_of: date, now: datetime) -> str:
    """The name of what a training at `now` on data up to `as_of` makes; later ones sort later."""
    return f"f-{as_of:%Y%m%d}-{now:%Y%m%dT%H%M%S}"


def refreshed_version(base: str, hour: datetime) -> str:
    """The name of a night's version whose hours were updated up to this one; later ones sort later."""
    return f"{base}-r{hour:%Y%m%dT%H}"


def status_rows(trained: pa.Table, version: str, as_of: date, training_run: str | None) -> pa.Table:
    """`gold/series_status` rows of a training."""
    count = trained.num_rows
    constants = {
        "training_run": pa.array([training_run] * count, pa.string()),
        "forecast_version": pa.array([version] * count, pa.string()),
        "as_of": pa.array([as_of] * count, pa.date32()),
    }
    names = SERIES_STATUS.schema.names
    columns = [constants[name] if name in constants else trained.column(name) for name in names]
    return pa.table(columns, names=names).cast(SERIES_STATUS.schema)


def problems(forecasts: DataFrame, expected: DataFrame, as_of: date, days: int, hours: int) -> list[str]:
    """What is wrong with a version of the forecasts; empty when it may be published.

    Args:
        forecasts: the version's rows.
        expected: location_id and sku of every series that must be in it.
        days, hours: rows that every series must have of each grain, all of them after `as_of`.
    """
    values = [F.col(name) for name in ("yhat", *QUANTILE_COLUMNS)]
    quantiles = [F.col(name) for name in QUANTILE_COLUMNS]
    unsound = F.lit(False)
    for value in values:
        unsound = unsound | value.isNull() | F.isnan(value) | (value < 0) | (F.abs(value) == float("inf"))
    crossing = F.lit(False)
    for lower, upper in pairwise(quantiles):
        crossing = crossing | (lower > upper)
    early = F.col("target_time") < F.date_add(F.lit(as_of), 1).cast("timestamp")
    count_if = F.count_if
    series = forecasts.groupBy("location_id", "sku").agg(
        count_if(unsound).alias("unsound"),
        count_if(crossing).alias("crossing"),
        count_if(early).alias("early"),
        F.count_distinct(F.when(F.col("grain") == "day", F.col("target_time"))).alias("days"),
        F.count_distinct(F.when(F.col("grain") == "hour", F.col("target_time"))).alias("hours"),
        F.count("*").alias("rows"),
    )
    wanted = expected.select("location_id", "sku", F.lit(True).alias("wanted"))
    joined = series.join(wanted, on=["location_id", "sku"], how="full")
    incomplete = (F.col("days") != days) | (F.col("hours") != hours) | (F.col("rows") != days + hours)
    row = joined.agg(
        F.sum("unsound").alias("numbers that are missing, negative or not finite"),
        F.sum("crossing").alias("rows whose quantiles cross"),
        F.sum("early").alias(f"rows for {as_of} or before"),
        count_if(incomplete).alias(f"series without exactly {days} days and {hours} hours"),
        count_if(F.col("rows").isNull()).alias("series without a forecast"),
        count_if(F.col("wanted").isNull()).alias("series that nobody asked for"),
        count_if(F.col("rows").isNotNull()).alias("_present"),
    ).collect()[0]
    found = row.asDict()
    if not found.pop("_present"):
        return ["no forecast at all"]
    return [f"{count} {what}" for what, count in found.items() if count]


def write_version(spark: SparkSession, tables: Tables, rows: DataFrame, status: pa.Table, version: str) -> DataFrame:
    """Write a version's forecasts and status; writing it again replaces it. Returns the rows as they were stored."""
    predicate = f"forecast_version = '{safe(version)}'"
    tables.overwrite_frame(FORECASTS, rows, predicate=predicate)
    tables.overwrite(SERIES_STATUS, status, predicate=predicate)
    return tables.frame(spark, FORECASTS).where(F.col("forecast_version") == version)


def write_backtests(tables: Tables, rows: DataFrame, version: str) -> None:
    """Keep a version's backtests (`backtests.backtest_rows`) beside its forecasts; writing again replaces them."""
    tables.overwrite_frame(BACKTESTS, rows, predicate=f"forecast_version = '{safe(version)}'")


def check(stored: DataFrame, trained: DataFrame, as_of: date, days: int, hours: int) -> None:
    """Refuse a version that is not complete and sound.

    Raises:
        PublishingError: says what is wrong; the version in force stays.
    """
    expected = trained.where(F.col("status") != FAILED)
    found = problems(stored, expected, as_of, days, hours)
    if found:
        raise PublishingError(
            f"the new forecasts were not published: {'; '.join(found)}. Those in force stay; look at "
            "gold/series_status of this training, mend the engine or the data, and run train_forecasts again"
        )


def discard(tables: Tables, version: str) -> None:
    """Remove a version that was refused (its status rows stay, to tell why)."""
    tables.delete(FORECASTS, f"forecast_version = '{safe(version)}'")


def delete_old_versions(tables: Tables, keep: int) -> list[str]:
    """Delete all but the newest `keep` versions, never the one in force; returns those deleted."""
    pointer = published.in_force(tables, published.FORECASTS)
    in_force = pointer.version if pointer is not None else None
    existing = sorted(version for version in stored_versions(tables) if not is_refreshed(version))
    old = [version for version in existing[:-keep] if version != in_force]
    delete_old_refreshed(tables)
    if old:
        predicate = f"forecast_version IN ({', '.join(repr(safe(version)) for version in old)})"
        tables.delete(FORECASTS, predicate)
        tables.delete(SERIES_STATUS, predicate)
        for table in (BACKTESTS, FORECAST_TOTALS):
            if tables.exists(table):
                tables.delete(table, predicate)
        log.info("deleted %d old forecast versions", len(old))
    return old


def delete_old_refreshed(tables: Tables) -> list[str]:
    """Delete refreshed versions but the newest of the night in force; returns those deleted."""
    pointer = published.in_force(tables, published.FORECASTS)
    in_force = pointer.version if pointer is not None else ""
    refreshed = sorted(version for version in stored_versions(tables) if is_refreshed(version))
    newest = [version for version in refreshed if version.startswith(f"{in_force}-r")][-REFRESHED_KEPT:]
    old = [version for version in refreshed if version not in newest]
    if old:
        tables.delete(FORECASTS, f"forecast_version IN ({', '.join(repr(safe(version)) for version in old)})")
    return old


def is_refreshed(version: str) -> bool:
    """Whether this is the name of a refreshed version: today's hours only, beside the night's version."""
    found = VERSION.fullmatch(version)
    return found is not None and found["refreshed"] is not None


def stored_versions(tables: Tables) -> set[str]:
    """Names of the versions that `gold/forecasts` holds, from its log alone."""
    if not tables.exists(FORECASTS):
        return set()
    return {partition["forecast_version"] for partition in tables.handle(FORECASTS).partitions()}


def safe(version: str) -> str:
    """The name, if it is one of a forecast version: it goes into a predicate.

    Raises:
        PublishingError: it is not.
    """
    if not VERSION.fullmatch(version):
        raise PublishingError(f"{version!r} is not the name of a forecast version")
    return version
