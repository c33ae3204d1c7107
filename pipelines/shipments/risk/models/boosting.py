"""Gradient-boosted trees over what is planned and the shipments around it: few leaves, coarse bins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pipelines.shipments.risk import trees
from pipelines.shipments.risk.features import is_history, rates
from pipelines.shipments.risk.plugins import Lesson, register

SHAPE = {"max_leaf_nodes": 6, "min_samples_leaf": 40, "l2_regularization": 10.0, "max_features": 0.3, "max_bins": 32}


@register("boosting")
@dataclass(frozen=True)
class Boosting:
    """Of the histories only the supplier's rates: trees take the others for the years that they come from."""

    places: np.ndarray
    trees: trees.Trees

    @classmethod
    def fit(cls, lesson: Lesson) -> Self:
        """See `plugins.Scorer`."""
        supplier = rates(lesson.names)[1]
        places = np.array(
            [place for place, name in enumerate(lesson.names) if place in supplier or not is_history(name)]
        )
        options = {**SHAPE, "learning_rate": 0.05, "max_iter": lesson.iterations}
        x = lesson.x[:, places]
        return cls(places, trees.classify(x, lesson.late, lesson.weight, lesson.seeds, **options))

    def log_odds(self, x: np.ndarray) -> np.ndarray:
        """See `plugins.Scorer`."""
        return self.trees.sums(x[:, self.places])

    def as_json(self) -> dict[str, Any]:
        """See `plugins.Scorer`."""
        return {"places": self.places.tolist(), "trees": self.trees.as_json()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """See `plugins.Scorer`."""
        return cls(np.array(stored["places"], int), trees.Trees.from_json(stored["trees"]))
