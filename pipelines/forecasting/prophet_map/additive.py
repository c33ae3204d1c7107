"""Additive seasonality: series on the same days share one Gram matrix and one eigendecomposition of its ridge part."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipelines.forecasting.compiled import compiled, product
from pipelines.forecasting.prophet_map.lasso import lasso
from pipelines.forecasting.prophet_map.noise import SMALLEST_VARIANCE, noise_variance
from pipelines.forecasting.series import Floats

_ROUNDS = 40
_SETTLED = 1e-6
_CANCELS = 1e-7


class Shared(NamedTuple):
    """What all series on the same n days have in common; u ridge columns, s changepoint columns.

    With Λ the ridge prior's precisions and R the ridge columns, Q d Qᵀ is the eigendecomposition of
    Λ^-½ Rᵀ R Λ^-½, so that (Rᵀ R + σ² Λ)⁻¹ = Λ^-½ Q (d + σ²)⁻¹ Qᵀ Λ^-½ for every noise variance σ².

    Attributes:
        design: (n, u + s) ridge columns, then changepoint columns.
        rotation: (u, u) Λ^-½ Q.
        eigenvalues: (u,) d.
        cross: (s, u) Hᵀ R Λ^-½ Q, H the changepoint columns.
        gram: (s, s) Hᵀ H.
    """

    design: Floats
    rotation: Floats
    eigenvalues: Floats
    cross: Floats
    gram: Floats


def shared(ridge: Floats, hinges: Floats, scales: Floats) -> Shared:
    """The shared part, from columns (n, u) and (n, s) and the ridge prior's standard deviations (u,)."""
    scaled = ridge * scales
    eigenvalues, vectors = np.linalg.eigh(scaled.T @ scaled)
    noise = np.finfo(float).eps * len(scales) * max(float(eigenvalues[-1]), 0.0)
    eigenvalues = np.where(eigenvalues > noise, eigenvalues, 0.0)
    cross = (hinges.T @ scaled) @ np.where(eigenvalues > 0, vectors, 0.0)
    return Shared(
        np.ascontiguousarray(np.hstack([ridge, hinges])),
        np.ascontiguousarray(scales[:, None] * vectors),
        eigenvalues,
        np.ascontiguousarray(cross),
        np.ascontiguousarray(hinges.T @ hinges),
    )


def fit(y: Floats, common: Shared, changepoint_scale: float, start: Floats) -> tuple[Floats, Floats, Floats]:
    """Maximum a posteriori of N scaled series.

    Args:
        y: (N, n) scaled demand on the shared days.
        changepoint_scale: τ of the Laplace prior.
        start: (N, s) changepoint coefficients to start from: yesterday's, or zeros.

    Returns:
        ridge coefficients (N, u), changepoint coefficients (N, s), noise variances (N,).
    """
    ridge = len(common.eigenvalues)
    products = product(y, common.design)
    projected = product(products[:, :ridge].copy(), common.rotation)
    projected[:, common.eigenvalues == 0] = 0.0
    deltas = np.array(start)
    rotated, variances = np.empty_like(projected), np.empty(len(y))
    _fit_all(y, common, projected, products[:, ridge:].copy(), changepoint_scale, deltas, rotated, variances)
    return product(rotated, np.ascontiguousarray(common.rotation.T)), deltas, variances


@compiled
def _fit_all(
    y: Floats,
    common: Shared,
    projected: Floats,
    hinged: Floats,
    scale: float,
    deltas: Floats,
    rotated: Floats,
    variances: Floats,
) -> None:
    hinges = common.gram.shape[0]
    gram, linear = np.empty((hinges, hinges)), np.empty(hinges)
    inverse, explained = np.empty(common.eigenvalues.shape[0]), np.empty(common.eigenvalues.shape[0])
    count = y.shape[1]
    for row in range(y.shape[0]):
        squares = np.sum(y[row] * y[row])
        mean = np.mean(y[row])
        variance = max(0.5 * (squares / count - mean * mean), SMALLEST_VARIANCE)
        for _ in range(_ROUNDS):
            inverse[:] = 1.0 / (common.eigenvalues + variance)
            _eliminate(common, projected[row], hinged[row], inverse, gram, linear)
            lasso(gram, linear, variance / scale, deltas[row])
            explained[:] = 0.0
            for index in range(hinges):
                explained += common.cross[index] * deltas[row, index]
            rotated[row] = inverse * (projected[row] - explained)
            residual = squares + _change(common, projected[row], hinged[row], explained, rotated[row], deltas[row])
            if residual < _CANCELS * squares:
                residual = _residual(y[row], common, rotated[row], deltas[row])
            before, variance = variance, noise_variance(residual, count)
            if abs(variance - before) <= _SETTLED * variance:
                break
        variances[row] = variance


@compiled
def _eliminate(
    common: Shared, projected: Floats, hinged: Floats, inverse: Floats, gram: Floats, linear: Floats
) -> None:
    """The problem that is left for the changepoints once the ridge coefficients are at their best for them."""
    ridge, hinges = common.eigenvalues.shape[0], common.gram.shape[0]
    weighted = np.empty(ridge)
    for first in range(hinges):
        total = hinged[first]
        for index in range(ridge):
            weighted[index] = common.cross[first, index] * inverse[index]
            total -= weighted[index] * projected[index]
        linear[first] = total
        for second in range(first + 1):
            product = common.gram[first, second]
            for index in range(ridge):
                product -= weighted[index] * common.cross[second, index]
            gram[first, second] = product
            gram[second, first] = product


@compiled
def _change(
    common: Shared, projected: Floats, hinged: Floats, explained: Floats, rotated: Floats, deltas: Floats
) -> float:
    """What the coefficients take off the sum of squares."""
    total = np.sum(rotated * (common.eigenvalues * rotated + 2.0 * (explained - projected)))
    for first in range(deltas.shape[0]):
        if deltas[first] != 0.0:
            product = -2.0 * hinged[first]
            for second in range(deltas.shape[0]):
                product += common.gram[first, second] * deltas[second]
            total += deltas[first] * product
    return float(total)


@compiled
def _residual(y: Floats, common: Shared, rotated: Floats, deltas: Floats) -> float:
    """The sum of squared residuals day by day: exact where the difference of sums would cancel."""
    ridge = rotated.shape[0]
    coefficients = np.zeros(ridge + deltas.shape[0])
    for row in range(ridge):
        for column in range(ridge):
            coefficients[row] += common.rotation[row, column] * rotated[column]
    coefficients[ridge:] = deltas
    total = 0.0
    for day in range(y.shape[0]):
        difference = y[day]
        for column in range(coefficients.shape[0]):
            difference -= common.design[day, column] * coefficients[column]
        total += difference * difference
    return total
