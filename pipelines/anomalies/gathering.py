"""What the tables hold at a moment, as a `View`. The ledger's last weeks are read once a day, a day at a time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.anomalies.history import LedgerHistory, brought_with
from pipelines.anomalies.view import (
    COUNT_COLUMNS,
    DAY,
    LINE_COLUMNS,
    SHIPMENT_COLUMNS,
    DemandDays,
    Floats,
    Usual,
    View,
    empty,
)
from pipelines.contracts.tables import (
    DAILY_DEMAND,
    FORECASTS,
    INVENTORY_POSITIONS,
    PRODUCTS,
    QUANTILE_COLUMNS,
    SHIPMENTS,
    STOCK_MOVEMENTS,
    TIME,
)
from pipelines.forecasting.series import series_keys
from pipelines.inventory.forecast_distribution import day_moments, quantile_knots
from pipelines.io import published
from pipelines.io.delta import Tables

DEMAND_DAYS = 28
USUAL_DAYS = 28
COUNT_DAYS = 62
"""Two counts of a series that is counted once a month lie in it."""
SHIPMENT_DAYS = 90

_HISTORY_COLUMNS = ("location_id", "sku", "event_time", "kind", "quantity", "change")


class Gatherer:
    """Views of one home. What only a day changes is kept for the day."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._day: date | None = None
        self._counts, self._usual = empty(COUNT_COLUMNS), Usual()
        self._brought: Mapping[str, datetime] = {}
        self._demand: tuple[tuple[int, int, int], DemandDays] | None = None

    def view(self, now: datetime) -> View:
        """What is known at `now`."""
        if self._day != now.date():
            history = self._read_history(now)
            self._counts, self._usual, self._brought = history.counts(), history.usual(), history.brought()
            self._day = now.date()
        lines = self._ledger(LINE_COLUMNS, now - DAY, now)
        stock = self._tables.read(INVENTORY_POSITIONS, ("location_id", "sku", "on_hand"))
        products = self._tables.read(PRODUCTS, ("sku", "unit_cost", "unit_price"))
        return View(
            now=now,
            demand=self._demand_days(now),
            lines=lines,
            counts=self._counts,
            stock=dict(zip(series_keys(stock), stock["on_hand"].to_pylist(), strict=True)),
            brought=brought_with(self._brought, lines),
            shipments=self._shipments(now),
            products={
                row["sku"]: (_number(row["unit_cost"]), _number(row["unit_price"])) for row in products.to_pylist()
            },
            usual=self._usual,
        )

    def _read_history(self, now: datetime) -> LedgerHistory:
        """Of complete days."""
        end = datetime.combine(now.date(), time(), UTC)
        start = end - COUNT_DAYS * DAY
        is_count = pc.field("kind") == "count"
        counted = ("location_id", "sku", "event_time", "quantity")
        counts = self._tables.read(STOCK_MOVEMENTS, counted, is_count & _between(start, end)).to_pandas()
        history = LedgerHistory(counts, start)
        for back in range(COUNT_DAYS, 0, -1):
            rows = self._ledger(_HISTORY_COLUMNS, end - back * DAY, end - (back - 1) * DAY)
            history.add(rows, usual=back <= USUAL_DAYS)
        return history

    def _ledger(self, columns: tuple[str, ...], begin: datetime, end: datetime) -> pd.DataFrame:
        frame: pd.DataFrame = self._tables.read(STOCK_MOVEMENTS, columns, _between(begin, end)).to_pandas()
        return frame

    def _shipments(self, now: datetime) -> pd.DataFrame:
        recent = pc.field("started") > pa.scalar(now - SHIPMENT_DAYS * DAY, TIME)
        frame: pd.DataFrame = self._tables.read(SHIPMENTS, SHIPMENT_COLUMNS, recent).to_pandas()
        return frame

    def _demand_days(self, now: datetime) -> DemandDays:
        versions = (self._tables.version(DAILY_DEMAND), self._tables.version(FORECASTS), now.date().toordinal())
        if self._demand is None or self._demand[0] != versions:
            self._demand = versions, demand_days(self._tables, now.date())
        return self._demand[1]


def demand_days(tables: Tables, today: date) -> DemandDays:
    """Demand of the last complete days up to the newest aggregated one, with the forecasts made before each.

    A day without a row sold nothing; nothing is known of its stock, which then counts as there.
    """
    newest = tables.largest(DAILY_DEMAND, "date")
    last = min(today - DAY, newest) if newest is not None else today - DAY
    first = last - (DEMAND_DAYS - 1) * DAY
    forecast = _forecasts(tables, first, today)
    keys = np.unique(series_keys(forecast)) if forecast.num_rows else np.empty(0, object)
    if not len(keys):
        return DemandDays.none(first)
    days = (today - first).days + 1
    mean, variance = (np.full((len(keys), days), np.nan) for _ in range(2))
    rows = np.searchsorted(keys, series_keys(forecast))
    column = _day_numbers(forecast["target_time"]) - first.toordinal() + date(1970, 1, 1).toordinal()
    quantiles = np.column_stack([forecast[name].to_numpy() for name in QUANTILE_COLUMNS])
    expected, deviation = day_moments(quantile_knots(forecast["yhat"].to_numpy(), quantiles))
    mean[rows, column], variance[rows, column] = expected, deviation**2
    demand, in_stock = _demand(tables, keys, first, last)
    width = demand.shape[1]
    return DemandDays(keys, first, demand, mean[:, :width], variance[:, :width], in_stock, mean[:, -1], variance[:, -1])


def _forecasts(tables: Tables, first: date, today: date) -> pa.Table:
    """Day rows of each day from `first` to `today`, of the version that knew the most before it."""
    pointers = sorted(published.history(tables, published.FORECASTS), key=lambda one: (one.as_of, one.published_at))
    of_day: dict[date, str] = {}
    for day in (first + place * DAY for place in range((today - first).days + 1)):
        known = [pointer for pointer in pointers if pointer.as_of < day]
        if known:
            of_day[day] = known[-1].version
    columns = ("location_id", "sku", "target_time", "forecast_version", "yhat", *QUANTILE_COLUMNS)
    is_day = pc.field("grain") == "day"
    parts = []
    for version in sorted(set(of_day.values())):
        mine = [day for day, name in of_day.items() if name == version]
        times = [datetime.combine(day, time(), UTC) for day in mine]
        where = (pc.field("forecast_version") == version) & is_day & pc.field("target_time").isin(pa.array(times, TIME))
        parts.append(tables.read(FORECASTS, columns, where))
    schema = pa.schema([FORECASTS.schema.field(name) for name in columns])
    return pa.concat_tables(parts) if parts else schema.empty_table()


def _demand(tables: Tables, keys: np.ndarray, first: date, last: date) -> tuple[Floats, Floats]:
    day = pc.field("date")
    where = (day >= pa.scalar(first, pa.date32())) & (day <= pa.scalar(last, pa.date32()))
    rows = tables.read(DAILY_DEMAND, ("location_id", "sku", "date", "demand", "in_stock_fraction"), where)
    width = (last - first).days + 1
    demand, in_stock = np.zeros((len(keys), width)), np.ones((len(keys), width))
    names = series_keys(rows)
    place = np.minimum(np.searchsorted(keys, names), len(keys) - 1)
    found = keys[place] == names if len(names) else np.empty(0, bool)
    column = rows["date"].cast(pa.int32()).to_numpy() + date(1970, 1, 1).toordinal() - first.toordinal()
    demand[place[found], column[found]] = rows["demand"].fill_null(0).to_numpy().astype(float)[found]
    in_stock[place[found], column[found]] = rows["in_stock_fraction"].fill_null(1.0).to_numpy()[found]
    return demand, in_stock


def _day_numbers(times: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(times.cast(pa.date32()).cast(pa.int32()).to_numpy())


def _between(begin: datetime, end: datetime) -> pc.Expression:
    return (pc.field("event_time") >= pa.scalar(begin, TIME)) & (pc.field("event_time") < pa.scalar(end, TIME))


def _number(value: object) -> float:
    return float("nan") if value is None else float(value)  # type: ignore[arg-type]
