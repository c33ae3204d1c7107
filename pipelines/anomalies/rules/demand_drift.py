"""Demand that has moved away from its forecasts, a little every day."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pipelines.anomalies.registry import RARE, Finding, Look, register
from pipelines.anomalies.residuals import FEWEST_DAYS, scores
from pipelines.anomalies.view import Floats, View

ALLOWANCE = 0.5
"""Half of the shift, in standard deviations, that is looked for."""
_CLIP = 3.0


@register
class DemandDrift:
    """A two-sided cumulative sum of each series' scores (Page 1954), each clipped, so that one day is no drift.

    Where all is well the sum exceeds h with a chance of about exp(-2 k h) (the maximum of a random walk with drift -k
    and unit variance), on either side.
    """

    name: ClassVar[str] = "demand_drift"

    def look(self, view: View) -> Look:
        """See `Rule.look`."""
        days = view.demand
        if days.days < FEWEST_DAYS:
            return Look(0)
        found = scores(days)
        rising, falling = cumulative_sums(found)
        larger = np.maximum(rising, falling)
        surprise = 2 * ALLOWANCE * larger / np.log(10) - np.log10(2)
        tested = np.isfinite(found).sum(axis=1) >= FEWEST_DAYS
        unusual = np.flatnonzero(tested & (surprise >= RARE))
        return Look(
            int(tested.sum()),
            [self._finding(view, int(row), float(surprise[row]), bool(rising[row] >= falling[row])) for row in unusual],
        )

    def _finding(self, view: View, row: int, surprise: float, rising: bool) -> Finding:
        days = view.demand
        week = slice(-14, None)
        known = np.isfinite(days.demand[row, week]) & np.isfinite(days.mean[row, week])
        sold, mean = (float(part[row, week][known].sum()) for part in (days.demand, days.mean))
        location, sku = days.keys[row].split("|")
        ratio = sold / mean if mean > 0 else float("inf")
        return Finding(
            subject=days.keys[row],
            surprise=surprise,
            message=f"{sku} at {location} has been selling {'above' if rising else 'below'} its forecasts for days: "
            f"{sold:.0f} units in two weeks where {mean:.0f} were expected ({ratio:.0%}); its forecast will follow, "
            "orders until then do not",
            details={"demand": sold, "expected": round(mean, 1), "rising": rising},
        )


def cumulative_sums(found: Floats) -> tuple[Floats, Floats]:
    """(n,) the sums upwards and downwards as of the last day; an unknown day leaves them as they are."""
    rising, falling = np.zeros(len(found)), np.zeros(len(found))
    for day in range(found.shape[1]):
        z = np.clip(found[:, day], -_CLIP, _CLIP)
        known = np.isfinite(z)
        rising = np.where(known, np.maximum(rising + np.where(known, z, 0.0) - ALLOWANCE, 0.0), rising)
        falling = np.where(known, np.maximum(falling - np.where(known, z, 0.0) - ALLOWANCE, 0.0), falling)
    return rising, falling
