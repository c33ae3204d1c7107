"""Small, fast functions for the live stage: the chance of running out, and when.

Time is measured in days after the end of `as_of`, the last day whose data the forecast knows. The arrays are
`cumulative_mean` and `cumulative_std` of `gold/inventory_policies`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import cycle

from scipy.special import betainc, gammainc

from pipelines.inventory.scenarios import LEVEL_CORRELATION

_WEEK = 7
_FARTHEST_DAYS = 3660.0


def demand_between(
    cumulative_mean: Sequence[float],
    cumulative_std: Sequence[float],
    start_days: float,
    end_days: float,
    correlation: float = LEVEL_CORRELATION,
) -> tuple[float, float]:
    """Mean and standard deviation of the demand between two instants.

    The days' own deviations are recovered from the cumulative ones, so the variance is that of the increment
    itself: (1-ρ) Σσ² + ρ (Σσ)² over the days in it, and not the difference of two cumulative variances, which
    counts the covariance with the days before as well. Within a day, mean and variance grow evenly. Beyond the
    arrays the last week repeats. An instant before 0 counts as 0; an end before the start gives (0, 0).
    """
    start = max(start_days, 0.0)
    if end_days <= start or not cumulative_mean:
        return 0.0, 0.0
    mean = squares = spread = 0.0
    days = _days(cumulative_mean, cumulative_std, correlation)
    for day in range(math.ceil(end_days)):
        day_mean, day_std = next(days)
        share = min(end_days, day + 1.0) - max(start, float(day))
        if share > 0.0:
            mean += share * day_mean
            squares += share * day_std * day_std
            spread += share * day_std
    return mean, math.sqrt((1.0 - correlation) * squares + correlation * spread * spread)


def _days(
    cumulative_mean: Sequence[float], cumulative_std: Sequence[float], correlation: float
) -> Iterator[tuple[float, float]]:
    """Mean and deviation of each day: the stated ones, then the last week's for ever.

    With V the cumulative variance and B the sum of the deviations so far, a further day adds σ² + 2ρBσ.
    """
    days: deque[tuple[float, float]] = deque(maxlen=min(_WEEK, len(cumulative_mean)))
    mean_before = variance_before = spread = 0.0
    for mean, std in zip(cumulative_mean, cumulative_std, strict=True):
        shared = correlation * spread
        day_std = math.sqrt(shared * shared + max(std * std - variance_before, 0.0)) - shared
        days.append((mean - mean_before, day_std))
        mean_before, variance_before, spread = mean, std * std, spread + day_std
        yield days[-1]
    yield from cycle(tuple(days))


def stockout_probability(available: float, mean: float, std: float) -> float:
    """P(demand > available), demand being a whole number of units with this mean and standard deviation.

    The distribution is the one of the (a, b, 0) class with these moments: negative binomial when the variance
    exceeds the mean, Poisson when equal, binomial when below (Klugman, Panjer and Willmot, Loss Models,
    chapter 6). No expected demand: 0. Falls with `available`; rises with `mean` at a given ratio of variance
    to mean.
    """
    if mean <= 0.0 or available < 0.0:
        return 0.0 if mean <= 0.0 else 1.0
    above = math.floor(available) + 1.0
    variance = std * std
    excess = variance - mean
    if abs(excess) <= 1e-6 * mean:
        return float(gammainc(above, mean))
    if excess > 0.0:
        return float(betainc(above, mean * mean / excess, excess / variance))
    trials = mean * mean / -excess
    failures = trials + 1.0 - above
    if variance <= 1e-12 * mean or failures <= 0.0:
        return 1.0 if mean > available else 0.0
    return float(betainc(above, failures, -excess / mean))


def expected_lost_units(available: float, mean: float, std: float) -> float:
    """E[(demand - available)⁺] in units, demand distributed as in `stockout_probability`.

    For each of the three distributions d · P(D = d) is the mean times a neighbour's probability of d - 1 (of size one
    more for the negative binomial, the same for Poisson, a trial less for the binomial), so that with a whole number
    of units E[(D - a)⁺] = mean · P(D' >= a) - a · P(D > a). Between whole numbers it is linear.
    """
    if mean <= 0.0:
        return 0.0
    if available <= 0.0:
        return mean - min(available, 0.0)
    below = math.floor(available)
    share = available - below
    lost = _lost_above(below, mean, std)
    return lost if share == 0.0 else (1.0 - share) * lost + share * _lost_above(below + 1, mean, std)


def _lost_above(units: int, mean: float, std: float) -> float:
    if units == 0:
        return mean
    variance = std * std
    excess = variance - mean
    if abs(excess) <= 1e-6 * mean:
        biased = float(gammainc(units, mean))
    elif excess > 0.0:
        biased = float(betainc(units, mean * mean / excess + 1.0, excess / variance))
    else:
        trials = mean * mean / -excess
        failures = trials - units
        if variance <= 1e-12 * mean or failures <= 0.0:
            return max(mean - units, 0.0)
        biased = float(betainc(units, failures, -excess / mean))
    return max(mean * biased - units * stockout_probability(units, mean, std), 0.0)


def projected_stockout_days(available: float, cumulative_mean: Sequence[float], start_days: float) -> float | None:
    """When expected demand, from `start_days` on, has used up what is available.

    Returns:
        Days from `start_days` on; None when that never happens (no demand expected, or ten years away).
    """
    start = origin = max(start_days, 0.0)
    if available <= 0.0:
        return 0.0
    horizon = len(cumulative_mean)
    if horizon == 0:
        return None
    length = min(_WEEK, horizon)
    earlier = cumulative_mean[horizon - length - 1] if horizon > length else 0.0
    week = cumulative_mean[-1] - earlier
    day = math.floor(start)
    left = available
    while day < _FARTHEST_DAYS:
        if day >= horizon:
            if week * _FARTHEST_DAYS <= left * length:
                return None
            if start <= day and left > week:
                weeks = math.ceil(left / week) - 1
                left -= weeks * week
                day += weeks * length
                start = float(day)
                continue
            source = horizon - length + (day - horizon) % length
        else:
            source = day
        demand = cumulative_mean[source] - (cumulative_mean[source - 1] if source else 0.0)
        begin = max(start - day, 0.0)
        if demand > 0.0 and demand * (1.0 - begin) >= left:
            return day + begin + left / demand - origin
        left -= demand * (1.0 - begin)
        day += 1
    return None
