"""Shipments whose other ways are still to be thought of: a few at every save, the most at stake first, none forgotten.

Kept in memory alone. What an earlier process owed follows from `gold/shipments` and `gold/reroutes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipelines.shipments.stakes import Row, Stake


@dataclass(frozen=True)
class Debt:
    """One shipment.

    Attributes:
        row: of `gold/shipments`, as it was when last looked at.
        margin, units: at stake; the margin 0 without prices.
        told: people were told of the delay, and that other ways are to come.
    """

    row: Row
    margin: float
    units: float
    told: bool = False


class Owed:
    """By shipment."""

    def __init__(self) -> None:
        self._debts: dict[str, Debt] = {}

    def __len__(self) -> int:
        return len(self._debts)

    def __contains__(self, shipment_id: str) -> bool:
        return shipment_id in self._debts

    def put(self, row: Row, stakes: Sequence[Stake]) -> None:
        """Enter a shipment, or its newest row; what was told of it before stays told."""
        margin, units = sum(one.margin or 0.0 for one in stakes), sum(one.lost_units for one in stakes)
        earlier = self._debts.get(row["shipment_id"])
        self._debts[row["shipment_id"]] = Debt(row, margin, units, earlier is not None and earlier.told)

    def note_told(self, shipment_id: str) -> None:
        """People wait for it."""
        self._debts[shipment_id] = replace(self._debts[shipment_id], told=True)

    def settle(self, shipment_id: str) -> None:
        """It has been thought of, or needs no thought any more."""
        self._debts.pop(shipment_id, None)

    def most(self, count: int) -> list[Debt]:
        """The `count` with the most margin at stake, then the most units."""
        found = sorted(self._debts.values(), key=lambda debt: (-debt.margin, -debt.units, debt.row["shipment_id"]))
        return found[:count]
