"""Positions and policies of the few series that a page shows."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc

from pipelines.contracts.tables import INVENTORY_POLICIES, INVENTORY_POSITIONS, STOCK_MOVEMENTS
from pipelines.io import published
from pipelines.io.delta import Tables
from pipelines.serving.dashboard.follow import any_of

SeriesKey = tuple[str, str]
Row = dict[str, Any]

_POSITION = ("location_id", "sku", "on_hand", "on_order", "last_event_time", "open_orders", "flag_severity")
_POLICY = tuple(name for name in INVENTORY_POLICIES.schema.names if name != "created_at")


def positions_of(tables: Tables, keys: Iterable[SeriesKey]) -> dict[SeriesKey, Row]:
    """Their positions as they were saved last."""
    wanted = set(keys)
    if not wanted:
        return {}
    rows = tables.read(INVENTORY_POSITIONS, _POSITION, _among(wanted)).to_pylist()
    return {key: row for row in rows if (key := (row["location_id"], row["sku"])) in wanted}


class PolicyShelf:
    """Policies in force, read once for each series and version."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._version: str | None = None
        self._rows: dict[SeriesKey, Row | None] = {}

    def of(self, keys: Iterable[SeriesKey]) -> dict[SeriesKey, Row]:
        """The policies of these series, where they have one."""
        pointer = published.in_force(self._tables, published.POLICIES)
        version = None if pointer is None else pointer.version
        if version != self._version:
            self._version, self._rows = version, {}
        wanted = set(keys)
        missing = wanted - self._rows.keys()
        if missing and version is not None:
            where = (pc.field("policy_version") == version) & _among(missing)
            found = self._tables.read(INVENTORY_POLICIES, _POLICY, where).to_pylist()
            self._rows.update(dict.fromkeys(missing))
            self._rows.update({(row["location_id"], row["sku"]): row for row in found})
        return {key: row for key in wanted if (row := self._rows.get(key)) is not None}


def chain_time(tables: Tables, now: datetime) -> datetime:
    """The newest time that an event has shown; `now` before the first."""
    newest: datetime | None = tables.largest(STOCK_MOVEMENTS, "event_time")
    if newest is None:
        return now
    return newest if newest.tzinfo else newest.replace(tzinfo=UTC)


def _among(keys: set[SeriesKey]) -> pc.Expression:
    places, skus = ({key[part] for key in keys} for part in (0, 1))
    return any_of("location_id", places) & any_of("sku", skus)
