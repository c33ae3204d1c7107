"""From a day's forecast to its hours: an intraday profile per category, coherent with the day's total."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time

import numpy as np
import pandas as pd

from pipelines.forecasting.distributions import demand_quantiles, variance_from_quantiles
from pipelines.forecasting.series import Floats, Integers

CATEGORY_PRIOR_UNITS = 7 * 24 * 5.0
"""Units of the whole chain's profile that are added to a category's: one with few sales leans on the chain."""
OVERALL_PRIOR_UNITS = 24.0
"""Units of a flat profile added to the chain's, so that no hour is impossible."""
LEAST_AVAILABLE = 0.2
"""Units of an hour are scaled up for missing stock as if at least this share of it had been there."""


@dataclass(frozen=True)
class IntradayProfiles:
    """How a week's demand spreads over its local hours: (7, 24) arrays, Monday first, that add up to 1."""

    of: Mapping[str, Floats] = field(default_factory=dict)
    overall: Floats = field(default_factory=lambda: np.full((7, 24), 1 / 168))

    def __getitem__(self, category: str) -> Floats:
        return self.of.get(category, self.overall)


def utc_midnight(day: date) -> datetime:
    """The instant at which the UTC day begins."""
    return datetime.combine(day, time(), UTC)


def intraday_profiles(statistics: pd.DataFrame, first: date, last: date) -> IntradayProfiles:
    """Profiles from `intraday_statistics` over the same days.

    Each cell's units are divided by how often that local hour occurred between `first` and `last` in its
    time zone (an hour that a 23-hour day skips occurred once less, one that a 25-hour day repeats once
    more), then shrunk: a category towards the chain by `CATEGORY_PRIOR_UNITS`, the chain towards a flat
    week by `OVERALL_PRIOR_UNITS`. Where the statistics say how much of an hour its series were in stock
    (`available`), units are those of the time in stock: hours in which shelves tend to be empty sell too little.
    """
    units: dict[str, Floats] = {}
    weeks = ((last - first).days + 1) / 7
    for (category, timezone), rows in statistics.groupby(["category", "timezone"]):
        cells = np.zeros((7, 24))
        sold = rows["units"].to_numpy(float)
        if "available" in rows:
            sold = sold / np.maximum(rows["available"].to_numpy(float), LEAST_AVAILABLE)
        np.add.at(cells, (rows["weekday"].to_numpy(), rows["hour"].to_numpy()), sold)
        occurred = local_hours(str(timezone), first, (last - first).days + 1)
        cells *= weeks / np.maximum(occurred, 1)
        units[str(category)] = units.get(str(category), np.zeros((7, 24))) + cells
    flat = np.full((7, 24), 1 / 168)
    overall = _share(sum(units.values(), np.zeros((7, 24))) + OVERALL_PRIOR_UNITS * flat)
    return IntradayProfiles(
        {category: _share(cells + CATEGORY_PRIOR_UNITS * overall) for category, cells in units.items()},
        overall,
    )


def local_hours(timezone: str, first: date, days: int) -> Integers:
    """(7, 24) how often each local weekday and hour begins within `days` UTC days from `first`."""
    weekday, hour = _local(timezone, first, days)
    counts = np.zeros((7, 24), np.int64)
    np.add.at(counts, (weekday, hour), 1)
    return counts


def local_cells(timezone: str, first: date, days: int) -> Integers:
    """(24 days,) the cell of a local week, 24 times the weekday plus the hour, that each UTC hour from `first` is."""
    weekday, hour = _local(timezone, first, days)
    return weekday * 24 + hour


def utc_day_shares(profile: Floats, timezone: str, first: date, days: int) -> Floats:
    """(days, 24) the share of each UTC day's demand in each of its hours; every row adds up to 1.

    A UTC day always has 24 hours; in local time it may lie across two days, miss an hour or hold one twice:
    each of its hours has the weight of the local weekday and hour that it is.
    """
    weekday, hour = _local(timezone, first, days)
    weights = profile[weekday, hour].reshape(days, 24)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), float)


def hourly_forecast(
    yhat: Floats, quantiles: Floats, shares: Floats, probabilities: Sequence[float], hours: int
) -> tuple[Floats, Floats]:
    """Hours from days.

    The mean of hour i is s_i ŷ, so a day's hours add up to the day. Given the day's demand D, each unit falls
    into hour i with chance s_i, hence Var(H_i) = s_i (1 - s_i) ŷ + s_i² Var(D), with Var(D) from the day's
    outermost quantiles. Quantiles are those of the negative binomial (or, below a Poisson count's variance,
    the gamma) distribution with that mean and variance. Hours of a day are thereby positively correlated as
    far as the day itself is uncertain: their quantiles do not add up to the day's, and must not.

    Args:
        yhat: (n, h) days; quantiles: (n, h, q).
        shares: (n, d, 24) from `utc_day_shares`, d at least hours/24.
        hours: how many hours to give, from the first day's first.

    Returns:
        yhat (n, hours) and quantiles (n, hours, q).
    """
    days = shares.shape[1]
    mean = yhat[:, :days, None] * shares
    variance = variance_from_quantiles(quantiles[:, :days], probabilities)[:, :, None]
    spread = (1 - shares) * mean + shares**2 * variance
    count = len(yhat)
    mean, spread = mean.reshape(count, -1)[:, :hours], spread.reshape(count, -1)[:, :hours]
    return mean, demand_quantiles(mean, spread, probabilities)


def _local(timezone: str, first: date, days: int) -> tuple[Integers, Integers]:
    local = pd.date_range(utc_midnight(first), periods=24 * days, freq="h").tz_convert(timezone)
    return local.weekday.to_numpy().astype(np.int64), local.hour.to_numpy().astype(np.int64)


def _share(units: Floats) -> Floats:
    return np.asarray(units / units.sum(), float)
