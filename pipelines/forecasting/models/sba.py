"""Croston's method with the correction of Syntetos and Boylan: intervals between demands and their sizes, smoothed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pipelines.forecasting.croston import fit_rates
from pipelines.forecasting.engines import EngineOptions, ForecastBatch, register
from pipelines.forecasting.level_model import replay_level
from pipelines.forecasting.series import Floats, SeriesBatch


@register("sba")
@dataclass(frozen=True)
class SyntetosBoylan:
    """A rate that changes only when something is sold, spread over the week; negative binomial counts around it.

    See `pipelines.forecasting.croston`.
    """

    options: EngineOptions
    name: ClassVar[str] = "sba"

    def fit_forecast(self, batch: SeriesBatch, horizon: int, probabilities: Sequence[float]) -> ForecastBatch:
        """See `Engine.fit_forecast`; fails for series without a known day."""
        fit = fit_rates(batch, self.options.profiles_at(batch.end), probability=False)
        failures = ["no known day" if days == 0 else None for days in batch.observed]
        return fit.batch(self.name, batch.end, horizon, probabilities, failures)

    def replay(self, parameters: str, horizon: int, probabilities: Sequence[float]) -> tuple[Floats, Floats]:
        """See `Engine.replay`."""
        return replay_level(parameters, horizon, probabilities)
