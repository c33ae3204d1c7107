"""Gradient-boosted trees by scikit-learn, kept as plain arrays: they are stored as JSON and need no pickle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from pipelines.forecasting.compiled import compiled

_FIELDS = ("feature", "threshold", "missing_left", "left", "right", "value")
_TYPES: dict[str, type] = {"feature": np.int32, "missing_left": np.bool_, "left": np.int32, "right": np.int32}


@dataclass(frozen=True)
class Trees:
    """A sum of regression trees, all nodes in flat arrays; a leaf's `feature` is -1.

    Attributes:
        base: added to every sum.
        share: of the trees' sum that counts (1 / number of averaged ensembles).
        roots: the place of each tree's first node.
    """

    base: float
    share: float
    roots: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    missing_left: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray

    @classmethod
    def of(cls, models: Sequence[Any]) -> Trees:
        """The average of fitted histogram gradient boostings without categorical features."""
        # The fitted trees have no public form; a test holds this one against scikit-learn's own predictions.
        nodes = [stage[0].nodes for model in models for stage in model._predictors]
        starts = np.concatenate([[0], np.cumsum([len(tree) for tree in nodes])])
        together = np.concatenate(nodes)
        shift = np.repeat(starts[:-1], np.diff(starts)).astype(np.int64)
        leaf = together["is_leaf"].astype(bool)
        return cls(
            base=float(np.mean([np.ravel(model._baseline_prediction)[0] for model in models])),
            share=1 / len(models),
            roots=starts[:-1].astype(np.int32),
            feature=np.where(leaf, -1, together["feature_idx"]).astype(np.int32),
            threshold=together["num_threshold"].astype(float),
            missing_left=together["missing_go_to_left"].astype(bool),
            left=np.where(leaf, 0, together["left"] + shift).astype(np.int32),
            right=np.where(leaf, 0, together["right"] + shift).astype(np.int32),
            value=together["value"].astype(float),
        )

    def sums(self, x: np.ndarray) -> np.ndarray:
        """The prediction of each row of (n, features); NaN is a missing value."""
        x = np.ascontiguousarray(x, float)
        out = np.zeros(len(x))
        children = np.column_stack([self.right, self.left])
        _add_leaves(x, self.roots, self.feature, self.threshold, self.missing_left, children, self.value, out)
        return np.asarray(self.base + self.share * out)

    def as_json(self) -> dict[str, Any]:
        """Numbers and lists only."""
        lists = {name: getattr(self, name).tolist() for name in _FIELDS}
        # JSON has no infinity: a split between missing and present has it as threshold.
        lists["threshold"] = [value if np.isfinite(value) else str(value) for value in lists["threshold"]]
        return {"base": self.base, "share": self.share, "roots": self.roots.tolist(), **lists}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Trees:
        """What `as_json` gave."""
        arrays: dict[str, np.ndarray] = {
            name: np.array([float(v) for v in stored[name]], _TYPES.get(name, float)) for name in _FIELDS
        }
        return cls(stored["base"], stored["share"], np.array(stored["roots"], np.int32), **arrays)


@compiled
def _add_leaves(
    x: np.ndarray,
    roots: np.ndarray,
    feature: np.ndarray,
    threshold: np.ndarray,
    missing_left: np.ndarray,
    children: np.ndarray,
    value: np.ndarray,
    out: np.ndarray,
) -> None:
    """Add up each row's leaves; `children`: of a node, to the right and to the left."""
    for row in range(x.shape[0]):
        for root in roots:
            place = root
            while feature[place] >= 0:
                entry = x[row, feature[place]]
                goes_left = missing_left[place] if np.isnan(entry) else entry <= threshold[place]
                place = children[place, int(goes_left)]
            out[row] += value[place]


def classify(x: np.ndarray, y: np.ndarray, weight: np.ndarray, seeds: int, **options: Any) -> Trees:
    """Trees whose sums are log-odds of `y`."""
    return _fit(HistGradientBoostingClassifier, x, y.astype(int), weight, seeds, options)


def quantile(x: np.ndarray, y: np.ndarray, weight: np.ndarray, level: float, **options: Any) -> Trees:
    """Trees whose sums are the quantile `level` of `y`."""
    return _fit(HistGradientBoostingRegressor, x, y, weight, 1, {"loss": "quantile", "quantile": level, **options})


def _fit(kind: Any, x: np.ndarray, y: np.ndarray, weight: np.ndarray, seeds: int, options: dict[str, Any]) -> Trees:
    # A column without any value has no bins for scikit-learn; a constant one is never split at.
    usable = np.where(np.isnan(x).all(axis=0), 0.0, x)
    models = [kind(early_stopping=False, random_state=seed, **options) for seed in range(seeds)]
    # One thread: small data, and threads that wait for each other cost more than they bring.
    with threadpool_limits(1, user_api="openmp"):
        return Trees.of([model.fit(usable, y, sample_weight=weight) for model in models])
