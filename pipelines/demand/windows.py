"""What totals are made of, as pure functions: from the ledger to the facts of every scope and tumbling window."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipelines.contracts.tables import DEMAND_TOTALS, LOCATION_SCOPE
from pipelines.contracts.tables.base import schema_of
from pipelines.demand.demand import Period, revenue_cents
from pipelines.ingestion.late_duplicates import correction_ids, is_correction

GLOBAL = "global"
UNKNOWN_REGION = "unknown"
MEASURES = ("orders", "units", "cents")


@dataclass(frozen=True)
class Shape:
    """Which totals are kept.

    Args:
        windows: the tumbling windows; sliding ones are made of them and slide by them.
        lengths: of all windows, in tumbling ones: 1 first, then the sliding ones'.
        locations: whether every location is a scope as well.
    """

    windows: Period
    lengths: tuple[int, ...] = (1,)
    locations: bool = False

    @property
    def reach(self) -> int:
        """Two tumbling windows further apart than this share no window."""
        return max(self.lengths) - 1

    def starts(self, numbers: Iterable[int], length: int) -> list[int]:
        """In order, the first tumbling windows of the windows of this length that contain any of the given ones."""
        return sorted({start for number in numbers for start in range(number - length + 1, number + 1)})

    def needed(self, numbers: Iterable[int]) -> list[int]:
        """In order, the tumbling windows of all windows that contain any of the given ones."""
        reach = self.reach
        return sorted({near for number in numbers for near in range(number - reach, number + reach + 1)})


class Facts(NamedTuple):
    """What the totals of all windows follow from; everything here is a sum, so that it adds up over locations.

    `totals`: `orders`, `units` and `cents` per tumbling window (`period`). `repeats`: `tickets` with a sale in
    tumbling window `period` whose latest earlier window with a sale lies `distance` windows before it: a window
    that contains both has counted them twice. Both per location_id, or per scope and region.
    """

    totals: pa.Table
    repeats: pa.Table


NO_REPEATS = schema_of(
    scope=pa.string(), region=pa.string(), period=pa.int64(), distance=pa.int64(), tickets=pa.int64()
).empty_table()
"""Where no windows slide, a ticket counts twice in none."""


def windows_of(minutes: int) -> Period:
    """Tumbling windows of this length, aligned to the epoch."""
    return Period(DEMAND_TOTALS, "window_start", minutes * 60_000_000)


def shape_of(minutes: int, sliding_minutes: Iterable[int] = (), locations: bool = False) -> Shape:
    """The shape with tumbling windows of `minutes` and sliding ones, whose lengths are multiples of that."""
    return Shape(windows_of(minutes), (1, *sorted(length // minutes for length in sliding_minutes)), locations)


def window_start(number: int, windows: Period) -> datetime:
    """The start of the window with this number since the epoch."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=number * windows.microseconds)


# From the ledger to locations. ----------------------------------------------------------------------------


def touched_windows(rows: DataFrame, windows: Period) -> DataFrame:
    """The windows whose totals ledger rows bear on.

    Returns:
        `period` (the window's number since the epoch), `sales` (how many of the rows), `corrected` (whether one
        of the rows takes an earlier one back).
    """
    return (
        rows.where((F.col("kind") == "sale") | is_correction())
        .groupBy(windows.number("event_time").alias("period"))
        .agg(F.count_if(F.col("kind") == "sale").alias("sales"), F.bool_or(is_correction()).alias("corrected"))
    )


def standing(ledger: DataFrame) -> DataFrame:
    """The ledger without the rows that a correction among its rows takes back (`late_duplicates`)."""
    of_row = ["location_id", "sku", "event_time"]
    names = [f"corrected_{name}" for name in of_row]
    corrections = ledger.where(is_correction()).select(
        *(F.col(old).alias(new) for old, new in zip(of_row, names, strict=True)),
        F.col("event_id").alias("correction"),
    )
    condition: Column = correction_ids() == F.col("correction")
    for old, new in zip(of_row, names, strict=True):
        condition = condition & (F.col(old) == F.col(new))
    return ledger.join(F.broadcast(corrections), on=condition, how="left_anti")


def sale_lines(ledger: DataFrame, windows: Period) -> DataFrame:
    """The ledger's sales as they count towards totals: gross units and revenue (`hourly_demand` defines both).

    Returns:
        location_id, `period` (the window's number since the epoch), sequence, ticket_id, event_id, `units`,
        `cents`.
    """
    return ledger.where(F.col("kind") == "sale").select(
        "location_id",
        windows.number("event_time").alias("period"),
        "sequence",
        "ticket_id",
        "event_id",
        F.col("quantity").alias("units"),
        revenue_cents().alias("cents"),
    )


def location_totals(lines: DataFrame) -> DataFrame:
    """Orders, units and revenue per location and window with sales.

    An order is a distinct `ticket_id` of the location with a sale in the window; a sale without one is an
    order of its own.

    Args:
        lines: `sale_lines`.

    Returns:
        location_id, `period`, `orders`, `units`, `cents`.
    """
    # A ticket and an event may bear the same id: they are kept apart by their place in the struct.
    alone = F.when(F.col("ticket_id").isNull(), F.col("event_id"))
    order = F.struct(F.col("ticket_id").alias("ticket"), alone.alias("event"))
    return (
        lines.groupBy("location_id", "period", order.alias("order"))
        .agg(F.sum("units").alias("units"), F.sum("cents").alias("cents"))
        .groupBy("location_id", "period")
        .agg(F.count(F.lit(1)).alias("orders"), F.sum("units").alias("units"), F.sum("cents").alias("cents"))
    )


def location_repeats(lines: DataFrame, reach: int) -> DataFrame:
    """Tickets that sell in more than one tumbling window, up to `reach` windows apart (see `Facts`).

    Returns:
        location_id, `period`, `distance`, `tickets`.
    """
    of_ticket = Window.partitionBy("location_id", "ticket_id").orderBy("period")
    return (
        lines.where(F.col("ticket_id").isNotNull())
        .select("location_id", "ticket_id", "period")
        .distinct()
        .withColumn("distance", F.col("period") - F.lag("period").over(of_ticket))
        .where(F.col("distance") <= reach)
        .groupBy("location_id", "period", "distance")
        .agg(F.count(F.lit(1)).alias("tickets"))
    )


# From locations to scopes. --------------------------------------------------------------------------------


def scope_sums(per_location: DataFrame, locations: DataFrame, sums: Collection[str], shape: Shape) -> DataFrame:
    """Facts of regions and `global`, the exact sums of their locations', and of the locations where asked for.

    Args:
        per_location: location_id, columns to add up (`sums`) and others, which are kept apart.
        locations: location_id and region; a location that is not among them counts for region `unknown`.

    Returns:
        `scope`, `region` (of a location; null for other scopes), and the other columns of `per_location`.
    """
    keys = [name for name in per_location.columns if name not in (*sums, "location_id")]
    region = F.coalesce(F.col("region"), F.lit(UNKNOWN_REGION))
    none = F.lit(None).cast("string")
    scopes = [(region, none), (F.lit(GLOBAL), none)]
    if shape.locations:
        scopes.append((F.concat(F.lit(LOCATION_SCOPE), "location_id"), region))
    structs = [F.struct(scope.alias("scope"), place.alias("region")) for scope, place in scopes]
    return (
        per_location.join(F.broadcast(locations.select("location_id", "region")), on="location_id", how="left")
        .select(F.explode(F.array(*structs)).alias("of"), *keys, *sums)
        .groupBy("of.scope", "of.region", *keys)
        .agg(*(F.sum(name).alias(name) for name in sums))
    )


def scope_sums_of_few(
    per_location: pa.Table, regions: Mapping[str, str], sums: Collection[str], shape: Shape
) -> pa.Table:
    """`scope_sums` of a few windows, without Spark.

    Args:
        regions: region by location_id.
    """
    keys = ["scope", "region", *(name for name in per_location.column_names if name not in (*sums, "location_id"))]
    encoded = per_location["location_id"].combine_chunks().dictionary_encode()
    places, names = encoded.indices, encoded.dictionary.to_pylist()
    region = pa.array([regions.get(name, UNKNOWN_REGION) for name in names], pa.string()).take(places)
    none = pa.nulls(per_location.num_rows, pa.string())
    scopes = [(region, none), (pa.repeat(GLOBAL, per_location.num_rows), none)]
    if shape.locations:
        scopes.append((pa.array([LOCATION_SCOPE + name for name in names], pa.string()).take(places), region))
    rows = per_location.drop_columns("location_id")
    parts = [rows.append_column("scope", scope).append_column("region", place) for scope, place in scopes]
    found = pa.concat_tables(parts).group_by(keys).aggregate([(name, "sum") for name in sums])
    return found.rename_columns({f"{name}_sum": name for name in sums})
