"""Quantities in the wrong unit: single pieces booked as packs, or packs as pieces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy.special import log_ndtr

from pipelines.anomalies.registry import RARE, Finding, Look, register
from pipelines.anomalies.view import View
from pipelines.contracts.alerts import CRITICAL

LEAST_FACTOR = 3.0
"""Of the usual quantity a line: below it, it is no error of unit."""
FEWEST_LINES = 3
KNOWN_LINES = 5
_LEAST_SPREAD = 0.35
_CLIP = 3.0


@register
class QuantityError:
    """The lines of 24 hours at a location, sales and receipts apart: the logarithm of each quantity against those of
    its product. Told for the location where most of its lines are off alike, else for the product."""

    name: ClassVar[str] = "quantity_error"

    def look(self, view: View) -> Look:
        """See `Rule.look`."""
        if not len(view.lines):
            return Look(0)
        lines = view.lines[view.lines.kind.isin(["sale", "receipt"])]
        known = {pair: row for pair, row in view.usual.quantities.items() if row[0] >= KNOWN_LINES}
        pairs = list(zip(lines.kind, lines.sku, strict=True))
        usual = np.array([known.get(pair, (0, np.nan, np.nan)) for pair in pairs]).reshape(-1, 3)
        off = np.log(np.maximum(lines.quantity.to_numpy(float), 1.0)) - usual[:, 1]
        spread = np.maximum(usual[:, 2], _LEAST_SPREAD)
        rows = pd.DataFrame(
            {
                "location": lines.location_id.to_numpy(),
                "sku": lines.sku.to_numpy(),
                "kind": lines.kind.to_numpy(),
                "off": off,
                "z": off / spread,
            }
        ).dropna()
        rows["z"] = rows.z.clip(-_CLIP, _CLIP)
        places = _grouped(rows, ["location", "kind"])
        series = _grouped(rows, ["location", "sku", "kind"])
        told = {(location, kind): row for (location, kind), row in _unusual(places)}
        findings = [_finding(location, kind, row) for (location, kind), row in told.items()]
        findings += [
            _finding(f"{location}|{sku}", kind, row)
            for (location, sku, kind), row in _unusual(series)
            if (location, kind) not in told
        ]
        largest: dict[str, Finding] = {}
        for finding in sorted(findings, key=lambda one: one.surprise):
            largest[finding.subject] = finding
        return Look(len(places) + len(series), list(largest.values()))


def _grouped(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Lines, middle of the logarithm of the factor, and surprise, of each group."""
    groups = rows.groupby(keys).agg(lines=("off", "size"), middle=("off", "median"), sum=("z", "sum"))
    z = groups["sum"] / np.sqrt(groups.lines)
    return groups.assign(surprise=-(log_ndtr(-z.abs()) + np.log(2)) / np.log(10))


def _unusual(groups: pd.DataFrame) -> Iterator[tuple[tuple[str, ...], dict[str, float]]]:
    far = groups.middle.abs() >= np.log(LEAST_FACTOR)
    found = groups[(groups.lines >= FEWEST_LINES) & far & (groups.surprise >= RARE)]
    yield from found.to_dict("index").items()


def _finding(subject: str, kind: str, row: dict[str, float]) -> Finding:
    factor, lines = float(np.exp(row["middle"])), int(row["lines"])
    return Finding(
        subject=subject,
        surprise=float(row["surprise"]),
        message=f"{lines} {kind} lines at {subject.replace('|', ', product ')} in 24 h have {factor:.3g} times "
        "the usual quantity: pieces booked as packs or the other way round; mend it, for stock and forecasts follow it",
        severity=CRITICAL,
        details={"kind": kind, "lines": lines, "factor": factor},
    )
