"""Quantiles of demand from a mean and a variance, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import special

from pipelines.forecasting.compiled import compiled
from pipelines.forecasting.series import Floats, Integers

_LARGE = 200.0
"""From this mean on a count is treated as a continuous quantity: the difference is below a rounding."""
_POISSON = 0.01
"""Variances this close to the mean, relatively, are a Poisson count's."""
_MOST = 100_000
_WIDE = 4.0
"""From this variance on, quantiles lie between counts: whole ones would cover some points more than is asked for."""
_SMALL_SHAPE = 50.0
"""Below it the approximation of the gamma's quantiles is off by more than 1e-4."""


def demand_quantiles(mean: Floats, variance: Floats, probabilities: Sequence[float]) -> Floats:
    """Quantiles of a demand with the given mean and variance; non-negative, never crossing.

    Counts follow, by their variance: above the mean the negative binomial of size mean² / (variance - mean);
    at the mean Poisson; below it the binomial of mean² / (mean - variance) trials, rounded up. Means above
    200 follow the gamma distribution of that mean and variance. Up to a variance of 4 quantiles are counts; above,
    each count's probability is spread evenly over a half on either side of it.

    Args:
        mean, variance: any shape, units and units².

    Returns:
        The shape of `mean` plus one axis for the probabilities.
    """
    mean, variance = np.broadcast_arrays(np.maximum(mean, 0.0), np.maximum(variance, 0.0))
    shape = (*mean.shape, len(probabilities))
    m, v = np.ascontiguousarray(mean).reshape(-1), np.ascontiguousarray(variance).reshape(-1)
    p = np.asarray(probabilities, float)
    order = np.argsort(p)
    out = np.repeat(m[:, None], p.size, axis=1)
    _fill_counts(m, v, p[order], order, out)
    large = (m >= _LARGE) & (v > 0)
    if large.any():
        out[large] = _gamma(m[large, None], v[large, None], p)
    return np.maximum.accumulate(out, axis=1).reshape(shape)


@compiled
def _fill_counts(mean: Floats, variance: Floats, probabilities: Floats, order: Integers, out: Floats) -> None:
    """Counts' quantiles by adding up their probabilities from zero on, each from the one before."""
    for row in range(mean.shape[0]):
        m, v = mean[row], variance[row]
        if m <= 0.0 or m >= _LARGE:
            continue
        # P(k + 1) / P(k) = (a + b k) / (k + 1) for all three distributions.
        if v > m * (1.0 + _POISSON):
            size, chance = m * m / (v - m), m / v
            a, b, probability = size * (1.0 - chance), 1.0 - chance, np.exp(size * np.log(chance))
        elif v < m * (1.0 - _POISSON):
            # A hair is taken off before rounding up, so that an exact number of trials stays what it is.
            trials = max(np.ceil(m * m / (m - v) - 1e-9), 1.0)
            chance = min(m / trials, 1.0)
            if chance >= 1.0:
                out[row] = trials
                continue
            odds = chance / (1.0 - chance)
            a, b, probability = trials * odds, -odds, np.exp(trials * np.log1p(-chance))
        else:
            a, b, probability = m, 0.0, np.exp(-m)
        count, cumulative, between = 0, probability, v >= _WIDE
        for place in range(probabilities.shape[0]):
            while cumulative < probabilities[place] * (1.0 - 1e-12) and count < _MOST:
                probability *= max(a + b * count, 0.0) / (count + 1.0)
                count += 1
                cumulative += probability
            out[row, order[place]] = count
            if between and count < _MOST:
                out[row, order[place]] = max(count + 0.5 - (cumulative - probabilities[place]) / probability, 0.0)


def _gamma(mean: Floats, variance: Floats, probabilities: Floats) -> Floats:
    """Wilson and Hilferty's cube where it is as good as exact, the exact inverse where the shape is small."""
    shape = mean**2 / variance
    cube = mean * (1 - 1 / (9 * shape) + special.ndtri(probabilities) / (3 * np.sqrt(shape))) ** 3
    small = shape[:, 0] < _SMALL_SHAPE
    cube[small] = special.gammaincinv(shape[small], probabilities) * (variance / mean)[small]
    return np.asarray(cube, float)


def variance_from_quantiles(quantiles: Floats, probabilities: Sequence[float]) -> Floats:
    """Variance that a normal demand would have with the same distance between its outermost quantiles.

    Args:
        quantiles: (..., q) in the order of `probabilities`, at least two.
    """
    distance = float(special.ndtri(probabilities[-1]) - special.ndtri(probabilities[0]))
    return ((quantiles[..., -1] - quantiles[..., 0]) / distance) ** 2
