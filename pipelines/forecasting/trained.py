"""The second pass of a training: intervals calibrated, days spread over hours, scores; and the table of its results.

One row a series holds its forecasts as arrays of structs, its scores and its parameters. The table of forecasts,
the series' status and the model registry's artefact are all made from it without computing anything twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.contracts.tables import QUANTILE_COLUMNS, TRAINING, Table
from pipelines.forecasting.calibration import Calibration, add_to_parameters, corrected, corrections_of
from pipelines.forecasting.fitted import TEXT, text_column
from pipelines.forecasting.hour_of_week import HourlyPlan
from pipelines.forecasting.lists import lists, matrix, numbers, structs
from pipelines.forecasting.metrics import ratio
from pipelines.forecasting.rolling import INTERVAL, Task, Tested
from pipelines.forecasting.series import Floats

STEPS = pa.list_(pa.struct([pa.field(name, pa.float64()) for name in ("yhat", *QUANTILE_COLUMNS)]))
_LISTS = ("backtest_actual", "backtest_yhat", "backtest_low", "backtest_high")
SCORES = ("WAPE", "MASE", "bias", "coverage", "baseline_WAPE")
SUMS = ("absolute_error", "error", "actual", "covered", "days", "baseline_absolute_error")

TRAINED_SERIES = Table(
    "staging/trained_series",
    pa.schema(
        [
            *(pa.field(name, pa.string()) for name in TEXT),
            pa.field("attempted", pa.bool_()),
            pa.field("observations", pa.int64()),
            *(pa.field(name, pa.float64()) for name in (*SCORES, *SUMS, "pinball")),
            pa.field("day", STEPS),
            pa.field("hour", STEPS),
            *(pa.field(name, pa.list_(pa.float64())) for name in _LISTS),
        ]
    ),
    TRAINING,
)
"""The newest training's results, replaced by each; not for outsiders. `day` and `hour` hold the steps after the
training's last day; both are null for a failed series. Scores are over all cutoffs of the backtest, `pinball` over
MASE's denominator; the lists hold the newest cutoff's days."""


@dataclass(frozen=True)
class FinishPlan:
    """All that an executor needs for the second pass."""

    task: Task
    batch_series: int
    hourly: HourlyPlan
    calibration: Calibration


def finish_rows(batches: Iterator[pa.RecordBatch], plan: FinishPlan) -> Iterator[pa.RecordBatch]:
    """`FITTED_SERIES` rows in, `TRAINED_SERIES` rows out."""
    for rows in batches:
        for offset in range(0, rows.num_rows, plan.batch_series):
            yield trained_rows(pa.Table.from_batches([rows.slice(offset, plan.batch_series)]), plan)


def trained_rows(fitted: pa.Table, plan: FinishPlan) -> pa.RecordBatch:
    """Calibrated, spread over hours and scored.

    The backtest's intervals are corrected by what the other cutoffs say alone; what is published, by all of them.
    """
    probabilities, horizon = plan.task.probabilities, plan.task.horizon
    shape = (plan.task.cutoffs, horizon)
    yhat = matrix(fitted, "yhat", (horizon,))
    sound = np.isfinite(yhat[:, 0])
    demand_class, model = text_column(fitted, "demand_class"), text_column(fitted, "model")
    corrections, there = corrections_of(plan.calibration.of, demand_class, model, probabilities)
    quantiles = matrix(fitted, "quantiles", (horizon, len(probabilities)))
    quantiles[there] = corrected(quantiles[there], corrections[there], probabilities)
    parameters = list(text_column(fitted, "parameters"))
    for row in np.flatnonzero(there & sound):
        parameters[row] = add_to_parameters(parameters[row], corrections[row])
    days = min(-(-plan.hourly.hours // 24), horizon)
    shapes = np.where(sound[:, None, None], matrix(fitted, "hour_shape", (days, 24)), 1.0)
    hours = plan.hourly.spread(shapes, yhat, quantiles)
    spread = matrix(fitted, "tested_quantiles", (*shape, len(probabilities)))
    for place, learnt in enumerate(plan.calibration.without):
        others, rows = corrections_of(learnt, demand_class, model, probabilities)
        spread[rows, place] = corrected(spread[rows, place], others[rows], probabilities)
    tested = Tested(
        matrix(fitted, "tested_actual", shape), matrix(fitted, "tested_yhat", shape), spread, (None,) * len(yhat)
    )
    columns: dict[str, Any] = {
        **{name: fitted.column(name).combine_chunks() for name in (*TEXT, "attempted", "observations")},
        **_scores(tested, fitted, plan.task),
        **_newest(tested, probabilities),
        "parameters": pa.array(parameters),
        "day": _steps(yhat, quantiles, sound),
        "hour": _steps(*hours, sound),
    }
    schema = TRAINED_SERIES.schema
    return pa.record_batch([columns[name] for name in schema.names], schema=schema)


def _scores(tested: Tested, fitted: pa.Table, task: Task) -> dict[str, pa.Array[Any]]:
    scale = fitted.column("scale").to_numpy(zero_copy_only=False)
    scores = tested.scores(np.asarray(scale, float), task.probabilities)
    loss = np.nansum(tested.losses(task.probabilities), axis=1)
    values = {name: getattr(scores, name) for name in (*SCORES[:4], *SUMS[:5])}
    values["pinball"] = ratio(loss, scores.days * scores.scale)
    given = {name: fitted.column(name).combine_chunks() for name in ("baseline_WAPE", "baseline_absolute_error")}
    return {**{name: numbers(column) for name, column in values.items()}, **given}


def _newest(tested: Tested, probabilities: tuple[float, ...]) -> dict[str, pa.Array[Any]]:
    """The newest cutoff's days, which reach up to the last day of data."""
    low, high = (probabilities.index(probability) for probability in INTERVAL)
    values = (tested.actual, tested.yhat, tested.quantiles[..., low], tested.quantiles[..., high])
    present = np.asarray(np.isfinite(tested.yhat[:, -1]).any(axis=1))
    return {name: lists(array[:, -1], present) for name, array in zip(_LISTS, values, strict=True)}


def _steps(yhat: Floats, quantiles: Floats, present: np.ndarray[Any, np.dtype[np.bool_]]) -> pa.Array[Any]:
    fields = dict(zip(QUANTILE_COLUMNS, np.moveaxis(quantiles, -1, 0), strict=True))
    return structs({"yhat": yhat, **fields}, present)
