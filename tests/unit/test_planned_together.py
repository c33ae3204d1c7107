"""What is planned over all series together, from the tables: learnt levels, substitutes, stock and money."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import ndtri

from pipelines.contracts.tables import (
    INVENTORY_POLICIES,
    INVENTORY_POSITIONS,
    LOCATIONS,
    ORDERS,
    POLICY_CANDIDATES,
    PRODUCTS,
)
from pipelines.inventory.live_stock import Offer, live_stock
from pipelines.inventory.planned_together import together
from pipelines.inventory.pooled_risk import pool_substitutes, pooling_factor
from pipelines.io.published import POLICIES, Published, publish
from pipelines.operations.settings import PlanningSettings
from tests.unit.test_shared_limits import policy

AS_OF = date(2026, 3, 1)
MORNING = datetime(2026, 3, 2, 8, tzinfo=UTC)


def table(rows, schema=INVENTORY_POLICIES.schema):
    return pa.Table.from_pylist(rows, schema=schema)


def terms(*locations, supplier="u-1"):
    return pa.Table.from_pylist(
        [{"location_id": location, "sku": "a", "supplier_id": supplier, "order_cost": 3.0, "holding_cost_rate": 0.25}
         for location in locations]
    )  # fmt: skip


# Substitutes. ------------------------------------------------------------------------------------------------


def test_four_equal_substitutes_need_half_the_safety_stock_if_everybody_takes_another():
    assert pooling_factor(np.full(4, 3.0), 1.0) == pytest.approx(0.5)
    assert pooling_factor(np.full(4, 3.0), 0.5) == pytest.approx(0.75)
    assert pooling_factor(np.array([3.0]), 1.0) == 1.0
    assert pooling_factor(np.zeros(2), 1.0) == 1.0


def test_substitutes_at_one_location_are_pooled_and_nothing_else():
    # given two substitutes in a store, one of them in another store too, and a product by itself
    rows = [policy("s-1", "a", safety_stock=12.0), policy("s-1", "b", safety_stock=12.0),
            policy("s-2", "a", safety_stock=12.0), policy("s-1", "c", safety_stock=12.0),
            policy("s-1", "d", safety_stock=12.0, binding_constraint="no_demand")]  # fmt: skip
    groups = {"a": "cola", "b": "cola", "c": None, "d": "cola"}
    found = pool_substitutes(table(rows), groups, 1.0).to_pylist()
    # then the two go down by a third of 12 (1 - 1/sqrt 2), levels alike, and the chance by itself with them
    lower = 3
    assert [row["reorder_point"] for row in found] == [16 - lower, 16 - lower, 16, 16, 16]
    assert [row["order_up_to"] for row in found] == [32 - lower, 32 - lower, 32, 32, 32]
    assert found[0]["safety_stock"] == 9.0
    assert ndtri(found[0]["service_level"]) == pytest.approx(ndtri(0.95) * 9 / 12)
    assert found[2]["service_level"] == 0.95


# Learnt levels. ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "day", "expected"), [(True, AS_OF, 20), (False, AS_OF, 16), (True, date(2026, 2, 1), 16)]
)
def test_learnt_levels_are_used_where_they_are_the_cheapest_of_the_same_day(tables, use, day, expected):
    rows = [
        {"location_id": "s-1", "sku": "a", "method": method, "as_of": day, "reorder_point": point,
         "order_up_to": point + 9, "daily_cost": 1.0, "champion": method == "policy_search"}
        for method, point in (("order_up_to", 15), ("policy_search", 20))
    ]  # fmt: skip
    tables.overwrite(POLICY_CANDIDATES, table(rows, POLICY_CANDIDATES.schema))
    found = together(tables, PlanningSettings(use_learned=use), terms("s-1"), AS_OF)
    (row,) = found.finish(table([policy("s-1")]), "p-2").to_pylist()
    assert row["reorder_point"] == expected
    assert row["reorder_point"] - row["safety_stock"] == pytest.approx(12.0)
    assert (row["method"], row["order_up_to"]) == (("policy_search", 29) if expected == 20 else ("order_up_to", 32))
    assert found.is_needed == (expected == 20)


def test_without_any_of_it_the_version_is_what_it_was(tables):
    found = together(tables, PlanningSettings(), terms("s-1"), AS_OF)
    assert (found.is_needed, found.digest) == (False, None)


# Stock as the live stage saved it. ---------------------------------------------------------------------------


@pytest.fixture
def home(tables):
    """Two stores and a warehouse; the first store was promised six units of the second's, and has bought today."""
    places = [{"location_id": name, "kind": kind, "region": "north"}
              for name, kind in (("s-1", "store"), ("s-2", "store"), ("w-1", "warehouse"))]  # fmt: skip
    tables.overwrite(LOCATIONS, table(places, LOCATIONS.schema))
    tables.overwrite(PRODUCTS, table([{"sku": "a", "unit_cost": 10.0}], PRODUCTS.schema))
    order = {"location_id": "s-1", "sku": "a", "created_at": MORNING, "state": "approved"}
    orders = [
        {**order, "order_id": "o-1", "supplier_id": "s-2", "quantity": 8},
        {**order, "order_id": "o-2", "supplier_id": "u-1", "quantity": 5},
        {**order, "order_id": "o-3", "supplier_id": "u-1", "quantity": 90, "state": "rejected"},
        {**order, "order_id": "o-4", "supplier_id": "u-1", "quantity": 70, "created_at": MORNING.replace(day=1)},
    ]
    tables.overwrite(ORDERS, table(orders, ORDERS.schema))
    coming = {"order_id": "o-1", "outstanding": 6, "received": 2, "quantity": 8, "released": True, "state": "shipped",
              "expected_receipt": MORNING}  # fmt: skip
    positions = [
        {"location_id": "s-1", "sku": "a", "on_hand": 3, "on_order": 11, "open_orders": [coming], "offer_taken": "p-1"},
        {"location_id": "s-2", "sku": "a", "on_hand": 200, "on_order": 0, "open_orders": []},
    ]
    tables.overwrite(INVENTORY_POSITIONS, table(positions, INVENTORY_POSITIONS.schema))
    return tables


def test_promises_offers_and_what_was_spent_today_are_read(home):
    offer = {"transfer_source": "s-2", "transfer_quantity": 8, "policy_version": "p-2"}
    rows = [policy("s-1", **offer, transfer_offer="p-1"), policy("s-3", **offer, transfer_offer="p-2")]
    home.overwrite(INVENTORY_POLICIES, table(rows))
    publish(home, Published(POLICIES, "p-2", AS_OF, None, MORNING))
    found = live_stock(home, AS_OF)
    assert found.promised == {("s-2", "a"): 6}
    assert found.spent == 50.0
    assert found.offers == {("s-3", "a"): Offer("p-2", "s-2", 8)}
    assert (found.on_hand["s-2", "a"], found.on_order["s-1", "a"]) == (200, 11)


def test_a_night_on_other_stock_is_another_version(home):
    planning = PlanningSettings(transfer_cost=1.0)
    before = together(home, planning, terms("s-1", "s-2"), AS_OF)
    assert before.digest == together(home, planning, terms("s-1", "s-2"), AS_OF).digest
    after = replace(before, stock=replace(before.stock, spent=1.0))
    assert before.digest != after.digest
    # and offers go out from what was read
    rows = before.finish(table([policy("s-1", reorder_point=40, order_up_to=60), policy("s-2")]), "p-3").to_pylist()
    assert rows[0]["transfer_source"] == "s-2"


def test_a_warehouse_that_serves_stores_makes_them_share_without_any_setting(home):
    positions = home.read(INVENTORY_POSITIONS).to_pylist()
    positions.append({**positions[1], "location_id": "w-1", "on_hand": 4})
    home.overwrite(INVENTORY_POSITIONS, table(positions, INVENTORY_POSITIONS.schema))
    found = together(home, PlanningSettings(), terms("s-1", supplier="w-1"), AS_OF)
    rows = found.finish(table([policy("s-1", supplier_id="w-1")]), "p-3").to_pylist()
    assert rows[0]["allowance_reason"] == "warehouse_shortage"
    assert rows[0]["allowance"] <= 4
