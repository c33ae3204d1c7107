"""What a category's series have in common: the usual level, weekly shape and dispersion of a day's demand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pipelines.forecasting.series import Floats


@dataclass(frozen=True)
class CategoryProfile:
    """A category's day.

    Attributes:
        level: units a day of its median series.
        weekday: (7,) index of Monday to Sunday, mean 1.
        dispersion: variance of a day's demand divided by its mean.
    """

    level: float = 0.0
    weekday: Floats = field(default_factory=lambda: np.ones(7))
    dispersion: float = 1.0


@dataclass(frozen=True)
class CategoryProfiles:
    """Profiles by category; a category without one has that of the whole chain."""

    of: Mapping[str, CategoryProfile] = field(default_factory=dict)
    overall: CategoryProfile = field(default_factory=CategoryProfile)

    def __getitem__(self, category: str) -> CategoryProfile:
        return self.of.get(category, self.overall)


def category_profiles(statistics: pd.DataFrame) -> CategoryProfiles:
    """Profiles from `frames.category_statistics`; the chain's is its categories' mean, weighted by days."""
    if statistics.empty:
        return CategoryProfiles()
    rows = statistics.set_index("category")
    units = rows[[f"units_{day}" for day in range(7)]].to_numpy(float)
    days = rows[[f"days_{day}" for day in range(7)]].to_numpy(float)
    level, dispersion = rows["level"].to_numpy(float), rows["dispersion"].fillna(1.0).to_numpy(float)
    weight = days.sum(axis=1)
    profiles = {
        str(category): _profile(level[row], dispersion[row], units[row], days[row])
        for row, category in enumerate(rows.index)
    }
    overall = _profile(
        float(np.average(level, weights=weight)),
        float(np.average(dispersion, weights=weight)),
        units.sum(axis=0),
        days.sum(axis=0),
    )
    return CategoryProfiles(profiles, overall)


def _profile(level: float, dispersion: float, units: Floats, days: Floats) -> CategoryProfile:
    mean = units.sum() / max(days.sum(), 1.0)
    if mean <= 0:
        return CategoryProfile()
    # One average day is added to each weekday, so that one without data is average.
    rate = (units + mean) / (days + 1.0)
    return CategoryProfile(float(level), rate / rate.mean(), float(max(dispersion, 0.0)))
