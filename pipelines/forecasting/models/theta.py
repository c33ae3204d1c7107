"""The standard Theta method on a weekly adjusted series, by statsforecast: a reference that costs its time."""

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
FEWEST_DAYS = 28


@register("theta")
@dataclass(frozen=True)
class Theta:
    """Assimakopoulos and Nikolopoulos (2000), "The theta model: a decomposition approach to forecasting", as simple
    exponential smoothing with half the slope as drift (Hyndman and Billah 2003), on the last year.

    The variance h days ahead is that of simple exponential smoothing, σ²(1 + (h-1)α²), times the week's factor.
    """

    options: EngineOptions
    name: ClassVar[str] = "theta"

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
        library = importlib.import_module("statsforecast.theta")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = library.auto_theta(demand / unit, WEEK, model="STM")
            ahead: Floats = np.asarray(library.forecast_theta(fit, WEEK + 1)["mean"], np.float64) * unit
        factor, shift = np.ones(WEEK), np.zeros(WEEK)
        if fit.get("decompose", False):
            season = np.resize(np.asarray(fit["seas_forecast"]["mean"], float), WEEK)
            if fit["decomposition_type"] == "multiplicative":
                factor = season
            else:
                shift = season * unit
        # Without its week, the forecast is a straight line.
        line = (ahead[[0, WEEK]] - shift[0]) / factor[0]
        return {
            "model": self.name,
            "end": end.isoformat(),
            "level": float(line[0]),
            "slope": float((line[1] - line[0]) / WEEK),
            "factor": factor.tolist(),
            "shift": shift.tolist(),
            "alpha": float(fit["par"]["alpha"]),
            "variance": float(np.var(fit["residuals"][3:], ddof=1)) * unit**2,
        }


def _forecast(fitted: dict[str, Any], horizon: int, probabilities: Sequence[float]) -> tuple[Floats, Floats]:
    step = np.arange(horizon)
    factor, shift = (np.asarray(fitted[name], float)[step % WEEK] for name in ("factor", "shift"))
    yhat = np.maximum((fitted["level"] + fitted["slope"] * step) * factor + shift, 0.0)
    variance = fitted["variance"] * (1 + step * fitted["alpha"] ** 2) * factor**2
    return yhat, demand_quantiles(yhat, variance, probabilities)
