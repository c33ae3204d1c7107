"""Demand over lead time plus review period as one distribution.

Quantiles of the single days must not be added up: the sum of the days' 95 % quantiles is far above the 95 %
quantile of their sum. Here whole paths of daily demand are summed over a sampled protection interval, and the
quantiles are taken of the sums (Silver, Pyke and Thomas, Inventory and Production Management in Supply Chains,
4th ed., chapter 6; Snyder and Shen, Fundamentals of Supply Chain Theory, 2nd ed., chapter 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy.special import gammaincinv

from pipelines.inventory.forecast_distribution import FloatArray, day_moments, quantile_knots
from pipelines.inventory.scenarios import LEVEL_CORRELATION, MAX_DAYS, Scenarios, scenarios

WEEK = 7


@dataclass(frozen=True)
class DailyForecasts:
    """Forecasts of n series for the `days` days after as_of, in units.

    Attributes:
        yhat: shape (n, days).
        quantiles: shape (n, days, 7).
    """

    yhat: FloatArray
    quantiles: FloatArray


@dataclass(frozen=True)
class Protection:
    """How long an order must last: lead time (random) plus review period, in days; arrays of shape (n,).

    Attributes:
        lead_time, lead_time_std: mean and standard deviation.
        lead_time_points: (n, m) ascending lead times, equally likely (`lead_times`); None, or NaN in a series' row:
            its lead times are gamma distributed with that mean and deviation.
    """

    lead_time: FloatArray
    lead_time_std: FloatArray
    review: FloatArray
    lead_time_points: FloatArray | None = None

    @classmethod
    def observed(cls, points: FloatArray, review: FloatArray) -> Protection:
        """From lead times (n, m) that are equally likely."""
        return cls(points.mean(axis=1), points.std(axis=1), review, np.sort(points, axis=1))


@dataclass(frozen=True)
class LeadTimeDemand:
    """The distribution of n series' demand over their protection intervals.

    Attributes:
        sums: demand on each path, ascending, shape (n, paths).
        daily_mean: expected demand of each day after as_of, shape (n, days).
        cumulative_mean: of the first k+1 days after as_of, shape (n, days).
        cumulative_std: standard deviation of the same, days correlated.
    """

    sums: FloatArray
    daily_mean: FloatArray
    cumulative_mean: FloatArray
    cumulative_std: FloatArray

    @classmethod
    def of_moments(
        cls,
        mean: FloatArray,
        std: FloatArray,
        cumulative_mean: FloatArray,
        cumulative_std: FloatArray,
        points: int = 64,
    ) -> LeadTimeDemand:
        """From mean and deviation (n,) alone: equally likely quantiles of gamma distributions."""
        middle = (np.arange(points) + 0.5) / points
        varied = (mean > 0) & (std > 0)
        shape = np.where(varied, (mean / np.where(std > 0, std, 1.0)) ** 2, 1.0)
        drawn = gammaincinv(shape[:, None], middle) * np.where(varied, mean / shape, 0.0)[:, None]
        sums = np.where(varied[:, None], drawn, mean[:, None])
        return cls(sums, np.diff(cumulative_mean, axis=1, prepend=0.0), cumulative_mean, cumulative_std)

    @property
    def mean(self) -> FloatArray:
        """Expected demand over the protection interval, shape (n,)."""
        return cast(FloatArray, self.sums.mean(axis=1))

    @property
    def std(self) -> FloatArray:
        """Its standard deviation, shape (n,)."""
        return cast(FloatArray, self.sums.std(axis=1))

    def quantile(self, probability: FloatArray) -> FloatArray:
        """The demand that is not exceeded with each series' own probability.

        Args:
            probability: in (0, 1), shape (n,).

        Returns:
            Units, shape (n,); linear between the ordered paths, each at (i + 1/2) / paths.
        """
        paths = self.sums.shape[1]
        place = np.clip(probability * paths - 0.5, 0, paths - 1)
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, paths - 1)
        rows = np.arange(self.sums.shape[0])
        low, high = self.sums[rows, below], self.sums[rows, above]
        return cast(FloatArray, low + (place - below) * (high - low))

    def expected_shortage(self, level: FloatArray) -> FloatArray:
        """Units short per protection interval with `level` available at its start, shape (n,)."""
        return cast(FloatArray, np.maximum(self.sums - level[:, None], 0.0).mean(axis=1))

    def level_for_shortage(self, shortage: FloatArray) -> FloatArray:
        """The level whose `expected_shortage` is the given one: exact on the sampled paths.

        Args:
            shortage: units per protection interval, shape (n,); at or above the mean the level is 0.
        """
        paths = self.sums.shape[1]
        above = np.cumsum(self.sums[:, ::-1], axis=1)[:, ::-1]
        count = np.arange(paths, 0, -1)
        # Expected shortage at each path's sum, falling along the paths.
        at_sums = (above - count * self.sums) / paths
        place = (at_sums > shortage[:, None]).sum(axis=1)
        rows = np.arange(self.sums.shape[0])
        # Between the sum before and this one, all paths from this one on are short: a straight line.
        here = np.minimum(place, paths - 1)
        level = (above[rows, here] - shortage * paths) / count[here]
        return cast(FloatArray, np.maximum(np.where(place >= paths, self.sums[:, -1], level), 0.0))


def lead_time_demand(
    forecasts: DailyForecasts,
    protection: Protection,
    paths: int,
    correlation: float = LEVEL_CORRELATION,
) -> LeadTimeDemand:
    """Sample the demand of n series over their protection intervals.

    The interval starts with the day after as_of. Of its last, partial day the same share of that day's demand
    counts. Beyond the forecasts' horizon the last week repeats. Deterministic, and a series' result does not
    depend on the others; memory is about 30 bytes x n x paths, so callers pass chunks of some hundred series.

    Args:
        paths: how many, rounded up to a power of two.
        correlation: between the forecast errors of any two days of a series.
    """
    knots = quantile_knots(forecasts.yhat, forecasts.quantiles)
    mean, std = day_moments(knots)
    common = scenarios(paths, correlation)
    interval = protection_intervals(protection, common)
    return LeadTimeDemand(
        sums=_summed(knots, interval, common),
        daily_mean=mean,
        cumulative_mean=np.cumsum(mean, axis=1),
        cumulative_std=cumulative_std(std, correlation),
    )


def protection_intervals(protection: Protection, common: Scenarios) -> FloatArray:
    """Sampled lead time plus review period, in days, shape (n, paths); at most `MAX_DAYS`.

    Lead times are those observed, where they are known; else gamma distributed with the stated mean and deviation.
    """
    mean, deviation = protection.lead_time, protection.lead_time_std
    variation = np.divide(deviation, mean, out=np.zeros_like(mean), where=mean > 0).round(3)
    distinct, place = np.unique(variation, return_inverse=True)
    factors = np.stack([common.lead_time_factors(float(value)) for value in distinct])
    lead_time = mean[:, None] * factors[place]
    if protection.lead_time_points is not None:
        points = protection.lead_time_points
        observed = np.isfinite(points).all(axis=1)
        column = np.minimum((common.lead_time * points.shape[1]).astype(np.int64), points.shape[1] - 1)
        lead_time[observed] = points[observed][:, column]
    return np.clip(lead_time + protection.review[:, None], 0.0, MAX_DAYS)


def source_day(day: int, horizon: int) -> int:
    """Which forecast day stands for `day` (from 0): itself, beyond the horizon the same day of the last week."""
    if day < horizon:
        return day
    week = min(WEEK, horizon)
    return horizon - week + (day - horizon) % week


def cumulative_std(std: FloatArray, correlation: float = LEVEL_CORRELATION) -> FloatArray:
    """Standard deviation of the first k+1 days' sum, any two days correlated alike: √((1-ρ) Σσ² + ρ (Σσ)²).

    Args:
        std: daily, shape (n, days).
    """
    return cast(
        FloatArray,
        np.sqrt(
            (1 - correlation) * np.cumsum(std**2, axis=1) + correlation * np.cumsum(std, axis=1) ** 2,
        ),
    )


def expected_demand(daily_mean: FloatArray, days: FloatArray) -> FloatArray:
    """Expected units over the first `days` days after as_of, the last week repeating beyond the horizon.

    Args:
        daily_mean: shape (n, horizon).
        days: whole or not, shape (n,).
    """
    horizon = daily_mean.shape[1]
    week = daily_mean[:, -min(WEEK, horizon) :].sum(axis=1)
    length = min(WEEK, horizon)
    beyond = np.maximum(days - horizon, 0.0)
    weeks = np.floor(beyond / length)
    total = weeks * week
    for day in range(horizon + length):
        rest = np.minimum(days, horizon) if day < horizon else beyond - weeks * length + horizon
        total = total + daily_mean[:, source_day(day, horizon)] * np.clip(rest - day, 0.0, 1.0)
    return cast(FloatArray, total)


def _summed(knots: FloatArray, interval: FloatArray, common: Scenarios) -> FloatArray:
    """Demand within the interval on each path, ascending, shape (n, paths)."""
    horizon = knots.shape[1]
    sums = np.zeros_like(interval)
    shortest, longest = interval.min(initial=MAX_DAYS), interval.max(initial=0.0)
    for day in range(int(np.ceil(longest))):
        demand = knots[:, source_day(day, horizon)] @ common.day_weights(day)
        if day + 1 > shortest:
            demand *= np.clip(interval - day, 0.0, 1.0)
        sums += demand
    np.maximum(sums, 0.0, out=sums)
    sums.sort(axis=1)
    return sums
