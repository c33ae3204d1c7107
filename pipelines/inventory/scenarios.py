"""Common random numbers: the scenarios in which every series is planned, the same on every machine and night.

A forecast's daily errors within a series are positively correlated because its *level* is wrong: the correlation
hardly falls with the distance between the days. Measured on 500 real daily series over four weeks, with a
seasonal level forecast made only from the past: 0.13 between neighbouring days, 0.13 at a week, 0.12 at a
fortnight, 0.10 at three weeks; so the sum over eight days spreads 1.3 times as wide as for independent days.
An autoregression with the same first lag would have forgotten the error after three days. Hence one shared
level score U per path: z_day = √ρ U + √(1-ρ) ε_day.

The points are a scrambled Sobol sequence with a fixed seed. What is asked of them is sums of the first days, so
the sums are made exact: each sum of the first d scores is moved to the normal quantiles of its ranks, and the
scores are the differences. Without that step a 95 % quantile at 2048 paths is wrong by 0.03 standard deviations,
and, the paths being common to all series, wrong in the same direction for every one of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from scipy.special import gammaincinv, ndtri

from pipelines.inventory.forecast_distribution import FloatArray, basis

LEVEL_CORRELATION = 0.10
"""Correlation between the forecast errors of any two days of a series: the share of a wrong level."""

MAX_DAYS = 368
"""The longest protection interval that is planned for, in days."""

_SEED = 20_130_101
_SMALLEST = 2.0**-32


@dataclass(frozen=True)
class Scenarios:
    """Paths of normal scores per day, and the lead time's probability on each path.

    Attributes:
        lead_time: probabilities in (0, 1), shape (paths,).
        scores: standard normal scores, shape (MAX_DAYS, paths).
    """

    lead_time: FloatArray
    scores: FloatArray
    _weights: dict[int, FloatArray] = field(default_factory=dict, repr=False)
    _factors: dict[float, FloatArray] = field(default_factory=dict, repr=False)

    @property
    def paths(self) -> int:
        """How many."""
        return int(self.lead_time.size)

    def day_weights(self, day: int) -> FloatArray:
        """`basis` of the day's scores, shape (9, paths); kept for the next series."""
        if day not in self._weights:
            self._weights[day] = basis(self.scores[day])
        return self._weights[day]

    def lead_time_factors(self, variation: float) -> FloatArray:
        """A gamma-distributed lead time of mean 1 on each path, shape (paths,).

        Args:
            variation: its coefficient of variation, rounded to thousandths; 0 is a constant lead time.
        """
        variation = round(variation, 3)
        if variation not in self._factors:
            shape = 1.0 / max(variation, 1e-9) ** 2
            self._factors[variation] = (
                np.ones(self.paths) if variation == 0 else gammaincinv(shape, self.lead_time) / shape
            )
        return self._factors[variation]


@lru_cache(maxsize=2)
def scenarios(paths: int, correlation: float = LEVEL_CORRELATION) -> Scenarios:
    """At least `paths` scenarios (rounded up to a power of two: Sobol points are balanced only then)."""
    from scipy.stats import qmc  # takes a second to import, and the live stage never samples

    sampler = qmc.Sobol(2 + MAX_DAYS, scramble=True, rng=np.random.default_rng(_SEED))
    points = np.clip(sampler.random_base2(max(paths - 1, 1).bit_length()), _SMALLEST, 1 - _SMALLEST)
    shared = np.sqrt(correlation) * ndtri(points[:, 0])
    scores = shared + np.sqrt(1 - correlation) * ndtri(points[:, 2:]).T
    return Scenarios(lead_time=points[:, 1].copy(), scores=_with_exact_sums(scores, correlation))


def _with_exact_sums(scores: FloatArray, correlation: float) -> FloatArray:
    """Scores, shape (days, paths), whose sums over the first days have exactly normal quantiles."""
    days, paths = scores.shape
    count = np.arange(1, days + 1)
    deviation = np.sqrt(count * (1 - correlation) + correlation * count**2)
    quantiles = ndtri((np.arange(paths) + 0.5) / paths)
    sums = np.cumsum(scores, axis=0)
    ranks = np.argsort(np.argsort(sums, axis=1), axis=1)
    exact = quantiles[ranks] * deviation[:, None]
    return np.diff(exact, axis=0, prepend=0.0)
