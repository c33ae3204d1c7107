"""The pools' data from the table of daily demand: like-for-like sums a day, and a sample of series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.forecasting.pooled.pools import PoolData
from pipelines.forecasting.series import UNKNOWN, Floats, SeriesBatch

ESTABLISHED_DAYS = 91
"""A series counts for its pool if it sold in the first and in the last so many days."""
FEWEST_ESTABLISHED = 0.25
"""Where such series sold less than this share of all units, every series counts."""


def pool_data(
    daily: DataFrame,
    products: DataFrame,
    first: date,
    ends: Sequence[date],
    sample: SeriesBatch,
    holidays: Sequence[tuple[str, date]] = (),
) -> dict[date, PoolData]:
    """What the pools of each of the last days `ends` are learnt from: nothing of it is later than that day.

    Args:
        daily: columns location_id, sku, date, demand.
        products: columns sku, category.
        first: days before it are left out.
        sample: series that end at the latest of `ends` or after it.
    """
    rows = daily.where(F.col("date").between(F.lit(first), F.lit(max(ends))))
    begin = rows.agg(F.min(F.when(F.col("demand") > 0, F.col("date")))).collect()[0][0]
    if begin is None:
        return {}
    rows = rows.where(F.col("date") >= F.lit(begin))
    marked = _with_established(rows, begin, ends).persist()
    try:
        counted = [_counted(marked, place) for place in range(len(ends))]
        categories = marked.join(F.broadcast(products.select("sku", "category")), on="sku", how="left").withColumn(
            "category", F.coalesce("category", F.lit(UNKNOWN))
        )
        category = _sums(categories, "category", counted, begin, max(ends))
        location = _sums(marked, "location_id", counted, begin, max(ends))
        mixes = [_mix(categories, rows, end) for rows, end in zip(counted, ends, strict=True)]
    finally:
        marked.unpersist()
    data = {}
    for place, end in enumerate(ends):
        days = (end - begin).days + 1
        if days > 0:
            sums = [{name: units[place, :days] for name, units in of.items()} for of in (category, location)]
            data[end] = PoolData(end, sums[0], sums[1], sample.until(end), mixes[place], tuple(holidays))
    return data


def _with_established(rows: DataFrame, begin: date, ends: Sequence[date]) -> DataFrame:
    """Rows with a column for each end: whether the series was there from the beginning to that end."""
    sold = F.when(F.col("demand") > 0, F.col("date"))
    early = begin + timedelta(days=ESTABLISHED_DAYS)
    late = [
        F.max(F.when(F.col("date") <= F.lit(end), sold)) >= F.lit(end - timedelta(days=ESTABLISHED_DAYS))
        for end in ends
    ]
    series = rows.groupBy("location_id", "sku").agg(
        *(
            (F.coalesce((F.min(sold) <= F.lit(early)) & recent, F.lit(False))).alias(f"in_{place}")
            for place, recent in enumerate(late)
        )
    )
    return rows.join(series, on=["location_id", "sku"], how="inner")


def _counted(marked: DataFrame, place: int) -> Column:
    """Which rows count: those of established series, or all where these are too few."""
    units, established = marked.agg(
        F.sum("demand"), F.sum(F.when(F.col(f"in_{place}"), F.col("demand")).otherwise(0))
    ).collect()[0]
    return F.col(f"in_{place}") if (established or 0) >= FEWEST_ESTABLISHED * (units or 0) else F.lit(True)


def _sums(frame: DataFrame, name: str, counted: Sequence[Column], begin: date, last: date) -> Mapping[str, Floats]:
    """(ends, T) units a day by the values of a column."""
    names = [f"units_{place}" for place in range(len(counted))]
    sums = [
        F.sum(F.when(rows, F.col("demand")).otherwise(0)).cast("double").alias(units)
        for units, rows in zip(names, counted, strict=True)
    ]
    table: pa.Table = frame.groupBy(name, "date").agg(*sums).toArrow()
    column = (np.asarray(table.column("date").to_numpy(), "datetime64[D]") - np.datetime64(begin, "D")).astype(np.int64)
    keys = np.asarray(table.column(name).to_pylist(), object)
    out: dict[str, Floats] = {}
    for key in sorted(set(keys)):
        rows = keys == key
        cells = np.zeros((len(counted), (last - begin).days + 1))
        for place, units in enumerate(names):
            cells[place, column[rows]] = table.column(units).to_numpy()[rows]
        out[str(key)] = cells
    return out


def _mix(frame: DataFrame, counted: Column, end: date) -> dict[tuple[str, str], float]:
    """Units up to the end by category and location."""
    rows = frame.where(counted & (F.col("date") <= F.lit(end))).groupBy("category", "location_id")
    return {(row[0], row[1]): float(row[2]) for row in rows.agg(F.sum("demand")).collect()}
