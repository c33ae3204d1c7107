"""Orders, units and revenue per region and for the whole chain, as `gold/demand_totals` has them now."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import DEMAND_TOTALS, LOCATION_SCOPE, TIME
from pipelines.io.delta import Tables
from pipelines.serving.dashboard.follow import Moved

GLOBAL = "global"
SHOWN_WINDOWS = 48
WEEK = timedelta(days=7)


@dataclass(frozen=True)
class ScopeTotals:
    """A region or the chain: the day so far, its complete windows against the same a week ago, the newest windows."""

    scope: str
    orders: int
    units: int
    revenue: float
    units_complete: int
    units_week_ago: int
    windows: tuple[tuple[datetime, int, float], ...]

    @property
    def change(self) -> float | None:
        """Of the day's units against last week's, as a share; None without those."""
        return None if self.units_week_ago <= 0 else self.units_complete / self.units_week_ago - 1.0


@dataclass(frozen=True)
class TotalsView:
    """The chain first, then its regions. `until`: end of the newest window."""

    until: datetime | None
    scopes: tuple[ScopeTotals, ...]


class TotalsSource:
    """Follows `gold/demand_totals`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._moved = Moved(tables, DEMAND_TOTALS)
        self.view = TotalsView(None, ())

    def poll(self) -> bool:
        """Whether a window changed."""
        if not self._moved.look():
            return False
        newest = self._tables.largest(DEMAND_TOTALS, "window_start")
        if newest is None:
            return False
        since = newest - WEEK - timedelta(days=2)
        of_many = ~pc.starts_with(pc.field("scope"), LOCATION_SCOPE)
        where = (pc.field("window_start") >= pa.scalar(since, TIME)) & of_many
        rows = self._tables.read(DEMAND_TOTALS, where=where).sort_by("window_start").to_pylist()
        before, self.view = self.view, totals_view(rows)
        return before != self.view


def totals_view(rows: list[dict[str, Any]]) -> TotalsView:
    """From rows in order of their windows. Tumbling ones are shown: sliding ones, which are longer, hold the same."""
    if not rows:
        return TotalsView(None, ())
    length = min(row["window_end"] - row["window_start"] for row in rows)
    rows = [row for row in rows if row["window_end"] - row["window_start"] == length]
    newest = rows[-1]["window_start"]
    today = newest.replace(hour=0, minute=0, second=0, microsecond=0)
    by_scope: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_scope[row["scope"]].append(row)
    scopes = [_scope(scope, found, today, newest) for scope, found in by_scope.items()]
    scopes.sort(key=lambda item: (item.scope != GLOBAL, item.scope))
    return TotalsView(max(row["window_end"] for row in rows), tuple(scopes))


def _scope(scope: str, rows: list[dict[str, Any]], today: datetime, newest: datetime) -> ScopeTotals:
    day = [row for row in rows if row["window_start"] >= today]
    last_week = [row for row in rows if today - WEEK <= row["window_start"] < newest - WEEK]
    shown = rows[-SHOWN_WINDOWS:]
    return ScopeTotals(
        scope,
        sum(row["orders"] for row in day),
        sum(row["units"] for row in day),
        float(sum(row["revenue"] or 0 for row in day)),
        sum(row["units"] for row in day if row["window_start"] < newest),
        sum(row["units"] for row in last_week),
        tuple((row["window_start"], row["units"], float(row["revenue"] or 0)) for row in shown),
    )
