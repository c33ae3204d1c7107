"""Quantiles of demand from a mean and a variance, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import special, stats

from pipelines.forecasting.series import Floats

_LARGE = 200.0
"""From this mean on a count is treated as a continuous quantity: the difference is below a rounding."""
_POISSON = 0.01
"""Variances this close to the mean, relatively, are a Poisson count's."""


def demand_quantiles(mean: Floats, variance: Floats, probabilities: Sequence[float]) -> Floats:
    """Quantiles of a demand with the given mean and variance; non-negative, never crossing.

    Counts follow, by their variance: above the mean the negative binomial of size mean² / (variance - mean);
    at the mean Poisson; below it the binomial of mean² / (mean - variance) trials, rounded up. Means above
    200 follow the gamma distribution of that mean and variance.

    Args:
        mean, variance: any shape, units and units².

    Returns:
        The shape of `mean` plus one axis for the probabilities.
    """
    mean, variance = np.broadcast_arrays(np.maximum(mean, 0.0), np.maximum(variance, 0.0))
    shape = (*mean.shape, len(probabilities))
    m, v = mean.reshape(-1, 1), variance.reshape(-1, 1)
    p = np.asarray(probabilities, float)[None, :]
    out = np.repeat(m, p.size, axis=1)
    count = (m > 0) & (m < _LARGE)
    above, below = v > m * (1 + _POISSON), v < m * (1 - _POISSON)
    for rows, quantile in (
        (count & above, lambda m, v: stats.nbinom.ppf(p, m**2 / (v - m), m / v)),
        (count & below, _binomial_ppf(p)),
        (count & ~above & ~below, lambda m, v: stats.poisson.ppf(p, m)),
        ((m >= _LARGE) & (v > 0), lambda m, v: special.gammaincinv(m**2 / v, p) * v / m),
    ):
        if rows.any():
            out[rows[:, 0]] = quantile(m[rows[:, 0]], v[rows[:, 0]])
    return np.maximum.accumulate(out, axis=1).reshape(shape)


def _binomial_ppf(p: Floats) -> Callable[[Floats, Floats], Floats]:
    def quantile(mean: Floats, variance: Floats) -> Floats:
        # A hair is taken off before rounding up, so that an exact number of trials stays what it is.
        trials = np.maximum(np.ceil(mean**2 / (mean - variance) - 1e-9), 1.0)
        return np.asarray(stats.binom.ppf(p, trials, np.minimum(mean / trials, 1.0)), float)

    return quantile


def variance_from_quantiles(quantiles: Floats, probabilities: Sequence[float]) -> Floats:
    """Variance that a normal demand would have with the same distance between its outermost quantiles.

    Args:
        quantiles: (..., q) in the order of `probabilities`, at least two.
    """
    distance = float(stats.norm.ppf(probabilities[-1]) - stats.norm.ppf(probabilities[0]))
    return ((quantiles[..., -1] - quantiles[..., 0]) / distance) ** 2
