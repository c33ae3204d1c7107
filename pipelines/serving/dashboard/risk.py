"""What is at stake for a series: the chance that it runs out before a delivery ordered now has come, and the sales
that would be lost by then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pipelines.inventory.scenarios import LEVEL_CORRELATION
from pipelines.inventory.stockout import (
    demand_between,
    expected_lost_units,
    projected_stockout_days,
    stockout_probability,
)


@dataclass(frozen=True)
class Risk:
    """Without another order: the chance of running out until the one after it could come, when the shelf is empty by
    the expected demand (None: not in sight), and the sales lost by then, in units and at the product's price."""

    probability: float
    runs_out_at: datetime | None
    lost_units: float
    money: float


def risk_of(on_hand: int, under_way: int, policy: Mapping[str, Any], now: datetime) -> Risk:
    """The risk over lead time and review period, the time that an order placed now protects.

    Args:
        under_way: units on order that were released, without the one to be decided on.
        policy: a row of `gold/inventory_policies`.
    """
    start = _days_in_force(policy, now)
    end = start + policy["lead_time_days"] + policy["review_days"]
    correlation = policy.get("correlation")
    mean, deviation = demand_between(
        policy["cumulative_mean"],
        policy["cumulative_std"],
        start,
        end,
        LEVEL_CORRELATION if correlation is None else correlation,
    )
    available = max(on_hand, 0) + under_way
    out = available <= 0 < mean
    probability = 1.0 if out else stockout_probability(available, mean, deviation)
    lost = expected_lost_units(available, mean, deviation)
    days = projected_stockout_days(available, policy["cumulative_mean"], start)
    return Risk(
        probability,
        None if days is None else now + timedelta(days=days),
        lost,
        lost * float(policy.get("unit_price") or 0.0),
    )


def _days_in_force(policy: Mapping[str, Any], now: datetime) -> float:
    """Days since the end of the last day whose data the policy knows."""
    start = datetime.combine(policy["as_of"] + timedelta(days=1), datetime.min.time(), UTC)
    return (now - start).total_seconds() / 86_400
