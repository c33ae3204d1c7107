"""A cluster in words and numbers: by what it differs from the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipelines.network.clusters import Labels

TOLD = 3
"""So many differences are told, each of at least one unit."""


@dataclass(frozen=True)
class Feature:
    """A number that tells members apart.

    Attributes:
        high, low: how it is told; `number`: its format (`{:.0%} late`).
        unit: a difference that matters; of a `ratio`, the factor that does.
    """

    high: str
    low: str
    number: str
    unit: float
    ratio: bool = False

    def coordinates(self, values: np.ndarray) -> np.ndarray:
        """Values in units that matter."""
        return np.log(np.maximum(values, 1e-9)) / np.log(self.unit) if self.ratio else values / self.unit


def describe(table: pd.DataFrame, labels: Labels, features: Mapping[str, Feature]) -> dict[int, str]:
    """One line for each label: what differs from the other members, the strongest first, with both medians.

    Args:
        table: a row a member, a column for each of `features`.
    """
    lines = {}
    for label in np.unique(labels):
        rows = labels == label
        told = []
        for name, feature in features.items():
            own, others = (_median(table[name].to_numpy(float)[part]) for part in (rows, ~rows))
            ends = feature.coordinates(np.array([own, others]))
            if (difference := ends[0] - ends[1]) and abs(difference) >= 1:
                numbers = f"{feature.number.format(own)}, others: {feature.number.format(others)}"
                told.append((-abs(difference), f"{feature.high if difference > 0 else feature.low} ({numbers})"))
        lines[int(label)] = "; ".join(text for _, text in sorted(told)[:TOLD]) or "like the rest"
    return lines


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else np.nan
