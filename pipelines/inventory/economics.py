"""What an order should weigh against what it costs: the closed formulas behind the policies, vectorised."""

from __future__ import annotations

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
