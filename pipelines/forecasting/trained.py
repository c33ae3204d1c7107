"""What an executor does with its series, and the table in which a training's results are kept whole.

One row a series holds its forecasts as arrays of structs, its scores and its parameters. The table of forecasts,
the series' status and the model registry's artefact are all made from it without computing anything twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import Accumulator
from threadpoolctl import threadpool_limits

from pipelines.contracts.tables import QUANTILE_COLUMNS, QUANTILES, TRAINING, Table
from pipelines.forecasting.censoring import Censoring, read_series
from pipelines.forecasting.hour_of_week import HourlyPlan
from pipelines.forecasting.selection import INTERVAL, Engines, Outcome, Task, train_batch
from pipelines.forecasting.series import Floats, SeriesBatch

STEPS = pa.list_(pa.struct([pa.field(name, pa.float64()) for name in ("yhat", *QUANTILE_COLUMNS)]))
_LISTS = ("backtest_actual", "backtest_yhat", "backtest_low", "backtest_high")
_TEXT = ("location_id", "sku", "category", "status", "model", "reason", "parameters")
SCORES = ("WAPE", "MASE", "bias", "coverage", "baseline_WAPE")
SUMS = ("absolute_error", "error", "actual", "covered", "days", "baseline_absolute_error")

TRAINED_SERIES = Table(
    "staging/trained_series",
    pa.schema(
        [
            *(pa.field(name, pa.string()) for name in _TEXT),
            pa.field("attempted", pa.bool_()),
            pa.field("observations", pa.int64()),
            *(pa.field(name, pa.float64()) for name in (*SCORES, *SUMS)),
            pa.field("day", STEPS),
            pa.field("hour", STEPS),
            *(pa.field(name, pa.list_(pa.float64())) for name in _LISTS),
        ]
    ),
    TRAINING,
)
"""The newest training's results, replaced by each; not for outsiders. `day` and `hour` hold the steps after the
training's last day; both are null for a failed series."""


@dataclass(frozen=True)
class Plan:
    """All that an executor needs to know; `end` is the last day whose data may be used."""

    engines: Engines
    task: Task
    end: date
    batch_series: int
    hourly: HourlyPlan
    censoring: Censoring


def train_rows(
    batches: Iterator[pa.RecordBatch], plan: Plan, done: Accumulator[int] | None
) -> Iterator[pa.RecordBatch]:
    """`series_rows` in, `TRAINED_SERIES` rows out; memory holds one call's series at a time.

    Linear algebra and Stan stay on one thread: parallelism is Spark's.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "STAN_NUM_THREADS"):
        os.environ[name] = "1"
    with threadpool_limits(limits=1):
        for rows in batches:
            for offset in range(0, rows.num_rows, plan.batch_series):
                part = rows.slice(offset, plan.batch_series)
                batch = read_series(part, plan.end, plan.censoring)
                outcome = train_batch(batch, plan.engines, plan.task)
                hours = plan.hourly.forecast(part, batch, outcome.forecast.yhat, outcome.forecast.quantiles)
                yield trained_rows(batch, outcome, hours, plan)
                if done is not None:
                    done.add(len(batch))


def trained_rows(batch: SeriesBatch, outcome: Outcome, hours: tuple[Floats, Floats], plan: Plan) -> pa.RecordBatch:
    """A batch's outcome and its hourly forecasts (mean and quantiles) as rows of `TRAINED_SERIES`."""
    sound = np.array([reason is None for reason in outcome.forecast.failures], bool)
    scores = outcome.tested.scores
    test = outcome.tested.forecast
    tested = np.isfinite(scores.days)
    low, high = (plan.task.probabilities.index(probability) for probability in INTERVAL)
    columns: dict[str, Any] = {
        "location_id": batch.location_id,
        "sku": batch.sku,
        "category": batch.category,
        "status": outcome.status,
        "model": outcome.model,
        "reason": outcome.reason,
        "parameters": outcome.forecast.parameters,
        "attempted": outcome.attempted,
        "observations": batch.observed,
        **{name: _number(getattr(scores, name)) for name in SCORES[:4]},
        "baseline_WAPE": _number(outcome.baseline.WAPE),
        **{name: _number(getattr(scores, name)) for name in SUMS[:5]},
        "baseline_absolute_error": _number(outcome.baseline.absolute_error),
        "day": _steps(outcome.forecast.yhat, outcome.forecast.quantiles, sound),
        "hour": _steps(*hours, sound),
        "backtest_actual": _lists(_last_days(batch.demand, plan.task.horizon), tested),
        "backtest_yhat": _lists(test.yhat, tested),
        "backtest_low": _lists(test.quantiles[:, :, low], tested),
        "backtest_high": _lists(test.quantiles[:, :, high], tested),
    }
    schema = TRAINED_SERIES.schema
    arrays = [
        values if isinstance(values, pa.Array) else pa.array(values, schema.field(name).type)
        for name, values in columns.items()
    ]
    return pa.record_batch(arrays, schema=pa.schema([schema.field(name) for name in columns])).select(schema.names)


def _last_days(demand: Floats, days: int) -> Floats:
    tail = demand[:, -days:]
    return np.pad(tail, ((0, 0), (days - tail.shape[1], 0)), constant_values=np.nan)


def _number(values: Floats) -> pa.Array[Any]:
    return pa.array(values, pa.float64(), mask=~np.isfinite(values))


def _offsets(present: np.ndarray[Any, np.dtype[np.bool_]], width: int) -> pa.Array[Any]:
    """Offsets of lists of `width` items; null where absent."""
    ends = np.concatenate([[0], np.cumsum(np.where(present, width, 0))])
    return pa.array(ends, pa.int32(), mask=np.concatenate([~present, [False]]))


def _lists(values: Floats, present: np.ndarray[Any, np.dtype[np.bool_]]) -> pa.Array[Any]:
    return pa.ListArray.from_arrays(_offsets(present, values.shape[1]), pa.array(values[present].ravel()))


def _steps(yhat: Floats, quantiles: Floats, present: np.ndarray[Any, np.dtype[np.bool_]]) -> pa.Array[Any]:
    columns = [yhat[present].ravel(), *np.moveaxis(quantiles[present], -1, 0).reshape(len(QUANTILES), -1)]
    structs = pa.StructArray.from_arrays([pa.array(column) for column in columns], names=("yhat", *QUANTILE_COLUMNS))
    return pa.ListArray.from_arrays(_offsets(present, yhat.shape[1]), structs)
