"""From a model's log-odds to probabilities that come true, by Platt's scaling; and how far intervals must widen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

STIFFNESS = 25.0
"""Rows' worth of evidence that slope 1 and intercept 0 are held by: a short or lucky slice changes little."""


@dataclass(frozen=True)
class Platt:
    """Probability = 1 / (1 + exp(-(slope · log-odds + intercept))); the slope is never negative (Platt, 1999)."""

    slope: float = 1.0
    intercept: float = 0.0

    def __call__(self, log_odds: np.ndarray) -> np.ndarray:
        """Probabilities of log-odds."""
        return np.asarray(1 / (1 + np.exp(-np.clip(self.slope * log_odds + self.intercept, -30, 30))))


def fit_platt(log_odds: np.ndarray, late: np.ndarray) -> Platt:
    """By maximum likelihood with a prior at the identity; the identity where one class is missing."""
    if not 0 < late.sum() < len(late):
        return Platt()

    def loss(parameters: np.ndarray) -> float:
        score = np.exp(parameters[0]) * log_odds + parameters[1]
        likelihood = np.logaddexp(0, score) - late * score
        return float(likelihood.sum() + STIFFNESS * (parameters**2).sum() / 2)

    best = minimize(loss, np.zeros(2), method="Nelder-Mead").x
    return Platt(float(np.exp(best[0])), float(best[1]))


def widening(actual: np.ndarray, low: np.ndarray, high: np.ndarray, coverage: float) -> float:
    """Days by which both ends move apart so that `coverage` of the actual values lie within (never inwards).

    Conformalised quantile regression (Romano, Patterson and Candès, 2019), on rows the quantiles were not fitted to.
    """
    if not len(actual):
        return 0.0
    outside = np.maximum(low - actual, actual - high)
    level = min(1.0, np.ceil((len(actual) + 1) * coverage) / len(actual))
    return float(max(np.quantile(outside, level, method="higher"), 0.0))
