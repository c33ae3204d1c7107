"""A simulated chain whose shelves are often empty, as arrays: what was sold, what was in stock, what was wanted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from pipelines.forecasting.hourly import IntradayProfiles, intraday_profiles
from pipelines.forecasting.series import SeriesBatch, from_matrix
from pipelines.simulation import stock
from pipelines.simulation.demand import true_demand
from pipelines.simulation.plan import NO_FAULTS, Plan
from pipelines.simulation.world import World


@dataclass(frozen=True)
class CensoredChain:
    """Arrays (hours, series); `in_stock` is the share of each hour with stock, as its events would show it."""

    world: World
    sold: np.ndarray
    in_stock: np.ndarray
    wanted: np.ndarray

    @property
    def start_hour(self) -> int:
        return self.world.plan.start_hour

    @property
    def end(self) -> date:
        return self.world.plan.cutoff - timedelta(days=1)

    def daily(self, values: np.ndarray) -> np.ndarray:
        """(series, days) sums over the UTC day."""
        return values.reshape(-1, 24, values.shape[1]).sum(axis=1).T

    def batch(self, values: np.ndarray) -> SeriesBatch:
        """Hourly values as daily series; their exposure is the share of each day's time with stock."""
        chain = self.world.chain
        keys = [(chain.store(series), chain.product(series)) for series in range(chain.size)]
        batch = from_matrix(self.daily(values), self.end, [(store.location_id, product.sku) for store, product in keys])
        return replace(
            batch,
            timezone=tuple(store.timezone for store, _ in keys),
            category=tuple(product.category for _, product in keys),
            exposure=self.daily(self.in_stock) / 24,
        )

    def profiles(self, batch: SeriesBatch) -> IntradayProfiles:
        """Profiles of what was sold, as `frames.intraday_statistics` would give them."""
        frames = []
        utc = pd.to_datetime(np.arange(len(self.sold)) * 3600 + self.start_hour * 3600, unit="s", utc=True)
        for series, (timezone, category) in enumerate(zip(batch.timezone, batch.category, strict=True)):
            local = utc.tz_convert(timezone)
            frames.append(
                pd.DataFrame(
                    {
                        **{"category": category, "timezone": timezone, "weekday": local.weekday, "hour": local.hour},
                        **{"units": self.sold[:, series], "available": self.in_stock[:, series]},
                    }
                )
            )
        keys = ["category", "timezone", "weekday", "hour"]
        grouped = pd.concat(frames).groupby(keys, as_index=False).agg({"units": "sum", "available": "mean"})
        return intraday_profiles(grouped, self.world.plan.start, self.end)


def simulate(safety: float, days: int = 240, stores: int = 4, products: int = 12, seed: int = 5) -> CensoredChain:
    """A chain that keeps `safety` standard deviations of safety stock: the lower, the emptier its shelves.

    Its books are right (no unseen losses): stock that is on the books only is what no method can know of.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stock, "SAFETY_FACTOR", safety)
        patch.setitem(stock._HOURLY_CHANCES, "loss", 0.0)
        plan = Plan(
            date(2025, 6, 1), seed=seed, stores=stores, products=products, days=days, low_stock=0, faults=NO_FAULTS
        )
        world = World(plan)
        sold, empty = [], []
        for _ in range(24 * days):
            sold.append(world.advance()[0].sold)
            empty.append(world.stock.book <= 0)
            list(world.outbox.until(world.now_ms))
    wanted = true_demand(world.model, plan.start_hour, 24 * days)
    units = np.array(sold)
    # The s-th of d units wanted at even times empties the shelf after s/(d+1) of the hour.
    last_sale = np.where(units > 0, units / (np.maximum(wanted, units) + 1.0), 0.0)
    in_stock = np.where(np.array(empty), last_sale, 1.0)
    return CensoredChain(world, units.astype(float), in_stock, wanted.astype(float))
