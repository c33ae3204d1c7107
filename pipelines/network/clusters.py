"""How many kinds there are among a few dozen or a few thousand members, and who is of which kind.

k-means on coordinates in which a difference of one is one that a planner would notice: scaling by the members' own
deviation would make as much of noise as of what tells them apart. The number of clusters is the one whose silhouette
(Rousseeuw 1987) is best among those that come out the same when members are left out: the adjusted Rand index (Hubert
and Arabie 1985) between the clustering of all and those of random four fifths. Where nothing is both clear and
stable, all are of one kind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_score

FloatArray = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

LARGEST = 8
"""Clusters at most: more kinds than that nobody remembers."""
RESAMPLES = 10
CLEAR, STABLE = 0.25, 0.75
"""A silhouette below the first is no structure (Kaufman and Rousseeuw 1990, table 3.3); an agreement below the second
is chance."""
_SAMPLE = 2000


@dataclass(frozen=True)
class Clustering:
    """Members' kinds.

    Attributes:
        labels: (n,) 0 to k - 1.
        silhouette, stability: of the number that was chosen; 0 and 1 where all are of one kind.
    """

    labels: Labels
    silhouette: float
    stability: float

    @property
    def count(self) -> int:
        """The number of clusters."""
        return int(self.labels.max(initial=0)) + 1


def cluster(values: FloatArray, seed: int = 0) -> Clustering:
    """The kinds among members with coordinates (n, p); what is unknown (NaN) is taken to be as in the middle."""
    points = _filled(values)
    one = Clustering(np.zeros(len(points), np.int64), 0.0, 1.0)
    distinct = len(np.unique(points, axis=0))
    best = one
    for count in range(2, min(LARGEST, distinct - 1, len(points) // 2) + 1):
        labels = _means(points, count, seed)
        if np.bincount(labels, minlength=count).min() < 2:
            # One member by itself is an outlier, not a kind.
            continue
        clear = float(
            silhouette_score(points, labels, sample_size=min(len(points), _SAMPLE), random_state=np.uint32(seed))
        )
        if clear > max(best.silhouette, CLEAR) and (stable := _stability(points, labels, seed)) >= STABLE:
            best = Clustering(labels, clear, stable)
    return best


def _filled(values: FloatArray) -> FloatArray:
    known = np.isfinite(values)
    middle = [np.median(column[there]) if there.any() else 0.0 for column, there in zip(values.T, known.T, strict=True)]
    return np.where(known, values, np.array(middle, float))


def _means(points: FloatArray, count: int, seed: int) -> Labels:
    found = KMeans(count, n_init=10, random_state=seed).fit_predict(points)
    # Numbered by size, so that the same members give the same numbers.
    order = np.argsort(-np.bincount(found, minlength=count), kind="stable")
    return np.asarray(np.argsort(order)[found], np.int64)


def _stability(points: FloatArray, labels: Labels, seed: int) -> float:
    """Mean agreement of the clustering with those of parts of the members."""
    chance, count, scores = np.random.default_rng(seed), int(labels.max()) + 1, []
    for number in range(RESAMPLES):
        part = np.sort(chance.choice(len(points), max(count + 1, round(0.8 * len(points))), replace=False))
        scores.append(adjusted_rand_score(labels[part], _means(points[part], count, seed + number + 1)))
    return float(np.mean(scores))


def keep_labels(found: Labels, before: Labels) -> Labels:
    """Labels numbered as before where clusters share most of their members, the others after those.

    Args:
        found: (n,) new labels. before: (n,) earlier labels of the same members; -1 for new members.
    """
    old, new = int(before.max(initial=-1)) + 1, int(found.max(initial=-1)) + 1
    shared = np.zeros((new, old), np.int64)
    known = before >= 0
    np.add.at(shared, (found[known], before[known]), 1)
    rows, columns = linear_sum_assignment(-shared)
    names = {row: column for row, column in zip(rows, columns, strict=True) if shared[row, column]}
    free = iter(number for number in range(old + new) if number not in names.values())
    return np.array([names[label] if label in names else names.setdefault(label, next(free)) for label in found])
