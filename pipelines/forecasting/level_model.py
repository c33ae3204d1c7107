"""Forecasts that are a level times a weekday index, with count quantiles: what several simple models share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import orjson

from pipelines.forecasting.distributions import demand_quantiles
from pipelines.forecasting.engines import ForecastBatch
from pipelines.forecasting.pooled.design import weekdays
from pipelines.forecasting.series import Floats, SeriesBatch


@dataclass(frozen=True)
class LevelFit:
    """n series.

    Attributes:
        level: (n,) units a day.
        weekday: (n, 7) index of Monday to Sunday, mean 1.
        dispersion: (n,) variance of a day's demand over its mean.
    """

    level: Floats
    weekday: Floats
    dispersion: Floats

    def forecast(self, end: date, horizon: int, probabilities: Sequence[float]) -> tuple[Floats, Floats]:
        """yhat (n, h) and quantiles (n, h, q) of the days after `end`."""
        future = np.datetime64(end, "D") + np.arange(1, horizon + 1)
        yhat = self.level[:, None] * self.weekday[:, weekdays(future)]
        return yhat, demand_quantiles(yhat, yhat * self.dispersion[:, None], probabilities)

    def batch(
        self,
        name: str,
        end: date,
        horizon: int,
        probabilities: Sequence[float],
        failures: Sequence[str | None],
    ) -> ForecastBatch:
        """As an engine's answer; the named failures have no forecast."""
        yhat, quantiles = self.forecast(end, horizon, probabilities)
        failed = np.array([reason is not None for reason in failures], bool)
        yhat[failed], quantiles[failed] = np.nan, np.nan
        columns = zip(self.level.tolist(), self.weekday.tolist(), self.dispersion.tolist(), failures, strict=True)
        day = end.isoformat()
        parameters = tuple(
            "{}"
            if reason is not None
            else orjson.dumps(
                {"model": name, "end": day, "level": level, "weekday": weekday, "dispersion": dispersion}
            ).decode()
            for level, weekday, dispersion, reason in columns
        )
        return ForecastBatch(yhat, quantiles, parameters, tuple(failures))


def replay_level(parameters: str, horizon: int, probabilities: Sequence[float]) -> tuple[Floats, Floats]:
    """The forecast that the parameters stand for: see `Engine.replay`."""
    fitted = orjson.loads(parameters)
    fit = LevelFit(*(np.array([fitted[key]], float) for key in ("level", "weekday", "dispersion")))
    yhat, quantiles = fit.forecast(date.fromisoformat(fitted["end"]), horizon, probabilities)
    return yhat[0], quantiles[0]


def weekday_index(batch: SeriesBatch, days: int, prior: Floats, pseudo_units: Floats) -> Floats:
    """(n, 7) weekday indices of the last `days` days, leaning on a prior where those are few.

    Args:
        prior: (n, 7) the index believed without data.
        pseudo_units: (n,) units that the prior counts for on each weekday: for counts, one over the variance of true
            indices around it (a gamma prior), times the dispersion.
    """
    recent = last_days(batch.demand, days)
    known = np.isfinite(recent)
    units = np.where(known, recent, 0.0)
    mean = units.sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    place = np.eye(7)[weekdays(np.datetime64(batch.end, "D") + np.arange(-days + 1, 1))].astype(bool)
    sums = np.stack([units[:, place[:, day]].sum(axis=1) for day in range(7)], axis=1)
    counts = np.stack([known[:, place[:, day]].sum(axis=1) for day in range(7)], axis=1)
    expected, pseudo = counts * mean[:, None], pseudo_units[:, None]
    index = (sums + pseudo * prior) / np.maximum(expected + pseudo, 1e-12)
    index = np.where(mean[:, None] > 0, index, 1.0)
    return np.asarray(index / np.maximum(index.mean(axis=1, keepdims=True), 1e-12), float)


def last_days(demand: Floats, days: int) -> Floats:
    """(n, days) the last columns, NaN before the first: sums then do not depend on what else is in the batch."""
    tail = demand[:, -days:]
    return np.asarray(np.pad(tail, ((0, 0), (days - tail.shape[1], 0)), constant_values=np.nan), float)


def dispersion(demand: Floats) -> Floats:
    """(n,) variance of the known days over their mean; 1, a Poisson count's, where nothing is demanded."""
    known = np.isfinite(demand)
    units, days = np.where(known, demand, 0.0), np.maximum(known.sum(axis=1), 1)
    mean = units.sum(axis=1) / days
    squares = np.where(known, (units - mean[:, None]) ** 2, 0.0).sum(axis=1) / days
    return np.asarray(np.divide(squares, mean, out=np.ones(len(demand)), where=mean > 0), float)
