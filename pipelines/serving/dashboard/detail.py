"""Everything about one series: demand, forecast, stock over time, orders, and how good its model is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import (
    DAILY_DEMAND,
    FORECASTS,
    ORDERS,
    QUANTILE_COLUMNS,
    SERIES_STATUS,
    STOCK_MOVEMENTS,
    TIME,
)
from pipelines.io import published
from pipelines.io.delta import Tables
from pipelines.restocking.orders import FREED, TERMINAL
from pipelines.serving.dashboard.stock import PolicyShelf, Row, chain_time, positions_of

HISTORY_DAYS = 120
STOCK_DAYS = 28
MOST_ORDERS = 50

Level = tuple[datetime, int, int]


@dataclass(frozen=True)
class SeriesDetail:
    """A series. `stock`: (time, on hand, on hand and on order), a row a change; `span`: what charts show."""

    demand: list[Row]
    forecast: list[Row]
    stock: list[Level]
    orders: list[Row]
    position: Row | None
    policy: Row | None
    status: Row | None
    forecast_as_of: Any
    since: datetime
    now: datetime

    @property
    def known(self) -> bool:
        """Whether anything is known of it."""
        return bool(self.demand or self.orders or self.position or self.policy or self.status)

    @property
    def span(self) -> tuple[str, str]:
        """From some weeks ago to the forecast's end."""
        last = self.forecast[-1]["target_time"] if self.forecast else self.now
        return ((self.now - timedelta(days=STOCK_DAYS)).isoformat(), (last + timedelta(days=1)).isoformat())


def series_detail(tables: Tables, shelf: PolicyShelf, location_id: str, sku: str, wall: datetime) -> SeriesDetail:
    """Read all of it."""
    key = (location_id, sku)
    this = (pc.field("location_id") == location_id) & (pc.field("sku") == sku)
    now = chain_time(tables, wall)
    first_day = pa.scalar((now - timedelta(days=HISTORY_DAYS)).date(), pa.date32())
    demand = tables.read(
        DAILY_DEMAND, ("date", "demand", "in_stock_fraction"), this & (pc.field("date") >= first_day)
    ).sort_by("date")
    pointer = published.in_force(tables, published.FORECASTS)
    position = positions_of(tables, [key]).get(key)
    orders = tables.read(ORDERS, where=this).sort_by([("created_at", "descending")]).slice(0, MOST_ORDERS).to_pylist()
    since = now - timedelta(days=STOCK_DAYS)
    on_hand = 0 if position is None else position["on_hand"]
    return SeriesDetail(
        demand=demand.to_pylist(),
        forecast=_forecast(tables, this, pointer),
        stock=with_orders(levels(_changes(tables, this, since), on_hand), orders, since, now),
        orders=orders,
        position=position,
        policy=shelf.of([key]).get(key),
        status=_status(tables, this, pointer),
        forecast_as_of=None if pointer is None else pointer.as_of,
        since=since,
        now=now,
    )


def _forecast(tables: Tables, this: pc.Expression, pointer: published.Published | None) -> list[Row]:
    if pointer is None:
        return []
    where = this & (pc.field("forecast_version") == pointer.version) & (pc.field("grain") == "day")
    columns = ("target_time", "yhat", *QUANTILE_COLUMNS, "model")
    return list(tables.read(FORECASTS, columns, where).sort_by("target_time").to_pylist())


def _status(tables: Tables, this: pc.Expression, pointer: published.Published | None) -> Row | None:
    if pointer is None:
        return None
    rows = tables.read(SERIES_STATUS, where=this & (pc.field("forecast_version") == pointer.version)).to_pylist()
    return rows[0] if rows else None


def _changes(tables: Tables, this: pc.Expression, since: datetime) -> list[Row]:
    where = this & (pc.field("event_time") >= pa.scalar(since, TIME))
    columns = ("event_time", "event_id", "kind", "quantity", "change")
    return list(tables.read(STOCK_MOVEMENTS, columns, where).sort_by("event_time").to_pylist())


def levels(changes: Sequence[Row], on_hand: int) -> list[tuple[datetime, int]]:
    """Stock after each change, in order of time: forward from each count, backward from the first count, or from the
    stock of now where there is none."""
    first = next((place for place, row in enumerate(changes) if row["kind"] == "count"), None)
    after = [0] * len(changes)
    if first is None:
        level = on_hand
        for place in range(len(changes) - 1, -1, -1):
            after[place] = level
            level -= changes[place]["change"] or 0
    else:
        level = changes[first]["quantity"]
        for place in range(first - 1, -1, -1):
            after[place] = level
            level -= changes[place]["change"] or 0
        level = changes[first]["quantity"]
        for place in range(first, len(changes)):
            row = changes[place]
            level = row["quantity"] if row["kind"] == "count" else level + (row["change"] or 0)
            after[place] = level
    return [(row["event_time"], level) for row, level in zip(changes, after, strict=True)]


def with_orders(
    stock: Sequence[tuple[datetime, int]], orders: Sequence[Row], since: datetime, now: datetime
) -> list[Level]:
    """Stock and inventory position after each change of either; an order counts from its decision to its receipt."""
    moves: list[tuple[datetime, int]] = []
    for order in orders:
        quantity = order["quantity"]
        moves.append((order["created_at"], quantity))
        if order["state"] in FREED or order["state"] in TERMINAL:
            moves.append((order["state_time"], -quantity))
        elif order["received"]:
            moves.append((order["state_time"], -min(order["received"], quantity)))
    moves.sort()
    on_order = sum(change for time, change in moves if time < since)
    merged = sorted(
        [(time, 0, level) for time, level in stock] + [(time, 1, change) for time, change in moves if time >= since]
    )
    rows: list[Level] = []
    level = stock[0][1] if stock else 0
    for time, is_order, value in merged:
        if is_order:
            on_order += value
        else:
            level = value
        rows.append((time, level, level + max(on_order, 0)))
    if rows and rows[-1][0] < now:
        rows.append((now.astimezone(UTC), *rows[-1][1:]))
    return rows
