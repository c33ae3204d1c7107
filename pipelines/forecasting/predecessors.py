"""New products that go on from the history of an old one, at their own level."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

LEVEL_DAYS = 28
"""Days that two levels are compared by: the first ones of the new series, the last ones of the old before them."""
PRIOR_DAYS = 7.0
"""Days at the old level that are added to the new series' own: a first sale does not make a level."""


def with_predecessors(daily: DataFrame, predecessors: Mapping[str, str]) -> DataFrame:
    """Daily demand in which each new sku begins with the days that its predecessor sold before it at the location.

    Those days' demand is multiplied by the ratio of the levels: what the new one sold a day in its first four weeks,
    leaning on the old level by `PRIOR_DAYS`, over what the old one sold a day in the four weeks before. One that has
    not sold yet takes the old level as it is. Scores of days that the new one did not live to see, and of the level
    then, flatter.

    Args:
        daily: location_id, sku, date, demand and more, cut at the last day that may be used.
        predecessors: new sku to old sku; a sku that is both is followed one step only.
    """
    if not predecessors:
        return daily
    spark = daily.sparkSession
    pairs = F.broadcast(spark.createDataFrame(list(predecessors.items()), "new string, old string"))
    last = daily.agg(F.max("date").alias("last"))
    start = (
        daily.join(pairs.select(F.col("new").alias("sku")), on="sku", how="left_semi")
        .groupBy("location_id", F.col("sku").alias("new"))
        .agg(F.min("date").alias("begin"))
    )
    own = (
        daily.withColumnRenamed("sku", "new")
        .join(start, on=["location_id", "new"], how="inner")
        .where(F.datediff("date", "begin") < LEVEL_DAYS)
        .crossJoin(F.broadcast(last))
        .groupBy("location_id", "new")
        .agg(
            F.sum("demand").alias("units"),
            F.least(F.lit(LEVEL_DAYS), F.datediff(F.first("last"), F.first("begin")) + 1).alias("days"),
        )
    )
    before = (
        daily.join(pairs, on=F.col("sku") == F.col("old"), how="inner")
        .join(start, on=["location_id", "new"], how="left")
        .where(F.col("begin").isNull() | (F.col("date") < F.col("begin")))
        .crossJoin(F.broadcast(last))
        .withColumn("until", F.coalesce(F.date_sub("begin", 1), F.col("last")))
    )
    recent = F.when(F.datediff("until", "date") < LEVEL_DAYS, F.col("demand"))
    levels = before.groupBy("location_id", "new").agg((F.sum(recent) / LEVEL_DAYS).alias("old_level"))
    ratio = (F.coalesce("units", F.lit(0)) + PRIOR_DAYS * F.col("old_level")) / (
        (F.coalesce("days", F.lit(0)) + PRIOR_DAYS) * F.col("old_level")
    )
    scaled = (
        before.join(levels, on=["location_id", "new"], how="left")
        .join(own, on=["location_id", "new"], how="left")
        .withColumn("demand", F.col("demand") * F.when(F.col("old_level") > 0, ratio).otherwise(F.lit(1.0)))
        .withColumn("sku", F.col("new"))
    )
    return daily.withColumn("demand", F.col("demand").cast("double")).unionByName(scaled.select(*daily.columns))
