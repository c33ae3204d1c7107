"""What a replay is played with: demand day by day, and what was forecast of it, each time from the past alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt

from pipelines.contracts.tables import QUANTILES
from pipelines.errors import MissingDataError
from pipelines.forecasting.engines import EngineOptions, create, fit_safely
from pipelines.forecasting.pooled.pools import Pool, Pools, learn_pool, pool_data
from pipelines.forecasting.series import SeriesBatch
from pipelines.inventory.forecast_distribution import FloatArray
from pipelines.inventory.lead_time_demand import DailyForecasts
from pipelines.operations.settings import ForecastSettings

WEEK = 7


@dataclass(frozen=True)
class RollingForecasts:
    """Forecasts of n series from k days, each from nothing later than its day.

    Attributes:
        origins: k days, ascending. yhat: (k, n, h). quantiles: (k, n, h, 7).
    """

    origins: tuple[date, ...]
    yhat: FloatArray
    quantiles: FloatArray

    def known_on(self, day: date, span: int) -> DailyForecasts:
        """The newest forecast that was there on the evening of `day`, of the `span` days after it.

        Raises:
            MissingDataError: none was made by then, or its horizon ends before the first of those days.
        """
        known = [place for place, origin in enumerate(self.origins) if origin <= day]
        past = (day - self.origins[known[-1]]).days if known else 0
        if not known or past >= self.yhat.shape[2]:
            first, last = (self.origins[0], self.origins[-1]) if self.origins else (None, None)
            raise MissingDataError(
                f"no forecast reaches beyond {day}: they were made from {first} to {last}, over "
                f"{self.yhat.shape[2]} days; forecast from earlier days, or more often"
            )
        days = slice(past, min(past + span, self.yhat.shape[2]))
        return DailyForecasts(self.yhat[known[-1], :, days], self.quantiles[known[-1], :, days])


@dataclass(frozen=True)
class Rolling:
    """How the past is forecast: every `spacing` days over `horizon` days; pools are learnt anew every `pool_days`."""

    engine: str = "pooled"
    spacing: int = WEEK
    horizon: int = 28
    pool_days: int = 4 * WEEK


def forecast_rolling(
    batch: SeriesBatch,
    first: date,
    last: date,
    rolling: Rolling,
    settings: ForecastSettings | None = None,
    progress: Callable[[date], None] = lambda _: None,
) -> RollingForecasts:
    """Forecast the past as it would have been: on the evenings of `first`, a spacing later, ... up to `last`.

    A series that the engine fails on at some day is taken to sell as in the 28 days before, with that spread.

    Args:
        batch: the whole chain's demand; each forecast is given what was known by its day.
        settings: what the engine is made from; None for the defaults.
        progress: told each day that is done.
    """
    origins = tuple(first + timedelta(days=step) for step in range(0, (last - first).days + 1, rolling.spacing))
    yhat = np.empty((len(origins), len(batch), rolling.horizon))
    quantiles = np.empty((*yhat.shape, len(QUANTILES)))
    pool: Pool | None = None
    learnt_on = None
    for place, origin in enumerate(origins):
        known = batch.until(origin)
        if learnt_on is None or (origin - learnt_on).days >= rolling.pool_days:
            pool, learnt_on = learn_pool(pool_data(known)), origin
        pools = Pools() if pool is None else Pools({pool.end: pool})
        engine = create(rolling.engine, EngineOptions(settings or ForecastSettings(), pools=pools))
        made = fit_safely(engine, known, rolling.horizon, QUANTILES)
        yhat[place], quantiles[place] = made.yhat, made.quantiles
        failed = np.flatnonzero([reason is not None for reason in made.failures])
        yhat[place, failed], quantiles[place, failed] = _recent(known.demand[failed], rolling.horizon)
        progress(origin)
    return RollingForecasts(origins, yhat, quantiles)


def _recent(demand: FloatArray, horizon: int) -> tuple[FloatArray, FloatArray]:
    recent = np.where(np.isfinite(demand[:, -28:]), demand[:, -28:], 0.0)
    if recent.shape[1] == 0:
        recent = np.zeros((len(demand), 1))
    mean = np.repeat(recent.mean(axis=1)[:, None], horizon, axis=1)
    return mean, np.repeat(np.quantile(recent, QUANTILES, axis=1).T[:, None], horizon, axis=1)


@dataclass(frozen=True)
class History:
    """What n series went through, from the first day of their past to the last day of the replay.

    Attributes:
        batch: demand; NaN counts as none.
        forecasts: what was forecast of it.
        lead_time: (n, T) whole days that an order placed on the evening of each of the replay's T days takes.
        start: the replay's first day. measured: the first day that counts; those before let the stock settle.
        open_days: (n, T) whether the supplier takes orders on that day; None: on all.
    """

    batch: SeriesBatch
    forecasts: RollingForecasts
    lead_time: npt.NDArray[np.int64]
    start: date
    measured: date
    open_days: npt.NDArray[np.bool_] | None = None

    @property
    def days(self) -> int:
        """T, with the days that let the stock settle."""
        return (self.batch.end - self.start).days + 1

    @property
    def first_column(self) -> int:
        """The batch's column of `start`."""
        return self.batch.days - self.days

    @property
    def demand(self) -> npt.NDArray[np.int64]:
        """(n, T) whole units."""
        return np.rint(np.nan_to_num(self.batch.demand[:, self.first_column :])).astype(np.int64)

    def past(self, day: int, length: int) -> FloatArray:
        """(n, length) demand known on the evening of the replay's `day`, newest last; fewer where history is short."""
        last = self.first_column + day + 1
        return np.nan_to_num(self.batch.demand[:, max(last - length, 0) : last])

    def evening(self, day: int) -> date:
        """The date of the replay's day."""
        return self.start + timedelta(days=day)


def sampled_lead_times(
    values: Sequence[int], series: int, days: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """(series, days) lead times drawn from `values` for every order that could be placed, each on its own."""
    return rng.choice(np.asarray(values, np.int64), (series, days))
