"""The rest of today from what has sold so far: a Bayesian update of the day's level, without refitting anything.

The published day is the prior. Its demand is a Poisson count whose rate is G times the published mean, G gamma
distributed with mean 1 and the relative variance v that the day's own distribution has beyond Poisson:
Var(D) = μ + v μ². Hour h has the mean G m_h. After N units in hours of which M units were expected while in stock,

    G | N  ~  gamma with shape 1/v + w N and rate 1/v + w M    (conjugate: Gelman et al., Bayesian Data Analysis, 2.6)

and each hour to come is negative binomial with the mean m_h E[G | N] and the variance m + m² / (1/v + w N). Hours
without stock count for nothing: neither their sales nor their expectation.

w = 1 / (1 + τ² M) tempers the evidence. The share of the day that has passed is itself known to τ only, so that many
units of a best seller are not taken for certainty about a day whose customers merely came early.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.forecasting.distributions import demand_quantiles
from pipelines.forecasting.series import Floats

SHARE_ERROR = 0.1
"""τ: relative standard error of the share of a day's demand that falls into the hours that have passed."""


def day_factor(expected: Floats, sold: Floats, relative_variance: Floats) -> tuple[Floats, Floats]:
    """Posterior mean and relative variance of the factor G by which today differs from its forecast.

    Args:
        expected: (n,) M, units that were expected so far in the time with stock.
        sold: (n,) N, units sold in that time.
        relative_variance: (n,) v; zero or below: the day leaves no room, G stays 1.
    """
    open_to_change = relative_variance > 0
    prior = 1.0 / np.where(open_to_change, relative_variance, 1.0)
    weight = 1.0 / (1.0 + SHARE_ERROR**2 * expected)
    shape, rate = prior + weight * sold, prior + weight * expected
    mean = np.where(open_to_change, shape / rate, 1.0)
    return mean, np.where(open_to_change, 1.0 / shape, relative_variance)


def rest_of_day(
    hours: Floats, day_variance: Floats, sold: Floats, in_stock: Floats, probabilities: Sequence[float]
) -> tuple[Floats, Floats]:
    """Forecasts of a day's hours that are still to come.

    Args:
        hours: (n, H) published mean units of each of the day's hours.
        day_variance: (n,) variance of the day's demand as published.
        sold: (n, P) units sold in the first P hours; in_stock: (n, P) share of each hour with stock.

    Returns:
        Means (n, H - P) and quantiles (n, H - P, q); finite, non-negative, never crossing.
    """
    passed = sold.shape[1]
    day = hours.sum(axis=1)
    relative = np.divide(day_variance - day, day**2, out=np.zeros_like(day), where=day > 0)
    expected = (hours[:, :passed] * in_stock).sum(axis=1)
    counted = np.where(in_stock > 0, sold, 0.0).sum(axis=1)
    factor, spread = day_factor(expected, counted, relative)
    mean = hours[:, passed:] * factor[:, None]
    variance = mean + spread[:, None] * mean**2
    return mean, demand_quantiles(mean, variance, probabilities)
