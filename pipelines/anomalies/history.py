"""What the ledger of the last weeks tells, a day at a time: usual quantities and hours, counts against the books."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import numpy as np
import pandas as pd

from pipelines.anomalies.view import COUNT_COLUMNS, Usual, empty

BRINGING = ("receipt", "transfer_in", "count", "adjustment")
"""Kinds after which it is a new question whether the stock can be bought."""


class LedgerHistory:
    """Takes in the ledger in parts, in any order, each row once, and keeps sums alone.

    Args:
        counts: location_id, sku, event_time, quantity: all counts of the time that the parts cover, and before.
        start: the parts cover everything from then on.
    """

    def __init__(self, counts: pd.DataFrame, start: datetime) -> None:
        self._counts = _in_turn(counts)
        self._start = start
        self._changes = np.zeros(len(self._counts))
        self._quantities: list[pd.DataFrame] = []
        self._hours: list[pd.Series] = []
        self._brought: list[pd.Series] = []

    def add(self, rows: pd.DataFrame, usual: bool = True) -> None:
        """Take in a part.

        Args:
            rows: location_id, sku, event_time, kind, quantity, change.
            usual: whether it tells how things usually are; else counts alone are looked at.
        """
        if not len(rows):
            return
        keys = rows.location_id.astype(str) + "|" + rows.sku.astype(str)
        self._add_changes(keys, rows)
        brought = rows.kind.isin(BRINGING)
        self._brought.append(rows.event_time[brought].groupby(keys[brought]).max())
        if not usual:
            return
        lines = rows[rows.kind.isin(["sale", "receipt"])]
        logs = np.log(np.maximum(lines.quantity.astype(float), 1.0))
        self._quantities.append(
            pd.DataFrame({"kind": lines.kind, "sku": lines.sku, "count": 1, "sum": logs, "squares": logs**2})
            .groupby(["kind", "sku"])
            .sum()
        )
        sales = rows[rows.kind == "sale"]
        self._hours.append(sales.quantity.astype(float).groupby([sales.location_id, sales.event_time.dt.hour]).sum())

    def _add_changes(self, keys: pd.Series, rows: pd.DataFrame) -> None:
        """Add each change to the next count of its series."""
        changed = pd.DataFrame({"key": keys, "event_time": rows.event_time, "change": rows.change}).dropna()
        if not len(self._counts) or not len(changed):
            return
        counts = self._counts[["key", "event_time", "place"]].sort_values("event_time")
        met = pd.merge_asof(
            changed.sort_values("event_time"), counts, on="event_time", by="key", direction="forward"
        ).dropna(subset=["place"])
        np.add.at(self._changes, met.place.to_numpy(int), met.change.to_numpy(float))

    def usual(self) -> Usual:
        """How things usually are."""
        if not self._quantities:
            return Usual()
        sums = pd.concat(self._quantities).groupby(level=[0, 1]).sum()
        middle = sums["sum"] / sums["count"]
        spread = np.sqrt(np.maximum(sums.squares / sums["count"] - middle**2, 0.0))
        quantities = {
            (str(kind), str(sku)): (int(count), float(mean), float(std))
            for (kind, sku), count, mean, std in zip(sums.index, sums["count"], middle, spread, strict=True)
        }
        hours = {}
        for location, units in pd.concat(self._hours).groupby(level=[0, 1]).sum().groupby(level=0):
            by_hour = units.droplevel(0).reindex(range(24), fill_value=0.0).to_numpy(float)
            hours[str(location)] = np.concatenate([[0.0], np.cumsum(by_hour) / by_hour.sum()])
        return Usual(quantities, hours)

    def brought(self) -> Mapping[str, datetime]:
        """By series, when its stock was last brought or corrected."""
        if not self._brought:
            return {}
        last = pd.concat(self._brought).groupby(level=0).max()
        return {str(key): moment.to_pydatetime() for key, moment in last.items()}

    def counts(self) -> pd.DataFrame:
        """`view.COUNT_COLUMNS`: what the books said before each count, by the count before it; those known alone."""
        if not len(self._counts):
            return empty(COUNT_COLUMNS)
        rows = self._counts
        before = rows.quantity.where(rows.key == rows.key.shift(-1)).shift(1)
        since = rows.event_time.shift(1)
        known = before.notna() & (since >= pd.Timestamp(self._start))
        expected = before + self._changes
        return pd.DataFrame(
            {
                "location_id": rows.location_id,
                "sku": rows.sku,
                "event_time": rows.event_time,
                "expected": expected,
                "counted": rows.quantity.astype(float),
            }
        )[known].reset_index(drop=True)


def _in_turn(counts: pd.DataFrame) -> pd.DataFrame:
    keys = counts.location_id.astype(str) + "|" + counts.sku.astype(str) if len(counts) else pd.Series(dtype=object)
    rows = counts.assign(key=keys).sort_values(["key", "event_time"], kind="stable").reset_index(drop=True)
    return rows.assign(place=np.arange(len(rows)))


def brought_with(brought: Mapping[str, datetime], lines: pd.DataFrame) -> dict[str, datetime]:
    """`LedgerHistory.brought` with later lines."""
    fresh = lines[lines.kind.isin(BRINGING)]
    last = fresh.event_time.groupby(fresh.location_id.astype(str) + "|" + fresh.sku.astype(str)).max()
    found = dict(brought)
    for key, moment in last.items():
        found[str(key)] = max(moment.to_pydatetime(), found.get(str(key), moment.to_pydatetime()))
    return found
