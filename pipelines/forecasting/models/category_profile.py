"""The fallback: a recent mean with a weekly shape, both leaning on the category where history is thin."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipelines.forecasting.category import CategoryProfile
from pipelines.forecasting.distributions import demand_quantiles
from pipelines.forecasting.engines import EngineOptions, ForecastBatch, register
from pipelines.forecasting.series import Floats, Integers, SeriesBatch

RECENT_DAYS = 56
TRUSTED_DAYS = 14
PSEUDO_DAYS = 2.0
"""Days of the category's shape that are added to a series' own, on each weekday."""


@register("category_profile")
@dataclass(frozen=True)
class CategoryProfileModel:
    """A moving average times a weekday index, with negative-binomial quantiles. Never fails.

    Level: the mean of the known days of the last eight weeks; with n < 14 such days, n/14 of it and the
    rest of the category's level. Weekday index: the series' own, plus two days of the category's per
    weekday. Variance: the mean times a dispersion, the series' own weighted by its days against two weeks of
    the category's. A series without any history is its category's median series. The category is taken over the
    locations of its location's kind (`gold/network_clusters`), where that is known.
    """

    options: EngineOptions
    name: ClassVar[str] = "category_profile"

    def fit_forecast(self, batch: SeriesBatch, horizon: int, probabilities: Sequence[float]) -> ForecastBatch:
        """See `Engine.fit_forecast`."""
        recent = batch.demand[:, -RECENT_DAYS:]
        weekday = _weekdays(batch.dates[-RECENT_DAYS:])
        series = zip(recent, batch.location_id, batch.category, strict=True)
        fitted = [_fit(demand, weekday, self.options.profiles.at(*names)) for demand, *names in series]
        first = np.datetime64(batch.end, "D") + 1
        level, index, dispersion = (np.array([item[part] for item in fitted]) for part in range(3))
        yhat, quantiles = _forecast(
            level.reshape(-1), index.reshape(-1, 7), dispersion.reshape(-1), first, horizon, probabilities
        )
        parameters = tuple(
            json.dumps(
                {
                    "model": self.name,
                    "end": batch.end.isoformat(),
                    "level": item[0],
                    "weekday": item[1].tolist(),
                    "dispersion": item[2],
                }
            )
            for item in fitted
        )
        return ForecastBatch(yhat, quantiles, parameters, (None,) * len(batch))

    def replay(self, parameters: str, horizon: int, probabilities: Sequence[float]) -> tuple[Floats, Floats]:
        """See `Engine.replay`."""
        fitted = json.loads(parameters)
        yhat, quantiles = _forecast(
            np.array([fitted["level"]]),
            np.array([fitted["weekday"]]),
            np.array([fitted["dispersion"]]),
            np.datetime64(fitted["end"], "D") + 1,
            horizon,
            probabilities,
        )
        return yhat[0], quantiles[0]


def _fit(demand: Floats, weekday: Integers, category: CategoryProfile) -> tuple[float, Floats, float]:
    known = np.isfinite(demand)
    y, days = demand[known], weekday[known]
    trust = min(len(y) / TRUSTED_DAYS, 1.0)
    level = trust * (float(y.mean()) if len(y) else 0.0) + (1 - trust) * category.level
    if level <= 0:
        return 0.0, np.ones(7), 0.0
    units = np.bincount(days, weights=y, minlength=7) + PSEUDO_DAYS * level * category.weekday
    index = units / (np.bincount(days, minlength=7) + PSEUDO_DAYS)
    index /= index.mean()
    own = float(np.mean((y - level * index[days]) ** 2)) / level if len(y) else 0.0
    dispersion = (len(y) * own + TRUSTED_DAYS * category.dispersion) / (len(y) + TRUSTED_DAYS)
    return level, index, dispersion


def _forecast(
    level: Floats,
    index: Floats,
    dispersion: Floats,
    first: np.datetime64,
    horizon: int,
    probabilities: Sequence[float],
) -> tuple[Floats, Floats]:
    yhat = level[:, None] * index[:, _weekdays(first + np.arange(horizon))]
    return yhat, demand_quantiles(yhat, yhat * dispersion[:, None], probabilities)


def _weekdays(dates: object) -> Integers:
    """0 for Monday; 1970-01-01 was a Thursday."""
    return (np.asarray(dates, "datetime64[D]").astype(np.int64) + 3) % 7
