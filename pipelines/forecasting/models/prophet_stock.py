"""Stock Prophet, fitted by Stan's optimiser one series at a time: the reference that others are held to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from pipelines.forecasting.engines import EngineOptions, ForecastBatch, monotone, register
from pipelines.forecasting.prophet_map.features import WEEKLY_FROM_DAYS, YEARLY_FROM_DAYS, prophet
from pipelines.forecasting.series import Floats, SeriesBatch


@register("prophet")
@dataclass(frozen=True)
class ProphetModel:
    """Taylor and Letham (2018), "Forecasting at scale": linear trend with changepoints, weekly seasonality
    from two weeks on, yearly from two years on, holidays where a country is set.

    Quantiles are those of `uncertainty_samples` draws from the posterior predictive. Parameters are
    Prophet's own JSON (`prophet.serialize.model_from_json` opens it), its history cut down to two rows.
    """

    options: EngineOptions
    name: ClassVar[str] = "prophet"

    def fit_forecast(self, batch: SeriesBatch, horizon: int, probabilities: Sequence[float]) -> ForecastBatch:
        """See `Engine.fit_forecast`; fails for series with fewer than two known days."""
        forecast = ForecastBatch.failed(["fewer than two known days"] * len(batch), horizon, probabilities)
        yhat, quantiles = forecast.yhat, forecast.quantiles
        parameters, failures = list(forecast.parameters), list(forecast.failures)
        dates, seeds = batch.dates, batch.seeds
        for row in np.flatnonzero(batch.observed >= 2):
            history = slice(int(batch.start[row]), None)
            try:
                model = self._fit(dates[history], batch.demand[row, history], int(seeds[row]))
                yhat[row], quantiles[row] = _forecast(model, horizon, probabilities, int(seeds[row]))
                parameters[row], failures[row] = _to_json(model, int(seeds[row])), None
            except (RuntimeError, ValueError, ArithmeticError) as error:
                failures[row] = f"{type(error).__name__}: {error}"[:300]
        return ForecastBatch(yhat, quantiles, tuple(parameters), tuple(failures))

    def replay(self, parameters: str, horizon: int, probabilities: Sequence[float]) -> tuple[Floats, Floats]:
        """See `Engine.replay`."""
        model_from_dict = prophet().serialize.model_from_dict
        content = json.loads(parameters)
        return _forecast(model_from_dict(content), horizon, probabilities, content["stockcast"]["seed"])

    def _fit(self, dates: Any, demand: Floats, seed: int) -> Any:
        settings = self.options.settings
        model = prophet().Prophet(
            growth=settings.growth,
            mcmc_samples=settings.mcmc_samples,
            seasonality_mode=settings.seasonality_mode,
            weekly_seasonality=len(dates) > WEEKLY_FROM_DAYS,
            yearly_seasonality=len(dates) > YEARLY_FROM_DAYS,
            daily_seasonality=False,
            uncertainty_samples=settings.uncertainty_samples,
        )
        if settings.holidays_country is not None:
            model.add_country_holidays(settings.holidays_country)
        history = pd.DataFrame({"ds": dates.astype("datetime64[ns]"), "y": demand})
        if settings.growth == "logistic":
            history["cap"] = settings.capacity_factor * max(float(np.nanmax(demand)), 1e-9)
        # A fit raises where it did not converge; then Prophet itself tries Newton's method.
        sampling = {"chains": 1, "show_progress": False} if settings.mcmc_samples else {}
        return model.fit(history, seed=seed % 2**31, **sampling)


def _forecast(model: Any, horizon: int, probabilities: Sequence[float], seed: int) -> tuple[Floats, Floats]:
    last = model.history_dates.iloc[-1]
    future = pd.DataFrame({"ds": pd.date_range(last + pd.Timedelta(days=1), periods=horizon, freq="D")})
    if model.growth == "logistic":
        future["cap"] = float(model.history["cap"].iloc[0])
    samples, model.uncertainty_samples = model.uncertainty_samples, 0
    yhat = model.predict(future)["yhat"].to_numpy()
    model.uncertainty_samples = samples
    with _seeded(seed):
        draws = model.predictive_samples(future)["yhat"]
    return np.maximum(yhat, 0.0), monotone(np.quantile(draws, probabilities, axis=1).T)


def _to_json(model: Any, seed: int) -> str:
    """Prophet's JSON, without the parts that predicting does not need: the history and the fitted trend."""
    model.history = model.history.iloc[[0, -1]]
    model.history_dates = model.history_dates.iloc[-1:]
    model.params.pop("trend", None)
    model.fit_kwargs = {}
    content = prophet().serialize.model_to_dict(model)
    return json.dumps({**content, "stockcast": {"model": ProphetModel.name, "seed": seed}})


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Prophet draws from numpy's global generator: seed it for the block, then put it back."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
