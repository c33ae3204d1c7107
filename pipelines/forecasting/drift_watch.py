"""The watch over published forecasts: reads what was in force and what came, keeps the last days, tells a drift."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.contracts.tables import DAILY_DEMAND, FORECAST_DRIFT, FORECASTS, TRAINING, Table
from pipelines.forecasting.drift import ALL, Drift, Window, measure
from pipelines.forecasting.hourly import utc_midnight
from pipelines.forecasting.series import EPOCH, OUT_OF_STOCK, Floats, Integers, series_keys
from pipelines.io.delta import Tables
from pipelines.io.published import Published
from pipelines.operations.settings import DriftSettings

log = logging.getLogger("stockcast.forecasting")

WEEKS = 9
_LISTS = ("actual", "yhat", "covered")

FORECAST_ERRORS = Table(
    "staging/forecast_errors",
    pa.schema(
        [
            pa.field("series", pa.string()),
            pa.field("last_day", pa.date32()),
            *(pa.field(name, pa.list_(pa.float32())) for name in _LISTS),
        ]
    ),
    TRAINING,
)
"""The last days of published forecasts, a row a series and a number a day up to `last_day`; replaced every night,
not for outsiders."""


@dataclass(frozen=True)
class DriftReport:
    """What a night's watch found: the whole chain first, then the categories."""

    as_of: date
    version: str | None
    scopes: tuple[Drift, ...]
    window: Window

    @property
    def warnings(self) -> list[str]:
        """A line for each scope that crossed a limit."""
        return [
            f"{'all series' if drift.scope == ALL else f'category {drift.scope}'}: {drift.warning}"
            for drift in self.scopes
            if drift.warning
        ]

    def metrics(self) -> dict[str, float]:
        """The whole chain's numbers, for tracking."""
        whole = asdict(self.scopes[0])
        return {
            **{f"drift.{name}": float(value) for name, value in whole.items() if isinstance(value, int | float)},
            "drift.warnings": float(len(self.warnings)),
        }


def watch(
    tables: Tables,
    daily: DataFrame,
    status: pd.DataFrame,
    pointer: Published | None,
    as_of: date,
    settings: DriftSettings,
) -> DriftReport:
    """Score the forecasts in force on the days that have come since, and write `gold/forecast_drift`.

    Run it before the pointer is switched. Doing so again scores the same days anew: nothing is counted twice.

    Args:
        daily: demand a day up to `as_of`.
        status: location_id, sku, category, observations: the series of this training.
        pointer: what is in force; None: nothing yet.
    """
    known = status[status["observations"] > 0]
    keys = _joined(known)
    category = pd.Series(known["category"].to_numpy(object), index=keys)
    window = _read_window(tables, settings.window_days, as_of)
    if pointer is not None and (scored := score_published(tables, pointer, as_of, settings.window_days)) is not None:
        window = window.with_scored(scored.only(keys))
        _write_window(tables, window)
    window = window.only(keys)
    weeks = weekly_units(daily, as_of).toPandas()
    weeks = weeks[np.isin(series := _joined(weeks), keys)]
    demanded = category.reindex(series[np.isin(series, keys)]).tolist()
    units = weeks[[f"week_{week}" for week in range(WEEKS)]].to_numpy(float)
    scopes = measure(window, category.reindex(window.keys).tolist(), units, demanded, settings)
    report = DriftReport(as_of, None if pointer is None else pointer.version, tuple(scopes), window)
    tables.overwrite(FORECAST_DRIFT, _rows(report), predicate=f"as_of = CAST('{as_of.isoformat()}' AS DATE)")
    for line in report.warnings:
        log.warning("drift, %s", line)
    return report


def score_published(tables: Tables, pointer: Published, as_of: date, longest: int) -> Window | None:
    """The published forecasts of the days after the pointer's up to `as_of`, beside what came; None for no days.

    A day without a row of demand is one on which nothing sold. A day on which a series was without stock for a
    while does not count: what it would have sold is not known.
    """
    first = max(pointer.as_of + timedelta(days=1), as_of - timedelta(days=longest - 1))
    width = (as_of - first).days + 1
    if width <= 0:
        return None
    where = (
        (pc.field("forecast_version") == pointer.version)
        & (pc.field("grain") == "day")
        & (pc.field("target_time") >= pa.scalar(utc_midnight(first), pa.timestamp("us", "UTC")))
        & (pc.field("target_time") <= pa.scalar(utc_midnight(as_of), pa.timestamp("us", "UTC")))
    )
    forecast = tables.read(FORECASTS, ("location_id", "sku", "target_time", "yhat", "q10", "q90"), where)
    if not forecast.num_rows:
        return None
    days = pc.field("date")
    demand = tables.read(
        DAILY_DEMAND,
        ("location_id", "sku", "date", "demand", "in_stock_fraction"),
        (days >= first) & (days <= as_of),
    )
    keys, rows = np.unique(series_keys(forecast), return_inverse=True)
    column = forecast.column("target_time").cast(pa.date32()).cast(pa.int32()).to_numpy() - (first - EPOCH).days
    yhat, low, high = (
        _matrix(len(keys), width, rows, column, forecast.column(name).to_numpy()) for name in ("yhat", "q10", "q90")
    )
    actual = _actual(keys, width, first, demand)
    covered = np.where((actual >= low) & (actual <= high), 1.0, 0.0)
    scored = np.isfinite(actual) & np.isfinite(yhat)
    return Window(keys, as_of, *(np.where(scored, values, np.nan) for values in (actual, yhat, covered)))


def weekly_units(daily: DataFrame, as_of: date) -> DataFrame:
    """location_id, sku and week_0 to week_8: units in each of the last nine weeks of seven days, the newest last."""
    age = F.datediff(F.lit(as_of), F.col("date"))
    week = F.lit(WEEKS - 1) - F.floor(age / 7)
    return (
        daily.where((age >= 0) & (age < 7 * WEEKS))
        .groupBy("location_id", "sku")
        .agg(
            *(
                F.sum(F.when(week == place, F.col("demand")).otherwise(0)).alias(f"week_{place}")
                for place in range(WEEKS)
            )
        )
    )


def _actual(keys: npt.NDArray[np.object_], width: int, first: date, demand: pa.Table) -> Floats:
    actual = np.zeros((len(keys), width))
    names = series_keys(demand)
    place = np.minimum(np.searchsorted(keys, names), len(keys) - 1)
    found = keys[place] == names
    column = demand.column("date").cast(pa.int32()).to_numpy() - (first - EPOCH).days
    in_stock = demand.column("in_stock_fraction").fill_null(1.0).to_numpy()
    # A level of zero all day with sales is a wrong level, not a day without stock.
    units = demand.column("demand").fill_null(0).to_numpy().astype(float)
    unknown = (in_stock < 1) & ~((in_stock == OUT_OF_STOCK) & (units > 0))
    actual[place[found], column[found]] = np.where(unknown, np.nan, units)[found]
    return actual


def _matrix(count: int, width: int, rows: Integers, column: Integers, values: Floats) -> Floats:
    matrix = np.full((count, width), np.nan)
    matrix[rows, column] = values
    return matrix


def _read_window(tables: Tables, days: int, as_of: date) -> Window:
    rows = tables.read(FORECAST_ERRORS)
    if not rows.num_rows:
        return Window.empty(as_of, days)
    rows = rows.sort_by("series")
    lists = {name: rows.column(name).combine_chunks() for name in _LISTS}
    width = len(lists["actual"].values) // rows.num_rows
    matrices = {
        name: values.values.to_numpy(zero_copy_only=False).astype(float).reshape(rows.num_rows, width)
        for name, values in lists.items()
    }
    if width > days:
        matrices = {name: values[:, -days:] for name, values in matrices.items()}
    elif width < days:
        matrices = {
            name: np.pad(values, ((0, 0), (days - width, 0)), constant_values=np.nan)
            for name, values in matrices.items()
        }
    keys = np.array(rows.column("series").to_pylist(), object)
    return Window(keys, rows.column("last_day")[0].as_py(), **matrices)


def _write_window(tables: Tables, window: Window) -> None:
    count, width = window.actual.shape
    offsets = pa.array(np.arange(count + 1) * width, pa.int32())
    lists = [
        pa.ListArray.from_arrays(offsets, pa.array(getattr(window, name).ravel().astype(np.float32))) for name in _LISTS
    ]
    columns = [pa.array(window.keys.tolist(), pa.string()), pa.array([window.end] * count, pa.date32()), *lists]
    tables.overwrite(FORECAST_ERRORS, pa.table(columns, names=FORECAST_ERRORS.schema.names))
    # The last night's files are of no use to anybody.
    tables.handle(FORECAST_ERRORS).vacuum(0, dry_run=False, enforce_retention_duration=False)


def _rows(report: DriftReport) -> pa.Table:
    rows = [
        {"as_of": report.as_of, "forecast_version": report.version, **_without_nan(asdict(drift))}
        for drift in report.scopes
    ]
    return pa.Table.from_pylist(rows, schema=FORECAST_DRIFT.schema)


def _without_nan(values: dict[str, object]) -> dict[str, object]:
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value for name, value in values.items()
    }


def _joined(frame: pd.DataFrame) -> npt.NDArray[np.object_]:
    return np.asarray((frame["location_id"] + "|" + frame["sku"]).to_numpy(object))
