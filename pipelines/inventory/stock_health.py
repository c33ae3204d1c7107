"""Stock that is worth a word: money at risk of being lost, and money that lies in stock which will not sell."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.errors import UsageError
from pipelines.inventory.forecast_distribution import FloatArray
from pipelines.inventory.lead_time_demand import LeadTimeDemand

OVERSTOCK = "overstock"
DEAD_STOCK = "dead_stock"
HEALTHY = ""

OVERSTOCK_PROBABILITY = 0.95
DEAD_AFTER_DAYS = 90
NEVER = np.inf

SEVERITIES = ("low", "medium", "high", "critical")

TextArray = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Excess:
    """Of n series; arrays of shape (n,).

    Attributes:
        kind: `overstock`, `dead_stock`, or "" for neither.
        cover_days: days until expected demand has used up what is on hand; inf where none is expected.
        units: on hand beyond the horizon's 95th percentile (all of it, where the stock is dead).
        value: what was paid for them; nan where the cost is unknown.
    """

    kind: TextArray
    cover_days: FloatArray
    units: FloatArray
    value: FloatArray


def find_excess(
    on_hand: FloatArray,
    horizon_demand: LeadTimeDemand,
    days_since_sale: FloatArray,
    unit_cost: FloatArray,
    dead_after_days: float = DEAD_AFTER_DAYS,
) -> Excess:
    """Which series hold more than they will sell within the forecasts' horizon, and which sell nothing at all.

    Args:
        on_hand: units, shape (n,).
        horizon_demand: demand over the whole horizon (`Protection` with the horizon as a certain lead time).
        days_since_sale: days since anything was sold; inf where nothing ever was.
    """
    enough = horizon_demand.quantile(np.full(len(on_hand), OVERSTOCK_PROBABILITY))
    dead = (on_hand > 0) & (days_since_sale >= dead_after_days)
    over = (on_hand > enough) & ~dead
    units = np.select([dead, over], [on_hand, on_hand - np.floor(enough)], 0.0)
    kind = np.select([dead, over], [DEAD_STOCK, OVERSTOCK], HEALTHY)
    return Excess(kind, cover_days(on_hand, horizon_demand.cumulative_mean), units, units * unit_cost)


def cover_days(on_hand: FloatArray, cumulative_mean: FloatArray) -> FloatArray:
    """Days until expected demand has used up `on_hand`; beyond the horizon at its average rate; inf without demand.

    Args:
        cumulative_mean: (n, days) expected units of the first k+1 days.
    """
    days = cumulative_mean.shape[1]
    stock = np.maximum(on_hand, 0.0)
    place = (cumulative_mean < stock[:, None]).sum(axis=1)
    rows = np.arange(len(stock))
    inside = np.minimum(place, days - 1)
    before = np.where(inside > 0, cumulative_mean[rows, np.maximum(inside - 1, 0)], 0.0)
    of_day = cumulative_mean[rows, inside] - before
    within = inside + np.divide(stock - before, of_day, out=np.zeros_like(stock), where=of_day > 0)
    total = cumulative_mean[:, -1]
    beyond = np.divide(days * stock, total, out=np.full_like(stock, NEVER), where=total > 0)
    return np.where(stock <= 0, 0.0, np.where(place < days, within, beyond))


@dataclass(frozen=True)
class RiskLimits:
    """Expected lost margin, in money, from which on a flag is medium, high, critical; ascending."""

    medium: float
    high: float
    critical: float

    def __post_init__(self) -> None:
        if not 0 <= self.medium <= self.high <= self.critical:
            raise UsageError(
                f"limits of money at risk are {self.medium:g}, {self.high:g}, {self.critical:g}; expected ascending"
            )

    def severity(self, money: float) -> str:
        """How bad an expected loss is: one of `SEVERITIES`."""
        return SEVERITIES[bisect_right((self.medium, self.high, self.critical), money)]
