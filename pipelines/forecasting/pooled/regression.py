"""Log-linear regression of demand with priors whose variances are learnt from the data.

The mean is exp(offset + X γ), the variance φ times the mean (quasi-Poisson: zeros are no trouble, large sums get the
weight that they deserve). Each block of γ has a normal prior of its own variance, found by Schall's iteration (Schall
1991, "Estimation in generalized linear models with random effects"): the variance of a block is its sum of squares
over its effective number of coefficients. A block that explains nothing shrinks to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipelines.forecasting.pooled.design import Design
from pipelines.forecasting.series import Floats

ROUNDS = 40
SMALLEST_DEVIATION, LARGEST_DEVIATION = 1e-3, 3.0
_STEEPEST = 3.0


@dataclass(frozen=True)
class Regression:
    """G groups fitted with common prior variances.

    Attributes:
        coefficients: (G, K).
        covariance: (G, K, K) of the coefficients, the variances taken as known.
        dispersion: (G,) φ.
        deviations: standard deviation of each block's prior.
    """

    coefficients: Floats
    covariance: Floats
    dispersion: Floats
    deviations: Mapping[str, float]


def regress(
    demand: Floats, offset: Floats, design: Design, fixed: Mapping[str, float], rounds: int = ROUNDS
) -> Regression:
    """Fit G groups on the same T days.

    Args:
        demand: (G, T) units; NaN where unknown.
        offset: (G, T) logarithm of what is expected beforehand.
        fixed: standard deviations of blocks that are not to be learnt.
        rounds: Newton steps, each followed by a step of the variances.
    """
    x, blocks = design.columns, np.asarray(design.blocks)
    learnt = [name for name in dict.fromkeys(design.blocks) if name not in fixed]
    deviation = {name: fixed.get(name, 0.3) for name in dict.fromkeys(design.blocks)}
    known = np.isfinite(demand)
    y = np.where(known, demand, 0.0)
    gamma = np.zeros((len(y), x.shape[1]))
    dispersion = np.ones(len(y))
    covariance = np.empty((len(y), x.shape[1], x.shape[1]))
    for _ in range(rounds):
        scales = np.array([deviation[name] for name in blocks])
        squares, effective = dict.fromkeys(learnt, 0.0), dict.fromkeys(learnt, 0.0)
        for group in range(len(y)):
            mean = np.where(known[group], np.exp(np.clip(offset[group] + x @ gamma[group], -30, 30)), 0.0)
            weighted = x * mean[:, None]
            # In units of the priors' deviations the matrix is the identity plus what the data add.
            hessian = scales[:, None] * (weighted.T @ x) * scales / dispersion[group] + np.eye(len(scales))
            score = x.T @ (y[group] - mean) / dispersion[group] - gamma[group] / scales**2
            inverse = np.linalg.inv(hessian)
            step = scales * (inverse @ (scales * score))
            gamma[group] += step * min(1.0, _STEEPEST / max(float(np.abs(x @ step).max()), 1e-12))
            used = 1.0 - np.diagonal(inverse)
            covariance[group] = scales[:, None] * inverse * scales
            dispersion[group] = _dispersion(y[group], mean, float(used.sum()))
            for name in learnt:
                squares[name] += float(np.sum(gamma[group, blocks == name] ** 2))
                effective[name] += float(used[blocks == name].sum())
        for name in learnt:
            value = np.sqrt(squares[name] / max(effective[name], 1e-9))
            deviation[name] = float(np.clip(value, SMALLEST_DEVIATION, LARGEST_DEVIATION))
    return Regression(gamma, covariance, dispersion, deviation)


def _dispersion(y: Floats, mean: Floats, used: float) -> float:
    """Pearson's estimate of variance over mean, over the days with an expectation."""
    counted = mean > 1e-9
    free = max(float(counted.sum()) - used, 1.0)
    return max(float(np.sum((y[counted] - mean[counted]) ** 2 / mean[counted])) / free, 1e-6)
