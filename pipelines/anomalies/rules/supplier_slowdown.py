"""A supplier whose deliveries have become slower than its own."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu

from pipelines.anomalies.registry import RARE, Finding, Look, register, surprise
from pipelines.anomalies.view import View
from pipelines.shipments.tracking import CANCELLED

FEWEST = 5
"""Deliveries, of before and of now, below which nothing is said."""
LEAST_HOURS = 6.0
"""By which the median must have moved: less is nobody's trouble, however sure."""
RECENT = pd.Timedelta(days=7)


@register
class SupplierSlowdown:
    """Hours behind the promise of what was promised for the last week, against what was promised before, by ranks. What
    has not come yet counts as behind by as much as it is already."""

    name: ClassVar[str] = "supplier_slowdown"

    def look(self, view: View) -> Look:
        """See `Rule.look`."""
        now = pd.Timestamp(view.now)
        rows = view.shipments
        if not len(rows):
            return Look(0)
        rows = rows[
            rows.promised.notna() & (rows.promised <= now) & (rows.state != CANCELLED) & rows.supplier_id.notna()
        ]
        rows = rows.reset_index(drop=True)
        behind = (rows.delivered.fillna(now) - rows.promised).dt.total_seconds() / 3600
        recent = rows.promised > now - RECENT
        tested, findings = 0, []
        for supplier, group in rows.groupby("supplier_id"):
            lately = recent[group.index]
            own, before = behind[group.index][lately], behind[group.index][~lately]
            if min(len(own), len(before)) < FEWEST:
                continue
            tested += 1
            found = surprise(float(mannwhitneyu(own, before, alternative="greater").pvalue))
            if found >= RARE and np.median(own) - np.median(before) >= LEAST_HOURS:
                findings.append(_finding(str(supplier), own, before, found))
        return Look(tested, findings)


def _finding(supplier: str, own: pd.Series, before: pd.Series, found: float) -> Finding:
    middle, usual = float(np.median(own)), float(np.median(before))
    return Finding(
        subject=supplier,
        surprise=found,
        message=f"{supplier} has become slower: half of the {len(own)} deliveries promised for the last week are "
        f"{middle:+.0f} h or more from their promise (before: {usual:+.0f} h, of {len(before)}); the nightly plan "
        "learns the longer lead times, what matters until then is better ordered elsewhere",
        details={"deliveries": len(own), "hours_behind": round(middle, 1), "usual_hours_behind": round(usual, 1)},
    )
