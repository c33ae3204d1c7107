"""How much to order now: exact integers, used by the live stage."""

from __future__ import annotations

from dataclasses import dataclass

NOTHING = "above_reorder_point"
ORDER_UP_TO = "order_up_to"
PACK_SIZE = "pack_size"
MINIMUM_ORDER = "minimum_order"
MAXIMUM_ORDER = "maximum_order"
BUDGET = "budget"
WAREHOUSE_SHORTAGE = "warehouse_shortage"


@dataclass(frozen=True, slots=True)
class Limit:
    """How many units may still be bought, and what says so (`MAXIMUM_ORDER`, `BUDGET` or `WAREHOUSE_SHORTAGE`)."""

    units: int
    reason: str


def order_quantity(
    position: int,
    reorder_point: int,
    order_up_to: int,
    pack_size: int,
    minimum_order: int,
    limit: Limit | None = None,
) -> tuple[int, str]:
    """Units to order at this inventory position, and what decided the number.

    The gap to the order-up-to level, rounded up to whole packs, at least the minimum order (itself in whole
    packs). Afterwards the position is at least `order_up_to`, and less than a pack above it, unless the minimum
    order forces more.

    Args:
        position: on hand plus on order; below zero when more was sold than was known to be there.
        reorder_point: nothing is ordered above it.
        order_up_to: above `reorder_point`.
        pack_size: at least 1.
        minimum_order: 0 or 1 for none.
        limit: of this order; None for none.

    Returns:
        (0, "above_reorder_point"), or a quantity with "order_up_to" (the gap was whole packs), "pack_size" (it
        was rounded up), "minimum_order" (it was raised) or the limit's reason (it was cut to whole packs within it, or
        to 0 where not even the smallest order is).
    """
    if position > reorder_point:
        return 0, NOTHING
    needed = order_up_to - position
    quantity = whole_packs(needed, pack_size)
    smallest = whole_packs(minimum_order, pack_size)
    if limit is not None and limit.units < max(quantity, smallest):
        fitting = max(0, limit.units) // pack_size * pack_size
        return (fitting if fitting >= smallest else 0), limit.reason
    if smallest > quantity:
        return smallest, MINIMUM_ORDER
    return quantity, ORDER_UP_TO if quantity == needed else PACK_SIZE


def whole_packs(units: int, pack_size: int) -> int:
    """`units` rounded up to whole packs, in units."""
    return -(-units // pack_size) * pack_size
