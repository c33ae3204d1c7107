"""A day's demand as a distribution, from the forecast's mean and seven quantiles.

The quantile function is piecewise linear in the standard normal score z = Φ⁻¹(p), not in p: a normal forecast
comes out exactly normal, tails included, and any other keeps its own shape between the stated quantiles. The
whole is scaled so that its mean is `yhat`.

Because the function is linear in its knots, the demand of n series in m scenarios of a day is one matrix
product: `knots @ basis(z)`. Single days may come out a little below zero; only sums are ever used, and a sum
below zero counts as zero.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincinv, ndtri

from pipelines.contracts.tables import QUANTILES

FloatArray = npt.NDArray[np.float64]

PROBABILITIES: FloatArray = np.array([*QUANTILES, 0.99, 0.999])
"""Where the quantile function has its knots: the stated quantiles, and two in the upper tail."""

SCORES: FloatArray = np.asarray(ndtri(PROBABILITIES), dtype=np.float64)
"""Their normal scores."""

_STATED = len(QUANTILES)

_VARIATIONS: FloatArray = np.linspace(0.02, 3.0, 150)
_Q95_TO_MEAN: FloatArray = gammaincinv(_VARIATIONS**-2.0, QUANTILES[-1]) * _VARIATIONS**2
"""The 95 % quantile of a gamma distribution of mean 1, by its coefficient of variation (increasing)."""


def quantile_knots(yhat: FloatArray, quantiles: FloatArray) -> FloatArray:
    """The knots of each day's quantile function.

    Whole-number quantiles come from a distribution of counts. Rounding has taken most of their shape where
    demand is low (at 0.04 units a day all seven are 0, and yet it sells), so there a smooth distribution with
    the moments of a negative binomial stands in: see `_count_knots`.

    Args:
        yhat: expected units, shape (..., days).
        quantiles: units, shape (..., days, 7), probabilities as in `contracts.tables.QUANTILES`.

    Returns:
        Shape (..., days, 9).
    """
    mean = np.maximum(yhat, 0.0)
    ordered = np.maximum.accumulate(np.maximum(quantiles, 0.0), axis=-1)
    step = (ordered[..., -1] - ordered[..., -2]) / (SCORES[_STATED - 1] - SCORES[_STATED - 2])
    tail = ordered[..., -1:] + step[..., None] * (SCORES[_STATED:] - SCORES[_STATED - 1])
    knots = np.concatenate([ordered, tail], axis=-1)
    certain = (ordered[..., 0] == ordered[..., -1]) & (ordered[..., 0] == mean)
    counts = (ordered == np.round(ordered)).all(axis=-1) & ~certain & (mean > 0)
    if counts.any():
        knots[counts] = _count_knots(mean[counts], ordered[counts, -1])
    present = knots @ _EXPECTED
    scale = np.divide(mean, present, out=np.zeros_like(mean), where=present > 0)
    return knots * scale[..., None]


def _count_knots(mean: FloatArray, q95: FloatArray) -> FloatArray:
    """Knots for counts with these means and 95 % quantiles, shape (m, 9).

    The variance is that of the gamma distribution with this mean through this quantile, at least the mean
    (Poisson). The shape is a shifted gamma (Pearson type III) with mean, variance and skewness of the negative
    binomial, (2v/m - 1) / √v, so that sums over days have the right three moments.
    """
    variation = np.interp(q95 / mean, _Q95_TO_MEAN, _VARIATIONS)
    variance = np.maximum((variation * mean) ** 2, mean)
    scale = variance / mean - 0.5
    shape = variance / scale**2
    return cast(
        FloatArray, (gammaincinv(shape[:, None], PROBABILITIES) - shape[:, None]) * scale[:, None] + mean[:, None]
    )


def basis(scores: FloatArray) -> FloatArray:
    """Weights of the knots at the given normal scores: hat functions, going on linearly outside.

    Args:
        scores: shape (m,).

    Returns:
        Shape (9, m).
    """
    rows = np.zeros((len(SCORES), scores.size))
    segment = np.clip(np.searchsorted(SCORES, scores) - 1, 0, len(SCORES) - 2)
    share = (scores - SCORES[segment]) / (SCORES[segment + 1] - SCORES[segment])
    columns = np.arange(scores.size)
    rows[segment, columns] = 1.0 - share
    rows[segment + 1, columns] = share
    return rows


def day_moments(knots: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of each day's demand, exactly: both follow from the moments of the basis.

    Args:
        knots: shape (..., 9).

    Returns:
        Two arrays of shape (...), in units.
    """
    mean = knots @ _EXPECTED
    centred = knots - mean[..., None]
    variance = ((centred @ _PRODUCTS) * centred).sum(axis=-1)
    return mean, np.sqrt(np.maximum(variance, 0.0))


def _basis_moments() -> tuple[FloatArray, FloatArray]:
    """E[b(Z)] and E[b(Z) b(Z)ᵀ] of the basis at a standard normal Z, by quadrature on each segment."""
    nodes, weights = np.polynomial.legendre.leggauss(24)
    edges = np.concatenate([[-9.0], SCORES, [9.0]])
    half = np.diff(edges) / 2
    scores = (half[:, None] * nodes + (edges[:-1] + half)[:, None]).ravel()
    density = np.exp(-(scores**2) / 2) / np.sqrt(2 * np.pi)
    probability = (half[:, None] * weights).ravel() * density
    rows = basis(scores)
    return rows @ probability, (rows * probability) @ rows.T


_EXPECTED, _PRODUCTS = _basis_moments()
