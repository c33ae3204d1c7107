"""How much to order, and the line that explains it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.inventory.explanation import explain_order
from pipelines.inventory.quantity import order_quantity


@pytest.mark.parametrize(
    ("position", "pack_size", "minimum_order", "expected"),
    [
        (22, 6, 0, (0, "above_reorder_point")),
        (21, 6, 0, (24, "order_up_to")),
        (14, 6, 0, (36, "pack_size")),
        (14, 1, 0, (31, "order_up_to")),
        (14, 1, 1, (31, "order_up_to")),
        (14, 6, 36, (36, "pack_size")),
        (14, 6, 40, (42, "minimum_order")),
        (-7, 6, 0, (54, "pack_size")),
        (14, 100, 0, (100, "pack_size")),
    ],
)
def test_quantity_by_hand(position, pack_size, minimum_order, expected):
    assert order_quantity(position, 21, 45, pack_size, minimum_order) == expected


@given(
    position=st.integers(-(10**9), 10**12),
    reorder_point=st.integers(0, 10**9),
    above=st.integers(1, 10**6),
    pack_size=st.integers(1, 10**5),
    minimum_order=st.integers(0, 10**6),
)
def test_after_ordering_the_position_is_enough_and_not_too_much(
    position, reorder_point, above, pack_size, minimum_order
):
    order_up_to = reorder_point + above

    quantity, binding = order_quantity(position, reorder_point, order_up_to, pack_size, minimum_order)

    if position > reorder_point:
        assert quantity == 0
        return
    assert quantity > 0
    assert quantity % pack_size == 0
    assert quantity >= minimum_order
    assert position + quantity >= order_up_to
    if binding != "minimum_order":
        assert position + quantity < order_up_to + pack_size
    else:
        assert quantity < minimum_order + pack_size
    assert order_quantity(position + quantity, reorder_point, order_up_to, pack_size, minimum_order)[0] == 0


@dataclass(frozen=True)
class Row:
    reorder_point: int = 21
    order_up_to: int = 45
    safety_stock: float = 5.8
    lead_time_days: float = 6.0
    review_days: float = 1.0
    service_level: float = 0.95
    binding_constraint: str = "economic_order_quantity"
    pack_size: int = 6
    minimum_order: int = 1
    policy_version: str = "p-20161231-0123456789"
    forecast_version: str = "f-20161231"


def test_the_line_is_arithmetic_that_a_planner_can_redo():
    assert explain_order(Row(), 9, 5, 36) == (
        "Position 14 (on hand 9 + on order 5) is at or below the reorder point 21 (95 % of demand over 6.0 days "
        "lead time + 1 day review, expected 15.2, safety stock 5.8); order up to 45 (24 above it by the economic "
        "order quantity): 31 needed, rounded up to 36 in packs of 6; forecast f-20161231, policy "
        "p-20161231-0123456789"
    )


@pytest.mark.parametrize(
    ("changes", "quantity", "expected"),
    [
        ({"pack_size": 1}, 31, ": 31 needed and ordered;"),
        ({"minimum_order": 42}, 42, ": 31 needed, raised to the minimum order of 42;"),
        ({"minimum_order": 40}, 42, ": 31 needed, raised to the minimum order of 40, which is 42 in packs of 6;"),
        ({"binding_constraint": "minimum_order", "minimum_order": 20}, 36, "by the minimum order of 20)"),
        ({"binding_constraint": "pack_size"}, 36, "order up to 45 (24 above it: one pack):"),
        ({"binding_constraint": "service_level"}, 36, "; order up to 45: 31 needed"),
        ({"binding_constraint": "shelf_life"}, 36, "as far as shelf life allows, expected 15.2"),
        ({"service_level": 0.795}, 36, "(79.5 % of demand"),
        ({"review_days": 7.0}, 36, "+ 7 days review"),
    ],
)
def test_what_bound_is_said(changes, quantity, expected):
    line = explain_order(replace(Row(), **changes), 9, 5, quantity)

    assert expected in line
    assert "\n" not in line


def test_stock_below_zero_reads_as_a_sum():
    assert explain_order(Row(), -3, 12, 36).startswith("Position 9 (on hand -3 + on order 12) is at or below")
