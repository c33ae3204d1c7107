"""Series in danger for which nothing waits: they were ordered already, or cannot be."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import pyarrow.compute as pc

from pipelines.contracts.tables import INVENTORY_POSITIONS
from pipelines.io.delta import Tables
from pipelines.serving.dashboard.follow import Moved
from pipelines.serving.dashboard.risk import Risk, risk_of
from pipelines.serving.dashboard.stock import PolicyShelf, SeriesKey, chain_time, positions_of

CONSIDERED = 400
"""Series with the most margin at risk whose risk is computed."""

_FLAG = ("location_id", "sku", "flag_severity", "flag_chance", "lost_margin")


@dataclass(frozen=True)
class WatchedSeries:
    """A flagged series; `risk` counts what is under way as there."""

    location_id: str
    sku: str
    severity: str
    on_hand: int
    on_order: int
    next_receipt: datetime | None
    risk: Risk | None

    @property
    def money(self) -> float:
        """What is at risk, in the catalog's currency."""
        return 0.0 if self.risk is None else self.risk.money


class Watchlist:
    """Follows the flags in `gold/inventory_positions`."""

    def __init__(self, tables: Tables, shelf: PolicyShelf) -> None:
        self._tables = tables
        self._shelf = shelf
        self._moved = Moved(tables, INVENTORY_POSITIONS)
        self.flags: dict[str, int] = {}
        self.series = 0
        self._likely: list[SeriesKey] = []

    def poll(self) -> bool:
        """Whether positions were saved since."""
        if not self._moved.look():
            return False
        rows = self._tables.read(INVENTORY_POSITIONS, _FLAG)
        self.series = rows.num_rows
        flagged = rows.filter(rows.column("flag_severity").is_valid())
        counts = pc.value_counts(flagged.column("flag_severity")).to_pylist()
        self.flags = {item["values"]: item["counts"] for item in counts}
        likely = flagged.filter(pc.not_equal(pc.fill_null(flagged.column("flag_chance"), "high"), "low"))
        likely = likely.sort_by([("lost_margin", "descending"), *((key, "ascending") for key in _FLAG[:2])])
        self._likely = list(zip(*(likely.column(key).to_pylist() for key in _FLAG[:2]), strict=True))
        return True

    def ranked(self, now: datetime, limit: int, without: Collection[SeriesKey]) -> list[WatchedSeries]:
        """The flagged series with the most money at risk, without those that wait for a decision."""
        keys = [key for key in self._likely[:CONSIDERED] if key not in without]
        positions, policies = positions_of(self._tables, keys), self._shelf.of(keys)
        clock = chain_time(self._tables, now)
        found = []
        for key in keys:
            if (row := positions.get(key)) is None:
                continue
            released = [order for order in row["open_orders"] or () if order["released"]]
            under_way = sum(order["outstanding"] for order in released)
            policy = policies.get(key)
            found.append(
                WatchedSeries(
                    *key,
                    row["flag_severity"] or "low",
                    row["on_hand"],
                    row["on_order"],
                    min((order["expected_receipt"] for order in released), default=None),
                    None if policy is None else risk_of(row["on_hand"], under_way, policy, clock),
                )
            )
        return sorted(found, key=lambda line: (-line.money, line.location_id, line.sku))[:limit]
