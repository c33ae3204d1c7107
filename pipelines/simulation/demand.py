"""True demand per series and hour, whether or not the shelf could meet it.

A negative binomial law: Poisson counts whose hourly mean is multiplied by a gamma-distributed factor, one per
series and day. The mean is level x trend x week x year x hour of the local day x promotion x holiday. Demand of
a day depends on the plan and the day only, so that any span can be had at any time, in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import holidays
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.simulation.chain import CATEGORIES, Chain
from pipelines.simulation.plan import DEMAND, HOUR_MS, HOURS_PER_DAY, MODEL, PROMOTIONS, random_stream

PROMOTION_PROBABILITY = 0.06
DISPERSION = 14.0
"""Shape of the daily gamma factor: the variance of a day's demand is mean + mean² / DISPERSION."""

_NEW_PRODUCT_DAYS = 45
_NEW_PRODUCT_EVERY = 20
_CLOSED = ((12, 25), (1, 1))
_TRUE_DEMAND_BLOCK_DAYS = 64


@dataclass(frozen=True)
class DemandModel:
    """The parameters behind the mean; arrays by series unless said otherwise.

    Attributes:
        level: units a day at the start, over an average week.
        growth: yearly rate of the exponential trend.
        launch_hour: first hour on sale, in hours since 1970.
        weekly: (stores, 7) factors from Monday on, mean 1.
        yearly_amplitude, yearly_peak: by product; the peak in days of the year.
        profile: (products, 2, 24) shares of a day's demand by local hour, for weekdays and weekends; sum 1.
    """

    chain: Chain
    level: np.ndarray
    growth: np.ndarray
    launch_hour: np.ndarray
    weekly: np.ndarray
    yearly_amplitude: np.ndarray
    yearly_peak: np.ndarray
    profile: np.ndarray


def build_model(chain: Chain) -> DemandModel:
    """The chain's demand parameters, drawn from its seed."""
    rng = random_stream(chain.plan, MODEL)
    stores, products = len(chain.stores), len(chain.products)
    store_size = rng.lognormal(0, 0.25, stores)
    taste = rng.lognormal(0, 0.2, chain.size)
    level = np.array([product.level for product in chain.products])
    weekly = np.array([0.88, 0.86, 0.9, 0.97, 1.16, 1.3, 0.93]) + rng.normal(0, 0.05, (stores, 7))
    category = np.arange(products) % len(CATEGORIES)
    return DemandModel(
        chain=chain,
        level=level[chain.product_of] * store_size[chain.store_of] * taste,
        growth=rng.normal(0.05, 0.08, products)[chain.product_of],
        launch_hour=_launches(chain),
        weekly=weekly / weekly.mean(axis=1, keepdims=True),
        yearly_amplitude=rng.uniform(0.05, 0.3, len(CATEGORIES))[category],
        yearly_peak=rng.uniform(0, 365, len(CATEGORIES))[category],
        profile=_profiles(rng)[category],
    )


def _launches(chain: Chain) -> np.ndarray:
    """One product in twenty is new: on sale for the last weeks of history only."""
    plan = chain.plan
    number = np.arange(len(chain.products))
    new = (number % _NEW_PRODUCT_EVERY == _NEW_PRODUCT_EVERY - 1) & (plan.days > 2 * _NEW_PRODUCT_DAYS)
    launch = np.where(new, plan.cutoff_hour - _NEW_PRODUCT_DAYS * HOURS_PER_DAY, plan.start_hour)
    by_series: np.ndarray = launch[chain.product_of]
    return by_series


def _profiles(rng: np.random.Generator) -> np.ndarray:
    hour = np.arange(HOURS_PER_DAY)
    is_open = (hour >= 8) & (hour <= 21)
    profiles = np.empty((len(CATEGORIES), 2, HOURS_PER_DAY))
    for category in range(len(CATEGORIES)):
        for weekend, (noon, evening, weight) in enumerate(((11.5, 17.5, 0.55), (12.5, 16.0, 0.3))):
            shift = rng.normal(0, 0.7)
            shape = (1 - weight) * np.exp(-((hour - noon - shift) ** 2) / 8) + weight * np.exp(
                -((hour - evening - shift) ** 2) / 4.5
            )
            shape = np.where(is_open, shape + 0.05, 0)
            profiles[category, weekend] = shape / shape.sum()
    return profiles


@dataclass(frozen=True)
class Promotions:
    """Promotions by (hour, product) or by product: demand is multiplied by `uplift`, the price reduced."""

    uplift: np.ndarray
    discount: np.ndarray


def promotions(chain: Chain, week: int) -> Promotions:
    """The promotions of a week (Monday to Sunday, numbered since 1970), by product; chain-wide."""
    rng = random_stream(chain.plan, PROMOTIONS, week)
    chosen, uplift, discount = rng.random((3, len(chain.products)))
    chosen = chosen < PROMOTION_PROBABILITY
    return Promotions(np.where(chosen, 1.4 + 0.9 * uplift, 1.0), np.where(chosen, 0.15 + 0.15 * discount, 0.0))


def week_of(day: np.ndarray) -> np.ndarray:
    """The week number of days since 1970 (which was a Thursday)."""
    return (day + 3) // 7


def local_time(hours: np.ndarray, zone: str) -> tuple[np.ndarray, np.ndarray]:
    """Hour of the local day, and local days since 1970, of UTC hours since 1970."""
    utc = pd.DatetimeIndex(hours.astype("datetime64[h]")).tz_localize("UTC")
    local = utc.tz_convert(zone).tz_localize(None)
    days = local.to_numpy().astype("datetime64[D]").astype(np.int64)
    return local.hour.to_numpy(), days


def expected_demand(model: DemandModel, first_hour: int, hours: int) -> np.ndarray:
    """Mean demand, shape (hours, series), units per hour."""
    chain = model.chain
    span = np.arange(first_hour, first_hour + hours)
    years = (span - chain.plan.start_hour) / (HOURS_PER_DAY * 365.25)
    mean = model.level * np.exp(np.outer(years, model.growth)) * (span[:, None] >= model.launch_hour)
    products = len(chain.products)
    for number, store in enumerate(chain.stores):
        hour, day = local_time(span, store.timezone)
        weekday = (day + 3) % 7
        place = slice(number * products, (number + 1) * products)
        mean[:, place] *= model.profile[:, (weekday >= 5).astype(int), hour].T
        mean[:, place] *= _yearly(model, day) * _uplift(chain, day)
        mean[:, place] *= (model.weekly[number][weekday] * _holiday_factor(store.country, day))[:, None]
    return mean


def _yearly(model: DemandModel, day: np.ndarray) -> np.ndarray:
    angle = 2 * np.pi * (day[:, None] - model.yearly_peak) / 365.25
    factor: np.ndarray = 1 + model.yearly_amplitude * np.cos(angle)
    return factor


def _uplift(chain: Chain, day: np.ndarray) -> np.ndarray:
    weeks, index = np.unique(week_of(day), return_inverse=True)
    return np.array([promotions(chain, int(week)).uplift for week in weeks])[index]


def _holiday_factor(country: str, day: np.ndarray) -> np.ndarray:
    """Shops are busy the day before a public holiday, quiet on it, and shut on Christmas and New Year's Day."""
    days, index = np.unique(day, return_inverse=True)
    dates = [date(1970, 1, 1) + timedelta(days=int(number)) for number in days]
    calendar = holidays.country_holidays(country, years=range(dates[0].year, dates[-1].year + 2))

    def factor(on: date) -> float:
        if (on.month, on.day) in _CLOSED:
            return 0.0
        if on in calendar:
            return 0.6
        return 1.25 if on + timedelta(days=1) in calendar else 1.0

    return np.array([factor(on) for on in dates])[index]


def true_demand(model: DemandModel, first_hour: int, hours: int) -> np.ndarray:
    """Demand, shape (hours, series), whole units. Both arguments must be whole days.

    Raises:
        ValueError: the span does not begin and end at midnight UTC.
    """
    if first_hour % HOURS_PER_DAY or hours % HOURS_PER_DAY:
        raise ValueError(f"demand is drawn by whole days; found first_hour={first_hour}, hours={hours}")
    mean = expected_demand(model, first_hour, hours)
    demand = np.empty(mean.shape, dtype=np.int64)
    for row in range(0, hours, HOURS_PER_DAY):
        day = slice(row, row + HOURS_PER_DAY)
        rng = random_stream(model.chain.plan, DEMAND, (first_hour + row) // HOURS_PER_DAY)
        factor = rng.gamma(DISPERSION, 1 / DISPERSION, model.chain.size)
        demand[day] = rng.poisson(mean[day] * factor)
    return demand


def write_true_demand(path: Path, model: DemandModel, first_hour: int, end_hour: int) -> None:
    """Write demand as Parquet (location_id, sku, hour, demand), zeros included, up to `end_hour` exclusively.

    For tests and experiments only: no one in a real chain knows it.
    """
    chain = model.chain
    schema = pa.schema(
        [
            pa.field("location_id", pa.string()),
            pa.field("sku", pa.string()),
            pa.field("hour", pa.timestamp("us", tz="UTC")),
            pa.field("demand", pa.int64()),
        ]
    )
    locations = pa.array([chain.store(series).location_id for series in range(chain.size)])
    skus = pa.array([chain.product(series).sku for series in range(chain.size)])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with pq.ParquetWriter(partial, schema) as writer:
        for first in range(first_hour, end_hour, _TRUE_DEMAND_BLOCK_DAYS * HOURS_PER_DAY):
            hours = min(_TRUE_DEMAND_BLOCK_DAYS * HOURS_PER_DAY, end_hour - first)
            whole_days = -(-hours // HOURS_PER_DAY) * HOURS_PER_DAY
            demand = true_demand(model, first, whole_days)[:hours]
            series = np.tile(np.arange(chain.size), hours)
            time = np.repeat(np.arange(first, first + hours) * HOUR_MS * 1000, chain.size)
            columns = [
                locations.take(pa.array(series)),
                skus.take(pa.array(series)),
                pa.array(time).cast(pa.timestamp("us", tz="UTC")),
                pa.array(demand.ravel()),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    partial.replace(path)
