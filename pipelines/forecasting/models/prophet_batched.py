"""Prophet's own posterior, maximised for a whole batch of series at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import orjson

from pipelines.forecasting.engines import EngineOptions, ForecastBatch, monotone, register
from pipelines.forecasting.models.prophet_stock import ProphetModel
from pipelines.forecasting.prophet_map import fitting
from pipelines.forecasting.prophet_map.features import (
    ADDITIVE,
    MULTIPLICATIVE,
    Specification,
    calendar,
    calendar_days,
    future_features,
)
from pipelines.forecasting.prophet_map.parameters import from_json, to_json
from pipelines.forecasting.series import Floats, SeriesBatch
from pipelines.operations.settings import ForecastSettings

IMPLAUSIBLE_FACTOR = 5.0
"""Rare demand lets a trend run close to zero and the factors take its place, up to hundreds: the posterior's optimum,
which Stan's optimiser stops short of, but no forecast. Series that sell every day stay far below."""


@register("prophet_batched")
@dataclass(frozen=True)
class ProphetBatched:
    """The model of `prophet`, hundreds of times faster: see `pipelines.forecasting.prophet_map`.

    Quantiles are those that Prophet's samples tend to. Parameters are JSON; `prophet_map.parameters.to_prophet`
    makes an ordinary Prophet model of them. Logistic growth and
    sampling of the posterior are left to Prophet itself. A multiplicative model whose season and holidays multiply the
    trend by more than `IMPLAUSIBLE_FACTOR` is replaced by an additive one.
    """

    options: EngineOptions
    name: ClassVar[str] = "prophet_batched"

    def fit_forecast(self, batch: SeriesBatch, horizon: int, probabilities: Sequence[float]) -> ForecastBatch:
        """See `Engine.fit_forecast`; fails for series with fewer than two known days."""
        settings = self.options.settings
        if settings.growth == "logistic" or settings.mcmc_samples:
            return ProphetModel(self.options).fit_forecast(batch, horizon, probabilities)
        fitted = fitting.fit(batch.demand, batch.end, specification(settings), horizon)
        fitted = [part for group in fitted for part in _plausible(group, batch, horizon)]
        return forecast_batch(self.name, fitted, batch, horizon, probabilities)

    def replay(self, parameters: str, horizon: int, probabilities: Sequence[float]) -> tuple[Floats, Floats]:
        """See `Engine.replay`."""
        content = orjson.loads(parameters)
        if "specification" not in content:
            return ProphetModel(self.options).replay(parameters, horizon, probabilities)
        fitted = from_json(content)
        end = np.datetime64(content["end"], "D")
        features = future_features(fitted.specification, end.astype(object), content["calendar_days"], horizon)
        yhat, quantiles = fitting.forecast(fitted, features, _ahead(end, fitted.last, horizon), probabilities)
        return np.maximum(yhat[0], 0.0), monotone(quantiles[0])


def _plausible(group: fitting.Fitted, batch: SeriesBatch, horizon: int) -> list[fitting.Fitted]:
    """The group, its implausible series fitted additively."""
    if group.specification.seasonality_mode != MULTIPLICATIVE:
        return [group]
    days = calendar(group.specification, batch.end, batch.days, horizon)
    wild = fitting.largest_factor(group, days.features[days.days :]) > IMPLAUSIBLE_FACTOR
    if not wild.any():
        return [group]
    rows = group.rows[wild]
    additive = replace(group.specification, seasonality_mode=ADDITIVE)
    again = fitting.fit(batch.demand[rows], batch.end, additive, horizon)
    return [group.where(~wild), *(replace(part, rows=rows[part.rows]) for part in again)]


def specification(settings: ForecastSettings) -> Specification:
    """The Prophet model that the settings ask for."""
    return Specification(
        growth=settings.growth,
        seasonality_mode=settings.seasonality_mode,
        holidays_country=settings.holidays_country,
    )


def forecast_batch(
    name: str, fitted: Sequence[fitting.Fitted], batch: SeriesBatch, horizon: int, probabilities: Sequence[float]
) -> ForecastBatch:
    """Forecasts of the fitted groups of a batch; the series in none of them failed."""
    result = ForecastBatch.failed(["fewer than two known days"] * len(batch), horizon, probabilities)
    yhat, quantiles = result.yhat, result.quantiles
    parameters, failures = list(result.parameters), list(result.failures)
    end = np.datetime64(batch.end, "D")
    for group in fitted:
        days = calendar(group.specification, batch.end, batch.days, horizon)
        values = fitting.forecast(group, days.features[days.days :], _ahead(end, group.last, horizon), probabilities)
        yhat[group.rows], quantiles[group.rows] = np.maximum(values[0], 0.0), monotone(values[1])
        texts = to_json(group, name, batch.end, calendar_days(batch.days))
        for row, text in zip(group.rows, texts, strict=True):
            parameters[row], failures[row] = text, None
    return ForecastBatch(yhat, quantiles, tuple(parameters), tuple(failures))


def _ahead(end: np.datetime64, last: np.datetime64, horizon: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return int((end - last).astype(np.int64)) + np.arange(1, horizon + 1)
