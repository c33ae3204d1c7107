"""Rolling-origin backtest: the past forecast again from several days, each time from nothing but what came before.

Tashman (2000), "Out-of-sample tests of forecasting accuracy: an analysis and review".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt

from pipelines.forecasting.engines import Engine, ForecastBatch, fit_safely
from pipelines.forecasting.metrics import Scores, naive_scale, pinball, score
from pipelines.forecasting.models.median_ensemble import MedianEnsemble
from pipelines.forecasting.series import Floats, Integers, SeriesBatch

Flags = npt.NDArray[np.bool_]

INTERVAL = (0.10, 0.90)
"""The interval whose coverage is reported."""
BLOCK_DAYS = 7
"""Losses are summed by weeks: days of a week err together, weeks much less."""


@dataclass(frozen=True)
class Task:
    """What is asked of every series.

    Attributes:
        horizon: days ahead. minimum_days: known days that a model needs. probabilities: of the quantiles.
        cutoffs: how many days to forecast the past from; spacing: days between them (None: the horizon).
    """

    horizon: int
    minimum_days: int
    probabilities: tuple[float, ...]
    cutoffs: int = 1
    spacing: int | None = None

    def fit(self, engine: Engine, batch: SeriesBatch) -> ForecastBatch:
        """The engine's forecast, failures as reasons."""
        return fit_safely(engine, batch, self.horizon, self.probabilities)

    def nothing(self, count: int, reason: str) -> ForecastBatch:
        """`count` series without a forecast."""
        return ForecastBatch.failed([reason] * count, self.horizon, self.probabilities)

    def origins(self, end: date) -> tuple[date, ...]:
        """The cutoffs before `end`, oldest first; the newest leaves exactly the horizon to be compared."""
        spacing = self.spacing or self.horizon
        return tuple(end - timedelta(days=self.horizon + place * spacing) for place in range(self.cutoffs - 1, -1, -1))


@dataclass(frozen=True)
class Tested:
    """Forecasts of n series from k cutoffs (oldest first) over h days that are known by now; NaN: not forecast.

    Attributes:
        actual, yhat: (n, k, h); quantiles: (n, k, h, q).
        failures: n reasons, of the newest cutoff that failed; None where none did.
    """

    actual: Floats
    yhat: Floats
    quantiles: Floats
    failures: tuple[str | None, ...]

    @classmethod
    def nothing(cls, count: int, task: Task) -> Tested:
        """Series that were not forecast."""
        shape = (count, task.cutoffs, task.horizon)
        return cls(
            np.full(shape, np.nan),
            np.full(shape, np.nan),
            np.full((*shape, len(task.probabilities)), np.nan),
            (None,) * count,
        )

    def take(self, rows: Integers) -> Tested:
        """The named rows."""
        failures = tuple(self.failures[row] for row in rows)
        return Tested(self.actual[rows], self.yhat[rows], self.quantiles[rows], failures)

    def with_rows(self, rows: Integers, other: Tested) -> Tested:
        """A copy in which the named rows are those of `other`."""
        failures = list(self.failures)
        for place, row in enumerate(rows):
            failures[row] = other.failures[place]
        actual, yhat, quantiles = self.actual.copy(), self.yhat.copy(), self.quantiles.copy()
        actual[rows], yhat[rows], quantiles[rows] = other.actual, other.yhat, other.quantiles
        return Tested(actual, yhat, quantiles, tuple(failures))

    @property
    def there(self) -> Flags:
        """(n,) series that were forecast from one cutoff at least."""
        return np.asarray(np.isfinite(self.yhat).any(axis=(1, 2)), bool)

    def scores(self, scale: Floats, probabilities: tuple[float, ...]) -> Scores:
        """Scores over all cutoffs; NaN for series that were not forecast."""
        low, high = (probabilities.index(probability) for probability in INTERVAL)
        known = np.isfinite(self.yhat)
        count = len(self.yhat)
        actual, yhat = np.where(known, self.actual, np.nan).reshape(count, -1), self.yhat.reshape(count, -1)
        least, most = (self.quantiles[..., place].reshape(count, -1) for place in (low, high))
        scores = score(actual, yhat, least, most, scale)
        missing = np.flatnonzero(~self.there).astype(np.int64)
        return scores.with_rows(missing, Scores.none(len(missing)))

    def losses(self, probabilities: tuple[float, ...]) -> Floats:
        """(n, weeks) pinball loss summed over each week of each cutoff; NaN where no day is known or forecast."""
        loss = pinball(self.actual, self.quantiles, probabilities)
        starts = np.arange(0, loss.shape[2], BLOCK_DAYS)
        known = np.add.reduceat(np.isfinite(loss), starts, axis=2)
        sums = np.add.reduceat(np.nan_to_num(loss), starts, axis=2)
        return np.where(known > 0, sums, np.nan).reshape(len(loss), -1)


def unsuitable(batch: SeriesBatch, minimum_days: int) -> list[str | None]:
    """Per series, why no model should be fitted to it; None where one should."""
    observed = batch.observed
    known = np.isfinite(batch.demand)
    low = np.where(known, batch.demand, np.inf).min(axis=1, initial=np.inf)
    high = np.where(known, batch.demand, -np.inf).max(axis=1, initial=-np.inf)
    reasons: list[str | None] = [None] * len(batch)
    for row in np.flatnonzero((batch.start >= batch.days) | (observed < minimum_days) | (low == high)):
        if batch.start[row] >= batch.days:
            reasons[row] = "no sales yet: forecast from its category"
        elif observed[row] < minimum_days:
            reasons[row] = f"too short: {observed[row]} known days, {minimum_days} are needed"
        else:
            reasons[row] = f"constant demand of {low[row]:g} a day"
    return reasons


def training_scale(batch: SeriesBatch, task: Task) -> Floats:
    """(n,) MASE's denominator from the days before the newest cutoff."""
    return naive_scale(batch.until(task.origins(batch.end)[-1]).demand)


def backtest(
    engines: Mapping[str, Engine], wanted: Mapping[str, Flags], batch: SeriesBatch, task: Task
) -> dict[str, Tested]:
    """Every engine's forecasts of the days after each cutoff, from nothing later than the cutoff.

    Args:
        engines: by name; those that an ensemble among them combines too.
        wanted: (n,) by name, the series that each is tried on.

    A series that is not suitable at a cutoff, or that an engine fails on there, is not forecast from it.
    """
    found = {name: Tested.nothing(len(batch), task) for name in wanted}
    failures: dict[str, list[str | None]] = {name: [None] * len(batch) for name in wanted}
    for place, origin in enumerate(task.origins(batch.end)):
        train = batch.until(origin)
        fit = np.array([reason is None for reason in unsuitable(train, task.minimum_days)], bool)
        actual = _days_after(batch, origin, task.horizon)
        forecasts = _at_one_cutoff(engines, {name: rows & fit for name, rows in wanted.items()}, train, task)
        for name, (rows, forecast) in forecasts.items():
            if name not in found or not len(rows):
                continue
            tested = found[name]
            sound = np.array([reason is None for reason in forecast.failures], bool)
            tested.actual[rows, place] = actual[rows]
            tested.yhat[rows[sound], place] = forecast.yhat[sound]
            tested.quantiles[rows[sound], place] = forecast.quantiles[sound]
            for index in np.flatnonzero(~sound):
                failures[name][rows[index]] = forecast.failures[index]
    return {name: replace(tested, failures=tuple(failures[name])) for name, tested in found.items()}


def _at_one_cutoff(
    engines: Mapping[str, Engine], wanted: Mapping[str, Flags], train: SeriesBatch, task: Task
) -> dict[str, tuple[Integers, ForecastBatch]]:
    """Rows and forecasts of each engine; what ensembles combine is computed once."""
    computed = {name: rows.copy() for name, rows in wanted.items()}
    for name, flags in wanted.items():
        for member in _members(engines[name]):
            computed[member] = computed.get(member, np.zeros_like(flags)) | flags
    out: dict[str, tuple[Integers, ForecastBatch]] = {}
    for name in sorted(computed, key=lambda name: bool(_members(engines[name]))):
        engine = engines[name]
        rows: Integers = np.flatnonzero(computed[name]).astype(np.int64)
        if isinstance(engine, MedianEnsemble):
            parts = {member: _among(*out[member], rows) for member in engine.members}
            out[name] = (rows, engine.combine(parts) if len(rows) else task.nothing(0, ""))
        else:
            whole = len(rows) == len(train)
            out[name] = (rows, task.fit(engine, train if whole else train.take(rows)))
    return out


def _members(engine: Engine) -> tuple[str, ...]:
    return engine.members if isinstance(engine, MedianEnsemble) else ()


def _among(rows: Integers, forecast: ForecastBatch, wanted: Integers) -> ForecastBatch:
    return forecast.take(np.searchsorted(rows, wanted).astype(np.int64))


def _days_after(batch: SeriesBatch, origin: date, horizon: int) -> Floats:
    """(n, horizon) demand of the days after `origin`; NaN where the batch does not reach that far back or ahead."""
    first = batch.days - (batch.end - origin).days
    columns = np.arange(first, first + horizon)
    inside = (columns >= 0) & (columns < batch.days)
    out = np.full((len(batch), horizon), np.nan)
    out[:, inside] = batch.demand[:, columns[inside]]
    return out
