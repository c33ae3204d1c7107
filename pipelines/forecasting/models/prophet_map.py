"""Stock Prophet, fitted by Stan's optimiser one series at a time: the reference that others are held to."""

from __future__ import annotations

import importlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from pipelines.forecasting.engines import EngineOptions, ForecastBatch, monotone, register
from pipelines.forecasting.series import Floats, SeriesBatch

WEEKLY_FROM_DAYS = 14
YEARLY_FROM_DAYS = 730


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
        model_from_dict = _prophet().serialize.model_from_dict
        content = json.loads(parameters)
        return _forecast(model_from_dict(content), horizon, probabilities, content["stockcast"]["seed"])

    def _fit(self, dates: Any, demand: Floats, seed: int) -> Any:
        settings = self.options.settings
        model = _prophet().Prophet(
            growth="linear",
            seasonality_mode=settings.seasonality_mode,
            weekly_seasonality=len(dates) > WEEKLY_FROM_DAYS,
            yearly_seasonality=len(dates) > YEARLY_FROM_DAYS,
            daily_seasonality=False,
            uncertainty_samples=settings.uncertainty_samples,
        )
        if settings.holidays_country is not None:
            model.add_country_holidays(settings.holidays_country)
        # A fit raises where it did not converge; then Prophet itself tries Newton's method.
        return model.fit(pd.DataFrame({"ds": dates.astype("datetime64[ns]"), "y": demand}), seed=seed % 2**31)


def _forecast(model: Any, horizon: int, probabilities: Sequence[float], seed: int) -> tuple[Floats, Floats]:
    last = model.history_dates.iloc[-1]
    future = pd.DataFrame({"ds": pd.date_range(last + pd.Timedelta(days=1), periods=horizon, freq="D")})
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
    content = _prophet().serialize.model_to_dict(model)
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


@cache
def _prophet() -> Any:
    """The package, imported where it is needed, on one thread and without its log lines per series."""
    os.environ.setdefault("STAN_NUM_THREADS", "1")
    logging.getLogger("prophet.plot").setLevel(logging.CRITICAL)
    prophet = importlib.import_module("prophet")
    importlib.import_module("prophet.serialize")
    for name in ("cmdstanpy", "prophet"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [logging.NullHandler()], False
        logger.setLevel(logging.CRITICAL)
    return prophet
