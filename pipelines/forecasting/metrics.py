"""Accuracy of forecasts of many series, days without an observation left out.

WAPE, MASE and bias as in Hyndman and Koehler (2006), "Another look at measures of forecast accuracy", and
Hyndman and Athanasopoulos, "Forecasting: Principles and Practice" (3rd ed.), chapter 5.8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from pipelines.forecasting.series import Floats, Integers

SEASON = 7


@dataclass(frozen=True)
class Scores:
    """Per series (n,): sums over the scored days, from which the ratios follow and can be pooled.

    Attributes:
        absolute_error: Σ|y - ŷ|.
        error: Σ(ŷ - y).
        actual: Σ|y|.
        covered: days with y inside the interval.
        days: days scored.
        scale: in-sample mean |y_t - y_{t-7}| of the training days, MASE's denominator.
    """

    absolute_error: Floats
    error: Floats
    actual: Floats
    covered: Floats
    days: Floats
    scale: Floats

    @property
    def WAPE(self) -> Floats:
        """Σ|y - ŷ| / Σ|y|; NaN where nothing was demanded."""
        return ratio(self.absolute_error, self.actual)

    @property
    def MASE(self) -> Floats:
        """Mean absolute error over `scale`; NaN where the training days never changed."""
        return ratio(self.absolute_error, self.days * self.scale)

    @property
    def bias(self) -> Floats:
        """Σ(ŷ - y) / Σ|y|: above zero, too much was forecast."""
        return ratio(self.error, self.actual)

    @property
    def coverage(self) -> Floats:
        """Share of days inside the interval."""
        return ratio(self.covered, self.days)

    def with_rows(self, rows: Integers, other: Scores) -> Scores:
        """A copy in which the named rows are those of `other`."""
        merged = {}
        for item in fields(self):
            values = getattr(self, item.name).copy()
            values[rows] = getattr(other, item.name)
            merged[item.name] = values
        return Scores(**merged)

    def take(self, rows: Integers) -> Scores:
        """The named rows."""
        return Scores(**{item.name: getattr(self, item.name)[rows] for item in fields(self)})

    @classmethod
    def none(cls, count: int) -> Scores:
        """Series that were not scored: every ratio is NaN."""
        return cls(**{item.name: np.full(count, np.nan) for item in fields(cls)})


def score(actual: Floats, yhat: Floats, low: Floats, high: Floats, scale: Floats) -> Scores:
    """Compare forecasts (n, h) with what came; NaN in `actual` is a day that does not count."""
    known = np.isfinite(actual)
    y, f = np.where(known, actual, 0.0), np.where(known, yhat, 0.0)
    inside = known & (actual >= low) & (actual <= high)
    return Scores(
        absolute_error=np.abs(y - f).sum(axis=1),
        error=(f - y).sum(axis=1),
        actual=np.abs(y).sum(axis=1),
        covered=inside.sum(axis=1).astype(float),
        days=known.sum(axis=1).astype(float),
        scale=scale,
    )


def naive_scale(demand: Floats, season: int = SEASON) -> Floats:
    """(n,) mean |y_t - y_{t-season}| over the known pairs of days; NaN where there are none."""
    if demand.shape[1] <= season:
        return np.full(len(demand), np.nan)
    steps = np.abs(demand[:, season:] - demand[:, :-season])
    known = np.isfinite(steps)
    return ratio(np.where(known, steps, 0.0).sum(axis=1), known.sum(axis=1).astype(float))


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Quotient; NaN where the denominator is zero or unknown."""
    result = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=result, where=np.nan_to_num(denominator) > 0)
    return result


def pinball(actual: Floats, quantiles: Floats, probabilities: Sequence[float]) -> Floats:
    """Mean pinball loss over the quantiles: half the continuous ranked probability score, approximated.

    A proper score: least in expectation for the true quantiles, so it judges the centre and the spread together
    (Gneiting and Raftery 2007, "Strictly proper scoring rules, prediction, and estimation").

    Args:
        actual: (..., h) units; NaN where unknown. quantiles: (..., h, q).

    Returns:
        (..., h) units; NaN where the actual is unknown.
    """
    share = np.asarray(probabilities, float)
    error = actual[..., None] - quantiles
    return np.asarray(np.maximum(share * error, (share - 1.0) * error).mean(axis=-1), float)
