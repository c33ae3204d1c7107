"""A simulated history as arrays: what was sold, what was in stock, and what was wanted. For tests and notebooks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt

from pipelines.forecasting.series import SeriesBatch, from_matrix
from pipelines.simulation.demand import true_demand
from pipelines.simulation.plan import HOURS_PER_DAY, Plan
from pipelines.simulation.world import World

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Recording:
    """A chain's history, arrays (hours, series) from the plan's first hour (UTC) on.

    Attributes:
        sold: units sold; wanted: units that would have been sold from shelves that are never empty.
        in_stock: the share of each hour with stock on the books, as the chain's events would show it.
    """

    world: World
    sold: Floats
    in_stock: Floats
    wanted: Floats

    @property
    def end(self) -> date:
        """The last day of history."""
        return self.world.plan.cutoff - timedelta(days=1)

    def daily(self, hourly: Floats) -> Floats:
        """(series, days) sums over the UTC day."""
        return np.asarray(hourly.reshape(-1, HOURS_PER_DAY, hourly.shape[1]).sum(axis=1).T, float)

    def batch(self, hourly: Floats) -> SeriesBatch:
        """Hourly values as daily series; their exposure is the share of each day's time with stock."""
        chain = self.world.chain
        keys = [(chain.store(series), chain.product(series)) for series in range(chain.size)]
        launched = (self.world.model.launch_hour - self.world.plan.start_hour) // HOURS_PER_DAY
        units = self.daily(hourly)
        units[np.arange(units.shape[1]) < launched[:, None]] = np.nan
        batch = from_matrix(units, self.end, [(store.location_id, product.sku) for store, product in keys])
        return replace(
            batch,
            timezone=tuple(store.timezone for store, _ in keys),
            category=tuple(product.category for _, product in keys),
            exposure=self.daily(self.in_stock) / HOURS_PER_DAY,
        )


def record(plan: Plan) -> Recording:
    """Let the plan's history pass, without a broker."""
    world = World(plan)
    hours = HOURS_PER_DAY * plan.days
    sold, on_hand = (np.zeros((hours, world.chain.size)) for _ in range(2))
    for hour in range(hours):
        sold[hour] = world.advance()[0].sold
        on_hand[hour] = world.stock.book
        for _ in world.outbox.until(world.now_ms):
            pass  # nobody listens
    wanted = true_demand(world.model, plan.start_hour, hours).astype(float)
    # The s-th of d units wanted at even times empties the shelf after s/(d+1) of the hour.
    last_sale = np.where(sold > 0, sold / (np.maximum(wanted, sold) + 1.0), 0.0)
    return Recording(world, sold, np.where(on_hand <= 0, last_sale, 1.0), wanted)
