"""Quantiles of Prophet's predictive distribution from a table, in place of a thousand samples a series.

Beyond the history Prophet lets the trend change at random: each of h steps has a change with chance p, of size
Laplace(0, λ), λ the mean size of the fitted changes. Half of a change acts from the step before its own, so a change
in step j moves the trend at step h by its size times (h - j + ½) dt. The deviation is a compound sum whose shape, for
many steps, depends on the expected number of changes p h alone; its characteristic function is
exp(p h (arctan(a u) / (a u) - 1)). Adding normal noise of known variance leaves two parameters: p h and the trend's
share of the variance. The table holds standardised quantiles over both; variances are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.interpolate import RectBivariateSpline
from scipy.special import ndtri

from pipelines.forecasting.series import Floats

CHANGES = np.geomspace(0.02, 200.0, 17)
"""Expected number of changes within the horizon; beyond either end the table's edge is used."""
SHARES = 1.0 - np.geomspace(1.0, 1e-3, 25)
"""The trend's share of the variance."""

_POINTS = 1 << 13
_WIDTH = 60.0


@lru_cache(maxsize=8)
def _table(probabilities: tuple[float, ...]) -> tuple[RectBivariateSpline, ...]:
    step = _WIDTH / _POINTS
    x = (np.arange(_POINTS) - _POINTS // 2) * step
    u = 2 * np.pi * np.fft.fftfreq(_POINTS, d=step)
    cells = np.empty((len(CHANGES), len(SHARES), len(probabilities)))
    for row, changes in enumerate(CHANGES):
        # Σ (h - j + ½)² ≈ h³/3, so a unit variance needs a Laplace scale of sqrt(3 / 2ph) per h.
        scale = np.sqrt(1.5 / changes)
        for column, share in enumerate(SHARES):
            argument = np.sqrt(share) * scale * u
            ratio = np.divide(np.arctan(argument), argument, out=np.ones_like(u), where=argument != 0)
            transform = np.exp(changes * (ratio - 1) - 0.5 * (1 - share) * u**2)
            density = np.fft.fftshift(np.fft.ifft(transform).real) / step
            cumulative = np.cumsum(np.maximum(density, 0.0)) * step
            cumulative /= cumulative[-1]
            # The sum up to a point holds half a cell too much.
            cells[row, column] = np.interp(probabilities, cumulative - 0.5 * np.maximum(density, 0) * step, x)
    logs, depth = np.log(CHANGES), -np.log1p(-SHARES)
    return tuple(
        RectBivariateSpline(logs, depth, cells[:, :, place], kx=1, ky=1) for place in range(len(probabilities))
    )


def standard_quantiles(changes: Floats, share: Floats, probabilities: Sequence[float]) -> Floats:
    """Quantiles (..., q) of the standardised sum of trend deviation and noise.

    Args:
        changes: expected number of changes up to the step, any shape.
        share: the trend's share of the variance, same shape.
    """
    normal = ndtri(np.asarray(probabilities, float))
    out = np.broadcast_to(normal, (*share.shape, len(normal))).copy()
    matters = share > 1e-4
    if matters.any():
        logs = np.log(np.clip(changes[matters], CHANGES[0], CHANGES[-1]))
        depth = -np.log1p(-np.minimum(share[matters], SHARES[-1]))
        for place, spline in enumerate(_table(tuple(float(p) for p in probabilities))):
            out[matters, place] = spline.ev(logs, depth)
    return out


def deviation_scale(horizon: int, chance: Floats) -> Floats:
    """(N, h) standard deviation of the trend's deviation over λ dt, a change having the chance (N,) in each step."""
    weights = np.cumsum((np.arange(1, horizon + 1) - 0.5) ** 2)
    return np.sqrt(2.0 * np.minimum(chance, 1.0)[:, None] * weights)
