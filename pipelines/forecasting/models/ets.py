"""Exponential smoothing with an additive week, ETS(A,N,A), by statsforecast: a reference that costs its time."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, ClassVar

import numpy as np
import orjson

from pipelines.forecasting.distributions import demand_quantiles
from pipelines.forecasting.engines import EngineOptions, ForecastBatch, register
from pipelines.forecasting.filled import WEEK, filled
from pipelines.forecasting.series import Floats, SeriesBatch

HISTORY_DAYS = 364
"""A level and a week need no more, and the time of a fit grows with it: 6 ms at a year, 36 ms at four."""
FEWEST_DAYS = 28


@register("ets")
@dataclass(frozen=True)
class Ets:
    """Hyndman, Koehler, Ord and Snyder (2008), "Forecasting with Exponential Smoothing", on the last year.

    The form is fixed: choosing it for each series by information criteria (AutoETS) takes twenty times as long. The
    variance h days ahead is theirs, σ²(1 + (h-1)α² + γk(2α + γ)), k the whole weeks before day h.
    """

    options: EngineOptions
    name: ClassVar[str] = "ets"

    def fit_forecast(self, batch: SeriesBatch, horizon: int, probabilities: Sequence[float]) -> ForecastBatch:
        """See `Engine.fit_forecast`; fails for series with fewer than four known weeks in a year."""
        forecast = ForecastBatch.failed(["fewer than 28 known days in a year"] * len(batch), horizon, probabilities)
        parameters, failures = list(forecast.parameters), list(forecast.failures)
        recent = batch.demand[:, -HISTORY_DAYS:]
        for row in np.flatnonzero(np.isfinite(recent).sum(axis=1) >= FEWEST_DAYS):
            try:
                fitted = self._fit(filled(recent[row]), batch.end)
                forecast.yhat[row], forecast.quantiles[row] = _forecast(fitted, horizon, probabilities)
                parameters[row], failures[row] = orjson.dumps(fitted).decode(), None
            except (ValueError, ArithmeticError, RuntimeError) as error:
                failures[row] = f"{type(error).__name__}: {error}"[:300]
        return ForecastBatch(forecast.yhat, forecast.quantiles, tuple(parameters), tuple(failures))

    def replay(self, parameters: str, horizon: int, probabilities: Sequence[float]) -> tuple[Floats, Floats]:
        """See `Engine.replay`."""
        return _forecast(orjson.loads(parameters), horizon, probabilities)

    def _fit(self, demand: Floats, end: date) -> dict[str, Any]:
        # In units of the mean: its optimiser's steps are absolute.
        unit = float(demand.mean()) or 1.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = importlib.import_module("statsforecast.ets").ets_f(demand / unit, WEEK, model="ANA", damped=False)
        state = np.asarray(fit["states"][-1], float) * unit
        alpha, gamma = float(fit["par"][0]), float(fit["par"][2])
        return {
            "model": self.name,
            "end": end.isoformat(),
            "level": float(state[0]),
            # The state's newest season comes first, so that of tomorrow last.
            "week": state[:0:-1].tolist(),
            "alpha": alpha,
            "gamma": gamma,
            "variance": float(fit["sigma2"]) * unit**2,
        }


def _forecast(fitted: dict[str, Any], horizon: int, probabilities: Sequence[float]) -> tuple[Floats, Floats]:
    step = np.arange(horizon)
    alpha, gamma = fitted["alpha"], fitted["gamma"]
    yhat = np.maximum(fitted["level"] + np.asarray(fitted["week"], float)[step % WEEK], 0.0)
    growth = 1 + step * alpha**2 + gamma * (step // WEEK) * (2 * alpha + gamma)
    return yhat, demand_quantiles(yhat, fitted["variance"] * growth, probabilities)
