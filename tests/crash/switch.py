"""The forecast switch: new forecasts for all series are put in force, and policies are planned from them.

    python -m tests.crash.switch HOME SERIES NUMBER

The forecasts are planted (no model is fitted); all that puts a version in force is the pipeline's own, with its named
points. Levels move from one version to the next, so that it shows which version an order was decided by.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import FORECASTS, LOCATIONS, PRODUCTS, QUANTILE_COLUMNS, SOURCING, TRAINING
from pipelines.inventory.planning import plan
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.io.published import FORECASTS as FORECASTS_POINTER
from pipelines.io.published import Published, publish
from pipelines.operations.failpoints import failpoint
from pipelines.operations.settings import Settings, load_settings
from tests.crash.stream import series_of

DAYS = 28
SPREAD = {"q05": 0.3, "q10": 0.4, "q25": 0.7, "q50": 1.0, "q75": 1.3, "q90": 1.6, "q95": 1.8}


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s  %(message)s")
    home, series, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    settings = load_settings(overrides=[f"home={home}", "planning.versions_kept=10000"])
    tables, keys = Tables(settings), [series_of(place) for place in range(series)]
    plant_catalog(tables, keys)
    switch(settings, tables, keys, number)


def plant_catalog(tables: Tables, keys: list[tuple[str, str]]) -> None:
    """Products, locations and sourcing of the series; once."""
    if tables.exists(SOURCING):
        return
    skus, places = sorted({sku for _, sku in keys}), sorted({place for place, _ in keys})
    terms = {"supplier_id": "sup-1", "lead_time_days": 2.0, "lead_time_std_days": 0.5, "pack_size": 6,
             "minimum_order": 1, "order_cost": 0.03, "holding_cost_rate": 0.2, "service_level": 0.95,
             "review_days": 1.0}  # fmt: skip
    place = {"kind": "store", "region": "north", "timezone": "UTC", "latitude": 50.0, "longitude": 10.0}
    for table, rows in (
        (PRODUCTS, [{"sku": sku, "name": sku, "category": "c", "unit_cost": 1.0, "unit_price": 2.0} for sku in skus]),
        (LOCATIONS, [{"location_id": name, **place} for name in places]),
        (SOURCING, [{"location_id": name, "sku": sku, **terms} for name, sku in keys]),
    ):
        tables.overwrite(table, pa.Table.from_pylist(rows, schema=table.schema))


def switch(settings: Settings, tables: Tables, keys: list[tuple[str, str]], number: int) -> None:
    """Put the n-th forecasts in force, then the policies that follow from them."""
    now, as_of = datetime.now(UTC), (datetime.now(UTC) - timedelta(days=2)).date()
    version = f"f-{as_of:%Y%m%d}-{as_of:%Y%m%d}T{number:06d}"
    with ownership(settings, TRAINING, "publishing"):
        rows = pa.Table.from_pylist(list(_forecasts(keys, version, as_of, now, number)), schema=FORECASTS.schema)
        tables.overwrite(FORECASTS, rows, predicate=f"forecast_version = '{version}'")
        stored = tables.read(FORECASTS, ("location_id",), pc.field("forecast_version") == version)
        assert stored.num_rows == len(keys) * DAYS
        failpoint("train.before_switch")
        publish(tables, Published(FORECASTS_POINTER, version, as_of, None, now))
    plan(None, settings, tables, None, now)


def _forecasts(keys, version, as_of, now, number):
    midnight = datetime.combine(as_of, datetime.min.time(), UTC)
    for place, (location_id, sku) in enumerate(keys):
        mean = 4.0 + (place + number) % 5
        for day in range(1, DAYS + 1):
            yield {
                "location_id": location_id,
                "sku": sku,
                "grain": "day",
                "target_time": midnight + timedelta(days=day),
                "forecast_version": version,
                "yhat": mean,
                **{name: mean * SPREAD[name] for name in QUANTILE_COLUMNS},
                "model": "planted",
                "created_at": now,
            }


if __name__ == "__main__":
    main()
