"""The median of several models' forecasts, quantile by quantile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import orjson

from pipelines.errors import UsageError
from pipelines.forecasting.engines import Engine, EngineOptions, ForecastBatch, create, fit_safely, monotone, register
from pipelines.forecasting.series import Floats, SeriesBatch


@register("median_ensemble")
@dataclass(frozen=True)
class MedianEnsemble:
    """Members of `forecast.ensemble`, equally weighted: one that errs wildly moves nothing (Petropoulos and Svetunkov
    2020, "A simple combination of univariate models"). A series that a member fails on is the median of the others.
    """

    options: EngineOptions
    name: ClassVar[str] = "median_ensemble"

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the combined engines.

        Raises:
            UsageError: there is none, or the ensemble names itself.
        """
        names = tuple(self.options.settings.ensemble)
        if not names or self.name in names:
            raise UsageError(
                f"forecast.ensemble is {list(names)}; expected one or more other engines, not {self.name} itself"
            )
        return names

    def fit_forecast(self, batch: SeriesBatch, horizon: int, probabilities: Sequence[float]) -> ForecastBatch:
        """See `Engine.fit_forecast`; fails for series that all members fail on."""
        engines: dict[str, Engine] = {name: create(name, self.options) for name in self.members}
        parts = {name: fit_safely(engine, batch, horizon, probabilities) for name, engine in engines.items()}
        return self.combine(parts)

    def combine(self, parts: Mapping[str, ForecastBatch]) -> ForecastBatch:
        """The ensemble's forecast from those of its members, of the same series and days."""
        forecasts = [parts[name] for name in self.members]
        sound = np.array([[reason is None for reason in forecast.failures] for forecast in forecasts], bool)
        yhat = _median(np.array([forecast.yhat for forecast in forecasts]), sound)
        quantiles = _median(np.array([forecast.quantiles for forecast in forecasts]), sound)
        parameters, failures = [], []
        for row in range(len(yhat)):
            used = [
                {"model": name, "parameters": parts[name].parameters[row]}
                for place, name in enumerate(self.members)
                if sound[place, row]
            ]
            parameters.append(orjson.dumps({"model": self.name, "members": used}).decode() if used else "{}")
            reasons = "; ".join(f"{name}: {parts[name].failures[row]}" for name in self.members)
            failures.append(None if used else reasons[:300])
        return ForecastBatch(yhat, quantiles, tuple(parameters), tuple(failures))

    def replay(self, parameters: str, horizon: int, probabilities: Sequence[float]) -> tuple[Floats, Floats]:
        """See `Engine.replay`."""
        members = orjson.loads(parameters)["members"]
        parts = [
            create(member["model"], self.options).replay(member["parameters"], horizon, probabilities)
            for member in members
        ]
        yhat = np.median([np.maximum(part[0], 0.0) for part in parts], axis=0)
        return yhat, np.asarray(np.median([monotone(part[1]) for part in parts], axis=0), float)


def _median(values: Floats, sound: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Floats:
    """(n, ...) median over the first axis of the members that are sound in each row; NaN for none."""
    places = sound.reshape(*sound.shape, *(1,) * (values.ndim - 2))
    out = np.full(values.shape[1:], np.nan)
    rows = sound.any(axis=0)
    out[rows] = np.nanmedian(np.where(places, values, np.nan)[:, rows], axis=0)
    return out
