"""Boosting and logistic regression together: the mean of their log-odds. The default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pipelines.shipments.risk.models.boosting import Boosting
from pipelines.shipments.risk.models.logistic import Logistic
from pipelines.shipments.risk.plugins import Lesson, register


@register("ensemble")
@dataclass(frozen=True)
class Ensemble:
    """Trees find what acts together, the regression carries rates on that trees have not seen yet."""

    boosting: Boosting
    logistic: Logistic

    @classmethod
    def fit(cls, lesson: Lesson) -> Self:
        """See `plugins.Scorer`."""
        return cls(Boosting.fit(lesson), Logistic.fit(lesson))

    def log_odds(self, x: np.ndarray) -> np.ndarray:
        """See `plugins.Scorer`."""
        return np.asarray((self.boosting.log_odds(x) + self.logistic.log_odds(x)) / 2)

    def as_json(self) -> dict[str, Any]:
        """See `plugins.Scorer`."""
        return {"boosting": self.boosting.as_json(), "logistic": self.logistic.as_json()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """See `plugins.Scorer`."""
        return cls(Boosting.from_json(stored["boosting"]), Logistic.from_json(stored["logistic"]))
