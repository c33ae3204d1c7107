"""Quantiles of demand from a mean and a variance, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import special, stats

from pipelines.forecasting.series import Floats

_LARGE = 200.0


def demand_quantiles(mean: Floats, variance: Floats, probabilities: Sequence[float]) -> Floats:
    """Quantiles of a demand with the given mean and variance; non-negative, never crossing.

    Counts that vary more than a Poisson count follow the negative binomial, size = mean² / (variance - mean).
    Counts that vary less, or are large (where the difference is below a unit's rounding), follow the gamma
    distribution of the same mean and variance; a variance of zero is a certain demand.

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
    uncertain = (m[:, 0] > 0) & (v[:, 0] > 1e-12 * m[:, 0] ** 2)
    counts = uncertain & (v[:, 0] > m[:, 0] * (1 + 1e-9)) & (m[:, 0] < _LARGE)
    if counts.any():
        cm, cv = m[counts], v[counts]
        out[counts] = stats.nbinom.ppf(p, cm**2 / (cv - cm), cm / cv)
    other = uncertain & ~counts
    if other.any():
        om, ov = m[other], v[other]
        out[other] = special.gammaincinv(om**2 / ov, p) * ov / om
    return np.maximum.accumulate(out, axis=1).reshape(shape)


def variance_from_quantiles(quantiles: Floats, probabilities: Sequence[float]) -> Floats:
    """Variance that a normal demand would have with the same distance between its outermost quantiles.

    Args:
        quantiles: (..., q) in the order of `probabilities`, at least two.
    """
    distance = float(stats.norm.ppf(probabilities[-1]) - stats.norm.ppf(probabilities[0]))
    return ((quantiles[..., -1] - quantiles[..., 0]) / distance) ** 2
