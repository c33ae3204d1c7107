"""Logistic regression on the ranks of the features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.special import ndtri
from sklearn.linear_model import LogisticRegression

from pipelines.shipments.risk.plugins import Lesson, register

STRENGTH = 0.001
"""Inverse penalty at `USUAL` rows; it falls with the root of their number, so that few rows still tell something."""
USUAL = 6000
KNOTS = 100


@register("logistic")
@dataclass(frozen=True)
class Logistic:
    """Each feature is replaced by the normal quantile of its rank among the training's; unknown ones by zero.

    Attributes:
        knots: (features, KNOTS) quantiles of the training.
    """

    knots: np.ndarray
    coefficients: np.ndarray
    intercept: float

    @classmethod
    def fit(cls, lesson: Lesson) -> Self:
        """See `plugins.Scorer`."""
        known = np.where(np.isnan(lesson.x).all(axis=0), 0.0, lesson.x)
        knots = np.nanquantile(known, np.linspace(0, 1, KNOTS), axis=0).T
        model = LogisticRegression(C=STRENGTH * (USUAL / len(lesson.x)) ** 0.5, max_iter=1000)
        model.fit(_normal(lesson.x, knots), lesson.late.astype(int), sample_weight=lesson.weight)
        return cls(knots, model.coef_[0], float(model.intercept_[0]))

    def log_odds(self, x: np.ndarray) -> np.ndarray:
        """See `plugins.Scorer`."""
        return np.asarray(_normal(x, self.knots) @ self.coefficients + self.intercept)

    def as_json(self) -> dict[str, Any]:
        """See `plugins.Scorer`."""
        return {
            "knots": self.knots.tolist(),
            "coefficients": self.coefficients.tolist(),
            "intercept": self.intercept,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """See `plugins.Scorer`."""
        return cls(np.array(stored["knots"]), np.array(stored["coefficients"]), stored["intercept"])


def _normal(x: np.ndarray, knots: np.ndarray) -> np.ndarray:
    found = np.empty(x.shape)
    for place, edges in enumerate(knots):
        values = x[:, place]
        ranks = np.searchsorted(edges, values, "left") + np.searchsorted(edges, values, "right")
        normal = ndtri(np.clip(ranks / 2 / len(edges), 0.001, 0.999))
        found[:, place] = np.where(np.isnan(values), 0.0, normal)
    return found
