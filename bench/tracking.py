"""A training's results into MLflow: one run for all series against a run and a logged Prophet model for each; and
how fast any series' model is back."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa

from bench.harness import Meter, Options, environment, say
from pipelines.contracts.tables import DAILY_DEMAND, QUANTILE_COLUMNS, QUANTILES
from pipelines.forecasting.engines import EngineOptions, ForecastBatch, create
from pipelines.forecasting.metrics import naive_scale, score
from pipelines.forecasting.series import SeriesBatch, from_matrix
from pipelines.forecasting.summary import summarise
from pipelines.forecasting.tracking import start_run
from pipelines.forecasting.trained import TRAINED_SERIES
from pipelines.forecasting.training_pages import Trained, illustrate, record
from pipelines.io.delta import Tables
from pipelines.operations.settings import Settings, load_settings

ENGINE, BASELINE = "prophet_batched", "seasonal_naive"
END = date(2024, 3, 31)
DAYS, HORIZON, STORES = 730, 28, 50
FITTED_AT_A_TIME = 500
SERVED = 1000
DISTINCT_PEERS = 10


def measure(options: Options) -> dict[str, list[dict[str, Any]]]:
    """One run for all series, runs of single series, and the served model's answers."""
    for noisy in ("mlflow", "alembic", "cmdstanpy", "prophet"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    folder = options.folder / "tracking"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        together = _together(options.tracked, options.repetitions, folder / "together")
        say(f"tracking, together: {together}")
        apart = [_apart(options.single_runs, folder / "apart")]
        say(f"tracking, apart: {apart}")
        command = [sys.executable, "-m", "bench.tracking", together[-1]["model"]]
        served = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        say(f"tracking, served: {served}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {"together": together, "apart": apart, "served": [served]}


def section(options: Options, results: dict[str, list[dict[str, Any]]], command: str) -> str:
    """The tables of tracking and of serving."""
    together, (apart,), (served,) = results["together"], results["apart"], results["served"]
    count, pages, measured = together[0]["series"], together[0]["pages"], apart["series"]
    recorded, seconds, others = (
        float(np.median([row[name] for row in together])) for name in ("recorded", "seconds", "others")
    )

    def apart_row(what: str, name: str) -> str:
        whole = count * apart[name]
        return (
            f"| {what} | {apart[name]:.3f} | {whole:,.0f} (from {measured}) | {whole / recorded:,.0f} | "
            f"{whole / seconds:,.0f} | {apart['others']:.2f} |"
        )

    return f"""
## Tracking: {count:,} trained series in MLflow

SQLite store and artefact folder on the local disk, quick to answer; over a network each of a run's dozen calls costs
more. One run: parameters and scores of all series as one hashed table inside the registered model, data sets, tags;
illustrated: also figures, a table of the worst series and nested runs with figures for {pages} of them. Median of
{len(together)}. A run a series: five metrics and `mlflow.prophet.log_model` of a fitted model, **measured on
{measured} series and multiplied** (all {count:,} are not run); alike: with parameters, signature, input example and a
registered name, which is what the one run has of every series. Fitting is in none of the figures.

| form | seconds a series | seconds for {count:,} | times one run | times one run, illustrated | others, cores |
|---|---:|---:|---:|---:|---:|
| one run for all | {recorded / count:.6f} | {recorded:.2f} | 1 | | {others:.2f} |
| one run for all, illustrated | {seconds / count:.6f} | {seconds:.2f} | | 1 | {others:.2f} |
{apart_row("a run a series, bare", "seconds")}
{apart_row("a run a series, alike", "alike_seconds")}

The registered model of those {count:,} series ({served["file_mb"]:.1f} MB), in a fresh process: loaded in
{served["load_seconds"]:.2f} s after {served["import_seconds"]:.1f} s of imports, {served["memory_mb"]:.0f} MB more
memory than before the load. {SERVED:,} random series one by one, {HORIZON} days with {len(QUANTILES)} quantiles each:

| | p50, ms | p99, ms | largest, ms |
|---|---:|---:|---:|
{_latency("a series' parameters", served["parameters"])}
{_latency("forecast, the model itself", served["bare"])}
{_latency("forecast through `mlflow.pyfunc`", served["pyfunc"])}

All {count:,} in one call: {served["batch_seconds"]:.1f} s, {count / served["batch_seconds"]:,.0f} series a second.

`{command}` · {time.strftime("%Y-%m-%d")} · {environment()}"""


def _latency(name: str, milliseconds: list[float]) -> str:
    return f"| {name} | " + " | ".join(f"{value:.2f}" for value in milliseconds) + " |"


# One run for all ---------------------------------------------------------------------------------------


def _together(count: int, repetitions: int, home: Path) -> list[dict[str, Any]]:
    settings = load_settings(overrides=[f"home={home}"])
    tables = Tables(settings)
    batch = simulated(count)
    tables.overwrite(DAILY_DEMAND, _daily(batch))
    tables.overwrite(TRAINED_SERIES, _trained(batch))
    left_out = {"parameters", "day", "hour"}
    columns = [name for name in TRAINED_SERIES.schema.names if name not in left_out and "backtest_" not in name]
    status = tables.read(TRAINED_SERIES, columns).to_pandas()
    _warm_up_store(settings)
    results = []
    for turn in range(repetitions):
        with _metered() as meter:
            started = time.perf_counter()
            run = start_run(settings, f"together {turn}", {"forecast.engine": ENGINE})
            trained = Trained("f-bench", END, HORIZON, summarise(status), status)
            record(run, tables, trained)
            recorded = time.perf_counter() - started
            illustrate(run, tables, trained, settings.tracking)
            run.finish(succeeded=True)
            seconds = time.perf_counter() - started
        pages = settings.tracking.worst_series + settings.tracking.sample_series
        downloads = home.with_name(f"download-{turn}")
        downloads.mkdir()
        model = run.client.download_artifacts(run.run_id, "model", str(downloads))
        results.append(
            {"series": count, "recorded": recorded, "seconds": seconds, "pages": pages, "model": model,
             "others": meter.others}
        )  # fmt: skip
    return results


@contextmanager
def _metered() -> Iterator[Meter]:
    meter = Meter({})
    meter.start()
    yield meter
    meter.stop()


def _warm_up_store(settings: Settings) -> None:
    """Make the database and import MLflow: once a machine, not once a training."""
    start_run(settings, "warm-up", {}).finish(succeeded=True)


def simulated(count: int, seed: int = 1) -> SeriesBatch:
    """Daily counts with trend, weekly and yearly shape: n series over `DAYS` days."""
    chance = np.random.default_rng(seed)
    day = np.arange(DAYS)
    level = chance.gamma(2.0, 10.0, (count, 1))
    trend = 1 + chance.uniform(-0.4, 0.6, (count, 1)) * day / DAYS
    week = 1 + 0.3 * chance.standard_normal((count, 7))[:, day % 7].clip(-2, 2)
    year = 1 + 0.3 * np.sin(2 * np.pi * day / 365.25 + chance.uniform(0, 2 * np.pi, (count, 1)))
    demand = chance.poisson(level * trend * week * year).astype(float)
    names = [(f"store-{row % STORES:03d}", f"sku-{row // STORES:05d}") for row in range(count)]
    return from_matrix(demand, END, names)


def _trained(batch: SeriesBatch) -> pa.Table:
    """Rows of `TRAINED_SERIES` of a batch, fitted and backtested for real."""
    rows = np.arange(len(batch))
    parts = [
        _trained_part(batch.take(rows[start : start + FITTED_AT_A_TIME]))
        for start in range(0, len(batch), FITTED_AT_A_TIME)
    ]
    return pa.concat_tables(parts)


def _trained_part(batch: SeriesBatch) -> pa.Table:
    engine, naive = (create(name, EngineOptions()) for name in (ENGINE, BASELINE))
    forecast = engine.fit_forecast(batch, HORIZON, QUANTILES)
    train = batch.until(END - timedelta(days=HORIZON))
    actual, scale = batch.demand[:, -HORIZON:], naive_scale(train.demand)
    low, high = QUANTILES.index(0.10), QUANTILES.index(0.90)
    tested, baseline = (model.fit_forecast(train, HORIZON, QUANTILES) for model in (engine, naive))
    scores, compared = (
        score(actual, made.yhat, made.quantiles[:, :, low], made.quantiles[:, :, high], scale)
        for made in (tested, baseline)
    )
    columns: dict[str, Any] = {
        **{name: getattr(batch, name) for name in ("location_id", "sku")},
        "category": [f"category-{int(sku[-2:]) % 12:02d}" for sku in batch.sku],
        "status": ["ok"] * len(batch),
        "model": [ENGINE] * len(batch),
        "parameters": forecast.parameters,
        "attempted": [True] * len(batch),
        "observations": batch.observed,
        **{name: getattr(scores, name) for name in ("WAPE", "MASE", "bias", "coverage")},
        **{name: getattr(scores, name) for name in ("absolute_error", "error", "actual", "covered", "days")},
        "baseline_WAPE": compared.WAPE,
        "baseline_absolute_error": compared.absolute_error,
        "day": _steps(forecast),
        "backtest_actual": list(actual),
        "backtest_yhat": list(tested.yhat),
        "backtest_low": list(tested.quantiles[:, :, low]),
        "backtest_high": list(tested.quantiles[:, :, high]),
    }
    schema = TRAINED_SERIES.schema
    return pa.table(
        [pa.array(columns[name], schema.field(name).type) if name in columns
         else pa.nulls(len(batch), schema.field(name).type) for name in schema.names],
        schema=schema,
    )  # fmt: skip


def _steps(forecast: ForecastBatch) -> list[list[dict[str, float]]]:
    names = ("yhat", *QUANTILE_COLUMNS)
    values = np.concatenate([forecast.yhat[:, :, None], forecast.quantiles], axis=2).tolist()
    return [[dict(zip(names, step, strict=True)) for step in series] for series in values]


def _daily(batch: SeriesBatch) -> pa.Table:
    count, days = batch.demand.shape
    cells = count * days
    columns = {
        "location_id": pa.array(np.repeat(np.array(batch.location_id, object), days)),
        "sku": pa.array(np.repeat(np.array(batch.sku, object), days)),
        "date": pa.array(np.tile(batch.dates, count)),
        "demand": pa.array(batch.demand.ravel().astype(np.int64)),
        "in_stock_fraction": pa.array(np.ones(cells)),
    }
    schema = DAILY_DEMAND.schema
    return pa.table(
        [columns.get(field.name, pa.nulls(cells, field.type)).cast(field.type) for field in schema], schema=schema
    )


# A run a series ----------------------------------------------------------------------------------------


def _apart(count: int, home: Path) -> dict[str, Any]:
    import mlflow
    import mlflow.prophet
    from prophet import Prophet

    settings = load_settings(overrides=[f"home={home}"])
    _warm_up_store(settings)
    batch = simulated(DISTINCT_PEERS)
    models = [Prophet().fit(pd.DataFrame({"ds": pd.to_datetime(batch.dates), "y": units})) for units in batch.demand]
    mlflow.set_tracking_uri(f"sqlite:///{home.absolute() / 'mlflow.db'}")
    mlflow.set_experiment(settings.mlflow.experiment)
    future = models[0].make_future_dataframe(HORIZON, include_history=False)[["ds"]]
    signature = mlflow.models.infer_signature(future, models[0].predict(future))
    params = {"growth": "linear", "changepoint_prior_scale": 0.05, "store": "store-001", "sku": "sku-00001"}
    like_ours = {"signature": signature, "input_example": future.head(1)}

    def log(number: int, **arguments: Any) -> None:
        named = {"registered_model_name": f"store-001.sku-{number:05d}"} if arguments else {}
        with mlflow.start_run(run_name=f"series {number}"):
            mlflow.log_metrics({"WAPE": 0.1, "MASE": 0.8, "bias": 0.0, "coverage": 0.8, "baseline_WAPE": 0.2})
            if arguments:
                mlflow.log_params(params)
            mlflow.prophet.log_model(models[number % len(models)], name="model", **arguments, **named)

    with _metered() as meter:
        log(0)  # the first of a process is slower
        plain = _seconds_each(log, count)
        log(0, **like_ours)
        alike = _seconds_each(lambda number: log(number, **like_ours), count)
    mlflow.set_tracking_uri(None)
    return {"series": count, "seconds": plain, "alike_seconds": alike, "others": meter.others}


def _seconds_each(action: Callable[[int], None], count: int) -> float:
    started = time.perf_counter()
    for number in range(count):
        action(number)
    return (time.perf_counter() - started) / count


# Serving -----------------------------------------------------------------------------------------------


def served(folder: Path) -> dict[str, Any]:
    """Load the model as a stranger would and ask for random series; milliseconds as p50, p99, largest."""
    started = time.perf_counter()
    import mlflow.pyfunc

    imported = time.perf_counter()
    before = psutil.Process().memory_info().rss
    model = mlflow.pyfunc.load_model(str(folder))
    loaded = time.perf_counter()
    memory = psutil.Process().memory_info().rss - before
    own = model.unwrap_python_model()
    path = next(folder.glob("artifacts/*.parquet"))
    keys = pd.read_parquet(path, columns=["location_id", "sku"])
    chosen = keys.sample(SERVED, replace=len(keys) < SERVED, random_state=1).assign(horizon=HORIZON)
    questions = [chosen.iloc[[row]].reset_index(drop=True) for row in range(len(chosen))]
    everything = keys.assign(horizon=HORIZON)
    timed = {
        "parameters": _milliseconds(lambda ask: own.series.parameters(ask["location_id"][0], ask["sku"][0]), questions),
        "bare": _milliseconds(lambda ask: own.predict(None, ask), questions),
        "pyfunc": _milliseconds(model.predict, questions),
    }
    batch = time.perf_counter()
    answer = model.predict(everything)
    seconds = time.perf_counter() - batch
    assert len(answer) == HORIZON * len(keys)
    return {
        **timed,
        "import_seconds": imported - started,
        "load_seconds": loaded - imported,
        "memory_mb": memory / 1e6,
        "file_mb": path.stat().st_size / 1e6,
        "batch_seconds": seconds,
        "series": len(keys),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _milliseconds(ask: Callable[[pd.DataFrame], Any], questions: list[pd.DataFrame]) -> list[float]:
    taken = []
    for question in questions:
        started = time.perf_counter()
        ask(question)
        taken.append(1000 * (time.perf_counter() - started))
    return [float(value) for value in (*np.percentile(taken, [50, 99]), max(taken))]


if __name__ == "__main__":
    print(json.dumps(served(Path(sys.argv[1]))))
