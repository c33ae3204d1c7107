"""The supplier's own rate of late shipments so far, and nothing else: the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pipelines.shipments.risk.features import rates
from pipelines.shipments.risk.plugins import Lesson, register


@register("supplier_rate")
@dataclass(frozen=True)
class SupplierRate:
    """Log-odds of everything and of the first key against it, as they stood on the day of the prediction.

    Attributes:
        places: of these two features.
    """

    places: tuple[int, int]

    @classmethod
    def fit(cls, lesson: Lesson) -> Self:
        """See `plugins.Scorer`."""
        everything, supplier = rates(lesson.names)
        return cls((everything[0], supplier[0]))

    def log_odds(self, x: np.ndarray) -> np.ndarray:
        """See `plugins.Scorer`."""
        return np.asarray(x[:, list(self.places)].sum(axis=1))

    def as_json(self) -> dict[str, Any]:
        """See `plugins.Scorer`."""
        return {"places": list(self.places)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """See `plugins.Scorer`."""
        first, second = stored["places"]
        return cls((first, second))
