"""The plan from the tables, without Spark: what the catalog states beyond packs, and warehouses that serve stores."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from pipelines.contracts.tables import (
    BACKTESTS,
    FORECASTS,
    INVENTORY_POLICIES,
    LOCATIONS,
    PRODUCTS,
    QUANTILE_COLUMNS,
    QUANTILES,
    SOURCING,
    SUPPLIERS,
)
from pipelines.inventory.planning import plan
from pipelines.inventory.policies import get_policy
from pipelines.inventory.warehouse_demand import STORE_CORRELATION, store_correlation, with_warehouses
from pipelines.io import published
from tests.unit.test_inventory_policies import batch_of

AS_OF = date(2026, 3, 1)
NOW = datetime(2026, 3, 2, 3, tzinfo=UTC)
STORES = ("s-1", "s-2", "s-3", "s-4")


def plant(tables, sourcing, suppliers=(), places=()):
    scores = stats.norm.ppf(QUANTILES)
    rows = [
        {"location_id": place, "sku": "a", "grain": "day", "target_time": NOW.replace(hour=0) + timedelta(days=day),
         "forecast_version": "f-1", "yhat": 20.0, "model": "m", "created_at": NOW,
         **dict(zip(QUANTILE_COLUMNS, (20 + 4 * scores).tolist(), strict=True))}
        for place in STORES for day in range(28)
    ]  # fmt: skip
    terms = {"sku": "a", "supplier_id": "u-1", "lead_time_days": 4.0, "lead_time_std_days": 0.0, "pack_size": 1,
             "minimum_order": 1, "order_cost": 20.0, "holding_cost_rate": 0.25, "service_level": 0.95,
             "review_days": 1.0}  # fmt: skip
    product = {"sku": "a", "name": "a", "category": "c", "unit_cost": 10.0, "unit_price": 14.0}
    written = (
        (FORECASTS, rows), (SOURCING, [{**terms, **row} for row in sourcing]), (PRODUCTS, [product]),
        (SUPPLIERS, list(suppliers)), (LOCATIONS, list(places)),
    )  # fmt: skip
    for table, content in written:
        tables.overwrite(table, pa.Table.from_pylist(content, schema=table.schema))
    published.publish(tables, published.Published(published.FORECASTS, "f-1", AS_OF, None, NOW))


def planned(settings, tables):
    quick = settings.model_copy(update={"planning": settings.planning.model_copy(update={"paths": 512})})
    plan(None, quick, tables, AS_OF, NOW)
    return {row["location_id"]: row for row in tables.read(INVENTORY_POLICIES).to_pylist()}


def test_maximum_price_breaks_and_order_days_come_into_force(settings, tables):
    # given four stores: one as it is, one with a maximum, one whose units are cheaper by 2,000, one with order days
    sourcing = [
        {"location_id": "s-1"},
        {"location_id": "s-2", "maximum_order": 50},
        {"location_id": "s-3", "quantity_breaks": "2000:9"},
        {"location_id": "s-4", "supplier_id": "u-2"},
    ]
    supplier = {"supplier_id": "u-2", "order_weekdays": "Mon Thu", "order_cut_off": "12:00"}
    plant(tables, sourcing, [supplier])
    rows = planned(settings, tables)
    assert [rows[store]["maximum_order"] for store in STORES] == [None, 50, None, None]
    # then the cheaper price makes the order larger, and says so
    assert rows["s-3"]["order_up_to"] - rows["s-3"]["reorder_point"] == 2000
    assert rows["s-3"]["binding_constraint"] == "quantity_break"
    # and an order to the last has to last from Thursday to Monday, and its days are known
    assert rows["s-4"]["review_days"] == 4.0
    assert rows["s-4"]["reorder_point"] > rows["s-1"]["reorder_point"] + 2 * 20
    assert rows["s-4"]["order_windows"][:2] == [datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 2, 12, tzinfo=UTC)]
    assert rows["s-1"]["order_windows"] is None


def test_a_break_that_is_not_worth_its_stock_changes_nothing():
    plain = batch_of(unit_cost=2.0)
    breaks = batch_of(unit_cost=2.0)
    dear = replace(breaks, terms=replace(breaks.terms, breaks=_breaks(1e5, 1.999)))
    good = replace(breaks, terms=replace(breaks.terms, breaks=_breaks(2000.0, 1.5)))
    policy = get_policy("order_up_to")
    assert policy.levels(dear).order_up_to == policy.levels(plain).order_up_to
    assert policy.levels(good).order_up_to - policy.levels(good).reorder_point >= 2000


def _breaks(units, price):
    from pipelines.inventory.economics import QuantityBreaks

    return QuantityBreaks(np.array([[0.0, units]]), np.array([[2.0, price]]))


def test_a_warehouse_is_planned_for_the_stores_that_it_serves(settings, tables):
    # given a warehouse that supplies four stores and is supplied itself; nothing forecasts it
    sourcing = [*({"location_id": store, "supplier_id": "w-1"} for store in STORES), {"location_id": "w-1"}]
    plant(tables, sourcing, places=[{"location_id": "w-1", "kind": "warehouse", "region": "north"}])
    rows = planned(settings, tables)
    # then its demand is theirs together, and its safety stock less than theirs together but more than for one
    store, warehouse = rows["s-1"], rows["w-1"]
    assert warehouse["cumulative_mean"][6] == pytest.approx(4 * store["cumulative_mean"][6])
    ratio = warehouse["cumulative_std"][0] / store["cumulative_std"][0]
    assert ratio == pytest.approx(np.sqrt(4 * (1 - STORE_CORRELATION) + 16 * STORE_CORRELATION), rel=0.01)
    assert store["safety_stock"] < warehouse["safety_stock"] < 4 * store["safety_stock"]


@pytest.mark.parametrize(("correlation", "spread"), [(0.0, 2.0), (1.0, 4.0)])
def test_deviations_add_up_by_their_correlation(correlation, spread):
    rows = pa.table({"location_id": list(STORES), "sku": ["a"] * 4, "target_time": [1] * 4, "yhat": [10.0] * 4,
                     "q05": [9.0] * 4, "q95": [11.0] * 4})  # fmt: skip
    found = with_warehouses(rows, {(store, "a"): "w-1" for store in STORES}, correlation).to_pylist()
    assert found[-1] == {"location_id": "w-1", "sku": "a", "target_time": 1, "yhat": 40.0,
                         "q05": 40.0 - spread, "q95": 40.0 + spread}  # fmt: skip


def test_the_correlation_between_stores_is_that_of_the_backtests_errors(tables):
    assert store_correlation(tables, "f-1") == STORE_CORRELATION
    rng = np.random.default_rng(1)
    rows = []
    for product in range(60):
        common = rng.standard_normal(28)
        for store in range(10):
            error = np.sqrt(0.5) * common + np.sqrt(0.5) * rng.standard_normal(28)
            rows.append({"location_id": f"s-{store}", "sku": f"p-{product}", "forecast_version": "f-1",
                         "first_day": AS_OF, "actual": 50 + error, "yhat": np.full(28, 50.0),
                         "low": np.full(28, 50 - 1.2816), "high": np.full(28, 50 + 1.2816)})  # fmt: skip
    tables.overwrite(BACKTESTS, pa.Table.from_pylist(rows, schema=BACKTESTS.schema))
    assert store_correlation(tables, "f-1") == pytest.approx(0.45, abs=0.06)
