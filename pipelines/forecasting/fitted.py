"""The first pass of a training, on the executors: backtest, choose and fit every series, and what calibration needs.

One row a series holds its forecast as the model gave it, and the backtest of what was chosen; the first row of every
call also holds the call's histograms for the calibration. `trained` makes the final rows of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import Accumulator
from threadpoolctl import threadpool_limits

from pipelines.contracts.tables import TRAINING, Table
from pipelines.forecasting.calibration import BINS, BUCKETS, place_histograms
from pipelines.forecasting.censoring import Censoring, read_series
from pipelines.forecasting.demand_classes import MODELLED
from pipelines.forecasting.hour_of_week import HourlyPlan
from pipelines.forecasting.lists import lists, numbers, one_list
from pipelines.forecasting.rolling import Task
from pipelines.forecasting.selection import OK, Competition, Outcome, train_batch
from pipelines.forecasting.series import Floats, Integers, SeriesBatch

TEXT = ("location_id", "sku", "category", "demand_class", "status", "model", "reason", "parameters", "default_failure")
_SCALARS = ("scale", "baseline_WAPE", "baseline_absolute_error")
_EXACT = ("yhat", "quantiles")
_ROUNDED = ("hour_shape", "tested_actual", "tested_yhat", "tested_quantiles")

FITTED_SERIES = Table(
    "staging/fitted_series",
    pa.schema(
        [
            *(pa.field(name, pa.string()) for name in TEXT),
            pa.field("attempted", pa.bool_()),
            pa.field("observations", pa.int64()),
            *(pa.field(name, pa.float64()) for name in _SCALARS),
            *(pa.field(name, pa.list_(pa.float64())) for name in _EXACT),
            *(pa.field(name, pa.list_(pa.float32())) for name in _ROUNDED),
            pa.field("place", pa.list_(pa.int64())),
            pa.field("mass", pa.list_(pa.int64())),
        ]
    ),
    TRAINING,
)
"""Between the two passes; replaced by each training. Lists are flattened arrays: days (by quantiles), hours of days,
cutoffs by days (by quantiles). `place` and `mass`: histograms, see `sparse_histograms`."""


@dataclass(frozen=True)
class FitPlan:
    """All that an executor needs for the first pass; `end` is the last day whose data may be used, `predecessors` maps
    a new sku to the one whose history it goes on from."""

    contest: Competition
    task: Task
    end: date
    batch_series: int
    hourly: HourlyPlan
    censoring: Censoring
    predecessors: Mapping[str, str] = field(default_factory=dict)


def fit_rows(
    batches: Iterator[pa.RecordBatch], plan: FitPlan, done: Accumulator[int] | None
) -> Iterator[pa.RecordBatch]:
    """`series_rows` (with `previous_model`, or without) in, `FITTED_SERIES` rows out.

    Memory holds one call's series at a time. Linear algebra and Stan stay on one thread: parallelism is Spark's.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "STAN_NUM_THREADS"):
        os.environ[name] = "1"
    with threadpool_limits(limits=1):
        for rows in batches:
            for offset in range(0, rows.num_rows, plan.batch_series):
                part = rows.slice(offset, plan.batch_series)
                batch = read_series(part, plan.end, plan.censoring)
                outcome = train_batch(batch, plan.contest, plan.task, _previous(part))
                shapes = plan.hourly.shapes(part, batch, plan.task.horizon)
                yield fitted_rows(batch, outcome, shapes, plan)
                if done is not None:
                    done.add(len(batch))


def _previous(rows: pa.RecordBatch) -> list[str | None]:
    if "previous_model" not in rows.schema.names:
        return [None] * rows.num_rows
    return list(rows.column(rows.schema.names.index("previous_model")).to_pylist())


def fitted_rows(batch: SeriesBatch, outcome: Outcome, shapes: Floats, plan: FitPlan) -> pa.RecordBatch:
    """A batch's outcome and the shapes of its days (n, days, 24) as rows of `FITTED_SERIES`."""
    sound = np.array([reason is None for reason in outcome.forecast.failures], bool)
    tested = outcome.tested.there
    place, mass = sparse_histograms(outcome, plan.contest.names, plan.task)
    columns: dict[str, Any] = {
        "location_id": batch.location_id,
        "sku": batch.sku,
        "category": batch.category,
        "demand_class": outcome.demand_class,
        "status": outcome.status,
        "model": outcome.model,
        "reason": _reasons(batch, outcome, plan.predecessors),
        "parameters": outcome.forecast.parameters,
        "default_failure": outcome.default_failure,
        "attempted": outcome.attempted,
        "observations": batch.observed,
        "scale": numbers(outcome.scale),
        "baseline_WAPE": numbers(outcome.baseline.WAPE),
        "baseline_absolute_error": numbers(outcome.baseline.absolute_error),
        "yhat": lists(outcome.forecast.yhat, sound),
        "quantiles": lists(outcome.forecast.quantiles, sound),
        "hour_shape": lists(shapes, sound, pa.float32()),
        "tested_actual": lists(outcome.tested.actual, tested, pa.float32()),
        "tested_yhat": lists(outcome.tested.yhat, tested, pa.float32()),
        "tested_quantiles": lists(outcome.tested.quantiles, tested, pa.float32()),
        "place": one_list(place, len(batch)),
        "mass": one_list(mass, len(batch)),
    }
    schema = FITTED_SERIES.schema
    arrays = [
        values if isinstance(values, pa.Array) else pa.array(values, schema.field(name).type)
        for name, values in columns.items()
    ]
    return pa.record_batch(arrays, schema=pa.schema([schema.field(name) for name in columns])).select(schema.names)


def _reasons(batch: SeriesBatch, outcome: Outcome, predecessors: Mapping[str, str]) -> list[str | None]:
    reasons = list(outcome.reason)
    for row, sku in enumerate(batch.sku):
        if sku in predecessors and outcome.status[row] == OK:
            told = f"goes on from the history of {predecessors[sku]}"
            reasons[row] = f"{told}; {reasons[row]}" if reasons[row] else told
    return reasons


def sparse_histograms(outcome: Outcome, names: tuple[str, ...], task: Task) -> tuple[Integers, Integers]:
    """Places and masses of what is not zero in the histograms (model, class, cutoff, stretch, bin) of a batch, every
    candidate on all the series that it was tried on: where it was chosen, it was perhaps lucky."""
    classes = np.asarray(outcome.demand_class, object)
    whole = np.zeros((len(names), len(MODELLED), task.cutoffs, BUCKETS, BINS), np.int64)
    for model, name in enumerate(names):
        tested = outcome.candidates[name]
        for label, demand_class in enumerate(MODELLED):
            rows = np.flatnonzero(classes == demand_class)
            if len(rows):
                whole[model, label] = place_histograms(tested.actual[rows], tested.quantiles[rows], task.probabilities)
    flat = whole.ravel()
    place = np.flatnonzero(flat).astype(np.int64)
    return place, flat[place]


def dense_histograms(
    place: Integers, mass: Integers, names: tuple[str, ...], task: Task
) -> dict[tuple[str, str], Integers]:
    """`sparse_histograms`, summed over all calls, as histograms (cutoff, stretch, bin) by demand class and model."""
    whole = np.zeros((len(names), len(MODELLED), task.cutoffs, BUCKETS, BINS), np.int64)
    whole.ravel()[place] = mass
    return {
        (demand_class, name): whole[model, label]
        for model, name in enumerate(names)
        for label, demand_class in enumerate(MODELLED)
        if whole[model, label].any()
    }


def text_column(table: pa.Table, name: str) -> tuple[str, ...]:
    """A column of strings; the empty one for a null."""
    return tuple(pc.fill_null(table.column(name), "").to_pylist())
