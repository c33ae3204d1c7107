"""Demand to look at in a notebook: that of a home, or of a simulated chain where there is no home. Without Spark."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa

from pipelines.contracts.tables import DAILY_DEMAND, HOURLY_DEMAND, LOCATIONS, PRODUCTS
from pipelines.forecasting.censoring import Censoring, read_series
from pipelines.forecasting.series import UNKNOWN, SeriesBatch
from pipelines.io.delta import Tables
from pipelines.simulation.plan import NO_FAULTS, Plan
from pipelines.simulation.recording import Recording, record

SERIES = ["location_id", "sku"]
SIMULATED = Plan(date(2025, 6, 1), seed=7, stores=3, products=12, days=300, low_stock=0, faults=NO_FAULTS)


@dataclass(frozen=True)
class DemandAtHand:
    """Demand of a chain's series.

    Attributes:
        source: says where it comes from.
        daily, hourly: as `gold/daily_demand` and `gold/hourly_demand` (UTC), with category, region and timezone.
    """

    source: str
    daily: pd.DataFrame
    hourly: pd.DataFrame

    def batch(self, censoring: Censoring | None = None) -> SeriesBatch:
        """The daily demand as series for the forecasting engines, ending with the newest day."""
        grouped = self.daily.groupby(SERIES)
        columns = grouped[["date", "demand", "in_stock_fraction", "promotion_share"]].agg(list).reset_index()
        named = grouped[["category", "timezone"]].first().reset_index(drop=True)
        first = grouped["date"].min().reset_index(drop=True)
        texts = pd.concat([columns[SERIES], named], axis=1)
        rows = pa.table(
            {
                **{str(name): pa.array(texts[name], pa.string()) for name in texts},
                "first_date": pa.array([day.date() for day in first], pa.date32()),
                "date": pa.array([[day.date() for day in days] for days in columns["date"]], pa.list_(pa.date32())),
                "demand": pa.array(columns["demand"], pa.list_(pa.float64())),
                "in_stock": pa.array(columns["in_stock_fraction"], pa.list_(pa.float64())),
                "promotion": pa.array(columns["promotion_share"], pa.list_(pa.float64())),
            }
        )
        return read_series(rows, self.daily["date"].max().date(), censoring or Censoring())


def demand_at_hand(tables: Tables, plan: Plan = SIMULATED) -> DemandAtHand:
    """The tables' demand; where they have none, daily and hourly, that of a simulated chain (ten seconds)."""
    if not all(tables.read(table, columns=["sku"]).num_rows for table in (DAILY_DEMAND, HOURLY_DEMAND)):
        return _of_recording(record(plan))
    locations = tables.read(LOCATIONS, columns=["location_id", "region", "timezone"]).to_pandas()
    products = tables.read(PRODUCTS, columns=["sku", "category"]).to_pandas()

    def placed(frame: pd.DataFrame) -> pd.DataFrame:
        joined = frame.merge(products, on="sku", how="left").merge(locations, on="location_id", how="left")
        return joined.fillna({"category": UNKNOWN, "region": UNKNOWN, "timezone": "UTC"})

    measures = [*SERIES, "demand", "in_stock_fraction", "promotion_share"]
    daily = tables.read(DAILY_DEMAND, columns=["date", *measures]).to_pandas(date_as_object=False)
    hourly = tables.read(HOURLY_DEMAND, columns=["hour", *measures]).to_pandas()
    return DemandAtHand(tables.uri(DAILY_DEMAND), placed(daily), placed(hourly))


def _of_recording(recording: Recording) -> DemandAtHand:
    plan, chain = recording.world.plan, recording.world.chain
    named = pd.DataFrame(
        [
            (store.location_id, product.sku, product.category, store.region, store.timezone)
            for store, product in ((chain.store(series), chain.product(series)) for series in range(chain.size))
        ],
        columns=[*SERIES, "category", "region", "timezone"],
    )
    hours = pd.date_range(plan.start, periods=len(recording.sold), freq="h", tz="UTC")
    frames = []
    for series in range(chain.size):
        launch = int(recording.world.model.launch_hour[series]) - plan.start_hour
        values = {"demand": recording.sold[launch:, series], "in_stock_fraction": recording.in_stock[launch:, series]}
        frames.append(pd.DataFrame({"hour": hours[launch:], **values, "promotion_share": 0.0, "series": series}))
    hourly = pd.concat(frames, ignore_index=True)
    day = hourly["hour"].dt.floor("D").dt.tz_localize(None)
    daily = (
        hourly.assign(date=day)
        .groupby(["series", "date"], as_index=False)
        .agg({"demand": "sum", "in_stock_fraction": "mean", "promotion_share": "mean"})
    )
    about = f"a simulated chain (seed {plan.seed}, {plan.stores} stores, {plan.products} products, {plan.days} days)"
    placed = [frame.join(named, on="series").drop(columns="series") for frame in (daily, hourly)]
    placed[0]["demand"] = np.round(placed[0]["demand"])
    return DemandAtHand(about, *placed)
