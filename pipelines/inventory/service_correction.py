"""What service was achieved against what was wanted, per class, and what to plan with so that they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from pipelines.inventory.forecast_distribution import FloatArray

PRIOR_CYCLES = 200.0
"""A class's own experience counts half when it has seen so many cycles; else that of all classes together."""
_LOWEST, _HIGHEST = 0.5, 0.9999


@dataclass(frozen=True)
class ServiceCorrection:
    """A shift of the normal score of the service level, per class, as a function of what is wanted.

    Attributes:
        wanted: (m,) service levels at which it was learnt, ascending.
        shifts: (m,) by class; the key "" is for classes that were not seen.
    """

    wanted: FloatArray
    shifts: Mapping[str, FloatArray]

    def plan_with(self, wanted: float, classes: Sequence[str]) -> FloatArray:
        """The probability to plan with so that `wanted` is achieved, one for each of the classes."""
        distinct = {name: self._probability(wanted, name) for name in set(classes)}
        return np.array([distinct[name] for name in classes])

    def _probability(self, wanted: float, name: str) -> float:
        shifts = self.shifts.get(name, self.shifts[""])
        # A straight line between the levels that were tried; beyond them the nearest one's shift.
        shift = np.interp(ndtri(wanted), ndtri(self.wanted), shifts)
        return float(np.clip(ndtr(ndtri(wanted) + shift), _LOWEST, _HIGHEST))


def learn_correction(
    planned: Sequence[float], served: npt.ArrayLike, cycles: npt.ArrayLike, classes: Sequence[str]
) -> ServiceCorrection:
    """From replays at several service levels: what to plan with for each of them.

    Service that was achieved rises with what was planned with; the answer is that curve read backwards, on the
    scale of normal scores. A class with few cycles is drawn towards all classes together: each counts with weight
    cycles / (cycles + `PRIOR_CYCLES`).

    Args:
        planned: (m,) probabilities that were planned with.
        served, cycles: (m, n) cycles without a stockout, and all cycles, of n series.
        classes: n names.
    """
    order = np.argsort(planned)
    levels = np.asarray(planned, float)[order]
    good, all_ = np.asarray(served, float)[order], np.asarray(cycles, float)[order]
    names = np.asarray(classes, object)
    common = _achieved(good.sum(axis=1), all_.sum(axis=1), levels, 0.0)
    shifts = {"": _shift(levels, common)}
    for name in sorted(set(classes)):
        rows = names == name
        own = _achieved(good[:, rows].sum(axis=1), all_[:, rows].sum(axis=1), common, PRIOR_CYCLES)
        shifts[name] = _shift(levels, own)
    return ServiceCorrection(levels, shifts)


def _achieved(served: FloatArray, cycles: FloatArray, prior: FloatArray, weight: float) -> FloatArray:
    """Shares served, drawn towards the prior; half a cycle is taken off, so that none is 1 for want of cycles."""
    share = (served + weight * prior) / np.maximum(cycles + weight, 1e-9)
    most = 1.0 - 0.5 / np.maximum(cycles + weight, 1.0)
    known = np.where(cycles + weight > 0, np.clip(share, 1e-6, most), prior)
    return cast(FloatArray, np.maximum.accumulate(known))


def _shift(levels: FloatArray, achieved: FloatArray) -> FloatArray:
    """What to add to the score of each level so that the achieved curve, read backwards, gives it."""
    scores, got = ndtri(levels), ndtri(np.clip(achieved, 1e-6, 1 - 1e-6))
    got = got + 1e-9 * np.arange(len(got))
    inside = np.interp(scores, got, scores)
    below, above = scores < got[0], scores > got[-1]
    needed = np.where(below, scores + (scores[0] - got[0]), np.where(above, scores + (scores[-1] - got[-1]), inside))
    return cast(FloatArray, needed - scores)
