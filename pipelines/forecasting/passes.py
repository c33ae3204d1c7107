"""The two passes of a training over its series, on Spark's executors, and what the driver learns between them.

First, `fitted`: every series is backtested, its model chosen and fitted. Then the driver adds up histograms of where
past demand lay in its forecasts, and corrects quantiles by them. Second, `trained`: a light pass that applies the
corrections and spreads days over hours.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial

import holidays
import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from threadpoolctl import threadpool_limits

from pipelines.contracts.tables import QUANTILES, SERIES_STATUS
from pipelines.forecasting import fitted, frames, trained
from pipelines.forecasting.calibration import Calibration, calibrate
from pipelines.forecasting.category import CategoryProfiles, category_profiles
from pipelines.forecasting.censoring import Censoring, read_series
from pipelines.forecasting.engines import EngineOptions
from pipelines.forecasting.fitted import FITTED_SERIES, FitPlan
from pipelines.forecasting.hour_of_week import HourlyPlan
from pipelines.forecasting.hourly import IntradayProfiles, intraday_profiles
from pipelines.forecasting.pooled.from_tables import pool_data
from pipelines.forecasting.pooled.pools import Pools, learn_pool
from pipelines.forecasting.predecessors import with_predecessors
from pipelines.forecasting.rolling import Task
from pipelines.forecasting.selection import Competition, competition
from pipelines.forecasting.trained import TRAINED_SERIES, FinishPlan
from pipelines.io import published
from pipelines.io.delta import Tables, spark_schema
from pipelines.network.kinds import location_kinds
from pipelines.operations.settings import ForecastSettings

log = logging.getLogger("stockcast.forecasting")

Progress = Callable[[int, int], None]
"""Called every few seconds with the series done and all series."""

PROGRESS_SECONDS = 5.0
PARTITIONS_PER_CORE = 8
SMALLEST_PARTITION = 4
POOL_SAMPLE = 256
"""Series from which the spread between series is learnt."""


@dataclass(frozen=True)
class Inputs:
    """The tables that a training reads, whole."""

    daily: DataFrame
    hourly: DataFrame
    products: DataFrame
    locations: DataFrame
    sourcing: DataFrame

    def until(self, as_of: date) -> DataFrame:
        """Daily demand, cut at the last day that may be used."""
        return self.daily.where(F.col("date") <= F.lit(as_of))


@dataclass(frozen=True)
class Trained:
    """What the passes had in common: the competition, and the corrections of its quantiles."""

    contest: Competition
    calibration: Calibration


def train_series(
    spark: SparkSession,
    forecast: ForecastSettings,
    tables: Tables,
    inputs: Inputs,
    as_of: date,
    progress: Progress | None = None,
) -> Trained:
    """Train all series on the demand up to `as_of`, into `TRAINED_SERIES`."""
    daily = inputs.until(as_of)
    requested = frames.requested_series(daily, inputs.sourcing, inputs.locations).persist()
    try:
        total = requested.count()
        series = _series(forecast, tables, inputs, as_of, requested)
        plan = _plan(forecast, tables, inputs, as_of, series)
        log.info("training %d series up to %s with %s", total, as_of, ", ".join(plan.contest.names))
        cores = spark.sparkContext.defaultParallelism
        partitions = max(1, min(-(-total // SMALLEST_PARTITION), PARTITIONS_PER_CORE * cores))
        done = spark.sparkContext.accumulator(0)
        results = series.repartition(partitions).mapInArrow(
            partial(fitted.fit_rows, plan=plan, done=done), spark_schema(FITTED_SERIES)
        )
        with _small_batches(spark, forecast.batch_series):
            with _reporting(lambda: done.value, total, progress):
                tables.overwrite_frame(FITTED_SERIES, results)
            calibration = _calibration(spark, forecast, tables, plan)
            finish = FinishPlan(plan.task, forecast.batch_series, plan.hourly, calibration)
            finished = tables.frame(spark, FITTED_SERIES).mapInArrow(
                partial(trained.finish_rows, plan=finish), spark_schema(TRAINED_SERIES)
            )
            tables.overwrite_frame(TRAINED_SERIES, finished)
    finally:
        requested.unpersist()
    # The last training's files are of no use to anybody.
    for table in (FITTED_SERIES, TRAINED_SERIES):
        tables.handle(table).vacuum(0, dry_run=False, enforce_retention_duration=False)
    return Trained(plan.contest, calibration)


def _series(forecast: ForecastSettings, tables: Tables, inputs: Inputs, as_of: date, requested: DataFrame) -> DataFrame:
    """One row a series, with the model of the forecasts in force."""
    first = as_of - timedelta(days=forecast.history_days - 1)
    daily = with_predecessors(inputs.until(as_of), forecast.predecessors)
    hours = frames.hourly_history(inputs.hourly, first, as_of, 7 * forecast.profile_weeks)
    series = frames.series_rows(daily, requested, inputs.products, inputs.locations, first, hours)
    pointer = published.in_force(tables, published.FORECASTS)
    if pointer is None:
        return series
    status = tables.frame(requested.sparkSession, SERIES_STATUS).where(F.col("forecast_version") == pointer.version)
    previous = status.select("location_id", "sku", F.col("model").alias("previous_model"))
    return series.join(previous.dropDuplicates(["location_id", "sku"]), on=["location_id", "sku"], how="left")


# What executors are told ------------------------------------------------------------------------------


def _plan(forecast: ForecastSettings, tables: Tables, inputs: Inputs, as_of: date, series: DataFrame) -> FitPlan:
    intraday = _intraday(forecast, inputs, as_of)
    censoring = Censoring(forecast.censoring, forecast.censoring_floor, intraday)
    task = Task(
        forecast.horizon_days,
        forecast.minimum_history_days,
        QUANTILES,
        forecast.backtest_cutoffs,
        forecast.backtest_spacing_days,
    )
    origins = task.origins(as_of)
    profiles = _profiles(forecast, tables, inputs, as_of)
    earlier = {origins[0]: _profiles(forecast, tables, inputs, origins[0]), as_of: profiles}
    options = EngineOptions(forecast, profiles, earlier=earlier)
    contest = competition(forecast, options)
    if any(getattr(engine, "uses_pools", False) for engine in contest.engines.values()):
        pools = _pools(forecast, inputs, (*origins, as_of), series, censoring)
        contest = competition(forecast, replace(options, pools=pools))
    return FitPlan(
        contest=contest,
        task=task,
        end=as_of,
        batch_series=forecast.batch_series,
        hourly=HourlyPlan(
            min(forecast.hourly_horizon_hours, 24 * forecast.horizon_days),
            intraday,
            forecast.hourly_method,
            forecast.hourly_coherent,
            forecast.profile_weeks,
        ),
        censoring=censoring,
        predecessors=forecast.predecessors,
    )


def _profiles(forecast: ForecastSettings, tables: Tables, inputs: Inputs, as_of: date) -> CategoryProfiles:
    first = as_of - timedelta(days=7 * forecast.profile_weeks - 1)
    kinds = location_kinds(tables, as_of)
    statistics = frames.category_statistics(inputs.until(as_of), inputs.products, first, kinds)
    return category_profiles(statistics.toPandas(), kinds)


def _intraday(forecast: ForecastSettings, inputs: Inputs, as_of: date) -> IntradayProfiles:
    first = as_of - timedelta(days=7 * forecast.profile_weeks - 1)
    statistics = frames.intraday_statistics(inputs.hourly, inputs.products, inputs.locations, first, as_of)
    return intraday_profiles(statistics.toPandas(), first, as_of)


def _pools(
    forecast: ForecastSettings, inputs: Inputs, ends: Sequence[date], series: DataFrame, censoring: Censoring
) -> Pools:
    """The pools of every cutoff and of the last day, each from nothing later."""
    first = max(ends) - timedelta(days=forecast.history_days - 1)
    chosen = series.where(F.size("date") > 0).orderBy(F.xxhash64("location_id", "sku"), "location_id", "sku")
    sample = read_series(chosen.limit(POOL_SAMPLE).toArrow(), max(ends), censoring)
    days = _holidays(forecast.holidays_country, first, max(ends) + timedelta(days=forecast.horizon_days))
    data = pool_data(inputs.until(max(ends)), inputs.products, first, ends, sample, days)
    # Small matrices: several threads of linear algebra wait for each other more than they compute.
    with threadpool_limits(limits=1):
        learnt = {end: learn_pool(known) for end, known in data.items()}
    return Pools({end: pool for end, pool in learnt.items() if pool is not None})


def _holidays(country: str | None, first: date, last: date) -> list[tuple[str, date]]:
    if country is None:
        return []
    found = holidays.country_holidays(country, years=range(first.year, last.year + 1))
    return [(name, day) for day, name in sorted(found.items()) if first <= day <= last]


# Between the passes ------------------------------------------------------------------------------------


def _calibration(spark: SparkSession, forecast: ForecastSettings, tables: Tables, plan: FitPlan) -> Calibration:
    """The corrections, from the histograms of all calls; on the driver there is one number a bin."""
    if forecast.calibration == "none":
        return Calibration()
    pairs = F.explode(F.arrays_zip("place", "mass")).alias("pair")
    sums = (
        tables.frame(spark, FITTED_SERIES)
        .where(F.col("place").isNotNull())
        .select(pairs)
        .groupBy(F.col("pair.place").alias("place"))
        .agg(F.sum("pair.mass").alias("mass"))
        .toArrow()
    )
    place, mass = (np.asarray(sums.column(name).to_numpy(), np.int64) for name in ("place", "mass"))
    names = plan.contest.names
    calibration = calibrate(fitted.dense_histograms(place, mass, names, plan.task), plan.task.probabilities)
    _tell(calibration.deviations, set(calibration.of))
    return calibration


def _tell(deviations: Mapping[tuple[str, str], tuple[float, float]], used: set[tuple[str, str]]) -> None:
    for (demand_class, model), (before, after) in deviations.items():
        log.info(
            "quantiles of %s on %s series were %.1f points off, by the other cutoffs' correction %.1f: %s",
            *(model, demand_class, 100 * before, 100 * after),
            "corrected" if (demand_class, model) in used else "left as they are",
        )


@contextmanager
def _small_batches(spark: SparkSession, rows: int) -> Iterator[None]:
    """Arrow batches of at most `rows` rows for the block: a row is a whole series."""
    name = "spark.sql.execution.arrow.maxRecordsPerBatch"
    before = spark.conf.get(name)
    spark.conf.set(name, rows)
    try:
        yield
    finally:
        spark.conf.set(name, before or "10000")


@contextmanager
def _reporting(done: Callable[[], int], total: int, progress: Progress | None) -> Iterator[None]:
    """Tell every few seconds how many series are done; a task that Spark repeats is counted once more."""
    finished = threading.Event()
    told = progress or (lambda count, of: log.info("%d of %d series trained", count, of))

    def tell() -> None:
        last = -1
        while not finished.wait(PROGRESS_SECONDS):
            count = min(done(), total)
            if count != last:
                told(count, total)
                last = count

    thread = threading.Thread(target=tell, name="training-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
    told(total, total)
