"""The noise scale's part of the posterior: σ ~ N(0, 0.5²) on σ > 0, as Prophet has it."""

from __future__ import annotations

import numpy as np

from pipelines.forecasting.compiled import compiled

SMALLEST_VARIANCE = 1e-18
"""Where fewer days than coefficients allow a perfect fit, the posterior grows without bound as σ falls: it ends here,
at the σ of 1e-9 that Prophet gives to constant series."""


@compiled
def noise_variance(residual: float, count: int) -> float:
    """The σ² that minimises n log σ + residual / 2σ² + 2σ²: the positive root of 4v² + n v = residual."""
    root = np.sqrt(count * count + 16.0 * residual)
    return float(max(2.0 * residual / (root + count), SMALLEST_VARIANCE))


@compiled
def noise_penalty(residual: float, count: int, variance: float) -> float:
    """n log σ + residual / 2σ² + 2σ²."""
    return float(0.5 * count * np.log(variance) + 0.5 * residual / variance + 2.0 * variance)
