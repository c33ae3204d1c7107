"""Moving average: the mean of the last four weeks, with the weekday index of the last eight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipelines.forecasting.engines import EngineOptions, ForecastBatch, register
from pipelines.forecasting.level_model import LevelFit, last_days, replay_level, weekday_index
from pipelines.forecasting.pooled.design import weekdays
from pipelines.forecasting.series import Floats, SeriesBatch

LEVEL_DAYS, WEEKDAY_DAYS = 28, 56
PSEUDO_DAYS = 1.0
FEWEST_DAYS = 14


@register("moving_average")
@dataclass(frozen=True)
class MovingAverage:
    """A baseline: mean demand of the known days among the last 28, spread over the week; counts around it are
    dispersed as they were over the last eight weeks."""

    options: EngineOptions
    name: ClassVar[str] = "moving_average"

    def fit_forecast(self, batch: SeriesBatch, horizon: int, probabilities: Sequence[float]) -> ForecastBatch:
        """See `Engine.fit_forecast`; fails for series with fewer than 14 known days in eight weeks, or none in
        four."""
        recent = last_days(batch.demand, WEEKDAY_DAYS)
        known = np.isfinite(recent)
        lately = known[:, -LEVEL_DAYS:].sum(axis=1)
        level = np.where(known, recent, 0.0)[:, -LEVEL_DAYS:].sum(axis=1) / np.maximum(lately, 1)
        mean = np.where(known, recent, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        index = weekday_index(batch, WEEKDAY_DAYS, np.ones((len(batch), 7)), PSEUDO_DAYS * mean)
        dates = np.datetime64(batch.end, "D") + np.arange(-WEEKDAY_DAYS + 1, 1)
        fitted = mean[:, None] * index[:, weekdays(dates)]
        squares = np.where(known, (recent - fitted) ** 2, 0.0).sum(axis=1)
        expected = np.where(known, fitted, 0.0).sum(axis=1)
        dispersion = np.divide(squares, expected, out=np.ones(len(batch)), where=expected > 0)
        few = (known.sum(axis=1) < FEWEST_DAYS) | (lately == 0)
        failures = [f"fewer than {FEWEST_DAYS} known days in eight weeks" if short else None for short in few]
        return LevelFit(level, index, dispersion).batch(self.name, batch.end, horizon, probabilities, failures)

    def replay(self, parameters: str, horizon: int, probabilities: Sequence[float]) -> tuple[Floats, Floats]:
        """See `Engine.replay`."""
        return replay_level(parameters, horizon, probabilities)
