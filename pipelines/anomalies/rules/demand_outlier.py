"""A day's demand far from what was forecast before it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy.special import log_ndtr

from pipelines.anomalies.registry import RARE, Finding, Look, register
from pipelines.anomalies.residuals import scores
from pipelines.anomalies.view import View
from pipelines.contracts.alerts import HIGH, LOW

MANY = "a bulk buyer, an event or a wrong quantity"
FEW = "an empty or hidden shelf, or a till that does not report"


@register
class DemandOutlier:
    """Yesterday's demand of each series, by its forecast distribution."""

    name: ClassVar[str] = "demand_outlier"

    def look(self, view: View) -> Look:
        """See `Rule.look`."""
        days = view.demand
        if not days.days:
            return Look(0)
        last = scores(days)[:, -1]
        known = np.isfinite(last)
        found = -(log_ndtr(-np.abs(np.where(known, last, 0.0))) + np.log(2)) / np.log(10)
        return Look(
            int(known.sum()), [self._finding(view, int(row), found[row]) for row in np.flatnonzero(found >= RARE)]
        )

    def _finding(self, view: View, row: int, found: float) -> Finding:
        days = view.demand
        key, sold, mean = days.keys[row], days.demand[row, -1], days.mean[row, -1]
        location, sku = key.split("|")
        _, price = view.products.get(sku, (np.nan, np.nan))
        day = days.day(days.days - 1)
        word = "more" if sold > mean else "fewer"
        return Finding(
            subject=key,
            surprise=float(found),
            message=f"{sold:.0f} units of {sku} sold at {location} on {day}, {word} than the {mean:.1f} "
            f"expected: look for {MANY if sold > mean else FEW}",
            severity=HIGH if abs(sold - mean) * (price if np.isfinite(price) else 1.0) >= 100 else LOW,
            details={"date": day.isoformat(), "demand": float(sold), "expected": round(float(mean), 2)},
        )
