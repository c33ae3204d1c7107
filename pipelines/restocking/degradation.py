"""Deciding on with forecasts that grow old: used and marked, then replaced by a fixed rule.

The fixed rule needs nothing but the policy in force: demand goes on at the mean of the days that the forecast
reached, evenly, without weekdays or trend; the reorder point is that mean over lead time and review, plus the safety
stock in force; the order-up-to level keeps its distance from the reorder point. Age is told by the series' own clock,
so that a replay decides the same.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime

from pipelines.contracts.alerts import CRITICAL, Alert
from pipelines.inventory.scenarios import LEVEL_CORRELATION
from pipelines.operations.settings import RestockSettings
from pipelines.restocking.live_policy import DAY, HOUR, LivePolicy


def is_too_old(policy: LivePolicy, now: int, settings: RestockSettings) -> bool:
    """Whether the fixed rule decides. `now` in microseconds since 1970."""
    return now - policy.in_force_from > settings.replace_forecast_after_days * DAY


def fixed_rule(policy: LivePolicy) -> LivePolicy:
    """The policy with the forecast replaced by its own mean daily demand."""
    days = len(policy.cumulative_mean)
    if days == 0:
        return policy
    mean = policy.cumulative_mean[-1] / days
    # Of equal days whose demand goes together as `demand_between` assumes, n have this variance times the first.
    growth = [(1 - LEVEL_CORRELATION) * n + LEVEL_CORRELATION * n * n for n in range(1, days + 1)]
    daily_variance = policy.cumulative_std[-1] ** 2 / growth[-1]
    needed = mean * (policy.lead_time_days + policy.review_days) + policy.safety_stock
    reorder_point = max(0, math.ceil(needed - 1e-9))
    return replace(
        policy,
        reorder_point=reorder_point,
        order_up_to=reorder_point + policy.order_up_to - policy.reorder_point,
        cumulative_mean=[mean * n for n in range(1, days + 1)],
        cumulative_std=[math.sqrt(daily_variance * part) for part in growth],
    )


def age_note(policy: LivePolicy, now: int, settings: RestockSettings) -> str:
    """What an order's explanation says of the forecast's age; empty while it is fresh."""
    hours = (now - policy.in_force_from) / HOUR
    if is_too_old(policy, now, settings):
        mean = policy.cumulative_mean[-1] / len(policy.cumulative_mean) if policy.cumulative_mean else 0.0
        return f"; the forecast is {hours / 24:.0f} days old and was replaced by the fixed rule: {mean:.1f} units a day"
    return f"; the forecast is {hours:.0f} h old" if hours > settings.stale_forecast_hours else ""


def too_old_alert(forecast_version: str, age_days: float, settings: RestockSettings, at: datetime) -> Alert:
    """The alert that forecasts are no longer used; once for each version."""
    said = (
        f"Forecasts {forecast_version} are {age_days:.0f} days old, more than "
        f"{settings.replace_forecast_after_days:g}: orders follow the fixed rule (mean daily demand) until "
        "jobs/nightly.py has run"
    )
    facts = {"forecast_version": forecast_version, "age_days": round(age_days, 2)}
    return Alert("forecast_replaced", CRITICAL, forecast_version, said, at, at, forecast_version, facts)
