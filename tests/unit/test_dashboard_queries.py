"""What the dashboard's pages ask of the tables: series found and shown, totals, forecast quality, the network."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.contracts.tables import (
    BACKTESTS,
    BOTTLENECKS,
    DEMAND_TOTALS,
    FORECAST_DRIFT,
    LEAD_TIMES,
    LOCATIONS,
    NETWORK_CLUSTERS,
    PRODUCTS,
    QUARANTINE,
    SERIES_STATUS,
    SHIPMENTS,
    SUPPLIERS,
)
from pipelines.io.published import FORECASTS, Published, publish
from pipelines.serving.dashboard import charts
from pipelines.serving.dashboard.detail import levels, series_detail, with_orders
from pipelines.serving.dashboard.finder import PAGE, SeriesFinder
from pipelines.serving.dashboard.health import reason_lines, samples
from pipelines.serving.dashboard.network import network_figure, network_view
from pipelines.serving.dashboard.overrides import judge
from pipelines.serving.dashboard.quality import ALL, quality_view
from pipelines.serving.dashboard.stock import PolicyShelf
from pipelines.serving.dashboard.totals import TotalsSource
from tests.e2e import prepared_home

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def rows(table, found):
    return pa.Table.from_pylist(found, schema=table.schema)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A home with forecasts, positions and orders."""
    from pipelines.operations.settings import load_settings

    home = tmp_path_factory.mktemp("prepared")
    return prepared_home.prepare(load_settings(overrides=[f"home={home}"]))


def test_a_series_is_shown_with_everything_that_is_known_of_it(prepared):
    finder = SeriesFinder(prepared)
    found = finder.search()
    assert found.total == found.matching == len(found.rows) == 6
    first = found.rows[0]
    detail = series_detail(
        prepared, PolicyShelf(prepared), first["location_id"], first["sku"], datetime(2025, 11, 1, tzinfo=UTC)
    )
    assert detail.known
    assert len(detail.forecast) == 28
    assert detail.demand[-1]["date"] == date(2025, 10, 31)
    assert detail.status["model"] == prepared_home.MODEL
    assert detail.policy["reorder_point"] <= detail.policy["order_up_to"]
    # then the stock over time ends at the position, and the position line at what is on order
    assert detail.stock[-1][1] == detail.position["on_hand"]
    assert detail.stock[-1][2] == detail.position["on_hand"] + detail.position["on_order"]
    figure = charts.series_figure(detail)
    names = {trace.get("name") for trace in figure["data"]}
    assert {"sold", "forecast", "5 to 95 %", "on hand", "on hand and on order"} <= names
    assert len(figure["layout"]["shapes"]) == 2


def test_series_are_found_by_every_word_and_by_page(tables):
    products = [{"sku": f"sku-{number}", "name": f"Tea no. {number}", "category": "hot"} for number in range(40)]
    products.append({"sku": "x", "name": "100% <Juice>", "category": "cold"})
    tables.overwrite(PRODUCTS, rows(PRODUCTS, products))
    status = [
        {"location_id": place, "sku": product["sku"], "status": "ok", "forecast_version": "f-1", "WAPE": number / 100}
        for place in ("north-1", "south-1")
        for number, product in enumerate(products)
    ]
    tables.overwrite(SERIES_STATUS, rows(SERIES_STATUS, status))
    publish(tables, Published(FORECASTS, "f-1", NOW.date(), None, NOW))
    finder = SeriesFinder(tables)
    assert finder.search().total == 82
    assert finder.search("NORTH tea").matching == 40
    assert finder.search("north sku-7").matching == 1
    assert finder.search("100% <juice>").matching == 2
    assert finder.search("tea%").matching == 0
    assert finder.search("", "risk", 0, "cold").matching == 2
    assert finder.categories() == ["cold", "hot"]
    # pages do not overlap and hold everything once
    pages = [finder.search("", "name", page).rows for page in range(4)]
    assert [len(page) for page in pages] == [PAGE, PAGE, PAGE, 82 - 3 * PAGE]
    assert len({(row["location_id"], row["sku"]) for page in pages for row in page}) == 82
    worst = finder.search("", "error").rows
    assert [row["WAPE"] for row in worst] == sorted((row["WAPE"] for row in worst), reverse=True)
    # a page beyond the last is empty rather than an error
    beyond = finder.search("tea", "risk", 99)
    assert (beyond.rows, beyond.matching) == ([], 80)


CHANGE = st.tuples(st.sampled_from(["sale", "receipt"]), st.integers(1, 9))


@given(st.lists(CHANGE, max_size=30), st.integers(0, 50))
def test_stock_over_time_goes_back_from_now(changes, start):
    level, found, expected = start, [], []
    for minute, (kind, quantity) in enumerate(changes):
        change = -quantity if kind == "sale" else quantity
        level += change
        found.append(
            {"event_time": NOW + timedelta(minutes=minute), "kind": kind, "quantity": quantity, "change": change}
        )
        expected.append(level)
    assert [stock for _, stock in levels(found, level)] == expected


def test_a_count_sets_the_stock_from_its_own_time_on():
    changes = [("sale", 2, -2), ("count", 10, None), ("sale", 3, -3), ("count", 20, None), ("receipt", 5, 5)]
    found = [
        {"event_time": NOW + timedelta(minutes=minute), "kind": kind, "quantity": quantity, "change": change}
        for minute, (kind, quantity, change) in enumerate(changes)
    ]
    assert [stock for _, stock in levels(found, 25)] == [10, 10, 7, 20, 25]


def test_an_order_counts_in_the_position_from_its_decision_to_its_receipt():
    orders = [
        {
            "created_at": NOW,
            "quantity": 30,
            "state": "received",
            "state_time": NOW + timedelta(hours=2),
            "received": 30,
        }
    ]
    stock = [(NOW - timedelta(hours=1), 5), (NOW + timedelta(hours=2), 35)]
    line = with_orders(stock, orders, NOW - timedelta(days=1), NOW + timedelta(hours=3))
    assert [(level, position) for _, level, position in line][-1] == (35, 35)
    assert (5, 35) in [(level, position) for _, level, position in line]


DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("decided", "stock", "verdict", "why"),
    [
        (30, [(0, 5)], "as proposed", ""),
        (0, [(-1, 20), (3, 4)], "helped", "30 fewer units, and 4 were left"),
        (10, [(-1, 20), (3, 0)], "did not help", "ran out within a week"),
        (40, [(-1, 20), (3, 4)], "helped", "6 of 10 more units were needed"),
        (40, [(-1, 20), (3, 12)], "did not help", "10 more units, and 12 were left"),
        (40, [(-1, 20), (3, 0)], "helped", "10 of 10 more units were needed"),
        (0, [(-1, 9), (8, 0)], "helped", "30 fewer units, and 9 were left"),
        (0, [], "too early", "no stock known"),
    ],
    ids=["same", "fewer", "too-few", "more", "too-many", "all-of-it", "ran-out-later", "unknown"],
)
def test_deciding_otherwise_is_judged_by_what_became_of_the_stock(decided, stock, verdict, why):
    # given a proposal of 30 units that would have come at NOW, and the stock some days around that
    levels_of = [(NOW + day * DAY, level) for day, level in stock]
    assert judge(30, decided, NOW, levels_of, NOW + 8 * DAY) == (verdict, why)


def test_a_decision_is_not_judged_before_a_week_has_passed():
    assert judge(30, 0, NOW, [(NOW, 0)], NOW + 5 * DAY) == ("too early", "in 2 days")


def total(scope, hours_ago, units, hours=1):
    start = NOW.replace(minute=0) - timedelta(hours=hours_ago)
    return {
        "scope": scope,
        "window_start": start,
        "window_end": start + timedelta(hours=hours),
        "orders": 1,
        "units": units,
        "revenue": 2 * units,
    }


def test_totals_are_of_the_day_so_far_against_the_same_hours_a_week_ago(tables):
    source = TotalsSource(tables)
    assert not source.poll()
    found = [total("north", 0, 10), total("north", 3, 5), total("north", 20, 99), total("global", 0, 10)]
    found += [total("north", 168, 6), total("north", 171, 4), total("north", 166, 50)]
    # given a location's row and a sliding window as well, which would be counted twice
    found += [total("location:s1", 0, 10), total("north", 2, 900, hours=24)]
    tables.append(DEMAND_TOTALS, rows(DEMAND_TOTALS, found))
    assert source.poll()
    assert [scope.scope for scope in source.view.scopes] == ["global", "north"]
    north = source.view.scopes[1]
    assert (north.orders, north.units, north.revenue) == (2, 15, 30.0)
    # the newest window still grows, so it is compared with nothing
    assert (north.units_complete, north.units_week_ago) == (5, 4)
    assert north.change == pytest.approx(0.25)
    assert not source.poll()


def test_quality_is_pooled_by_category_and_by_days_ahead(tables):
    publish(tables, Published(FORECASTS, "f-1", NOW.date(), None, NOW))
    found = [
        ("a", [10, 20], [12, 20], [8, 18], [14, 19]),
        ("b", [0, 10], [2, 5], [0, 6], [3, 9]),
        ("c", [5], [5], [4], [6]),
    ]
    tables.append(
        BACKTESTS,
        rows(
            BACKTESTS,
            [
                {
                    "location_id": "s",
                    "sku": sku,
                    "model": "m",
                    "forecast_version": "f-1",
                    "first_day": NOW.date(),
                    "actual": actual,
                    "yhat": yhat,
                    "low": low,
                    "high": high,
                }
                for sku, actual, yhat, low, high in found
            ],
        ),
    )
    drift = [
        {"as_of": NOW.date() - timedelta(days=day), "scope": scope, "WAPE": 0.2, "bias": 0.1, "coverage": 0.8}
        for day in range(3)
        for scope in ("all", "x")
    ]
    tables.append(FORECAST_DRIFT, rows(FORECAST_DRIFT, drift))
    view = quality_view(tables, {"a": "x", "b": "x", "c": "y"})
    by_name = {score.name: score for score in view.categories}
    assert list(by_name) == [ALL, "x", "y"]
    # 2 + 0 + 2 + 5 units of error on 40 units; 3 of 4 days of a and b beside their intervals' ends, c's inside
    assert by_name["x"].wape == pytest.approx(9 / 40)
    assert by_name["x"].bias == pytest.approx((2 + 0 + 2 - 5) / 40)
    assert by_name["x"].coverage == pytest.approx(2 / 4)
    assert (by_name["y"].wape, by_name["y"].coverage) == (0, 1)
    assert by_name[ALL].wape == pytest.approx(9 / 45)
    assert [score.name for score in view.ahead] == ["1", "2"]
    assert view.ahead[0].wape == pytest.approx(4 / 15)
    assert view.ahead[1].series == 2
    assert [row["as_of"] for row in view.drift] == sorted(row["as_of"] for row in view.drift)
    assert len(view.drift) == 3
    assert {row["scope"] for row in view.warnings} == {"all", "x"}


def test_shipments_under_way_are_ranked_by_their_chance_to_be_late(tables):
    places = [
        {"location_id": "s-1", "kind": "store", "region": "<i>north</i>", "latitude": 1.0, "longitude": 2.0},
        {"location_id": "s-2", "kind": "warehouse", "region": "north", "latitude": None, "longitude": None},
    ]
    tables.overwrite(LOCATIONS, rows(LOCATIONS, places))
    shipments = [
        {
            "shipment_id": name,
            "state": state,
            "destination": "s-1",
            "node": "hub <b>",
            "latitude": 5.0,
            "longitude": 6.0,
            "since": NOW - timedelta(hours=6),
            "late_probability": late,
        }
        for name, state, late in (
            ("a", "departed", 0.1),
            ("b", "customs", 0.9),
            ("c", "delivered", 0.9),
            ("d", "departed", None),
        )
    ]
    tables.append(SHIPMENTS, rows(SHIPMENTS, shipments))
    view = network_view(tables, NOW)
    assert [row["shipment_id"] for row in view.shipments] == ["b", "a", "d"]
    (node,) = view.nodes
    assert (node.shipments, node.likely_late, node.median_hours) == (3, 1, 6.0)
    # then no text of an event is markup in the figure, and a place without coordinates is left out
    figure = network_figure(view)
    assert "<b>" not in str(figure)
    assert "<i>" not in str(figure)
    assert np.isfinite(figure["layout"]["xaxis"]["range"]).all()


def test_the_network_tells_what_is_stuck_who_is_alike_and_how_long_suppliers_take(tables):
    tables.overwrite(SUPPLIERS, rows(SUPPLIERS, [{"supplier_id": "sup-1", "name": "One"}]))
    stuck = [
        {"node": "hub", "opened_at": NOW, "closed_at": None, "message": "6 wait"},
        {"node": "port", "opened_at": NOW - DAY, "closed_at": NOW, "message": "over"},
    ]
    tables.append(BOTTLENECKS, rows(BOTTLENECKS, stuck))
    lanes = [
        {"supplier_id": "sup-1", "location_id": "a", "arrived": 3, "mean_days": 2.0, "q10_days": 1.0, "q90_days": 3.0},
        {"supplier_id": "sup-1", "location_id": "b", "arrived": 1, "mean_days": 6.0, "q10_days": 5.0, "q90_days": 7.0},
        {"supplier_id": "sup-1", "location_id": "c", "arrived": 0, "mean_days": 99.0},
    ]
    tables.append(LEAD_TIMES, rows(LEAD_TIMES, lanes))
    alike = [
        {"kind": "supplier", "member": member, "cluster": cluster, "description": f"group {cluster}"}
        for member, cluster in (("sup-2", 0), ("sup-1", 0), ("sup-3", 1))
    ]
    tables.append(NETWORK_CLUSTERS, rows(NETWORK_CLUSTERS, alike))
    view = network_view(tables, NOW)
    assert [row["node"] for row in view.stuck] == ["hub"]
    assert view.suppliers[0]["observed"] == pytest.approx((3.0, 2.0, 4.0))
    assert [(line.cluster, line.members) for line in view.clusters] == [(0, ("sup-1", "sup-2")), (1, ("sup-3",))]


def test_what_was_set_aside_is_counted_by_reason(tables):
    def record(offset, reason, replayed):
        return {
            "topic": "pos.sales",
            "partition": 0,
            "offset": offset,
            "value": f"<script>{offset}</script>".encode(),
            "reason": reason,
            "quarantined_at": NOW + timedelta(seconds=offset),
            "replayed_at": NOW if replayed else None,
        }

    found = [record(0, "not_json", True), record(1, "not_json", False), record(2, "bad_time", False)]
    tables.append(QUARANTINE, rows(QUARANTINE, found))
    lines = reason_lines(tables.read(QUARANTINE, ("reason", "topic", "replayed_at")))
    assert [(line.reason, line.records, line.waiting) for line in lines] == [("not_json", 2, 1), ("bad_time", 1, 1)]
    assert [row["value"] for row in samples(tables, "not_json")] == ["<script>1</script>", "<script>0</script>"]
