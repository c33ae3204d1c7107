"""What a forecasting model is, and the register of those that exist.

A new model is one file in `pipelines/forecasting/models` with a class under `@register("its_name")`; the setting
`forecast.engine` names it. The contract test runs over everything registered.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import ClassVar, Protocol, TypeVar

import numpy as np

from pipelines.errors import UsageError
from pipelines.forecasting.category import CategoryProfiles
from pipelines.forecasting.pooled.pools import Pools
from pipelines.forecasting.series import Floats, Integers, SeriesBatch, finite_rows
from pipelines.operations.settings import ForecastSettings
from pipelines.plugins import import_all

log = logging.getLogger("stockcast.forecasting")


@dataclass(frozen=True)
class ForecastBatch:
    """Forecasts of n series over h days with q quantiles; a failed series has NaN and a reason.

    Attributes:
        yhat: (n, h) expected units a day.
        quantiles: (n, h, q).
        parameters: n JSON objects, from which the engine's `replay` gives the same forecast again.
        failures: n reasons; None where the series was forecast.
    """

    yhat: Floats
    quantiles: Floats
    parameters: tuple[str, ...]
    failures: tuple[str | None, ...]

    @classmethod
    def failed(cls, reasons: Sequence[str], horizon: int, probabilities: Sequence[float]) -> ForecastBatch:
        """One failed series for each reason."""
        count = len(reasons)
        return cls(
            np.full((count, horizon), np.nan),
            np.full((count, horizon, len(probabilities)), np.nan),
            ("{}",) * count,
            tuple(reasons),
        )

    def take(self, rows: Integers) -> ForecastBatch:
        """The named rows."""
        return ForecastBatch(
            self.yhat[rows],
            self.quantiles[rows],
            tuple(self.parameters[row] for row in rows),
            tuple(self.failures[row] for row in rows),
        )

    def with_rows(self, rows: Integers, other: ForecastBatch) -> ForecastBatch:
        """A copy in which the named rows are those of `other`."""
        yhat, quantiles = self.yhat.copy(), self.quantiles.copy()
        parameters, failures = list(self.parameters), list(self.failures)
        yhat[rows], quantiles[rows] = other.yhat, other.quantiles
        for position, row in enumerate(rows):
            parameters[row], failures[row] = other.parameters[position], other.failures[position]
        return ForecastBatch(yhat, quantiles, tuple(parameters), tuple(failures))


@dataclass(frozen=True)
class EngineOptions:
    """What every engine is made from; `profiles` and `pools` are what other series tell.

    `earlier` holds profiles by the last day that they know, so that a backtest sees none of later days. An engine
    whose class says `uses_pools = True` gets pools of every cutoff.
    """

    settings: ForecastSettings = field(default_factory=ForecastSettings)
    profiles: CategoryProfiles = field(default_factory=CategoryProfiles)
    pools: Pools = field(default_factory=Pools)
    earlier: Mapping[date, CategoryProfiles] = field(default_factory=dict)

    def profiles_at(self, end: date) -> CategoryProfiles:
        """The newest profiles that know nothing after `end`; where no days are given, `profiles`."""
        if not self.earlier:
            return self.profiles
        known = [day for day in self.earlier if day <= end]
        return self.earlier[max(known)] if known else CategoryProfiles()


class Engine(Protocol):
    """A forecasting model for many series at once. Instances travel to the executors: keep them small."""

    name: ClassVar[str]

    def fit_forecast(self, batch: SeriesBatch, horizon: int, probabilities: Sequence[float]) -> ForecastBatch:
        """Fit every series of the batch and forecast the `horizon` days after `batch.end`.

        One bad series is a failure reason in its row, never an exception for the batch. The same batch
        gives the same forecast, whatever was computed before.
        """
        ...

    def replay(self, parameters: str, horizon: int, probabilities: Sequence[float]) -> tuple[Floats, Floats]:
        """The forecast that fitted parameters stand for: yhat (h,) and quantiles (h, q)."""
        ...


Factory = Callable[[EngineOptions], Engine]
Class = TypeVar("Class", bound=Callable[[EngineOptions], Engine])
_REGISTERED: dict[str, Factory] = {}


def register(name: str) -> Callable[[Class], Class]:
    """Make an engine class known under `name`; its only constructor argument is `EngineOptions`."""

    def known(engine_class: Class) -> Class:
        _REGISTERED[name] = engine_class
        return engine_class

    return known


def registered() -> tuple[str, ...]:
    """Names of all engines."""
    from pipelines.forecasting import models

    import_all(models)
    return tuple(sorted(_REGISTERED))


def create(name: str, options: EngineOptions) -> Engine:
    """The engine of that name.

    Raises:
        UsageError: no such engine; lists those that exist.
    """
    known = registered()
    if name not in known:
        raise UsageError(f"forecast.engine is {name!r}; expected one of: {', '.join(known)}")
    return _REGISTERED[name](options)


def fit_safely(engine: Engine, batch: SeriesBatch, horizon: int, probabilities: Sequence[float]) -> ForecastBatch:
    """`fit_forecast` that never raises and whose every row is either sound or a failure.

    If the engine raises on a batch, its series are tried one by one. Rows with numbers that are not finite
    become failures; the others are clipped at zero, their quantiles made monotone.
    """
    if len(batch) == 0:
        return ForecastBatch.failed([], horizon, probabilities)
    try:
        forecast = engine.fit_forecast(batch, horizon, probabilities)
    except Exception as error:  # an engine is a plug-in: whatever it throws costs its own series only
        if len(batch) == 1:
            return ForecastBatch.failed([f"{type(error).__name__}: {error}"[:300]], horizon, probabilities)
        log.debug("%s failed on a batch of %d series, trying each alone", engine.name, len(batch))
        forecast = ForecastBatch.failed(["not tried"] * len(batch), horizon, probabilities)
        for row in range(len(batch)):
            one = np.array([row])
            forecast = forecast.with_rows(one, fit_safely(engine, batch.take(one), horizon, probabilities))
        return forecast
    return _sound(forecast)


def _sound(forecast: ForecastBatch) -> ForecastBatch:
    finite = finite_rows(forecast.yhat, forecast.quantiles)
    failures = tuple(
        reason if reason is not None else (None if sound else "the forecast holds numbers that are not finite")
        for reason, sound in zip(forecast.failures, finite, strict=True)
    )
    return replace(
        forecast,
        yhat=np.maximum(forecast.yhat, 0.0),
        quantiles=monotone(forecast.quantiles),
        failures=failures,
    )


def monotone(quantiles: Floats) -> Floats:
    """Quantiles along the last axis, clipped at zero and never crossing."""
    return np.maximum.accumulate(np.maximum(quantiles, 0.0), axis=-1)
