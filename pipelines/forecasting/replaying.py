"""Forecasts again from stored parameters, many series at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Protocol, runtime_checkable

import numpy as np

from pipelines.forecasting.calibration import corrected, correction_in
from pipelines.forecasting.engines import Engine, EngineOptions, create, monotone
from pipelines.forecasting.series import Floats


@runtime_checkable
class ReplaysMany(Protocol):
    """What an engine may offer beside `replay`: the same for n series in one call."""

    def replay_many(
        self, parameters: Sequence[str], horizon: int, probabilities: Sequence[float]
    ) -> tuple[Floats, Floats]:
        """yhat (n, h) and quantiles (n, h, q)."""
        ...


def replay_many(
    engine: Engine, parameters: Sequence[str], horizon: int, probabilities: Sequence[float]
) -> tuple[Floats, Floats]:
    """yhat (n, h) and quantiles (n, h, q) of n series of one engine: in one call where it offers that.

    Quantiles are corrected where the parameters hold a correction: it is one of the contract's seven probabilities, so
    `probabilities` must be these.
    """
    if isinstance(engine, ReplaysMany):
        yhat, quantiles = engine.replay_many(parameters, horizon, probabilities)
    else:
        yhat = np.empty((len(parameters), horizon))
        quantiles = np.empty((len(parameters), horizon, len(probabilities)))
        for row, content in enumerate(parameters):
            yhat[row], quantiles[row] = engine.replay(content, horizon, probabilities)
    found = {row: held for row, held in enumerate(map(correction_in, parameters)) if held is not None}
    if found:
        rows = np.array(list(found), np.int64)
        quantiles[rows] = corrected(monotone(quantiles[rows]), np.array(list(found.values())), probabilities)
    return yhat, quantiles


@cache
def replayer(name: str) -> Engine:
    """The engine of that name, made once a process: parameters say everything that replaying needs.

    Raises:
        UsageError: no such engine.
    """
    return create(name, EngineOptions())
