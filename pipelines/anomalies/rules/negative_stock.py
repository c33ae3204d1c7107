"""Books below zero: sold or moved what was never received or counted."""

from __future__ import annotations

from collections import defaultdict
from typing import ClassVar

from pipelines.anomalies.registry import CERTAIN, Finding, Look, register
from pipelines.anomalies.view import View
from pipelines.contracts.alerts import LOW

NAMED = 5


@register
class NegativeStock:
    """A location at a time: its products whose level is below zero, the lowest first."""

    name: ClassVar[str] = "negative_stock"

    def look(self, view: View) -> Look:
        """See `Rule.look`."""
        below: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for key, level in view.stock.items():
            if level < 0:
                location, sku = key.split("|")
                below[location].append((level, sku))
        return Look(len(view.stock), [_finding(location, sorted(found)) for location, found in sorted(below.items())])


def _finding(location: str, found: list[tuple[int, str]]) -> Finding:
    named = ", ".join(f"{sku} at {level}" for level, sku in found[:NAMED])
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return Finding(
        subject=location,
        surprise=CERTAIN,
        message=f"the books of {location} are below zero for {len(found)} products: {named}{more}; a receipt or a "
        "count is missing: book it, or count the shelf",
        severity=LOW,
        details={"products": len(found), "lowest": {sku: level for level, sku in found[:NAMED]}},
    )
