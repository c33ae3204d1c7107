"""Totals per tumbling window as pure functions: from the ledger to orders, units and revenue of every scope."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.contracts.tables import DEMAND_TOTALS
from pipelines.demand.demand import Period, as_money, revenue_cents

GLOBAL = "global"
UNKNOWN_REGION = "unknown"
MEASURES = ("orders", "units", "cents")


def windows_of(minutes: int) -> Period:
    """Tumbling windows of this length, aligned to the epoch."""
    return Period(DEMAND_TOTALS, "window_start", minutes * 60_000_000)


def window_start(number: int, windows: Period) -> datetime:
    """The start of the window with this number since the epoch."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=number * windows.microseconds)


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
        .agg(*(F.sum(name).alias(name) for name in MEASURES))
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


def scope_totals_of_few(per_location: pa.Table, regions: Mapping[str, str], windows: Period) -> pa.Table:
    """`scope_totals` of a few windows, without Spark.

    Args:
        per_location: location_id, `period`, `orders`, `units`, `cents`.
        regions: region by location_id.
    """
    scopes = [regions.get(name, UNKNOWN_REGION) for name in per_location["location_id"].to_pylist()]
    parts = [
        per_location.append_column("scope", pa.array(column, pa.string()))
        for column in (scopes, [GLOBAL] * per_location.num_rows)
    ]
    sums = pa.concat_tables(parts).group_by(["scope", "period"]).aggregate([(name, "sum") for name in MEASURES])
    numbers = sums["period"].to_pylist()
    hundredth = pa.scalar(Decimal("0.01"), pa.decimal128(3, 2))
    revenue = pc.multiply(sums["cents_sum"].cast(pa.decimal128(19, 0)), hundredth)
    return pa.table(
        {
            "scope": sums["scope"],
            "window_start": [window_start(number, windows) for number in numbers],
            "window_end": [window_start(number + 1, windows) for number in numbers],
            "orders": sums["orders_sum"],
            "units": sums["units_sum"],
            "revenue": revenue,
        }
    ).cast(DEMAND_TOTALS.schema)


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
