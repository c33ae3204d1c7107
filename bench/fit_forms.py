"""Fits and forecasts of many series in two processes, by each competitor; one run of this module is one of them.

`python -m bench.fit_forms FORM --days D --series N ...` prints its figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

from bench.forecast_data import CHUNK, END, HORIZON, series, wape, with_gaps

PROCESSES = 2
PROBABILITIES = (0.1, 0.9)
OURS = {"ours_additive": "additive", "ours_multiplicative": "multiplicative"}
STOCK = {"stock_additive": "additive", "stock_multiplicative": "multiplicative"}
PEER = {"prophet_batch_additive": "additive", "prophet_batch_multiplicative": "multiplicative"}
FORMS = {**OURS, **PEER, **STOCK}

Forecaster = Callable[[np.ndarray], Callable[[], np.ndarray]]
"""Brings a history (N, T) into the competitor's own form; the call of what it returns is timed, and gives the
expected demand (N, HORIZON). Intervals are computed too."""


def main(argv: list[str] | None = None) -> None:
    """Set one competitor up, warm it up, time it on all series, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("form", choices=FORMS)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--series", type=int, required=True)
    parser.add_argument("--days", type=int, required=True)
    parser.add_argument("--missing", type=float, default=0.0, help="share of the days that is unknown")
    parser.add_argument("--common", type=int, required=True, help="series whose accuracy is compared")
    chosen = parser.parse_args(argv)
    demand = with_gaps(series(chosen.data, chosen.series, chosen.days), chosen.missing)
    history = demand[:, :-HORIZON]
    opened = ours if chosen.form in OURS else peer if chosen.form in PEER else stock
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with _pool(chosen.form) as pool:
        forecaster = opened(pool, FORMS[chosen.form])
        forecaster(history[: 2 * PROCESSES])()
        forecast = forecaster(history)
        started, used = time.perf_counter(), _processor_seconds()
        yhat = forecast()
        seconds, used = time.perf_counter() - started, _processor_seconds() - used
    print(json.dumps({
        "form": chosen.form, "series": len(history), "days": chosen.days, "seconds": seconds, "processor_seconds": used,
        "wape": wape(demand[: chosen.common], yhat[: chosen.common]),
        "worker_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
        "parent_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }))  # fmt: skip


def _processor_seconds() -> float:
    """Of this process and those that it started: hardly changed by whatever else the machine does."""
    me = psutil.Process()
    own, workers = me.cpu_times(), [worker.cpu_times() for worker in me.children()]
    # Stan's optimiser is a process of its own, which its worker has waited for.
    ended = sum(each.children_user + each.children_system for each in workers)
    return float(sum(each.user + each.system for each in (own, *workers)) + ended)


def _pool(form: str) -> Any:
    if form in PEER:
        from prophet_batch import Pool

        return Pool(n_jobs=PROCESSES)
    return ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn"))


# Ours --------------------------------------------------------------------------------------------------


def ours(pool: ProcessPoolExecutor, mode: str) -> Forecaster:
    """The batched engine, on batches as on an executor; each process is warmed up before it is timed."""
    list(pool.map(_engines, [mode] * PROCESSES * 2))

    def forecaster(history: np.ndarray) -> Callable[[], np.ndarray]:
        parts = [history[first : first + CHUNK] for first in range(0, len(history), CHUNK)]
        return lambda: np.vstack([yhat for yhat, _, _ in pool.map(_ours, parts, [mode] * len(parts))])

    return forecaster


def _engines(mode: str) -> None:
    _ours(np.random.default_rng(0).poisson(9, (2, 400)).astype(float), mode)
    time.sleep(0.5)


def _ours(history: np.ndarray, mode: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    from pipelines.forecasting.engines import EngineOptions, create
    from pipelines.forecasting.series import from_matrix
    from pipelines.operations.settings import ForecastSettings

    engine = create("prophet_batched", EngineOptions(ForecastSettings(seasonality_mode=mode)))
    found = engine.fit_forecast(from_matrix(history, END), HORIZON, PROBABILITIES)
    return found.yhat, found.quantiles, found.parameters


# The package prophet-batch -----------------------------------------------------------------------------


def peer(pool: Any, mode: str) -> Forecaster:
    """One call for all series through its pool of processes: future rows and the columns needed alone."""

    def forecaster(history: np.ndarray) -> Callable[[], np.ndarray]:
        rows = _long(history)

        def forecast() -> np.ndarray:
            found = pool.forecast_many(
                rows, periods=HORIZON, include_history=False, seed=0, seasonality_mode=mode,
                columns=["ds", "yhat", "yhat_lower", "yhat_upper"],
            )  # fmt: skip
            return np.maximum(found["yhat"].to_numpy().reshape(len(history), HORIZON), 0)

        return forecast

    return forecaster


def _long(history: np.ndarray) -> pd.DataFrame:
    days = pd.date_range(end=pd.Timestamp(END), periods=history.shape[1])
    return pd.DataFrame({
        "unique_id": np.repeat(np.arange(len(history)), len(days)),
        "ds": np.tile(days.to_numpy(), len(history)),
        "y": history.ravel(),
    })  # fmt: skip


# Stock Prophet -----------------------------------------------------------------------------------------


def stock(pool: ProcessPoolExecutor, mode: str) -> Forecaster:
    """Prophet as it comes, a series a task."""

    def forecaster(history: np.ndarray) -> Callable[[], np.ndarray]:
        return lambda: np.vstack(list(pool.map(_stock, history, [mode] * len(history), chunksize=2)))

    return forecaster


def _stock(history: np.ndarray, mode: str) -> np.ndarray:
    import logging

    from prophet import Prophet

    logging.getLogger("cmdstanpy").disabled = True
    days = pd.date_range(end=pd.Timestamp(END), periods=len(history))
    model = Prophet(seasonality_mode=mode).fit(pd.DataFrame({"ds": days, "y": history}))
    future = model.make_future_dataframe(HORIZON, include_history=False)
    return np.maximum(model.predict(future)[["yhat", "yhat_lower", "yhat_upper"]].to_numpy()[:, 0], 0)


def environment() -> dict[str, str]:
    """Ours without what pins BLAS libraries to a processor type, and with one BLAS thread a process."""
    pinned = {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"}
    single = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**{name: value for name, value in os.environ.items() if name not in pinned}, **single}


if __name__ == "__main__":
    main()
