"""What a category's series have in common: the usual level, weekly shape and dispersion of a day's demand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from pipelines.forecasting.series import Floats

LEAST_SERIES = 3
"""Series of a category in a kind of location; with fewer, a profile of their own would be mostly the series itself."""


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
    """Profiles by category; a category without one has that of the whole chain.

    Attributes:
        kinds: the cluster of each location, where they are known.
        of_kind: by cluster and category, over the locations of the cluster alone.
    """

    of: Mapping[str, CategoryProfile] = field(default_factory=dict)
    overall: CategoryProfile = field(default_factory=CategoryProfile)
    kinds: Mapping[str, int] = field(default_factory=dict)
    of_kind: Mapping[tuple[int, str], CategoryProfile] = field(default_factory=dict)

    def at(self, location_id: str, category: str) -> CategoryProfile:
        """That of the locations of its kind; else, where nothing is known of it, of all locations."""
        kind = self.kinds.get(location_id)
        own = None if kind is None else self.of_kind.get((kind, category))
        return self[category] if own is None else own

    def __getitem__(self, category: str) -> CategoryProfile:
        return self.of.get(category, self.overall)


def category_profiles(statistics: pd.DataFrame, kinds: Mapping[str, int] | None = None) -> CategoryProfiles:
    """Profiles from `frames.category_statistics`; the chain's is its categories' mean, weighted by days.

    Args:
        kinds: as given to the statistics, where they were made by kind of location as well.
    """
    if statistics.empty:
        return CategoryProfiles()
    if "kind" not in statistics:
        return _everywhere(statistics)
    own = statistics[statistics["kind"].notna() & (statistics["series"] >= LEAST_SERIES)]
    profiles = {
        (int(kind), category): profile
        for kind in own["kind"].unique().tolist()
        for category, profile in _everywhere(own[own["kind"] == kind]).of.items()
    }
    found = _everywhere(statistics[statistics["kind"].isna()])
    return replace(found, kinds=dict(kinds or {}), of_kind=profiles)


def _everywhere(statistics: pd.DataFrame) -> CategoryProfiles:
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
