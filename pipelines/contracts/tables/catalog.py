"""Reference data."""

from __future__ import annotations

import pyarrow as pa

from pipelines.contracts.tables.base import CATALOG, Table, schema_of

PRODUCTS = Table(
    "catalog/products",
    schema_of(
        sku=pa.string(),
        name=pa.string(),
        category=pa.string(),
        unit_cost=pa.float64(),
        unit_price=pa.float64(),
        shelf_life_days=pa.int64(),
        substitute_group=pa.string(),
    ),
    CATALOG,
)
LOCATIONS = Table(
    "catalog/locations",
    schema_of(
        location_id=pa.string(),
        kind=pa.string(),
        region=pa.string(),
        timezone=pa.string(),
        latitude=pa.float64(),
        longitude=pa.float64(),
    ),
    CATALOG,
)
SUPPLIERS = Table(
    "catalog/suppliers",
    schema_of(
        supplier_id=pa.string(),
        name=pa.string(),
        region=pa.string(),
        order_weekdays=pa.string(),
        order_cut_off=pa.string(),
        closed_days=pa.string(),
        timezone=pa.string(),
    ),
    CATALOG,
)
SOURCING = Table(
    "catalog/sourcing",
    schema_of(
        location_id=pa.string(),
        sku=pa.string(),
        supplier_id=pa.string(),
        lead_time_days=pa.float64(),
        lead_time_std_days=pa.float64(),
        pack_size=pa.int64(),
        minimum_order=pa.int64(),
        order_cost=pa.float64(),
        holding_cost_rate=pa.float64(),
        service_level=pa.float64(),
        review_days=pa.float64(),
        maximum_order=pa.int64(),
        quantity_breaks=pa.string(),
    ),
    CATALOG,
)
CATALOG_TABLES = (PRODUCTS, LOCATIONS, SUPPLIERS, SOURCING)
