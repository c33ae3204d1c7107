"""Spark's part of forecasting, DataFrame in and DataFrame out: demand to series, to statistics; results to rows."""

from __future__ import annotations

from datetime import date, datetime, timedelta

from pyspark.sql import DataFrame
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


def series_rows(
    daily: DataFrame, requested: DataFrame, products: DataFrame, locations: DataFrame, first: date
) -> DataFrame:
    """One row a requested series, its days from `first` on as arrays (empty without history).

    Args:
        daily: demand a day, cut at the last day that may be used.
        first: days before it are left out.

    Returns:
        location_id, sku, category, timezone, first_date, and the arrays date, demand, in_stock, promotion
        (of equal length, in no particular order).
    """
    day = F.struct("date", "demand", "in_stock_fraction", "promotion_share")
    grouped = daily.groupBy("location_id", "sku").agg(
        F.greatest(F.min("date"), F.lit(first)).alias("first_date"),
        F.collect_list(F.when(F.col("date") >= F.lit(first), day)).alias("days"),
    )
    return (
        requested.join(grouped, on=["location_id", "sku"], how="left")
        .join(F.broadcast(products.select("sku", "category")), on="sku", how="left")
        .join(F.broadcast(locations.select("location_id", "timezone")), on="location_id", how="left")
        .select(
            "location_id",
            "sku",
            F.coalesce("category", F.lit(UNKNOWN)).alias("category"),
            F.coalesce("timezone", F.lit("UTC")).alias("timezone"),
            "first_date",
            F.col("days.date").alias("date"),
            F.col("days.demand").alias("demand"),
            F.col("days.in_stock_fraction").alias("in_stock"),
            F.col("days.promotion_share").alias("promotion"),
        )
    )


def category_statistics(daily: DataFrame, products: DataFrame, first: date) -> DataFrame:
    """Per category and weekday: units and series-days since `first`, and its series' level and dispersion.

    Returns:
        category, weekday (0 Monday), units, days, level (median of the series' means), dispersion (pooled).
    """
    recent = (
        daily.where((F.col("date") >= F.lit(first)) & (F.coalesce("in_stock_fraction", F.lit(1.0)) > 0))
        .join(F.broadcast(products.select("sku", "category")), on="sku", how="left")
        .select(
            F.coalesce("category", F.lit(UNKNOWN)).alias("category"),
            "location_id",
            "sku",
            F.weekday("date").alias("weekday"),
            F.col("demand").cast("double").alias("demand"),
        )
    )
    levels = (
        recent.groupBy("category", "location_id", "sku")
        .agg(F.avg("demand").alias("mean"), F.var_pop("demand").alias("variance"))
        .groupBy("category")
        .agg(
            F.percentile_approx("mean", 0.5).alias("level"),
            (F.sum("variance") / F.sum("mean")).alias("dispersion"),
        )
    )
    weekdays = recent.groupBy("category", "weekday").agg(
        F.sum("demand").alias("units"), F.count("demand").alias("days")
    )
    return weekdays.join(F.broadcast(levels), on="category", how="inner").select(
        "category", "weekday", "units", "days", "level", "dispersion"
    )


def intraday_statistics(
    hourly: DataFrame, products: DataFrame, locations: DataFrame, first: date, last: date
) -> DataFrame:
    """Units sold per category, time zone, local weekday and local hour from day `first` to `last` (UTC).

    Returns:
        category, timezone, weekday (0 Monday), hour (0 to 23), units.
    """
    window = (F.col("hour") >= F.lit(utc_midnight(first))) & (
        F.col("hour") < F.lit(utc_midnight(last + timedelta(days=1)))
    )
    local = F.from_utc_timestamp("hour", F.col("timezone"))
    return (
        hourly.where(window)
        .join(F.broadcast(products.select("sku", "category")), on="sku", how="left")
        .join(F.broadcast(locations.select("location_id", "timezone")), on="location_id", how="left")
        .withColumn("timezone", F.coalesce("timezone", F.lit("UTC")))
        .groupBy(
            F.coalesce("category", F.lit(UNKNOWN)).alias("category"),
            "timezone",
            F.weekday(local).alias("weekday"),
            F.hour(local).alias("hour"),
        )
        .agg(F.sum("demand").cast("double").alias("units"))
    )


def forecast_rows(trained: DataFrame, as_of: date, version: str, created_at: datetime) -> DataFrame:
    """`gold/forecasts` rows of a training: day and hour steps after `as_of`."""
    start = F.lit(utc_midnight(as_of + timedelta(days=1)))
    parts = []
    for grain, interval in (("day", "INTERVAL 1 DAY"), ("hour", "INTERVAL 1 HOUR")):
        parts.append(
            trained.select("location_id", "sku", "model", F.posexplode(grain).alias("step", "value"))
            .withColumn("grain", F.lit(grain))
            .withColumn("target_time", start + F.col("step") * F.expr(interval))
        )
    return (
        parts[0]
        .unionByName(parts[1])
        .select(
            "location_id",
            "sku",
            "grain",
            "target_time",
            F.lit(version).alias("forecast_version"),
            "value.*",
            "model",
            F.lit(created_at).alias("created_at"),
        )
    )
