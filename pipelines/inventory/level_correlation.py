"""How much of a forecast's error is a wrong level: the correlation between the errors of a series' days.

It decides how wide the sum of several days spreads, and it is the model's, not the data's: one that follows the
level closely leaves next to none. So it is learnt from the errors of the forecasts that are in use.
"""

from __future__ import annotations

import numpy as np

from pipelines.inventory.forecast_distribution import FloatArray
from pipelines.inventory.scenarios import LEVEL_CORRELATION

PRIOR_PAIRS = 20_000.0
"""The correlation presumed beforehand weighs as much as so many pairs of days."""
LARGEST = 0.9


def level_correlation(errors: FloatArray, deviation: FloatArray, prior: float = LEVEL_CORRELATION) -> float:
    """The correlation between any two days' errors within a forecast, pooled over all forecasts.

    With standardised errors e of a forecast's k days, (Σe)² - Σe² is the sum over all pairs of days and
    k (k - 1) ρ σ² its expectation; the estimator is the ratio of both sums over all forecasts. Errors are
    standardised by what the forecast itself said of the day, so its error in the size of σ cancels.

    Args:
        errors: (m, k) actual less expected units, of m forecasts over k days; NaN where unknown.
        deviation: (m, k) standard deviation that was forecast.

    Returns:
        Between 0 and `LARGEST`; the prior where there are no pairs.
    """
    known = np.isfinite(errors) & (deviation > 0)
    scores = np.where(known, errors, 0.0) / np.where(known, deviation, 1.0)
    count = known.sum(axis=1).astype(np.float64)
    squares = (scores**2).sum(axis=1)
    pairs = float((count * (count - 1)).sum())
    if pairs <= 0 or squares.sum() <= 0:
        return prior
    variance = float(squares.sum() / count.sum())
    found = float((scores.sum(axis=1) ** 2 - squares).sum()) / (pairs * variance)
    weight = pairs / (pairs + PRIOR_PAIRS)
    return float(np.clip(weight * found + (1 - weight) * prior, 0.0, LARGEST))
