"""Counts that find less than the books say, at one location more than at the others: theft, waste or bad booking."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu

from pipelines.anomalies.registry import RARE, Finding, Look, register, surprise
from pipelines.anomalies.view import View

FEWEST = 5
"""Counts of a location, and of the others, below which nothing is said."""
RECENT = pd.Timedelta(days=14)


@register
class CountShrinkage:
    """The differences of a location's counts in two weeks, per root of the expected level, against those of all other
    counts known, by ranks (Mann and Whitney 1947): one wild count moves little."""

    name: ClassVar[str] = "count_shrinkage"

    def look(self, view: View) -> Look:
        """See `Rule.look`."""
        if not len(view.counts):
            return Look(0)
        counts = view.counts[view.counts.expected.notna()].reset_index(drop=True)
        recent = counts.event_time > pd.Timestamp(view.now) - RECENT
        shift: pd.Series = (counts.counted - counts.expected) / np.sqrt(np.maximum(counts.expected, 1.0))
        tested = 0
        findings: list[Finding] = []
        for location, rows in counts[recent].groupby("location_id"):
            own: pd.Series = shift[rows.index]
            others: pd.Series = shift.drop(rows.index)
            if min(len(own), len(others)) < FEWEST:
                continue
            tested += 1
            less = surprise(float(mannwhitneyu(own, others, alternative="less").pvalue))
            if less >= RARE and float(own.mean()) < float(others.mean()):
                findings.append(self._finding(view, str(location), rows, less))
        return Look(tested, findings)

    def _finding(self, view: View, location: str, rows: pd.DataFrame, found: float) -> Finding:
        difference = rows.counted - rows.expected
        cost = np.array([view.products.get(str(sku), (np.nan, np.nan))[0] for sku in rows.sku])
        value = float(np.nansum(difference.to_numpy() * cost))
        worst = difference.groupby(rows.sku).sum().sort_values().head(5)
        named = ", ".join(f"{sku} {units:+.0f}" for sku, units in worst.items() if units < 0)
        return Finding(
            subject=location,
            surprise=found,
            message=f"{len(rows)} counts at {location} in two weeks found {difference.sum():+.0f} units against the "
            f"books ({value:,.0f} at cost), more than elsewhere: {named}; look for theft, waste or wrong receipts",
            details={"counts": len(rows), "units": int(difference.sum()), "value": round(value, 2)},
        )
