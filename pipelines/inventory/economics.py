"""What an order should weigh against what it costs: the closed formulas behind the policies, vectorised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.inventory.forecast_distribution import FloatArray

DAYS_PER_YEAR = 365.0


def economic_order_quantity(order_cost: FloatArray, holding_cost: FloatArray, yearly_demand: FloatArray) -> FloatArray:
    """Q* = √(2Kλ/h), in units (Snyder and Shen, chapter 3; Silver, Pyke and Thomas, chapter 4).

    Never more than a year's demand. 0 where ordering costs nothing or holding has no known cost: then there is
    no economic size to speak of.

    Args:
        order_cost: K, money per order, shape (n,).
        holding_cost: h, money per unit and year.
        yearly_demand: λ, units per year.
    """
    known = (holding_cost > 0) & (order_cost > 0) & (yearly_demand > 0)
    with np.errstate(over="ignore"):
        ratio = np.divide(2 * order_cost * yearly_demand, holding_cost, out=np.zeros_like(order_cost), where=known)
    return np.minimum(np.sqrt(ratio), yearly_demand)


def critical_ratio(underage: FloatArray, overage: FloatArray) -> FloatArray:
    """c_u / (c_u + c_o), the newsvendor's optimal service level (Snyder and Shen, chapter 4); nan for 0/0.

    Args:
        underage: cost of a unit that was missing, shape (n,).
        overage: cost of a unit that was left over.
    """
    total = underage + overage
    return np.divide(underage, total, out=np.full_like(total, np.nan), where=total > 0)


def round_up(quantity: FloatArray, multiple: FloatArray | float = 1.0) -> FloatArray:
    """The smallest whole multiple that is not below; a millionth of a unit is arithmetic, not demand."""
    return np.ceil((quantity - 1e-6) / multiple) * multiple


@dataclass(frozen=True)
class Costs:
    """Money per unit and review period that is held, and per unit that is missing; arrays of shape (n,)."""

    holding: FloatArray
    shortage: FloatArray


@dataclass(frozen=True)
class QuantityBreaks:
    """All-units discounts of n series with up to b price regions; arrays of shape (n, b).

    Attributes:
        least: the smallest order, in units, that gets the region's price; 0 first, ascending.
        unit_cost: money per unit for the whole order; inf for a region that does not exist.
    """

    least: FloatArray
    unit_cost: FloatArray


def order_quantity_with_breaks(
    order_cost: FloatArray, holding_rate: FloatArray, yearly_demand: FloatArray, breaks: QuantityBreaks
) -> tuple[FloatArray, FloatArray]:
    """The order quantity of least yearly cost under all-units discounts, and the region it is in.

    In each region the economic order quantity at its own price, raised to its least order; of these the one with the
    least K λ / Q + i c Q / 2 + c λ (Snyder and Shen, chapter 3.4; Silver, Pyke and Thomas, chapter 4). A cheaper region
    whose quantity would be beyond its upper end is never the best, for then the next region is cheaper still.

    Args:
        order_cost: K, money per order, shape (n,). holding_rate: i, a year, of the unit's cost.
        yearly_demand: λ, units per year.

    Returns:
        Units (n,) and the region's number (n,), 0 for the list price.
    """
    exists = np.isfinite(breaks.unit_cost)
    cost = np.where(exists, breaks.unit_cost, 0.0)
    held = holding_rate[:, None] * cost
    known = (held > 0) & (order_cost[:, None] > 0)
    ratio = np.divide(2 * order_cost[:, None] * yearly_demand[:, None], held, out=np.zeros_like(held), where=known)
    quantity = np.maximum(np.sqrt(ratio), breaks.least)
    orders = np.divide(yearly_demand[:, None], quantity, out=np.zeros_like(held), where=quantity > 0)
    total = order_cost[:, None] * orders + held * quantity / 2 + cost * yearly_demand[:, None]
    region = np.where(exists, total, np.inf).argmin(axis=1)
    rows = np.arange(len(order_cost))
    return quantity[rows, region], region.astype(np.float64)


def power_approximation(
    mean: FloatArray, interval_mean: FloatArray, interval_std: FloatArray, order_cost: FloatArray, costs: Costs
) -> tuple[FloatArray, FloatArray]:
    """(s, S) of nearly the least cost of ordering, holding and backorders (Ehrhardt and Mosier 1984).

    Args:
        mean: of the demand in a review period. interval_mean, interval_std: over lead time plus review period.
        order_cost: K, money per order. costs: per unit and review period.

    Returns:
        Reorder point and order-up-to level, in units, not rounded; nan where a cost or the demand is not above 0.
    """
    usable = (mean > 0) & (interval_std > 0) & (order_cost > 0) & (costs.holding > 0) & (costs.shortage > 0)
    with np.errstate(all="ignore"):
        spread = 1 + (interval_std / mean) ** 2
        quantity = 1.30 * mean**0.494 * (order_cost / costs.holding) ** 0.506 * spread**0.116
        z = np.sqrt(quantity / interval_std * costs.holding / costs.shortage)
        point = 0.973 * interval_mean + interval_std * (0.183 / z + 1.063 - 2.192 * z)
    return np.where(usable, point, np.nan), np.where(usable, point + quantity, np.nan)
