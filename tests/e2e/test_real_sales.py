"""Three years of real sales, replayed through Kafka: trained, planned, sold on, flagged and ordered."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import pandas as pd

from pipelines.io.delta import Tables
from pipelines.operations.live import run_live
from pipelines.operations.nightly import run_nightly
from pipelines.simulation.replay import ReplayOptions, replay_file
from tests.chain import send
from tests.reconciler import read_table, read_topics, stock

STORES, ITEMS = ("1", "2"), tuple(str(item) for item in range(1, 11))
LAST_DAY = date(2015, 12, 31)
COUNTED = 120


def load_reference_data(settings, tmp_path):
    """The catalog as a user would write it, loaded by the job."""
    from pipelines.ingestion.catalog import load_catalog

    folder = tmp_path / "catalog"
    folder.mkdir()
    products = pd.DataFrame({"sku": ITEMS, "category": "grocery", "unit_cost": 2.0, "unit_price": 3.0})
    products.insert(1, "name", "item " + products.sku)
    products.to_csv(folder / "products.csv", index=False)
    places = pd.DataFrame({"location_id": STORES, "kind": "store", "region": "north", "timezone": "UTC"})
    places.assign(latitude=50.0, longitude=8.0).to_csv(folder / "locations.csv", index=False)
    pd.DataFrame({"supplier_id": ["u-1"], "name": ["Supplier"], "region": ["north"]}).to_csv(
        folder / "suppliers.csv", index=False
    )
    series = pd.MultiIndex.from_product([STORES, ITEMS], names=["location_id", "sku"]).to_frame(index=False)
    terms = {"supplier_id": "u-1", "lead_time_days": 2.0, "lead_time_std_days": 0.5, "pack_size": 6, "minimum_order": 6}
    terms |= {"order_cost": 5.0, "holding_cost_rate": 0.25, "service_level": 0.95, "review_days": 1.0}
    series.assign(**terms).to_csv(folder / "sourcing.csv", index=False)
    load_catalog(settings, Tables(settings), folder)


def count_everything(settings, at):
    """Every shelf is counted at the same moment."""
    messages = []
    for store in STORES:
        for item in ITEMS:
            event = {
                "event_id": f"count-{store}-{item}",
                "event_time": at.isoformat().replace("+00:00", "Z"),
                "location_id": store,
                "sku": item,
                "kind": "count",
                "quantity": COUNTED,
            }
            messages.append(("inventory.movements", f"{store}|{item}", json.dumps(event).encode()))
    send(settings.kafka.bootstrap_servers, messages)


def test_real_sales_end_in_flags_and_orders(spark, chain, shared_data, tmp_path):
    # given three years of two stores and ten items, shelves counted at their end, taken in and trained
    file, tables = shared_data / "store_item_daily.parquet", Tables(chain)
    load_reference_data(chain, tmp_path)
    options = {"locations": STORES, "skus": ITEMS}
    replay_file(chain, file, ReplayOptions(last=LAST_DAY, **options))
    count_everything(chain, datetime(2015, 12, 31, 23, tzinfo=UTC))
    run_live(chain, once=True)
    night = run_nightly(spark, chain, tables, LAST_DAY, lambda: datetime.now(UTC))
    # when the shops sell on for two weeks
    replay_file(chain, file, ReplayOptions(first=date(2016, 1, 1), last=date(2016, 1, 14), **options))
    run_live(chain, once=True)

    # then the ledger agrees with the file, and the positions with ten lines of pandas
    sales = pd.read_parquet(file).assign(date=lambda rows: pd.to_datetime(rows.date).dt.strftime("%Y-%m-%d"))
    sales = sales[sales.store.isin([1, 2]) & sales.item.isin(range(1, 11)) & (sales.date < "2016-01-15")]
    ledger = read_table(chain.home_path, "silver/stock_movements")
    sold = ledger[ledger.kind == "sale"]
    by_day = sold.groupby([sold.location_id, sold.sku, sold.event_time.dt.strftime("%Y-%m-%d")]).quantity.sum()
    rows = sales[sales.sales > 0]
    expected = rows.set_index([rows.store.astype(str), rows.item.astype(str), rows.date]).sales
    assert by_day.sort_index().tolist() == expected.sort_index().tolist()
    sold_since = sales[sales.date >= "2016-01-01"].groupby(["store", "item"]).sales.sum()
    positions = read_table(chain.home_path, "gold/inventory_positions").set_index(["location_id", "sku"]).on_hand
    for (store, item), units in sold_since.items():
        assert positions[str(store), str(item)] == COUNTED - units
    assert positions.sort_index().tolist() == stock(ledger).sort_index().tolist()

    # and every series is forecast, better than last week's same day
    status = read_table(chain.home_path, "gold/series_status")
    assert len(status) == len(STORES) * len(ITEMS)
    assert set(status.status) == {"ok"}
    assert night.training.summary.wape < night.training.summary.baseline_wape
    daily = read_table(chain.home_path, "gold/forecasts").query("grain == 'day'")
    assert daily.groupby(["location_id", "sku"]).size().eq(28).all()
    assert daily.target_time.min() == pd.Timestamp("2016-01-01", tz="UTC")

    # and flags and orders are on Kafka, each order as the outbox holds it
    flags = [json.loads(record.value) for record in read_topics(chain.kafka.bootstrap_servers, "stockout.flags")]
    orders = [json.loads(record.value) for record in read_topics(chain.kafka.bootstrap_servers, "restock.orders")]
    outbox = read_table(chain.home_path, "gold/order_outbox")
    assert sorted(order["order_id"] for order in orders) == sorted(outbox.order_id)
    assert {(order["location_id"], order["sku"]) for order in orders} == {(s, i) for s in STORES for i in ITEMS}
    assert all(order["quantity"] % 6 == 0 and order["created_at"] > "2016" for order in orders)
    assert {flag["forecast_version"] for flag in flags} == {night.training.version}
    # where the shelf is empty, all demand until the next receipt is lost, a margin of 1.00 with each unit
    empty = [flag for flag in flags if flag["on_hand"] <= 0]
    assert len(empty) > 10
    for flag in empty:
        classes = [flag["expected_demand"] >= limit for limit in (10, 50, 250)]
        assert flag["severity"] == ("low", "medium", "high", "critical")[sum(classes)]
