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
    """Profiles from `category_statistics`; the chain's is the mean of its categories, weighted by days."""
    if statistics.empty:
        return CategoryProfiles()
    profiles = {str(category): _profile(rows) for category, rows in statistics.groupby("category")}
    return CategoryProfiles(profiles, _profile(statistics))


def _profile(rows: pd.DataFrame) -> CategoryProfile:
    sums = rows.groupby("weekday")[["units", "days"]].sum().reindex(range(7), fill_value=0)
    units, days = sums["units"].to_numpy(float), sums["days"].to_numpy(float)
    mean = units.sum() / days.sum()
    if mean <= 0:
        return CategoryProfile()
    rate = (units + mean) / (days + 1.0)
    weights = rows["days"].to_numpy(float)
    dispersion = np.average(rows["dispersion"].fillna(1.0).to_numpy(float), weights=weights)
    return CategoryProfile(
        level=float(np.average(rows["level"].to_numpy(float), weights=weights)),
        weekday=rate / rate.mean(),
        dispersion=float(max(dispersion, 0.0)),
    )
