"""Demand against its forecast, in standard scores that keep their meaning for slow movers, and robustly scaled."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import special, stats

from pipelines.anomalies.view import DemandDays, Floats

FEWEST_DAYS = 10
"""Days of a series' own errors from which on its scores are scaled by them."""
LEAST_MEAN = 0.02
"""Units a day: no forecast is surer than this that nothing sells."""
_LARGEST = 12.0
_TO_DEVIATION = 1.4826


def zero_chance(mean: Floats, variance: Floats) -> Floats:
    """The chance that nothing is demanded: negative binomial above the mean, else Poisson. Of any shape."""
    m, v = np.maximum(mean, 1e-12), np.maximum(variance, mean * (1 + 1e-9))
    excess = np.maximum(v - m, 1e-9)
    size = np.minimum(m * m / excess, 1e9)
    return np.asarray(np.exp(-size * np.log1p(m / size)), float)


@lru_cache(maxsize=2)
def scores(days: DemandDays) -> Floats:
    """(n, d) standard normal scores of the demand by its forecast distribution, mid-distribution for counts.

    NaN where demand or forecast is not known, or where the shelf was empty for a while and demand stayed below its
    mean: what would have been sold is not known. A series whose scores have spread more widely than 1 (as the median
    of their size tells, which single outliers do not move) is scaled by that spread.
    """
    mean, demand = np.maximum(days.mean, LEAST_MEAN), days.demand
    variance = np.maximum(days.variance, mean * 1.01)
    size = mean**2 / (variance - mean)
    chance = mean / variance
    with np.errstate(invalid="ignore"):
        at = stats.nbinom.pmf(demand, size, chance)
        below = stats.nbinom.cdf(demand - 1, size, chance) + at / 2
        above = stats.nbinom.sf(demand, size, chance) + at / 2
        found = np.where(
            below < above, special.ndtri(np.maximum(below, 1e-33)), -special.ndtri(np.maximum(above, 1e-33))
        )
    censored = (days.in_stock < 1) & (demand < mean)
    unknown = ~np.isfinite(demand) | ~np.isfinite(days.mean) | ~np.isfinite(days.variance) | censored
    found = np.clip(np.where(unknown, np.nan, found), -_LARGEST, _LARGEST)
    return found / spread(found)[:, None]


def spread(found: Floats) -> Floats:
    """(n,) by how much a series' scores are wider than they should be; at least 1, drawn to 1 where there are few."""
    if not found.size:
        return np.ones(len(found))
    known = np.isfinite(found)
    count = known.sum(axis=1)
    middle = np.nanmedian(np.where(known, np.abs(found), np.where(count[:, None] > 0, np.nan, 0.0)), axis=1)
    own = _TO_DEVIATION * middle
    return np.asarray(np.where(count >= FEWEST_DAYS, np.maximum(own, 1.0), 1.0), float)
