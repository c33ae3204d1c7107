"""Pools: the demand of the chain, of its categories and of its locations, and what each says of a series' future."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import numpy as np

from pipelines.forecasting.pooled.design import Dates, Design, joined, shape_design, trend_design
from pipelines.forecasting.pooled.regression import Regression, regress
from pipelines.forecasting.pooled.series_level import Priors, learn_priors
from pipelines.forecasting.series import Floats, SeriesBatch

GROWTH_DEVIATION = 0.05
"""Prior on a year's growth, in logarithms: a chain that grows by more than a tenth a year is rare."""
OF_GROUPS = ("weekday", "month", "slope", "year", "step", "ramp")
"""Blocks in which a category or location may differ from the chain."""
FIXED = {"slope": GROWTH_DEVIATION, "year": GROWTH_DEVIATION}
SMALLEST_UNITS = 1.0
"""A group that sold less in all is not looked at."""


@dataclass(frozen=True)
class PoolData:
    """What pools are learnt from: T days that end with `end`.

    Attributes:
        category, location: (T,) units a day by name. Only series that were there all the time belong in them: a sum
            that grows because products are added says nothing of the growth of a product.
        mix: units of the whole time by category and location; without it every location sells the chain's mix.
        sample: a sample of series, from which the spread between series is learnt.
        holidays: pairs of name and day, from the first day on to beyond the horizon.
    """

    end: date
    category: Mapping[str, Floats]
    location: Mapping[str, Floats]
    sample: SeriesBatch
    mix: Mapping[tuple[str, str], float] = field(default_factory=dict)
    holidays: Sequence[tuple[str, date]] = ()


def pool_data(batch: SeriesBatch, sample: int = 256, holidays: Sequence[tuple[str, date]] = ()) -> PoolData:
    """The sums of a batch that holds the whole chain, every series of it there all the time: for notebooks, benchmarks
    and tests. `sample` series, evenly spread, stand for all."""
    units = np.nan_to_num(batch.demand)

    def sums(names: Sequence[str]) -> dict[str, Floats]:
        values = np.asarray(names, object)
        return {str(name): units[values == name].sum(axis=0) for name in sorted(set(names))}

    mix: dict[tuple[str, str], float] = {}
    for key, sold in zip(zip(batch.category, batch.location_id, strict=True), units.sum(axis=1), strict=True):
        mix[key] = mix.get(key, 0.0) + float(sold)
    rows = np.unique(np.linspace(0, len(batch) - 1, min(sample, len(batch))).round().astype(np.int64))
    return PoolData(batch.end, sums(batch.category), sums(batch.location_id), batch.take(rows), mix, tuple(holidays))


@dataclass(frozen=True)
class Pool:
    """What the chain's demand up to `end` says: logarithms of factors, by column of the design.

    Attributes:
        chain: (K,) coefficients of `design`; category, location: what is added to them.
        drift_deviations: standard deviation of the log level: a constant; a year's slope; a turn of the year.
        priors: how far single series differ from their pool.
    """

    first: date
    end: date
    holidays: tuple[tuple[str, date], ...]
    chain: Floats
    category: Mapping[str, Floats]
    location: Mapping[str, Floats]
    drift_deviations: tuple[float, float, float]
    priors: Priors

    def coefficients(self, category: str, location: str) -> Floats:
        """(K,) of series of that category and location; an unknown one is like the chain."""
        nothing = np.zeros_like(self.chain)
        return self.chain + self.category.get(category, nothing) + self.location.get(location, nothing)

    def design(self, days: Dates) -> Design:
        """The columns of any days, before or after `end`."""
        return _design(days, self.first, self.end, self.holidays)


@dataclass(frozen=True)
class Pools:
    """Pools by the last day that they know, so that a backtest sees none that knows more than its cutoff."""

    of: Mapping[date, Pool] = field(default_factory=dict)

    def at(self, end: date) -> Pool | None:
        """The newest pool that knows nothing after `end`."""
        known = [day for day in self.of if day <= end]
        return self.of[max(known)] if known else None


def learn_pools(batch: SeriesBatch, ends: Sequence[date], holidays: Sequence[tuple[str, date]] = ()) -> Pools:
    """A pool for each of the last days, from a batch that holds the whole chain (see `pool_data`); one that has no
    sales before it is left out."""
    learnt = {end: learn_pool(pool_data(batch.until(end), holidays=holidays)) for end in ends}
    return Pools({end: pool for end, pool in learnt.items() if pool is not None})


def learn_pool(data: PoolData) -> Pool | None:
    """The chain's shapes and growth, then how categories and locations differ, then how single series do."""
    total = sum(data.category.values(), np.zeros(0)) if not data.category else np.sum(list(data.category.values()), 0)
    if total.sum() < SMALLEST_UNITS or np.count_nonzero(total) < 2:
        return None
    first_column = int(np.flatnonzero(total)[0])
    last = np.datetime64(data.end, "D")
    days = last - np.arange(len(total) - 1 - first_column, -1, -1)
    first = days[0].astype(object)
    holidays = tuple(data.holidays)
    design = _design(days, first, data.end, holidays)
    total = total[first_column:]
    offset = np.full((1, len(total)), np.log(total.mean()))
    chain = regress(total[None], offset, design, FIXED)
    expected = offset[0] + design.columns @ chain.coefficients[0]
    categories = _groups(data.category, first_column, dict.fromkeys(data.category, expected), design)
    locations = _groups(data.location, first_column, _of_mix(data, expected, categories, design), design)
    pool = Pool(
        first,
        data.end,
        holidays,
        chain.coefficients[0],
        categories,
        locations,
        _drift_deviations(chain, design),
        Priors(),
    )
    return Pool(**{**pool.__dict__, "priors": learn_priors(data.sample, expected_logs(pool, data.sample))})


def expected_logs(pool: Pool, batch: SeriesBatch, horizon: int = 0) -> Floats:
    """(n, T + horizon) logarithm of what a series of its category and location sells on each day, up to its level."""
    days = np.datetime64(batch.end, "D") + np.arange(-batch.days + 1, horizon + 1)
    keys = list(zip(batch.category, batch.location_id, strict=True))
    distinct = list(dict.fromkeys(keys))
    if not distinct:
        return np.empty((0, batch.days + horizon))
    columns = pool.design(days).columns
    profiles = np.array([columns @ pool.coefficients(*key) for key in distinct])
    place = {key: row for row, key in enumerate(distinct)}
    return profiles[[place[key] for key in keys]]


def _design(days: Dates, first: date, end: date, holidays: Sequence[tuple[str, date]]) -> Design:
    first_day, end_day = np.datetime64(first, "D"), np.datetime64(end, "D")
    return joined(shape_design(days, holidays), trend_design(days, first_day, end_day))


def _of_mix(data: PoolData, expected: Floats, categories: Mapping[str, Floats], design: Design) -> dict[str, Floats]:
    """(T,) logarithm of what each location's mix of categories lets expect, up to its level.

    A location that sells more on Sundays because it sells other things is no exception.
    """
    shapes = {name: np.exp(expected + design.columns @ added) for name, added in categories.items()}
    out = {}
    for location in data.location:
        parts = [shape * data.mix.get((category, location), 0.0) / shape.sum() for category, shape in shapes.items()]
        sold = np.sum(parts, axis=0) if parts else np.zeros_like(expected)
        out[location] = np.log(sold) if np.all(sold > 0) else expected
    return out


def _groups(
    units: Mapping[str, Floats], skip: int, expected: Mapping[str, Floats], design: Design
) -> dict[str, Floats]:
    """(K,) what each group's coefficients differ by from what is expected of it; none where there is but one group, or
    nothing to learn from."""
    names = [name for name, values in units.items() if values[skip:].sum() >= SMALLEST_UNITS]
    if len(units) < 2 or not names:
        return {}
    places = np.concatenate([design.of(block) for block in OF_GROUPS])
    narrow = Design(np.ascontiguousarray(design.columns[:, places]), tuple(design.blocks[place] for place in places))
    demand = np.array([units[name][skip:] for name in names])
    logs = np.array([expected[name] for name in names])
    offset = logs + np.log(demand.sum(axis=1) / np.exp(logs).sum(axis=1))[:, None]
    fitted = regress(demand, offset, narrow, FIXED, rounds=12)
    out = np.zeros((len(names), design.columns.shape[1]))
    out[:, places] = fitted.coefficients
    return dict(zip(names, out, strict=True))


def _drift_deviations(chain: Regression, design: Design) -> tuple[float, float, float]:
    variance = np.diagonal(chain.covariance[0])
    slope, year = (float(variance[design.of(block)][0]) for block in ("slope", "year"))
    return (
        chain.deviations.get("ramp", 0.0),
        float(np.sqrt(slope)),
        float(np.sqrt(year + chain.deviations.get("step", 0.0) ** 2)),
    )
