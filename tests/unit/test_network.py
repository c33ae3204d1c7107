"""Kinds of suppliers and locations: found where they are, not where they are not, and named alike every night."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from pipelines.contracts.tables import DAILY_DEMAND, LOCATIONS, ORDERS, PRODUCTS, SOURCING, STOCK_MOVEMENTS, SUPPLIERS
from pipelines.network.clustering import cluster_network
from pipelines.network.clusters import cluster, keep_labels
from pipelines.network.words import Feature, describe

AS_OF = date(2024, 5, 31)
NOW = datetime(2024, 6, 1, 1, tzinfo=UTC)


def test_kinds_that_are_there_are_found():
    rng = np.random.default_rng(1)
    truth = np.repeat([0, 1, 2], [30, 20, 10])
    centres = np.array([[0.0, 0, 0], [5, 0, 3], [0, 6, -4]])
    found = cluster(centres[truth] + rng.normal(0, 0.6, (60, 3)))
    assert found.count == 3
    assert (found.labels == truth).all()
    assert found.silhouette > 0.5
    assert found.stability > 0.95


@pytest.mark.parametrize("seed", range(4))
def test_where_there_are_no_kinds_all_are_alike(seed):
    found = cluster(np.random.default_rng(seed).normal(size=(60, 5)))
    assert found.count == 1


@pytest.mark.parametrize("members", [np.empty((0, 3)), np.ones((1, 3)), np.ones((7, 3)), np.full((5, 2), np.nan)])
def test_few_members_or_nothing_known(members):
    assert (cluster(members).labels == 0).all()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.permutations(range(5)))
def test_the_same_groups_keep_their_names(labels, names):
    before = np.array(labels)
    renamed = np.array(names)[before]
    np.testing.assert_array_equal(keep_labels(renamed, before), before)


def test_a_new_group_gets_a_new_name():
    before = np.array([0, 0, 0, 1, 1, 1])
    found = np.array([2, 2, 0, 1, 1, 0])
    assert keep_labels(found, before).tolist() == [0, 0, 2, 1, 1, 2]


def test_a_cluster_is_told_by_what_differs():
    rng = np.random.default_rng(2)
    features = pd.DataFrame({"late": np.r_[rng.normal(0.1, 0.02, 30), rng.normal(0.4, 0.02, 10)], "size": 7.0})
    told = {
        "late": Feature("often late", "seldom late", "{:.0%}", 0.1),
        "size": Feature("large", "small", "{:.0f}", 2.0, ratio=True),
    }
    lines = describe(features, np.repeat([0, 1], [30, 10]), told)
    assert lines[1].startswith("often late (40%, others: 10%)")
    assert lines[0].startswith("seldom late (10%")
    assert "large" not in lines[1]


def put(tables, table, rows):
    tables.overwrite(table, pa.Table.from_pylist(rows, schema=table.schema))


def plant(tables, slow):
    """Twelve suppliers, those named in `slow` at twenty days instead of four; eight stores, three of them busy."""
    rng = np.random.default_rng(3)
    suppliers, stores = [f"u-{number:02d}" for number in range(12)], [f"s-{number}" for number in range(8)]
    put(tables, SUPPLIERS, [{"supplier_id": name, "name": name, "region": "north"} for name in suppliers])
    place = {"kind": "store", "region": "north", "timezone": "UTC", "latitude": 50.0, "longitude": 8.0}
    put(tables, LOCATIONS, [{"location_id": name, **place} for name in stores])
    put(tables, PRODUCTS, [{"sku": f"k-{n}", "category": f"c-{n % 2}", "unit_cost": 2.0} for n in range(6)])
    lane = {"lead_time_days": 5.0, "lead_time_std_days": 1.0, "pack_size": 1, "minimum_order": 1}
    sourced = [
        (store, f"k-{n}", suppliers[(2 * n + turn) % 12]) for store in stores for n in range(6) for turn in (0, 1)
    ]
    put(tables, SOURCING, [{"location_id": a, "sku": b, "supplier_id": c, **lane} for a, b, c in sourced])
    orders, receipts = [], []
    for number in range(600):
        store, sku, supplier = sourced[number % len(sourced)]
        at = NOW - timedelta(days=200 - number % 150)
        days = rng.gamma(16, (20 if supplier in slow else 4) / 16)
        known = {"order_id": f"o-{number}", "location_id": store, "sku": sku, "quantity": 5}
        orders.append({**known, "supplier_id": supplier, "created_at": at, "state": "received", "received": 5})
        receipts.append(
            {**known, "kind": "receipt", "event_time": at + timedelta(days=days), "event_id": f"r-{number}"}
        )
    put(tables, ORDERS, orders)
    put(tables, STOCK_MOVEMENTS, receipts)
    days = [AS_OF - timedelta(days=back) for back in range(120)]
    put(
        tables,
        DAILY_DEMAND,
        [
            {"location_id": store, "sku": f"k-{n}", "date": day, "demand": int(rng.poisson(40 if place > 4 else 4))}
            for place, store in enumerate(stores)
            for n in range(6)
            for day in days
        ],
    )


def test_slow_suppliers_are_told_apart_and_named_alike_the_next_night(tables, settings):
    # given a chain with three slow suppliers
    slow = {"u-02", "u-05", "u-09"}
    plant(tables, slow)
    # when the network is looked at, on two nights, the second with one more slow supplier
    report = cluster_network(settings, tables, AS_OF, NOW)
    read = lambda name: DeltaTable(f"{settings.home}/tables/gold/{name}").to_pandas()  # noqa: E731
    first = read("network_clusters").set_index("member")
    plant(tables, slow | {"u-11"})
    cluster_network(settings, tables, AS_OF, NOW + timedelta(days=1))
    second = read("network_clusters").set_index("member")
    # then the slow ones are a kind of their own, in words too
    kind = first.cluster[sorted(slow)].unique()
    assert len(kind) == 1
    assert set(first[(first.kind == "supplier") & (first.cluster == kind[0])].index) == slow
    assert first.description["u-02"].startswith("long lead times (")
    assert first.cluster[["s-5", "s-6", "s-7"]].nunique() == 1
    assert first.cluster["s-5"] != first.cluster["s-0"]
    assert "sells much" in first.description["s-5"]
    # and the next night nobody but the new one has changed its name
    suppliers = first.index[first.kind == "supplier"]
    assert set(suppliers[(first.cluster[suppliers] != second.cluster[suppliers])]) == {"u-11"}
    assert len(report.suppliers) == 2
    # and lanes show what was observed, not what was stated
    lanes = read("lead_times").set_index(["supplier_id", "location_id"])
    assert lanes.mean_days["u-02"].min() > 12
    assert lanes.mean_days["u-00"].max() < 6
    assert (lanes.stated_days == 5).all()
