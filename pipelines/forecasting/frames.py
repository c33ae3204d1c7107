"""Spark's part of forecasting, DataFrame in and DataFrame out: demand to series, to statistics; results to rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime, timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.forecasting.hourly import utc_midnight
from pipelines.forecasting.series import UNKNOWN


def requested_series(daily: DataFrame, sourcing: DataFrame, locations: DataFrame) -> DataFrame:
    """Every series that wants a forecast: all that ever sold, and all that a store is supplied with.

    Returns:
        location_id, sku; distinct.
    """
    stores = locations.where(F.col("kind") == "store").select("location_id")
    sourced = sourcing.join(stores, on="location_id", how="left_semi").select("location_id", "sku")
    return daily.select("location_id", "sku").union(sourced).distinct()


def hourly_history(hourly: DataFrame, first: date, last: date, sold_days: int) -> DataFrame:
    """What hours tell of a series, as arrays: when it was without stock, and when it sold lately.

    Args:
        first, last: the UTC days to look at.
        sold_days: sales of so many days up to `last` are given.

    Returns:
        location_id, sku; the arrays `out_hour` and `out_share` (0 to 1; negative in an hour that sold although its
        stock was recorded as zero throughout); the arrays `sold_hour` and `sold_units`; and `ends_out`: whether
        the stock ran out in the newest hour of `hourly`, which is that of the last sale.
    """
    in_stock = F.coalesce("in_stock_fraction", F.lit(1.0))
    contradicted = (F.col("demand") > 0) & (in_stock <= 0)
    out = F.struct(F.col("hour"), F.when(contradicted, -1.0).otherwise(1.0 - in_stock).alias("share"))
    recent = (F.col("demand") > 0) & _between(last - timedelta(days=sold_days - 1), last)
    sold = F.struct(F.col("hour"), F.col("demand").cast("double").alias("units"))
    return (
        hourly.where(_between(first, last))
        .groupBy("location_id", "sku")
        .agg(
            F.collect_list(F.when(in_stock < 1, out)).alias("out"),
            F.collect_list(F.when(recent, sold)).alias("sold"),
            (F.max_by(in_stock, "hour") < 1).alias("ends_out"),
        )
        .select(
            "location_id",
            "sku",
            F.col("out.hour").alias("out_hour"),
            F.col("out.share").alias("out_share"),
            F.col("sold.hour").alias("sold_hour"),
            F.col("sold.units").alias("sold_units"),
            "ends_out",
        )
    )


def series_rows(
    daily: DataFrame,
    requested: DataFrame,
    products: DataFrame,
    locations: DataFrame,
    first: date,
    hours: DataFrame | None = None,
) -> DataFrame:
    """One row a requested series, its days from `first` on as arrays (empty without history).

    Args:
        daily: demand a day, cut at the last day that may be used.
        first: days before it are left out.
        hours: `hourly_history`, whose columns are added.

    Returns:
        location_id, sku, category, timezone, first_date, and the arrays date, demand, in_stock, promotion
        (of equal length, in no particular order).
    """
    if hours is not None:
        rows = series_rows(daily, requested, products, locations, first)
        return rows.join(hours, on=["location_id", "sku"], how="left")
    columns = ("date", "demand", "in_stock_fraction", "promotion_share")
    # The requested series go along as rows without a day: joined to what is grouped, all history of all series
    # might be sent to every worker.
    asked = requested.select(
        "location_id", "sku", *(F.lit(None).cast(daily.schema[name].dataType).alias(name) for name in columns)
    )
    used = F.col("date") >= F.lit(first)
    # Lists of plain numbers take half the time of a list of structs. One aggregation adds a row to all of its
    # lists or, since null is NaN here, to none: they stay aligned.
    numbers = {name: F.when(used, F.coalesce(F.col(name).cast("double"), F.lit(math.nan))) for name in columns[1:]}
    return (
        daily.select("location_id", "sku", *columns)
        .union(asked)
        .groupBy("location_id", "sku")
        .agg(
            F.greatest(F.min("date"), F.when(F.min("date").isNotNull(), F.lit(first))).alias("first_date"),
            F.collect_list(F.when(used, F.col("date"))).alias("date"),
            *(F.collect_list(values).alias(name) for name, values in numbers.items()),
            F.bool_or(F.col("date").isNull()).alias("requested"),
        )
        .where("requested")
        .join(F.broadcast(products.select("sku", "category")), on="sku", how="left")
        .join(F.broadcast(locations.select("location_id", "timezone")), on="location_id", how="left")
        .select(
            "location_id",
            "sku",
            F.coalesce("category", F.lit(UNKNOWN)).alias("category"),
            F.coalesce("timezone", F.lit("UTC")).alias("timezone"),
            "first_date",
            "date",
            "demand",
            F.col("in_stock_fraction").alias("in_stock"),
            F.col("promotion_share").alias("promotion"),
        )
    )


def category_statistics(
    daily: DataFrame, products: DataFrame, first: date, kinds: Mapping[str, int] | None = None
) -> DataFrame:
    """What the series of each category sold since `first`, on days with stock: everywhere, and by kind of location.

    Args:
        kinds: the cluster of each location; None or empty: nothing by kind.

    Returns:
        kind (null: everywhere), category, series (how many), level (median of their means), dispersion (variance over
        mean, pooled over the series), and units_0 to units_6 and days_0 to days_6: units and series-days on Monday to
        Sunday.
    """
    weekdays = range(7)
    sums = [
        expression
        for day in weekdays
        for expression in (
            F.sum(F.when(F.weekday("date") == day, F.col("demand"))).cast("double").alias(f"units_{day}"),
            F.count_if(F.weekday("date") == day).cast("double").alias(f"days_{day}"),
        )
    ]
    names = [f"{what}_{day}" for what in ("units", "days") for day in weekdays]
    in_stock = F.coalesce("in_stock_fraction", F.lit(1.0)) > 0
    of_location = daily.sparkSession.createDataFrame(list((kinds or {}).items()), "location_id string, kind long")
    everywhere_and_own = F.array_distinct(F.array(F.lit(None).cast("long"), "kind"))
    return (
        daily.where((F.col("date") >= F.lit(first)) & in_stock)
        .groupBy("location_id", "sku")
        .agg(F.avg("demand").alias("mean"), F.var_pop("demand").alias("variance"), *sums)
        .join(F.broadcast(products.select("sku", "category")), on="sku", how="left")
        .join(F.broadcast(of_location), on="location_id", how="left")
        .withColumn("kind", F.explode(everywhere_and_own))
        .groupBy("kind", F.coalesce("category", F.lit(UNKNOWN)).alias("category"))
        .agg(
            F.count_if(F.col("mean").isNotNull()).alias("series"),
            F.percentile_approx("mean", 0.5).alias("level"),
            (F.sum("variance") / F.nullif(F.sum("mean"), F.lit(0.0))).alias("dispersion"),
            *(F.coalesce(F.sum(name), F.lit(0.0)).alias(name) for name in names),
        )
    )


def intraday_statistics(
    hourly: DataFrame, products: DataFrame, locations: DataFrame, first: date, last: date
) -> DataFrame:
    """Units sold per category, time zone, local weekday and local hour from day `first` to `last` (UTC).

    Returns:
        category, timezone, weekday (0 Monday), hour (0 to 23), units, and available: the share of that time in
        which its series were in stock.
    """
    local = F.from_utc_timestamp("hour", F.col("timezone"))
    return (
        hourly.where(_between(first, last))
        .join(F.broadcast(products.select("sku", "category")), on="sku", how="left")
        .join(F.broadcast(locations.select("location_id", "timezone")), on="location_id", how="left")
        .withColumn("timezone", F.coalesce("timezone", F.lit("UTC")))
        .groupBy(
            F.coalesce("category", F.lit(UNKNOWN)).alias("category"),
            "timezone",
            F.weekday(local).alias("weekday"),
            F.hour(local).alias("hour"),
        )
        .agg(
            F.sum("demand").cast("double").alias("units"),
            F.avg(F.coalesce("in_stock_fraction", F.lit(1.0))).alias("available"),
        )
    )


def _between(first: date, last: date) -> Column:
    """Hours of the UTC days from `first` to `last`."""
    begins, ends = utc_midnight(first), utc_midnight(last + timedelta(days=1))
    return (F.col("hour") >= F.lit(begins)) & (F.col("hour") < F.lit(ends))


def forecast_rows(trained: DataFrame, as_of: date, version: str, created_at: datetime) -> DataFrame:
    """`gold/forecasts` rows of a training: day and hour steps after `as_of`."""
    start = int(utc_midnight(as_of + timedelta(days=1)).timestamp())
    seconds = F.when(F.col("grain") == "day", 86_400).otherwise(3_600)
    return (
        trained.select("location_id", "sku", "model", F.expr("stack(2, 'day', day, 'hour', hour) AS (grain, steps)"))
        .select("location_id", "sku", "model", "grain", F.posexplode("steps").alias("step", "value"))
        .select(
            "location_id",
            "sku",
            "grain",
            F.timestamp_seconds(F.lit(start) + F.col("step") * seconds).alias("target_time"),
            F.lit(version).alias("forecast_version"),
            "value.*",
            "model",
            F.lit(created_at).alias("created_at"),
        )
    )
