"""Demand by hour and day, and totals."""

from __future__ import annotations

import pyarrow as pa

from pipelines.contracts.tables.base import DEMAND, MONEY, TIME, Table, schema_of


def _demand(period: str, type_: pa.DataType) -> pa.Schema:
    return schema_of(
        location_id=pa.string(),
        sku=pa.string(),
        **{period: type_},
        demand=pa.int64(),
        returned=pa.int64(),
        promotion_share=pa.float64(),
        revenue=MONEY,
        in_stock_fraction=pa.float64(),
    )


HOURLY_DEMAND = Table("gold/hourly_demand", _demand("hour", TIME), DEMAND)
DAILY_DEMAND = Table("gold/daily_demand", _demand("date", pa.date32()), DEMAND)

DEMAND_TOTALS = Table(
    "gold/demand_totals",
    schema_of(
        scope=pa.string(),
        window_start=TIME,
        window_end=TIME,
        orders=pa.int64(),
        units=pa.int64(),
        revenue=MONEY,
        region=pa.string(),
    ),
    "aggregate_totals",
)
"""Per tumbling window, and per sliding one where asked for: `window_end` tells them apart. `region` is that in which a
location was counted, null for other scopes: in every version of the table, the rows of a window with that region add
up to the region's."""

LOCATION_SCOPE = "location:"
"""A location's scope is its id after this, so that it cannot be taken for a region's."""
