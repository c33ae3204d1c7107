"""A simulated chain whose shelves are often empty: what was sold, what was in stock, what was wanted."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from pipelines.forecasting.hourly import IntradayProfiles, intraday_profiles
from pipelines.simulation import stock
from pipelines.simulation.plan import NO_FAULTS, Plan
from pipelines.simulation.recording import Recording, record


def simulate(safety: float, days: int = 240, stores: int = 4, products: int = 12, seed: int = 5) -> Recording:
    """A chain that keeps `safety` standard deviations of safety stock: the lower, the emptier its shelves.

    Its books are right (no unseen losses): stock that is on the books only is what no method can know of.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stock, "SAFETY_FACTOR", safety)
        patch.setitem(stock._HOURLY_CHANCES, "loss", 0.0)
        return record(
            Plan(
                date(2025, 6, 1), seed=seed, stores=stores, products=products, days=days, low_stock=0, faults=NO_FAULTS
            )
        )


def profiles(chain: Recording) -> IntradayProfiles:
    """Profiles of what was sold, as `frames.intraday_statistics` would give them."""
    plan, batch, frames = chain.world.plan, chain.batch(chain.sold), []
    utc = pd.date_range(plan.start, periods=len(chain.sold), freq="h", tz="UTC")
    for series, (timezone, category) in enumerate(zip(batch.timezone, batch.category, strict=True)):
        local = utc.tz_convert(timezone)
        named = {"category": category, "timezone": timezone, "weekday": local.weekday, "hour": local.hour}
        known = np.arange(len(utc)) + plan.start_hour >= chain.world.model.launch_hour[series]
        units = {"units": chain.sold[:, series], "available": chain.in_stock[:, series]}
        frames.append(pd.DataFrame({**named, **units})[known])
    keys = ["category", "timezone", "weekday", "hour"]
    grouped = pd.concat(frames).groupby(keys, as_index=False).agg({"units": "sum", "available": "mean"})
    return intraday_profiles(grouped, plan.start, chain.end)
