"""Intermittent demand: sizes and intervals smoothed apart, over all series at once.

Croston (1972), "Forecasting and stock control for intermittent demands"; its bias removed by Syntetos and Boylan
(2005), "The accuracy of intermittent demand estimates" (SBA); the chance of a demand smoothed on every day, so that
what no longer sells fades: Teunter, Syntetos and Babai (2011), "Intermittent demand: linking forecasting to inventory
obsolescence" (TSB).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipelines.forecasting.category import CategoryProfiles
from pipelines.forecasting.compiled import compiled
from pipelines.forecasting.level_model import LevelFit, dispersion, last_days, weekday_index
from pipelines.forecasting.pooled.design import weekdays
from pipelines.forecasting.series import Floats, SeriesBatch

SMOOTHING = np.array([0.02, 0.05, 0.1, 0.2, 0.3])
"""Candidates for the smoothing parameter of each series."""
OPENING_SALES = 8
"""Demands whose mean size and interval a series starts with."""
BURN_IN_DAYS = 28
WEEKDAY_DAYS, PSEUDO_UNITS = 364, 12.0
"""An index differs from its category's by a standard deviation of about 0.3: 12 single units outweigh it."""
LEAST_DISPERSION = 0.05


class Smoothed(NamedTuple):
    """n series: the level after the last day, the variance of a day's demand over its mean, the parameter chosen."""

    level: Floats
    dispersion: Floats
    smoothing: Floats


def smooth_rates(demand: Floats, index: Floats, probability: bool) -> Smoothed:
    """Demand rates of n series by SBA, or by TSB where `probability`.

    The smoothing parameter is, of `SMOOTHING`, the one with the least squared error one day ahead; the dispersion is
    the mean squared error over the mean forecast, by which a negative binomial has the spread that was seen.

    Args:
        demand: (n, T) units; NaN are skipped.
        index: (n, T) what a day's weekday multiplies the rate by.
    """
    count = len(demand)
    level, dispersion, chosen = np.zeros(count), np.ones(count), np.zeros(count)
    _smooth(
        np.ascontiguousarray(demand), np.ascontiguousarray(index), SMOOTHING, probability, level, dispersion, chosen
    )
    return Smoothed(level, dispersion, chosen)


def fit_rates(batch: SeriesBatch, profiles: CategoryProfiles, probability: bool) -> LevelFit:
    """Rates with the weekday index of the last year, which leans on the category's."""
    prior = np.array([profiles[category].weekday for category in batch.category]).reshape(-1, 7)
    spread = dispersion(last_days(batch.demand, WEEKDAY_DAYS))
    index = weekday_index(batch, WEEKDAY_DAYS, prior, PSEUDO_UNITS * np.maximum(spread, 1.0))
    smoothed = smooth_rates(batch.demand, index[:, weekdays(batch.dates)], probability)
    return LevelFit(smoothed.level, index, smoothed.dispersion)


@compiled
def _smooth(
    demand: Floats,
    index: Floats,
    candidates: Floats,
    probability: bool,
    level: Floats,
    dispersion: Floats,
    chosen: Floats,
) -> None:
    for row in range(demand.shape[0]):
        days, size, interval = _opening(demand[row])
        if size <= 0.0:
            continue
        least = np.inf
        for place in range(candidates.shape[0]):
            rate, squares, expected = _one_ahead(
                demand[row], index[row], candidates[place], probability, days, size, interval
            )
            if squares < least:
                least = squares
                chosen[row] = candidates[place]
                level[row] = rate
                dispersion[row] = max(squares / expected, LEAST_DISPERSION) if expected > 0.0 else 1.0


@compiled
def _opening(demand: Floats) -> tuple[int, float, float]:
    """Known days, and the mean size and interval of the first demands; sizes of 0 where there are none."""
    days, sales, units, until = 0, 0, 0.0, 0
    for day in range(demand.shape[0]):
        if np.isfinite(demand[day]):
            days += 1
            if demand[day] > 0.0 and sales < OPENING_SALES:
                sales += 1
                units += demand[day]
                until = days
    if sales == 0:
        return days, 0.0, 1.0
    return days, units / sales, max(until / sales, 1.0)


@compiled
def _one_ahead(
    demand: Floats, index: Floats, alpha: float, probability: bool, days: int, size: float, interval: float
) -> tuple[float, float, float]:
    """The last rate, and the squared errors and forecasts of the days after the burn-in, each from those before it."""
    factor = 1.0 if probability else 1.0 - 0.5 * alpha
    chance, since, seen = 1.0 / interval, 1.0, 0
    squares, expected = 0.0, 0.0
    for day in range(demand.shape[0]):
        y = demand[day]
        if not np.isfinite(y):
            continue
        seen += 1
        if seen > BURN_IN_DAYS or seen * 2 > days:
            mean = index[day] * (chance * size if probability else factor * size / interval)
            squares += (y - mean) ** 2
            expected += mean
        if y > 0.0:
            # Sizes are freed of the weekday, so that the rate is a mean day's.
            size += alpha * (y / max(index[day], 0.1) - size)
            interval += alpha * (since - interval)
            chance += alpha * (1.0 - chance)
            since = 1.0
        else:
            chance -= alpha * chance
            since += 1.0
    return chance * size if probability else factor * size / interval, squares, expected
