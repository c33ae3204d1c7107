"""Seasonal naive: each day is forecast by the newest known day of the same weekday."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipelines.forecasting.engines import EngineOptions, ForecastBatch, monotone, register
from pipelines.forecasting.metrics import SEASON
from pipelines.forecasting.series import Floats, SeriesBatch, finite_rows

RESIDUAL_DAYS = 182


@register("seasonal_naive")
@dataclass(frozen=True)
class SeasonalNaive:
    """ŷ(T+h) = y of the newest known day with the weekday of T+h (Hyndman and Athanasopoulos, ch. 5.2).

    Quantiles: ŷ plus the empirical quantiles of y_t - y_{t-7k} over the last half year, k the weeks ahead.
    """

    options: EngineOptions
    name: ClassVar[str] = "seasonal_naive"

    def fit_forecast(self, batch: SeriesBatch, horizon: int, probabilities: Sequence[float]) -> ForecastBatch:
        """See `Engine.fit_forecast`; fails for series without a known day of every weekday."""
        weeks = -(-horizon // SEASON)
        last = _last_week(batch.demand)
        offsets = _residual_quantiles(batch.demand, weeks, probabilities)
        yhat, quantiles = _forecast(last, offsets, horizon)
        failures = [None if sound else "less than two known weeks" for sound in finite_rows(last, offsets)]
        parameters = tuple(
            json.dumps(
                {
                    "model": self.name,
                    "end": batch.end.isoformat(),
                    "last_week": last[row].tolist(),
                    "probabilities": list(probabilities),
                    "offsets": offsets[row].tolist(),
                }
            )
            if failures[row] is None
            else "{}"
            for row in range(len(batch))
        )
        return ForecastBatch(yhat, quantiles, parameters, tuple(failures))

    def replay(self, parameters: str, horizon: int, probabilities: Sequence[float]) -> tuple[Floats, Floats]:
        """See `Engine.replay`; weeks beyond those fitted repeat the last one's spread."""
        fitted = json.loads(parameters)
        offsets = np.array([np.interp(probabilities, fitted["probabilities"], week) for week in fitted["offsets"]])
        yhat, quantiles = _forecast(np.array([fitted["last_week"]], float), offsets[None], horizon)
        return yhat[0], quantiles[0]


def _last_week(demand: Floats) -> Floats:
    """(n, 7) the newest known value of each of the seven days that follow the last column, by weekday."""
    count, days = demand.shape
    weeks = -(-days // SEASON)
    padded = np.full((count, weeks * SEASON), np.nan)
    padded[:, padded.shape[1] - days :] = demand
    newest_first = padded.reshape(count, weeks, SEASON)[:, ::-1]
    if weeks == 0:
        return np.full((count, SEASON), np.nan)
    chosen = np.isfinite(newest_first).argmax(axis=1)
    return np.take_along_axis(newest_first, chosen[:, None], axis=1)[:, 0]


def _residual_quantiles(demand: Floats, weeks: int, probabilities: Sequence[float]) -> Floats:
    """(n, weeks, q) quantiles of the change over 1, 2, ... weeks; a lag without pairs has that before it."""
    recent = demand[:, -(RESIDUAL_DAYS + weeks * SEASON) :]
    quantiles = np.full((len(demand), weeks, len(probabilities)), np.nan)
    for week in range(weeks):
        lag = (week + 1) * SEASON
        changes = recent[:, lag:] - recent[:, :-lag] if recent.shape[1] > lag else recent[:, :0]
        rows = np.flatnonzero(np.isfinite(changes).sum(axis=1) >= SEASON)
        if len(rows):
            quantiles[rows, week] = _quantiles(changes[rows], probabilities)
        if week:
            missing = ~np.isfinite(quantiles[:, week, 0])
            quantiles[missing, week] = quantiles[missing, week - 1]
    return quantiles


def _quantiles(values: Floats, probabilities: Sequence[float]) -> Floats:
    """(n, q) quantiles of the known values of each row (one at least), interpolated linearly: all rows are sorted at
    once, where `numpy.nanquantile` takes one by one."""
    ordered = np.sort(values, axis=1)  # NaN last
    place = (np.isfinite(values).sum(axis=1)[:, None] - 1) * np.asarray(probabilities, float)
    below = np.floor(place).astype(np.int64)
    above = np.ceil(place).astype(np.int64)
    lower = np.take_along_axis(ordered, below, axis=1)
    return np.asarray(lower + (place - below) * (np.take_along_axis(ordered, above, axis=1) - lower), float)


def _forecast(last: Floats, offsets: Floats, horizon: int) -> tuple[Floats, Floats]:
    steps = np.arange(horizon)
    yhat = np.maximum(last[:, steps % SEASON], 0.0)
    week = np.minimum(steps // SEASON, offsets.shape[1] - 1)
    return yhat, monotone(yhat[:, :, None] + offsets[:, week])
