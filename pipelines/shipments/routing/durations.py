"""How long something takes, in hours: mean and variance, taken as lognormal (positive, with a long right tail).

Of independent durations the means and the variances add up; the sum is taken as lognormal again (Fenton and
Wilkinson's approximation: L. Fenton, IRE Transactions on Communications Systems 8, 1960).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from scipy.special import ndtr, ndtri

POINTS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Shares at whose quantiles an expectation over a duration is taken: the middles of five equal parts."""

EARTH_KM = 6371.0


@dataclass(frozen=True)
class Duration:
    """Hours, with their variance."""

    hours: float
    variance: float

    def __add__(self, other: Duration) -> Duration:
        """One after the other."""
        return Duration(self.hours + other.hours, self.variance + other.variance)

    @property
    def std(self) -> float:
        """Standard deviation in hours."""
        return math.sqrt(self.variance)

    def _log(self) -> tuple[float, float]:
        spread = math.log1p(self.variance / self.hours**2)
        return math.log(self.hours) - spread / 2.0, math.sqrt(spread)

    def quantile(self, share: float) -> float:
        """Hours within which it ends with this chance."""
        if self.hours <= 0.0 or self.variance <= 0.0:
            return max(self.hours, 0.0)
        middle, deviation = self._log()
        return float(math.exp(middle + deviation * ndtri(share)))

    def chance_within(self, hours: float) -> float:
        """Chance that it ends within so many hours."""
        if hours <= 0.0:
            return 0.0
        if self.hours <= 0.0 or self.variance <= 0.0:
            return 1.0 if hours >= self.hours else 0.0
        middle, deviation = self._log()
        return float(ndtr((math.log(hours) - middle) / deviation))


@dataclass(frozen=True)
class Arrival:
    """Something that begins at a moment and arrives after a duration."""

    begins: datetime
    takes: Duration

    @property
    def expected(self) -> datetime:
        """The mean arrival."""
        return self.begins + timedelta(hours=self.takes.hours)

    def quantile(self, share: float) -> datetime:
        """When it is there with this chance."""
        return self.begins + timedelta(hours=self.takes.quantile(share))

    def points(self) -> list[datetime]:
        """Five equally likely moments, over which expectations are taken."""
        return [self.quantile(share) for share in POINTS]

    def chance_by(self, moment: datetime) -> float:
        """Chance to be there by a moment."""
        return self.takes.chance_within((moment - self.begins) / timedelta(hours=1))


Place = tuple[float, float]


def distance_km(here: Place, there: Place) -> float:
    """Great-circle distance between two (latitude, longitude) in degrees, by the haversine formula."""
    (lat_1, lon_1), (lat_2, lon_2) = np.radians(here), np.radians(there)
    half = np.sin((lat_2 - lat_1) / 2) ** 2 + np.cos(lat_1) * np.cos(lat_2) * np.sin((lon_2 - lon_1) / 2) ** 2
    return float(2 * EARTH_KM * np.arcsin(np.sqrt(min(float(half), 1.0))))
