"""Backtest on the last horizon, and the choice of one forecast per series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from pipelines.forecasting.engines import Engine, ForecastBatch, fit_safely
from pipelines.forecasting.metrics import Scores, naive_scale, score
from pipelines.forecasting.series import Integers, SeriesBatch

OK, FALLBACK, FAILED = "ok", "fallback", "failed"

LOSES_CLEARLY = 1.15
"""A model whose backtest WAPE is above this many times seasonal naive's gives way to seasonal naive."""

INTERVAL = (0.10, 0.90)
"""The interval whose coverage is reported."""


@dataclass(frozen=True)
class Engines:
    """The model under training, the baseline it must beat, and the fallback for what it cannot model."""

    model: Engine
    baseline: Engine
    fallback: Engine


@dataclass(frozen=True)
class Task:
    """What is asked of every series: days ahead, quantiles, and the known days that a model needs."""

    horizon: int
    minimum_days: int
    probabilities: tuple[float, ...]

    def fit(self, engine: Engine, batch: SeriesBatch) -> ForecastBatch:
        """The engine's forecast, failures as reasons."""
        return fit_safely(engine, batch, self.horizon, self.probabilities)

    def nothing(self, count: int, reason: str) -> ForecastBatch:
        """`count` series without a forecast."""
        return ForecastBatch.failed([reason] * count, self.horizon, self.probabilities)


@dataclass(frozen=True)
class Tested:
    """Forecasts of days that are already known, and their scores (NaN: not scored)."""

    forecast: ForecastBatch
    scores: Scores

    def take(self, rows: Integers) -> Tested:
        """The named rows."""
        return Tested(self.forecast.take(rows), self.scores.take(rows))

    def with_rows(self, rows: Integers, other: Tested) -> Tested:
        """A copy in which the named rows are those of `other`."""
        return Tested(self.forecast.with_rows(rows, other.forecast), self.scores.with_rows(rows, other.scores))


@dataclass(frozen=True)
class Outcome:
    """What training n series gave.

    Attributes:
        status, model, reason: of each series; `attempted`: whether the model was tried on it.
        tested: the backtest of what was chosen; `baseline` seasonal naive's scores on the same days.
    """

    forecast: ForecastBatch
    status: tuple[str, ...]
    model: tuple[str, ...]
    reason: tuple[str | None, ...]
    attempted: tuple[bool, ...]
    tested: Tested
    baseline: Scores


def unsuitable(batch: SeriesBatch, minimum_days: int) -> list[str | None]:
    """Per series, why no model should be fitted to it; None where one should."""
    observed = batch.observed
    known = np.isfinite(batch.demand)
    low = np.where(known, batch.demand, np.inf).min(axis=1, initial=np.inf)
    high = np.where(known, batch.demand, -np.inf).max(axis=1, initial=-np.inf)
    reasons: list[str | None] = []
    for row in range(len(batch)):
        if batch.start[row] >= batch.days:
            reasons.append("no sales yet: forecast from its category")
        elif observed[row] < minimum_days:
            reasons.append(f"too short: {observed[row]} known days, {minimum_days} are needed")
        elif low[row] == high[row]:
            reasons.append(f"constant demand of {low[row]:g} a day")
        else:
            reasons.append(None)
    return reasons


def backtest(engine: Engine, batch: SeriesBatch, task: Task) -> Tested:
    """Forecast the last `horizon` days from nothing but those before them, and compare.

    A series that is not suitable without its last days, or that the engine fails on, is not scored.
    """
    train = batch.until(batch.end - timedelta(days=task.horizon))
    tested = Tested(task.nothing(len(batch), "not tested"), Scores.none(len(batch)))
    rows = _where([reason is None for reason in unsuitable(train, task.minimum_days)])
    if not len(rows):
        return tested
    forecast = task.fit(engine, train.take(rows))
    sound = _where([reason is None for reason in forecast.failures])
    rows, forecast = rows[sound], forecast.take(sound)
    low, high = (task.probabilities.index(probability) for probability in INTERVAL)
    scores = score(
        batch.demand[rows, train.days :],
        forecast.yhat,
        forecast.quantiles[:, :, low],
        forecast.quantiles[:, :, high],
        naive_scale(train.demand[rows]),
    )
    return tested.with_rows(rows, Tested(forecast, scores))


def train_batch(batch: SeriesBatch, engines: Engines, task: Task) -> Outcome:
    """Backtest and forecast every series of a batch; never raises for a series.

    - A series that is too short, constant or without sales gets the fallback: status fallback.
    - So does one that the model fails on; the reason says how.
    - One whose model loses clearly to seasonal naive in the backtest (`LOSES_CLEARLY`) is forecast by seasonal
      naive: status ok, the reason says by how much. The scores reported are those of what was chosen; as the
      choice was made on the same days, they flatter slightly.
    - One that even the fallback fails on has no forecast: status failed.
    """
    reasons = unsuitable(batch, task.minimum_days)
    attempted = tuple(reason is None for reason in reasons)
    rows = _where(attempted)
    chosen = _choose(batch.take(rows), engines, task)
    modelled = [reason is None for reason in chosen.forecast.failures]
    for row, reason in zip(rows, chosen.reason, strict=True):
        reasons[row] = reason
    rows, chosen = rows[_where(modelled)], _take(chosen, _where(modelled))
    rest = np.setdiff1d(np.arange(len(batch)), rows)
    fallback = task.fit(engines.fallback, batch.take(rest))
    status, model = [OK] * len(batch), [engines.fallback.name] * len(batch)
    for row, name in zip(rows, chosen.model, strict=True):
        model[row] = name
    for row, failure in zip(rest, fallback.failures, strict=True):
        status[row] = FALLBACK if failure is None else FAILED
        if failure is not None:
            reasons[row] = f"{reasons[row]}; {engines.fallback.name} failed: {failure}"
    nothing = Tested(task.nothing(len(batch), "not tested"), Scores.none(len(batch)))
    return Outcome(
        forecast=task.nothing(len(batch), "").with_rows(rows, chosen.forecast).with_rows(rest, fallback),
        status=tuple(status),
        model=tuple(model),
        reason=tuple(reasons),
        attempted=attempted,
        tested=nothing.with_rows(rows, chosen.tested),
        baseline=Scores.none(len(batch)).with_rows(rows, chosen.baseline),
    )


def _choose(batch: SeriesBatch, engines: Engines, task: Task) -> Outcome:
    """Model or baseline for each series of a batch that suits both; failures stay failures."""
    tested, baseline = (backtest(engine, batch, task) for engine in (engines.model, engines.baseline))
    forecast = task.fit(engines.model, batch)
    model = [engines.model.name] * len(batch)
    reason = [None if failure is None else f"{engines.model.name} failed: {failure}" for failure in forecast.failures]
    for row in _losers(tested.scores, baseline.scores):
        one = np.array([row])
        naive = task.fit(engines.baseline, batch.take(one))
        if reason[row] is not None or naive.failures[0] is not None:
            continue
        reason[row] = (
            f"{engines.model.name} WAPE {tested.scores.WAPE[row]:.3f} is above {LOSES_CLEARLY} times "
            f"{engines.baseline.name}'s {baseline.scores.WAPE[row]:.3f}"
        )
        model[row] = engines.baseline.name
        forecast, tested = forecast.with_rows(one, naive), tested.with_rows(one, baseline.take(one))
    return Outcome(
        forecast=forecast,
        status=(OK,) * len(batch),
        model=tuple(model),
        reason=tuple(reason),
        attempted=(True,) * len(batch),
        tested=tested,
        baseline=baseline.scores,
    )


def _losers(model: Scores, baseline: Scores) -> Integers:
    with np.errstate(invalid="ignore"):
        return np.flatnonzero(model.WAPE > LOSES_CLEARLY * baseline.WAPE).astype(np.int64)


def _take(outcome: Outcome, rows: Integers) -> Outcome:
    return Outcome(
        forecast=outcome.forecast.take(rows),
        status=tuple(outcome.status[row] for row in rows),
        model=tuple(outcome.model[row] for row in rows),
        reason=tuple(outcome.reason[row] for row in rows),
        attempted=tuple(outcome.attempted[row] for row in rows),
        tested=outcome.tested.take(rows),
        baseline=outcome.baseline.take(rows),
    )


def _where(condition: Sequence[bool]) -> Integers:
    return np.flatnonzero(np.asarray(condition, bool)).astype(np.int64)
