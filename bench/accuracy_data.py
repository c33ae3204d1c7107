"""Demand to measure accuracy on: real series where there are some, and simulated ones whose kind is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.forecasting.series import SeriesBatch, from_matrix
from pipelines.simulation.chain import build_chain
from pipelines.simulation.demand import build_model, promotions, true_demand, week_of
from pipelines.simulation.plan import NO_FAULTS, Plan

LAST = date(2016, 12, 31)


@dataclass(frozen=True)
class DataSet:
    """Series, the days from which they are forecast again, and how far."""

    name: str
    batch: SeriesBatch
    cutoffs: tuple[date, ...]
    horizon: int


def data_sets(folder: Path | None, series: int) -> list[DataSet]:
    """The real series of `folder` (left out without one), a chain with promotions, intermittent demand; at most so
    many series of each."""
    quarters = (date(2015, 12, 31), date(2016, 3, 31), date(2016, 6, 30), date(2016, 9, 30))
    months = tuple(LAST - timedelta(days=28 * back) for back in (12, 8, 4, 1))
    sets = [] if folder is None else [DataSet("real", real(folder, series), quarters, 90)]
    return [
        *sets,
        DataSet("chain with promotions", chain(series), months, 28),
        DataSet("intermittent", intermittent(series), months, 28),
    ]


def real(folder: Path, series: int) -> SeriesBatch:
    """Daily sales of stores and items, evenly spread over both where not all are wanted."""
    rows = pd.read_parquet(folder / "store_item_daily.parquet")
    table = rows.pivot_table(index=["store", "item"], columns="date", values="sales").sort_index()
    chosen = np.unique(np.linspace(0, len(table) - 1, min(series, len(table))).round().astype(int))
    table = table.iloc[chosen]
    names = [(f"store-{store}", f"item-{item}") for store, item in table.index]
    batch = from_matrix(table.to_numpy(float), pd.Timestamp(table.columns[-1]).date(), names)
    return replace(batch, category=tuple(sku for _, sku in names)).until(LAST)


def chain(series: int, days: int = 1096) -> SeriesBatch:
    """The simulated chain's true demand: growth, week, year, holidays, new products, weeks of promotion."""
    plan = Plan(LAST + timedelta(days=1), seed=11, stores=8, products=max(series // 8, 2), days=days, faults=NO_FAULTS)
    model = build_model(build_chain(plan))
    hourly = true_demand(model, plan.start_hour, 24 * days)
    demand = hourly.reshape(days, 24, -1).sum(axis=1).T.astype(float)
    first = model.launch_hour // 24 - plan.start_hour // 24
    demand = np.where(np.arange(days) < first[:, None], np.nan, demand)
    made = model.chain
    names = [(made.store(row).location_id, made.product(row).sku) for row in range(made.size)]
    batch = from_matrix(demand, LAST, names)
    weeks, week = np.unique(week_of(plan.start_hour // 24 + np.arange(days)), return_inverse=True)
    promoted = np.array([promotions(made, int(number)).uplift > 1 for number in weeks])[week]
    return replace(
        batch,
        category=tuple(made.product(row).category for row in range(made.size)),
        promotion=promoted.T[made.product_of].astype(float),
    )


def intermittent(series: int, days: int = 1096, seed: int = 5) -> SeriesBatch:
    """Rare demands: their chance by week and year, of single units or of packs; a fifth of the series fade away,
    a fifth pick up."""
    rng = np.random.default_rng(seed)
    day = np.arange(days)
    weekday = (np.datetime64(LAST, "D") - np.arange(days - 1, -1, -1)).astype(np.int64) + 3
    week = np.array([0.8, 0.8, 0.9, 1.0, 1.2, 1.4, 0.9])[weekday % 7]
    rate = np.exp(rng.uniform(np.log(0.02), np.log(0.6), series))[:, None]
    year = 1 + rng.uniform(0, 0.5, series)[:, None] * np.sin(2 * np.pi * (day / 365.25 + rng.random(series)[:, None]))
    kind = rng.random(series)[:, None]
    turn = rng.integers(days // 2, days, series)[:, None]
    drift = np.where(kind < 0.2, np.exp(-np.maximum(day - turn, 0) / 120), 1.0)
    drift = np.where(kind > 0.8, 1 + np.clip((day - turn) / 180, 0, 1.5), drift)
    happens = rng.random((series, days)) < np.clip(rate * week * year * drift, 0, 1)
    pack = rng.choice([1, 1, 1, 6, 12], series)[:, None]
    spread = rng.choice([0.3, 1.0, 4.0], series)[:, None]
    size = pack * (1 + rng.poisson(rng.gamma(1 / spread, spread * rng.uniform(0.2, 3, (series, 1)), (series, days))))
    names = [(f"store-{row % 5}", f"part-{row}") for row in range(series)]
    return replace(
        from_matrix(np.where(happens, size, 0).astype(float), LAST, names),
        category=tuple(f"kind-{row % 3}" for row in range(series)),
    )
