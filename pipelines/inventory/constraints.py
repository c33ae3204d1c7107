"""What an order must keep to, for many series at once: packs, limits, a budget; and which of them bound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.inventory.economics import round_up
from pipelines.inventory.forecast_distribution import FloatArray
from pipelines.inventory.lead_time_demand import LeadTimeDemand
from pipelines.inventory.quantity import BUDGET, MAXIMUM_ORDER, MINIMUM_ORDER, NOTHING, ORDER_UP_TO, PACK_SIZE

TextArray = npt.NDArray[np.str_]
_WIDTH = f"<U{max(map(len, (NOTHING, ORDER_UP_TO, PACK_SIZE, MINIMUM_ORDER, MAXIMUM_ORDER, BUDGET)))}"


@dataclass(frozen=True)
class Orders:
    """Units to order of n series, and what decided each number; arrays of shape (n,)."""

    quantity: FloatArray
    binding: TextArray


def order_quantities(
    needed: FloatArray, pack_size: FloatArray, minimum_order: FloatArray, maximum_order: FloatArray
) -> Orders:
    """What is needed, in whole packs, between the smallest and the largest order.

    The largest is rounded down to whole packs, but is at least one: a limit below a pack would forbid the product.
    Where it is below the smallest order, the largest holds and is what bound.

    Args:
        needed: units up to the order-up-to level, shape (n,); 0 or less: nothing is ordered.
        maximum_order: units, inf for none.
    """
    packs = round_up(needed, pack_size)
    smallest = round_up(minimum_order, pack_size)
    largest = np.where(
        np.isfinite(maximum_order), np.maximum(np.floor(np.nan_to_num(maximum_order, posinf=0) / pack_size), 1), np.inf
    ) * np.where(np.isfinite(maximum_order), pack_size, 1.0)
    wanted = np.maximum(packs, smallest)
    quantity = np.where(needed > 0, np.minimum(wanted, largest), 0.0)
    binding = np.select(
        [needed <= 0, wanted > largest, smallest > packs, packs > needed + 1e-6],
        [NOTHING, MAXIMUM_ORDER, MINIMUM_ORDER, PACK_SIZE],
        ORDER_UP_TO,
    ).astype(_WIDTH)
    return Orders(quantity, binding)


@dataclass(frozen=True)
class Worth:
    """What n series' packs are weighed by; arrays of shape (n,).

    Attributes:
        position: on hand and on order before the order. margin, unit_cost: money per unit.
        pack_size, minimum_order: units; an order is nothing or at least the minimum.
    """

    position: FloatArray
    margin: FloatArray
    unit_cost: FloatArray
    pack_size: FloatArray
    minimum_order: FloatArray


def within_budget(orders: Orders, demand: LeadTimeDemand, worth: Worth, budget: float) -> Orders:
    """The orders cut to what a budget pays for: packs go where money saves the most lost margin.

    A pack on top of position x saves its margin times the demand expected between x and x + pack within the
    protection interval; packs are taken in the order of that per money until the next one is too dear. Packs of
    a series follow each other, and their worth falls, so the order is kept by itself (a knapsack by greedy choice,
    off by at most one pack's worth). The packs of a minimum order are taken together or not at all.

    Args:
        budget: money for all of the orders together.
    """
    cost = np.nan_to_num(worth.unit_cost) * orders.quantity
    if float(cost.sum()) <= budget + 1e-9:
        return orders
    series, units = _parcels(orders.quantity, worth)
    before = _units_before(series, units)
    low = worth.position[series] + before
    saved = worth.margin[series] * (
        _expected_shortage(demand, series, low) - _expected_shortage(demand, series, low + units)
    )
    price = np.nan_to_num(worth.unit_cost)[series] * units
    ratio = np.divide(saved, price, out=np.full(len(units), np.inf), where=price > 0)
    quantity = np.zeros(len(orders.quantity))
    closed = np.zeros(len(orders.quantity), np.bool_)
    left = budget
    for place in np.lexsort((before, -ratio)):
        row = series[place]
        if closed[row] or price[place] > left + 1e-9:
            closed[row] = True
            continue
        quantity[row] += units[place]
        left -= price[place]
    binding = np.where(quantity < orders.quantity, BUDGET, orders.binding).astype(_WIDTH)
    return Orders(quantity, binding)


def _units_before(series: npt.NDArray[np.int64], units: FloatArray) -> FloatArray:
    """What each parcel stands on: the units of its series' parcels before it."""
    order = np.argsort(series, kind="stable")
    total = np.cumsum(units[order]) - units[order]
    before = np.empty(len(units))
    before[order] = total - total[np.searchsorted(series[order], series[order])]
    return before


def _parcels(quantity: FloatArray, worth: Worth) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Which series each parcel belongs to, and its units: the minimum order first, then pack by pack."""
    first = np.minimum(np.maximum(round_up(worth.minimum_order, worth.pack_size), worth.pack_size), quantity)
    rest = np.maximum(quantity - first, 0.0)
    packs = np.rint(rest / worth.pack_size).astype(np.int64)
    ordered = quantity > 0
    rows = np.arange(len(quantity))
    series = np.concatenate([rows[ordered], np.repeat(rows, packs)])
    units = np.concatenate([first[ordered], np.repeat(worth.pack_size, packs)])
    return series, units


def _expected_shortage(demand: LeadTimeDemand, series: npt.NDArray[np.int64], level: FloatArray) -> FloatArray:
    """Units short of each parcel's series with `level` available; few rows at a time, so that memory stays small."""
    out = np.empty(len(series))
    for start in range(0, len(series), 1024):
        part = slice(start, start + 1024)
        out[part] = np.maximum(demand.sums[series[part]] - level[part, None], 0.0).mean(axis=1)
    return out
