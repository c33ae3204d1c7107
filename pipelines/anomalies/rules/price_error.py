"""Prices that no promotion explains."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy.stats import binom

from pipelines.anomalies.registry import RARE, Finding, Look, register, surprise
from pipelines.anomalies.view import View
from pipelines.contracts.alerts import CRITICAL

LOW_FACTOR, HIGH_FACTOR = 0.3, 2.5
"""Of the catalog's price: below or above, no promotion and no change of price explains it."""
USUAL_SHARE = 1e-3
"""Of lines that are so all the same: damaged goods, keys hit twice."""


@register
class PriceError:
    """A location at a time: sales lines of 24 hours whose price is far from the catalog's."""

    name: ClassVar[str] = "price_error"

    def look(self, view: View) -> Look:
        """See `Rule.look`."""
        if not len(view.lines):
            return Look(0)
        lines = view.lines[(view.lines.kind == "sale") & view.lines.unit_price.notna()].reset_index(drop=True)
        listed = lines.sku.map({sku: price for sku, (_, price) in view.products.items()}).astype(float)
        ratio = lines.unit_price.astype(float) / listed
        wrong = (ratio < LOW_FACTOR) | (ratio > HIGH_FACTOR)
        tested, findings = 0, []
        for location, rows in lines.groupby("location_id"):
            known = rows.index[listed[rows.index] > 0]
            if not len(known):
                continue
            tested += 1
            count = int(wrong[known].sum())
            found = surprise(float(binom.sf(count - 1, len(known), USUAL_SHARE))) if count else 0.0
            if found >= RARE:
                bad = rows.loc[known][wrong[known]]
                factor = float(np.exp(np.median(np.log(np.maximum(ratio[bad.index], 1e-9)))))
                findings.append(
                    _finding(
                        str(location),
                        len(known),
                        {str(sku): int(n) for sku, n in bad.sku.value_counts().items()},
                        factor,
                        found,
                    )
                )
        return Look(tested, findings)


def _finding(location: str, lines: int, skus: dict[str, int], factor: float, found: float) -> Finding:
    count = sum(skus.values())
    named = ", ".join(f"{sku} ({lines})" for sku, lines in list(skus.items())[:5])
    return Finding(
        subject=location,
        surprise=found,
        message=f"{count} of {lines} sales lines at {location} in 24 h are at {factor:.3g} times the catalog's price: "
        f"{named}; the till's price file or its currency unit is wrong",
        severity=CRITICAL,
        details={"lines": lines, "wrong": count, "factor": factor, "products": dict(list(skus.items())[:20])},
    )
