"""One series within its pool: its level, how its week and its year differ, and how much it scatters.

Given what the pool expects of each day up to the level, all that a series says about its weekdays and months is in 84
sums, demand and expectation by weekday and month: its deviations are fitted to those, shrunk by priors that the sample
of series taught. The level is a discounted ratio of demand to expectation; how fast it forgets is chosen by how well
it would have foretold the following weeks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipelines.forecasting.compiled import compiled
from pipelines.forecasting.pooled.design import months, weekdays
from pipelines.forecasting.prophet_map.lasso import cholesky, solve_lower, solve_upper
from pipelines.forecasting.series import Floats, Integers, SeriesBatch

WEEKDAYS, MONTHS = 7, 12
EFFECTS = 1 + WEEKDAYS + MONTHS
HALF_LIVES = np.array([2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 1e9])
"""Weeks after which a week counts half for the level."""
AHEAD_WEEKS = 6
"""The weeks ahead that the choice of a half-life is judged by."""
PREFERS_LONGER = 0.98
"""A shorter half-life must bring the error below this share of the longer one's."""
SLOW_HALF_LIFE = 182.0
"""Days of the two-sided level that the deviations are measured against."""
LEARNING_ROUNDS = 12
NEWTON_STEPS = 4


@dataclass(frozen=True)
class Priors:
    """Standard deviations of a series' log weekday and month factors around its pool's."""

    weekday: float = 0.3
    month: float = 0.2


class Levels(NamedTuple):
    """n series within their pools.

    Attributes:
        level: (n,) units that a pool's expectation of 1 stands for; 0 where nothing was sold.
        weekday, month: (n, 7), (n, 12) logarithms of the series' own factors.
        dispersion: (n,) variance of a day's demand over its mean, one day ahead.
        deviation: (n,) relative standard deviation of the level some weeks ahead.
    """

    level: Floats
    weekday: Floats
    month: Floats
    dispersion: Floats
    deviation: Floats


def fit_levels(batch: SeriesBatch, expected: Floats, priors: Priors) -> Levels:
    """Fit the series of a batch, given the logarithms (n, T) of what their pools expect."""
    days = batch.dates
    demand, exposure = _exposure(batch, expected)
    count = len(batch)
    effects, moments = np.zeros((count, EFFECTS)), np.zeros((count, 4))
    level, dispersion, deviation = np.zeros(count), np.ones(count), np.zeros(count)
    weekday, month = weekdays(days), months(days)
    _fit_effects(demand, exposure, weekday, month, np.array([priors.weekday, priors.month]), effects, moments)
    _fit_levels(demand, exposure, weekday, month, effects, level, dispersion, deviation)
    return Levels(level, effects[:, 1 : 1 + WEEKDAYS], effects[:, 1 + WEEKDAYS :], dispersion, deviation)


def learn_priors(sample: SeriesBatch, expected: Floats) -> Priors:
    """How far series differ from their pools, from a sample of them (Schall's iteration, as in `regression`)."""
    demand, exposure = _exposure(sample, expected)
    if not len(sample) or not (demand.sum(axis=1) > 0).any():
        return Priors()
    scales = np.array([0.2, 0.2])
    weekday, month = weekdays(sample.dates), months(sample.dates)
    effects, moments = np.zeros((len(sample), EFFECTS)), np.zeros((len(sample), 4))
    for _ in range(LEARNING_ROUNDS):
        _fit_effects(demand, exposure, weekday, month, scales, effects, moments)
        sums = moments.sum(axis=0)
        scales = np.clip(np.sqrt(sums[[0, 2]] / np.maximum(sums[[1, 3]], 1e-9)), 1e-3, 2.0)
    return Priors(float(scales[0]), float(scales[1]))


def _exposure(batch: SeriesBatch, expected: Floats) -> tuple[Floats, Floats]:
    """Demand and expectation (n, T), both zero on days that are not known."""
    known = np.isfinite(batch.demand)
    centred = expected - expected.max(axis=1, initial=-np.inf, keepdims=True)
    top = np.exp(expected.max(axis=1, initial=-np.inf, keepdims=True))
    return np.where(known, batch.demand, 0.0), np.where(known, np.exp(centred) * top, 0.0)


@compiled
def _fit_effects(
    demand: Floats,
    exposure: Floats,
    weekday: Integers,
    month: Integers,
    scales: Floats,
    effects: Floats,
    moments: Floats,
) -> None:
    """Fill effects (n, 20): level, weekdays, months; and moments (n, 4): sum of squares and effective number of
    coefficients, of weekdays and of months."""
    cells, expected = np.empty((WEEKDAYS, MONTHS)), np.empty((WEEKDAYS, MONTHS))
    for row in range(demand.shape[0]):
        effects[row] = 0.0
        moments[row] = 0.0
        if np.sum(demand[row]) <= 0.0 or np.sum(exposure[row]) <= 0.0:
            continue
        path = _slow_level(demand[row], exposure[row])
        cells[:] = 0.0
        expected[:] = 0.0
        squares, total, days = 0.0, 0.0, 0
        for day in range(demand.shape[1]):
            mean = exposure[row, day] * path[day]
            if mean > 0.0:
                cells[weekday[day], month[day]] += demand[row, day]
                expected[weekday[day], month[day]] += mean
                squares += (demand[row, day] - mean) ** 2 / mean
                total += mean
                days += 1
        dispersion = max(squares / max(days, 1), 0.05)
        _newton(cells, expected, dispersion, scales, effects[row], moments[row])


@compiled
def _slow_level(demand: Floats, exposure: Floats) -> Floats:
    """Two-sided discounted ratio of demand to exposure, day by day."""
    count = demand.shape[0]
    keep = 0.5 ** (1.0 / SLOW_HALF_LIFE)
    upper, lower = np.zeros(count), np.zeros(count)
    above, below = 0.0, 0.0
    for day in range(count):
        above = keep * above + demand[day]
        below = keep * below + exposure[day]
        upper[day], lower[day] = above, below
    above, below = 0.0, 0.0
    for day in range(count - 1, -1, -1):
        upper[day] += above
        lower[day] += below
        above = keep * (above + demand[day])
        below = keep * (below + exposure[day])
    path = np.zeros(count)
    for day in range(count):
        if lower[day] > 0.0:
            path[day] = upper[day] / lower[day]
    return path


@compiled
def _newton(
    cells: Floats, expected: Floats, dispersion: float, scales: Floats, effects: Floats, moments: Floats
) -> None:
    matrix, score, column = np.empty((EFFECTS, EFFECTS)), np.empty(EFFECTS), np.empty(EFFECTS)
    precision = np.zeros(EFFECTS)
    precision[1 : 1 + WEEKDAYS] = dispersion / scales[0] ** 2
    precision[1 + WEEKDAYS :] = dispersion / scales[1] ** 2
    for _ in range(NEWTON_STEPS):
        matrix[:] = 0.0
        score[:] = -precision * effects
        for one in range(WEEKDAYS):
            for other in range(MONTHS):
                a, b = 1 + one, 1 + WEEKDAYS + other
                mean = expected[one, other] * np.exp(effects[0] + effects[a] + effects[b])
                error = cells[one, other] - mean
                score[0] += error
                score[a] += error
                score[b] += error
                matrix[0, 0] += mean
                matrix[a, 0] += mean
                matrix[b, 0] += mean
                matrix[a, a] += mean
                matrix[b, a] += mean
                matrix[b, b] += mean
        for index in range(EFFECTS):
            matrix[index, index] += precision[index] + 1e-9
        cholesky(matrix, EFFECTS)
        solve_lower(matrix, EFFECTS, score)
        solve_upper(matrix, EFFECTS, score)
        longest = np.max(np.abs(score))
        effects += score * min(1.0, 2.0 / max(longest, 1e-12))
    for index in range(1, EFFECTS):
        column[:] = 0.0
        column[index] = 1.0
        solve_lower(matrix, EFFECTS, column)
        # Σ column² is the diagonal of the inverse.
        used = 1.0 - precision[index] * np.sum(column * column)
        block = 0 if index <= WEEKDAYS else 2
        moments[block] += effects[index] ** 2
        moments[block + 1] += used


@compiled
def _fit_levels(
    demand: Floats,
    exposure: Floats,
    weekday: Integers,
    month: Integers,
    effects: Floats,
    level: Floats,
    dispersion: Floats,
    deviation: Floats,
) -> None:
    weeks = (demand.shape[1] + 6) // 7
    sold, due, fitted = np.empty(weeks), np.empty(weeks), np.empty(demand.shape[1])
    paths = np.empty((HALF_LIVES.shape[0], weeks + 1))
    for row in range(demand.shape[0]):
        sold[:] = 0.0
        due[:] = 0.0
        for day in range(demand.shape[1]):
            own = effects[row, 1 + weekday[day]] + effects[row, 1 + WEEKDAYS + month[day]]
            fitted[day] = exposure[row, day] * np.exp(own)
            # Whole weeks, counted from the end.
            week = weeks - 1 - (demand.shape[1] - 1 - day) // 7
            sold[week] += demand[row, day]
            due[week] += fitted[day]
        if np.sum(sold) <= 0.0:
            continue
        chosen, error = _choose_half_life(sold, due, paths)
        level[row] = paths[chosen, weeks]
        squares, total = 0.0, 0.0
        for day in range(demand.shape[1]):
            week = weeks - 1 - (demand.shape[1] - 1 - day) // 7
            mean = paths[chosen, week] * fitted[day]
            if mean > 0.0:
                squares += (demand[row, day] - mean) ** 2
                total += mean
        dispersion[row] = max(squares / total, 0.05) if total > 0.0 else 1.0
        deviation[row] = error


@compiled
def _choose_half_life(sold: Floats, due: Floats, paths: Floats) -> tuple[int, float]:
    """Fill paths (half-lives, weeks + 1), the level known before each week; returns the best half-life and the
    relative error of its level over the weeks ahead, noise of the weeks themselves taken off."""
    weeks = sold.shape[0]
    chosen, lowest, spread = HALF_LIVES.shape[0] - 1, np.inf, 0.0
    overall = np.sum(sold) / np.sum(due)
    for place in range(HALF_LIVES.shape[0] - 1, -1, -1):
        keep = 0.5 ** (1.0 / HALF_LIVES[place])
        above, below = 0.0, 0.0
        for week in range(weeks + 1):
            paths[place, week] = above / below if below > 0.0 else overall
            if week < weeks:
                above = keep * above + sold[week]
                below = keep * below + due[week]
        squares, expected, relative = 0.0, 0.0, 0.0
        begin = min(weeks // 3, 26)
        for week in range(begin, weeks - AHEAD_WEEKS + 1):
            actual, mean = 0.0, 0.0
            for later in range(week, week + AHEAD_WEEKS):
                actual += sold[later]
                mean += paths[place, week] * due[later]
            squares += (actual - mean) ** 2
            expected += mean
            relative += mean * mean
        if expected > 0.0 and squares < lowest * (PREFERS_LONGER if np.isfinite(lowest) else 1.0):
            # A week's own scatter, from the differences of neighbouring weeks, is not the level's error.
            noise = 0.0
            for week in range(max(begin, 1), weeks):
                difference = sold[week] - due[week] * paths[place, week]
                before = sold[week - 1] - due[week - 1] * paths[place, week - 1]
                noise += 0.5 * (difference - before) ** 2
            noise *= AHEAD_WEEKS
            lowest, chosen = squares, place
            spread = np.sqrt(max(squares - noise, 0.0) / relative) if relative > 0.0 else 0.0
    return chosen, spread
