"""The nightly training: demand in, forecasts published, the run tracked."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import TypeVar
from zoneinfo import available_timezones

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.contracts.tables import (
    DAILY_DEMAND,
    HOURLY_DEMAND,
    LOCATIONS,
    PRODUCTS,
    SOURCING,
    TRAINING,
)
from pipelines.errors import MissingDataError, PublishingError
from pipelines.forecasting import coherence, frames, publishing, reconciliation, releasing
from pipelines.forecasting.backtests import backtest_rows
from pipelines.forecasting.drift_watch import DriftReport, watch
from pipelines.forecasting.engines import EngineOptions, create
from pipelines.forecasting.passes import Inputs, Progress, train_series
from pipelines.forecasting.promotion import Decision, Evidence
from pipelines.forecasting.registry import COMPLETE
from pipelines.forecasting.selection import FAILED, Competition, refuse_unknown_candidates
from pipelines.forecasting.summary import Summary, summarise
from pipelines.forecasting.tracking import Tracking, start_run
from pipelines.forecasting.trained import TRAINED_SERIES
from pipelines.forecasting.training_pages import Trained, illustrate, record
from pipelines.io import published
from pipelines.io.delta import Tables, spark_schema
from pipelines.io.ownership import ownership
from pipelines.operations.failpoints import failpoint
from pipelines.operations.logs import about
from pipelines.operations.settings import ForecastSettings, Settings

log = logging.getLogger("stockcast.forecasting")

Result = TypeVar("Result")


@dataclass(frozen=True)
class TrainingReport:
    """What a training gave. Ratios pool all scored series; NaN where nothing could be scored.

    `training_run` is None where MLflow failed, `champion` whether the new model was promoted, `decision` what the
    gates said: where it is a refusal, the forecasts that were in force stay. `drift`: how those in force before
    have fared; None where the watch failed.
    """

    version: str
    as_of: date
    summary: Summary
    training_run: str | None
    model_version: str | None
    champion: bool
    decision: Decision
    drift: DriftReport | None


def train(
    spark: SparkSession,
    settings: Settings,
    tables: Tables,
    as_of: date | None,
    now: datetime,
    progress: Progress | None = None,
    *,
    dry_run: bool = False,
) -> TrainingReport:
    """Train every series on the demand up to the end of `as_of` and publish the forecasts.

    Everything is computed and written first; the pointer row is switched last, so whatever fails or dies
    on the way leaves yesterday's forecasts in force, and a run again completes. Takes the ownership of
    `train_forecasts` itself, and of `publishing` for the moment of the switch.

    Args:
        as_of: the last day whose data may be used; None: the newest day in `gold/daily_demand` that is over.
        now: the time of the training; it names the version.
        dry_run: train, track and judge, but put nothing into force.

    Raises:
        UsageError: an engine that the settings name is not registered.
        MissingDataError: there is no demand up to `as_of`.
        PublishingError: the new forecasts are incomplete or malformed, or the engine failed on every series.
    """
    refuse_unknown_candidates(settings.forecast)
    with ownership(settings, TRAINING):
        inputs = _read(spark, tables)
        as_of = _last_day(inputs.daily, as_of, now)
        version = publishing.forecast_version(as_of, now)
        run = _attempt("start a run", lambda: start_run(settings, version, _parameters(settings.forecast, as_of)))
        try:
            with about(version=version):
                report = _train(spark, settings, tables, _Job(inputs, as_of, version, now, run, progress, dry_run))
        except BaseException:
            if run is not None:
                _attempt("close the run", lambda: run.finish(succeeded=False))
            raise
    return report


@dataclass(frozen=True)
class _Job:
    inputs: Inputs
    as_of: date
    version: str
    now: datetime
    run: Tracking | None
    progress: Progress | None
    dry_run: bool


def _train(spark: SparkSession, settings: Settings, tables: Tables, job: _Job) -> TrainingReport:
    forecast = settings.forecast
    trained = train_series(spark, forecast, tables, job.inputs, job.as_of, job.progress)
    failpoint("train.after_series")
    results = tables.frame(spark, TRAINED_SERIES)
    status = tables.read(TRAINED_SERIES, columns=_STATUS_COLUMNS)
    _refuse_systematic_failure(status, trained.contest)
    summary = summarise(status.to_pandas())
    drift = _watch(settings, tables, job, status.to_pandas())
    page = Trained(job.version, job.as_of, forecast.horizon_days, summary, status.to_pandas(), drift)
    model_version = _track(tables, job, page)
    run = job.run if model_version is not None else None
    training_run = None if run is None else run.run_id
    rows = _coherent(frames.forecast_rows(results, job.as_of, job.version, job.now), results, job, forecast)
    stored = publishing.write_version(
        spark, tables, rows, publishing.status_rows(status, job.version, job.as_of, training_run), job.version
    )
    publishing.write_backtests(tables, backtest_rows(results, job.as_of, job.version), job.version)
    days, hours = forecast.horizon_days, min(forecast.hourly_horizon_hours, 24 * forecast.horizon_days)
    try:
        publishing.check(stored, results, job.as_of, days, hours)
    except PublishingError:
        publishing.discard(tables, job.version)
        raise
    coherence.write_totals(spark, tables, job.version, job.now)
    evidence = Evidence.of(summary.metrics())
    registry = None if run is None else run.registry
    decision = releasing.judge(tables, settings.promotion, job.version, job.as_of, evidence, registry)
    pointer = published.Published(published.FORECASTS, job.version, job.as_of, training_run, job.now)
    failpoint("train.before_switch")
    _release(settings, tables, job, pointer, decision, summary)
    publishing.delete_old_versions(tables, forecast.versions_kept)
    champion = False
    if run is not None and model_version is not None:
        champion = bool(_attempt("promote the model", lambda: _promote(run, model_version, decision, job)))
        _attempt("show the training", lambda: illustrate(run, tables, page, settings.tracking))
        _attempt("close the run", lambda: run.finish(succeeded=True))
    elif job.run is not None:
        opened = job.run
        _attempt("close the run", lambda: opened.finish(succeeded=False))
    return TrainingReport(job.version, job.as_of, summary, training_run, model_version, champion, decision, drift)


def _coherent(rows: DataFrame, results: DataFrame, job: _Job, forecast: ForecastSettings) -> DataFrame:
    """The rows as `forecast.reconciliation` wants them; bottom-up, totals follow the series as they are."""
    if forecast.reconciliation == reconciliation.BOTTOM_UP:
        return rows
    inputs, engine = job.inputs, create(forecast.engine, EngineOptions(forecast))
    daily = inputs.daily.where(F.col("date") <= F.lit(job.as_of))
    backtests = backtest_rows(results, job.as_of, job.version)
    places = (inputs.products, inputs.locations)
    return reconciliation.reconciled_rows(rows, backtests, daily, places, engine, job.as_of)


# Reading -----------------------------------------------------------------------------------------------


def _read(spark: SparkSession, tables: Tables) -> Inputs:
    locations = tables.read(LOCATIONS)
    unknown = sorted(
        {zone for zone in locations.column("timezone").to_pylist() if zone not in available_timezones()}, key=str
    )
    if unknown:
        log.warning("unknown time zones in the catalog, UTC is used instead: %s", unknown)
        mended = pc.if_else(
            pc.is_in(locations.column("timezone"), pa.array(unknown, pa.string())),
            "UTC",
            locations.column("timezone"),
        )
        locations = locations.set_column(locations.schema.get_field_index("timezone"), "timezone", mended)
    return Inputs(
        daily=tables.frame(spark, DAILY_DEMAND),
        hourly=tables.frame(spark, HOURLY_DEMAND),
        products=tables.frame(spark, PRODUCTS),
        locations=spark.createDataFrame(locations.to_pandas(), spark_schema(LOCATIONS)),
        sourcing=tables.frame(spark, SOURCING),
    )


def _last_day(daily: DataFrame, as_of: date | None, now: datetime) -> date:
    bound = F.col("date") < F.lit(now.date()) if as_of is None else F.col("date") <= F.lit(as_of)
    newest: date | None = daily.where(bound).agg(F.max("date")).collect()[0][0]
    if newest is None:
        wanted = f"before {now.date()}" if as_of is None else f"up to {as_of}"
        raise MissingDataError(
            f"gold/daily_demand has no day {wanted}: nothing to train on; run jobs/aggregate_demand.py first, "
            "or choose another --as-of"
        )
    return newest if as_of is None else as_of


# Judging what was trained -------------------------------------------------------------------------------


_STATUS_COLUMNS = [
    name
    for name in TRAINED_SERIES.schema.names
    if name not in {"parameters", "day", "hour"} and not name.startswith("backtest_")
]


def _refuse_systematic_failure(status: pa.Table, contest: Competition) -> None:
    """An engine that fails on every series has a cause of its own: others in its place would hide it."""
    names = ["status", "attempted", "reason", "demand_class", "default_failure"]
    rows = status.select(names).to_pandas()
    if not len(rows) or (rows["status"] == FAILED).all():
        raise PublishingError(f"no series could be forecast ({_first(rows)}); the forecasts in force stay")
    classes = [label for label, candidates in contest.classes.items() if contest.default in candidates]
    tried = rows[rows["attempted"] & rows["demand_class"].isin(classes)]
    if len(tried) and tried["default_failure"].notna().all():
        raise PublishingError(
            f"the engine {contest.default} failed on all {len(tried)} series it was tried on (the first: "
            f"{tried['default_failure'].iloc[0]}); the forecasts in force stay. Mend the engine, or choose another "
            "with --set forecast.engine=NAME"
        )


def _first(rows: pd.DataFrame) -> str:
    return f"the first: {rows['reason'].iloc[0]}" if len(rows) else "there is none"


# Publishing and tracking -------------------------------------------------------------------------------


def _release(
    settings: Settings,
    tables: Tables,
    job: _Job,
    pointer: published.Published,
    decision: Decision,
    summary: Summary,
) -> None:
    """Switch the pointer if the decision is to promote; say in one line what came of it."""
    if job.dry_run:
        log.info("dry run, nothing is put in force: forecasts %s would be: %s", job.version, decision)
    elif decision.promoted:
        releasing.put_in_force(settings, tables, pointer)
        told = log.info if decision.overruled is None else log.warning
        told("forecasts %s are in force: %s; %s", job.version, summary, decision)
    else:
        log.warning("the forecasts in force stay; %s: %s", job.version, decision)


def _watch(settings: Settings, tables: Tables, job: _Job, status: pd.DataFrame) -> DriftReport | None:
    """Hold the forecasts in force against what came; None where that failed, which stops no forecasts."""
    daily = job.inputs.daily.where(F.col("date") <= F.lit(job.as_of))
    try:
        pointer = published.in_force(tables, published.FORECASTS)
        return watch(tables, daily, status, pointer, job.as_of, settings.drift)
    except Exception as error:  # a watch that fails must not keep the forecasts from coming
        log.error("the drift watch failed (%s: %s); the forecasts go on without it", type(error).__name__, error)
        log.debug("the watch's error", exc_info=True)
        return None


def _track(tables: Tables, job: _Job, page: Trained) -> str | None:
    """Log results and register the model; its version, None where there is no run or MLflow failed."""
    run = job.run
    if run is None:
        return None
    return _attempt("log the training", lambda: record(run, tables, page))


def _promote(run: Tracking, model_version: str, decision: Decision, job: _Job) -> bool:
    """Write the decision down and, where it is to promote, move the alias."""
    champion = decision.promoted and not job.dry_run
    run.log_results({}, {**decision.tags(), "published": "yes" if champion else "no"}, {})
    run.registry.tag(model_version, {**decision.tags(), COMPLETE: "yes"})
    if champion:
        run.registry.make_champion(model_version, job.now)
    return champion


def _attempt(what: str, action: Callable[[], Result]) -> Result | None:
    """Run what must not stop the forecasts; None where it failed, with one line that says so."""
    try:
        return action()
    except Exception as error:  # MLflow may be away in many ways; the forecasts matter more
        log.error("MLflow could not %s (%s: %s); the forecasts go on without it", what, type(error).__name__, error)
        log.debug("MLflow's error", exc_info=True)
        return None


def _parameters(forecast: ForecastSettings, as_of: date) -> dict[str, object]:
    return {"as_of": as_of.isoformat(), **{f"forecast.{k}": v for k, v in forecast.model_dump().items()}}
