"""How good the forecasts are: the last backtest by category and by days ahead, and the published ones since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import BACKTESTS, FORECAST_DRIFT, SERIES_STATUS
from pipelines.io import published
from pipelines.io.delta import Tables

ALL = "all products"
DRIFT_NIGHTS = 60

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """Pooled over series and days. `coverage`: of the 80 % interval; NaN where nothing was scored."""

    name: str
    series: int
    wape: float
    bias: float
    coverage: float


@dataclass(frozen=True)
class QualityView:
    """Of the forecasts in force. `ahead`: a score for each day ahead; `drift`: rows of all products, a night each."""

    pointer: published.Published | None
    status: Mapping[str, int]
    models: Mapping[str, int]
    categories: tuple[Score, ...]
    ahead: tuple[Score, ...]
    drift: list[dict[str, Any]]
    warnings: list[dict[str, Any]]


def quality_view(tables: Tables, category_of: Mapping[str, str]) -> QualityView:
    """Read and score."""
    pointer = published.in_force(tables, published.FORECASTS)
    version = "" if pointer is None else pointer.version
    this = pc.field("forecast_version") == version
    status = tables.read(SERIES_STATUS, ("status", "model"), this)
    rows = tables.read(BACKTESTS, ("sku", "actual", "yhat", "low", "high"), this)
    categories, ahead = scores(rows, category_of)
    drift = tables.read(FORECAST_DRIFT).sort_by("as_of").to_pylist()
    newest = drift[-1]["as_of"] if drift else None
    return QualityView(
        pointer,
        _counts(status.column("status")),
        _counts(status.column("model")),
        categories,
        ahead,
        [row for row in drift if row["scope"] == "all"][-DRIFT_NIGHTS:],
        [row for row in drift if row["as_of"] == newest],
    )


def scores(rows: pa.Table, category_of: Mapping[str, str]) -> tuple[tuple[Score, ...], tuple[Score, ...]]:
    """By category, all products first, and by days ahead, from rows of `gold/backtests`."""
    if rows.num_rows == 0:
        return (), ()
    actual, yhat, low, high = (_matrix(rows.column(name)) for name in ("actual", "yhat", "low", "high"))
    names = np.array([category_of.get(sku, "–") for sku in rows.column("sku").to_pylist()], object)
    found = [_score(ALL, actual, yhat, low, high)]
    for name in sorted(set(names)):
        chosen = names == name
        found.append(_score(str(name), actual[chosen], yhat[chosen], low[chosen], high[chosen]))
    days = range(actual.shape[1])
    ahead = [_score(str(day + 1), *(part[:, day : day + 1] for part in (actual, yhat, low, high))) for day in days]
    return tuple(found), tuple(ahead)


def _score(name: str, actual: Floats, yhat: Floats, low: Floats, high: Floats) -> Score:
    known = np.isfinite(actual) & np.isfinite(yhat)
    units = float(actual[known].sum())
    errors = yhat[known] - actual[known]
    inside = (actual[known] >= low[known]) & (actual[known] <= high[known])
    some = known.any()
    return Score(
        name,
        int(known.any(axis=1).sum()),
        float(np.abs(errors).sum() / units) if units > 0 else float("nan"),
        float(errors.sum() / units) if units > 0 else float("nan"),
        float(inside.mean()) if some else float("nan"),
    )


def _matrix(column: pa.ChunkedArray) -> Floats:
    """Lists as rows of one array, NaN after a shorter one's end."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    width = int(lengths.max(initial=0))
    values = np.asarray(pc.list_flatten(column).to_numpy(zero_copy_only=False), np.float64)
    matrix = np.full((len(lengths), width), np.nan)
    matrix[np.arange(width) < lengths[:, None]] = values
    return matrix


def _counts(column: Any) -> dict[str, int]:
    found = pc.value_counts(column).to_pylist()
    return {str(item["values"]): item["counts"] for item in sorted(found, key=lambda item: -item["counts"])}


def nan_free(values: Iterable[float]) -> list[float | None]:
    """For figures, which know no NaN."""
    return [None if value is None or np.isnan(value) else round(float(value), 5) for value in values]
