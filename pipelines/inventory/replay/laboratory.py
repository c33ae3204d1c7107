"""A replay from what is at hand: the home's tables, or a file of sales; and what-if, with one thing changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.contracts.tables import DAILY_DEMAND, PRODUCTS, SOURCING
from pipelines.errors import MissingDataError, UsageError
from pipelines.forecasting.series import UNKNOWN, SeriesBatch
from pipelines.inventory.forecast_distribution import FloatArray
from pipelines.inventory.lead_time_demand import Protection
from pipelines.inventory.policies import Terms
from pipelines.inventory.replay.history import (
    History,
    Rolling,
    RollingForecasts,
    forecast_rolling,
    sampled_lead_times,
)
from pipelines.inventory.replay.results import Outcome
from pipelines.io.delta import Tables
from pipelines.operations.settings import ForecastSettings
from pipelines.simulation.replay import read_sales

SETTLING_DAYS = 35
"""Days before the measured ones, in which the opening stock runs off."""
LEAST_HISTORY = 56
"""Days that must be known before the first forecast."""
POINTS = 64
_DAY_MS = 86_400_000


@dataclass(frozen=True)
class Supply:
    """What n series are bought on.

    Attributes:
        terms: costs, packs, review.
        protection: lead times and review, as the planner knows them.
    """

    terms: Terms
    protection: Protection


@dataclass(frozen=True)
class Assumed:
    """Terms for a file of sales, which knows none; the same for every series.

    Attributes:
        lead_times: whole days, equally likely. pack_size, minimum_order: units. order_cost: money per order.
        holding_cost: money per unit and year. unit_cost, unit_price: money. review_days: between reviews.
    """

    lead_times: tuple[int, ...] = (6, 7, 8)
    pack_size: int = 6
    minimum_order: int = 0
    order_cost: float = 0.0
    holding_cost: float = 0.0
    unit_cost: float = 0.0
    unit_price: float = 0.0
    review_days: int = 1

    def supply(self, series: int) -> Supply:
        """For so many series."""
        values = {name: getattr(self, name) for name in Terms.__dataclass_fields__ if hasattr(self, name)}
        values |= {"service_level": 0.95, "shelf_life_days": np.nan}
        columns: dict[str, Any] = {name: np.full(series, float(value)) for name, value in values.items()}
        terms = Terms(**columns)
        return Supply(terms, Protection.observed(lead_time_grid(self.lead_times, series), terms.review_days))


def lead_time_grid(lead_times: tuple[int, ...], series: int) -> FloatArray:
    """(series, m) of equally likely lead times."""
    return np.tile(np.asarray(lead_times, np.float64), (series, 1))


# Demand. -----------------------------------------------------------------------------------------------------


def from_file(path: Path) -> SeriesBatch:
    """Daily demand from a file of sales (see `stockcast replay`); a product is its own category.

    Raises:
        UsageError: the file cannot be read as sales.
    """
    sales = read_sales(path)
    days = (sales["time_ms"].to_numpy() // _DAY_MS).astype(np.int64)
    keys = list(zip(sales["location_id"].tolist(), sales["sku"].tolist(), strict=True))
    return _batch(keys, days, sales["quantity"].to_numpy(np.float64), {})


def from_home(tables: Tables) -> tuple[SeriesBatch, Supply]:
    """Daily demand of the sourced series of the home, and their terms.

    Raises:
        MissingDataError: there is no demand or no sourcing.
    """
    rows = tables.read(DAILY_DEMAND, columns=("location_id", "sku", "date", "demand"))
    products = tables.read(PRODUCTS, columns=("sku", "category", "unit_cost", "unit_price", "shelf_life_days"))
    sourcing = tables.read(SOURCING).join(products, keys="sku", join_type="left outer")
    if rows.num_rows == 0 or sourcing.num_rows == 0:
        raise MissingDataError(
            f"a replay needs gold/daily_demand ({rows.num_rows} rows) and the catalog's sourcing "
            f"({sourcing.num_rows} rows); aggregate and load them first, or name a file of sales"
        )
    keys = list(zip(rows["location_id"].to_pylist(), rows["sku"].to_pylist(), strict=True))
    days = rows["date"].cast(pa.int32()).to_numpy().astype(np.int64)
    categories = dict(zip(products["sku"].to_pylist(), products["category"].to_pylist(), strict=True))
    batch = _batch(keys, days, rows["demand"].cast(pa.float64()).to_numpy(), categories)
    place = {key: row for row, key in enumerate(zip(batch.location_id, batch.sku, strict=True))}
    terms_keys = list(zip(sourcing["location_id"].to_pylist(), sourcing["sku"].to_pylist(), strict=True))
    pairs = sorted((place[key], row) for row, key in enumerate(terms_keys) if key in place)
    if not pairs:
        raise MissingDataError("no series that ever sold is in the catalog's sourcing; load a catalog that matches")
    sold, bought = (np.array(side, np.int64) for side in zip(*pairs, strict=True))
    return batch.take(sold), _supply(sourcing.take(pa.array(bought)))


def _supply(rows: pa.Table) -> Supply:
    def column(name: str) -> FloatArray:
        return np.asarray(rows[name].cast(pa.float64()).to_numpy(), np.float64)

    cost = column("unit_cost")
    terms = Terms(
        service_level=column("service_level"),
        pack_size=column("pack_size"),
        minimum_order=column("minimum_order"),
        order_cost=column("order_cost"),
        holding_cost=np.nan_to_num(column("holding_cost_rate") * cost),
        unit_cost=cost,
        unit_price=column("unit_price"),
        shelf_life_days=column("shelf_life_days"),
        review_days=column("review_days"),
    )
    return Supply(terms, Protection(column("lead_time_days"), column("lead_time_std_days"), terms.review_days))


def _batch(
    keys: list[tuple[str, str]], days: np.ndarray[Any, np.dtype[np.int64]], units: FloatArray, of_sku: dict[str, Any]
) -> SeriesBatch:
    names = sorted(set(keys))
    place = {key: row for row, key in enumerate(names)}
    rows = np.array([place[key] for key in keys], np.int64)
    first, last = int(days.min()), int(days.max())
    demand = np.zeros((len(names), last - first + 1))
    np.add.at(demand, (rows, days - first), units)
    start = np.full(len(names), demand.shape[1], np.int64)
    np.minimum.at(start, rows, days - first)
    demand = np.where(np.arange(demand.shape[1]) < start[:, None], np.nan, np.maximum(demand, 0.0))
    return SeriesBatch(
        location_id=tuple(location for location, _ in names),
        sku=tuple(sku for _, sku in names),
        category=tuple(str(of_sku.get(sku) or UNKNOWN) if of_sku else sku for _, sku in names),
        timezone=("UTC",) * len(names),
        end=date(1970, 1, 1) + timedelta(days=last),
        demand=demand,
        promotion=np.zeros_like(demand),
        start=start,
    )


# Replays. ----------------------------------------------------------------------------------------------------


def rolled(
    batch: SeriesBatch,
    days: int,
    rolling: Rolling,
    settings: ForecastSettings,
    progress: Callable[[date], None] = lambda _: None,
) -> RollingForecasts:
    """The forecasts that a replay of the last `days` days needs.

    Raises:
        UsageError: there is not enough history before them.
    """
    start = _start(batch, days)
    known = batch.days - (batch.end - start).days - 1
    if days < 1 or known < LEAST_HISTORY:
        most = batch.days - SETTLING_DAYS - LEAST_HISTORY - 1
        raise UsageError(
            f"a replay of {days} days leaves {known} days of history before its first forecast, at least "
            f"{LEAST_HISTORY} are needed: choose from 1 to {most} days"
            if most > 0
            else f"{batch.days} days of history are too few for a replay; more than "
            f"{SETTLING_DAYS + LEAST_HISTORY + 1} are needed"
        )
    return forecast_rolling(batch, start - timedelta(days=1), batch.end, rolling, settings, progress)


def history_of(
    batch: SeriesBatch, forecasts: RollingForecasts, supply: Supply, days: int, rng: np.random.Generator
) -> History:
    """The last `days` days, with lead times drawn from what the planner knows of them, an order apart."""
    start = _start(batch, days)
    length = (batch.end - start).days + 1
    return History(
        batch,
        forecasts,
        drawn_lead_times(supply.protection, length, rng),
        start,
        batch.end - timedelta(days=days - 1),
    )


def drawn_lead_times(
    protection: Protection, length: int, rng: np.random.Generator
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(n, length) whole days, a lead time for every order that could be placed."""
    mean, deviation = protection.lead_time, protection.lead_time_std
    points = protection.lead_time_points
    if points is not None:
        if (points == points[:1]).all():
            return sampled_lead_times(tuple(np.rint(points[0]).astype(int)), len(points), length, rng)
        picked = rng.integers(0, points.shape[1], (len(points), length))
        return np.rint(np.take_along_axis(points, picked, axis=1)).astype(np.int64)
    shape = np.divide(mean, deviation, out=np.full_like(mean, np.inf), where=deviation > 0) ** 2
    varied = np.isfinite(shape) & (mean > 0)
    scale = np.divide(mean, shape, out=np.zeros_like(mean), where=varied)
    drawn = rng.gamma(np.where(varied, shape, 1.0)[:, None], scale[:, None], (len(mean), length))
    return np.rint(np.where(varied[:, None], drawn, mean[:, None])).astype(np.int64)


def _start(batch: SeriesBatch, days: int) -> date:
    return batch.end - timedelta(days=days + SETTLING_DAYS - 1)


# What if. ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WhatIf:
    """What is changed; None leaves a thing as it is.

    Attributes:
        service_level: wanted instead. lead_times: equally likely days instead, known to the planner.
        outage: the first day and the number of days in which the supplier ships nothing; what was ordered
            meanwhile takes its lead time from the outage's end on. The planner does not know beforehand.
    """

    service_level: float | None = None
    lead_times: tuple[int, ...] | None = None
    outage: tuple[date, int] | None = None


def changed(history: History, supply: Supply, what: WhatIf, rng: np.random.Generator) -> tuple[History, Supply]:
    """The same demand and forecasts with lead times changed."""
    if what.lead_times is not None:
        grid = lead_time_grid(what.lead_times, len(history.batch))
        supply = replace(supply, protection=Protection.observed(grid, supply.protection.review))
        history = replace(history, lead_time=drawn_lead_times(supply.protection, history.days, rng))
    if what.outage is not None:
        first, length = what.outage
        begin = (first - history.start).days
        if begin + length <= 0 or begin >= history.days:
            raise UsageError(
                f"the outage from {first} is outside of the replay, {history.start} to {history.batch.end}"
            )
        day = np.arange(history.days)
        within = (day >= begin) & (day < begin + length)
        wait = np.where(within, begin + length - day, 0)
        history = replace(history, lead_time=history.lead_time + wait)
    return history, supply


def difference(base: Outcome, other: Outcome) -> dict[str, Any]:
    """What a change does to a policy: orders, units ordered, stock and service, and the units by day.

    `ordered_by_day` is the change in units ordered on each of the replay's days.
    """
    before, after = base.totals, other.totals
    return {
        "policy": base.name,
        "wanted_before": base.service,
        "service_level": other.service,
        "orders": int(after["orders"].sum() - before["orders"].sum()),
        "ordered_units": int(after["ordered"].sum() - before["ordered"].sum()),
        "average_stock": other.average_stock - base.average_stock,
        "fill_rate": other.fill_rate - base.fill_rate,
        "lost_units": int((before["sold"] - after["sold"]).sum()),
        "stockout_days": int(after["short_days"].sum() - before["short_days"].sum()),
        "ordered_by_day": (other.ordered - base.ordered).tolist(),
    }
