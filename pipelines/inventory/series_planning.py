"""From series with their forecasts and terms to rows of `gold/inventory_policies`: pure, Arrow in and out.

The same function plans in the driver and, batch by batch, on Spark's executors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from threadpoolctl import threadpool_limits

from pipelines.contracts.tables import INVENTORY_POLICIES, PRODUCTS, QUANTILE_COLUMNS, SOURCING, TIME
from pipelines.errors import PublishingError
from pipelines.inventory.economics import QuantityBreaks
from pipelines.inventory.forecast_distribution import FloatArray
from pipelines.inventory.lead_time_demand import DailyForecasts, Protection, lead_time_demand
from pipelines.inventory.planning_inputs import LEAD_TIME_POINTS, ORDER_WINDOWS
from pipelines.inventory.policies import Levels, SeriesBatch, Terms, get_policy
from pipelines.inventory.scenarios import LEVEL_CORRELATION
from pipelines.inventory.supplier_terms import read_quantity_breaks

SERIES = ("location_id", "sku")
FORECAST_VALUES = ("yhat", *QUANTILE_COLUMNS)
PRODUCT_TERMS = ("sku", "unit_cost", "unit_price", "shelf_life_days")
TRANSFER_COLUMNS = ("offer", "source", "quantity", "days", "cost", "reason")
_COPIED = (
    *SERIES,
    *("supplier_id", "lead_time_days", "lead_time_std_days", "review_days"),
    *("pack_size", "minimum_order", "unit_cost", "unit_price", "maximum_order", ORDER_WINDOWS),
)

LATER = ("allowance", "allowance_reason", *(f"transfer_{name}" for name in TRANSFER_COLUMNS))
"""Columns that are planned for all series together (`pipelines.inventory.shared_limits`), null until then."""

TERMS_SCHEMA = pa.schema(
    [
        *SOURCING.schema,
        *(PRODUCTS.schema.field(name) for name in PRODUCT_TERMS[1:]),
        pa.field(ORDER_WINDOWS, pa.list_(TIME)),
        pa.field(LEAD_TIME_POINTS, pa.list_(pa.float64())),
    ]
)
"""A sourcing row with what its product costs, when its supplier takes orders (null: always), and its observed lead
times (null: none were observed)."""

SERIES_SCHEMA = pa.schema(
    [
        *TERMS_SCHEMA,
        pa.field("target_time", pa.list_(TIME)),
        *(pa.field(name, pa.list_(pa.float64())) for name in FORECAST_VALUES),
    ]
)
"""One row per series: its terms, and its day forecasts as lists in the order of the days."""

CHUNK = 256
"""Series whose sampled paths are in memory at a time: about 20 MB at 2,048 paths."""

DAY_MICROSECONDS = 86_400_000_000


@dataclass(frozen=True)
class Plan:
    """What a plan is made with, the same for every series; `correlation`: between the errors of a series' days."""

    policy_version: str
    forecast_version: str
    as_of: date
    method: str
    paths: int
    created_at: datetime
    correlation: float = LEVEL_CORRELATION


def plan_series(rows: pa.Table, plan: Plan) -> pa.Table:
    """Policies of all given series.

    Args:
        rows: in `SERIES_SCHEMA`, any order.

    Returns:
        As many rows, in the schema of `INVENTORY_POLICIES`; the order may differ.

    Raises:
        PublishingError: a series' forecasts have gaps or are not finite; names it.
        UsageError: no policy has the plan's method.
    """
    with threadpool_limits(limits=1):  # the products are small: threads would only wait for each other
        parts = [_plan_chunk(chunk, plan) for chunk in _chunks(rows)]
    return pa.concat_tables(parts) if parts else INVENTORY_POLICIES.schema.empty_table()


def group_forecasts(forecasts: pa.Table) -> pa.Table:
    """One row per series from one row per series and day: location_id, sku, and a list per other column."""
    values = ("target_time", *FORECAST_VALUES)
    ordered = forecasts.sort_by([(name, "ascending") for name in (*SERIES, "target_time")])
    grouped = ordered.group_by(list(SERIES), use_threads=False).aggregate([(name, "list") for name in values])
    return grouped.rename_columns([name.removesuffix("_list") for name in grouped.column_names])


def with_terms(grouped: pa.Table, terms: pa.Table) -> pa.Table:
    """The grouped forecasts of series that are sourced, with their terms, in `SERIES_SCHEMA`."""
    places = grouped.select(SERIES).append_column("place", pa.array(np.arange(grouped.num_rows)))
    # Arrow joins no lists: rows are joined by number.
    numbered = terms.select(SERIES).append_column("term", pa.array(np.arange(terms.num_rows)))
    found = places.join(numbered, keys=list(SERIES), join_type="inner").sort_by("place")
    joined = terms.take(found["term"])
    lists = grouped.drop_columns(list(SERIES)).take(found["place"])
    for name in lists.column_names:
        joined = joined.append_column(name, lists[name])
    return joined.select(SERIES_SCHEMA.names).cast(SERIES_SCHEMA)


def _chunks(rows: pa.Table) -> Iterator[pa.Table]:
    """Series of one horizon, and of protection intervals about as long, together."""
    if rows.num_rows == 0:
        return
    horizons = _numbers(rows, pc.list_value_length(rows["target_time"]))
    longest = _column(rows, "lead_time_days") + 3 * _column(rows, "lead_time_std_days")
    order = np.lexsort((longest, horizons))
    borders = np.flatnonzero(np.diff(horizons[order])) + 1
    for part in np.split(order, borders):
        for start in range(0, len(part), CHUNK):
            yield rows.take(pa.array(part[start : start + CHUNK])).combine_chunks()


def _plan_chunk(rows: pa.Table, plan: Plan) -> pa.Table:
    forecasts = _forecasts(rows, plan)
    protection = Protection(
        lead_time=_column(rows, "lead_time_days"),
        lead_time_std=_column(rows, "lead_time_std_days"),
        review=_column(rows, "review_days"),
        lead_time_points=_lead_time_points(rows),
    )
    demand = lead_time_demand(forecasts, protection, plan.paths, plan.correlation)
    batch = SeriesBatch(demand, _terms(rows))
    return _policies(rows, batch, get_policy(plan.method).levels(batch), plan)


def _lead_time_points(rows: pa.Table) -> FloatArray | None:
    """(n, m), NaN where none were observed; None where that is so for all."""
    points = rows[LEAD_TIME_POINTS].combine_chunks()
    if points.null_count == len(points):
        return None
    known = pc.is_valid(points).to_numpy(zero_copy_only=False)
    values = points.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(int(known.sum()), -1)
    out = np.full((len(known), values.shape[1]), np.nan)
    out[known] = values
    return out


def _forecasts(rows: pa.Table, plan: Plan) -> DailyForecasts:
    days = rows["target_time"].combine_chunks()
    horizon = len(days[0])
    first = datetime.combine(plan.as_of + timedelta(days=1), time(), UTC)
    expected = int(first.timestamp()) * 1_000_000 + DAY_MICROSECONDS * np.arange(horizon)
    found = days.flatten().cast(pa.int64()).to_numpy().reshape(-1, horizon)
    _refuse(rows, (found != expected).any(axis=1), f"not one row for each day from {first:%Y-%m-%d} on")
    values = np.stack([_matrix(rows, name, horizon) for name in FORECAST_VALUES], axis=-1)
    wrong = ~np.isfinite(values) | (values < 0)
    _refuse(rows, wrong.any(axis=(1, 2)), "values that are missing, not finite or negative")
    return DailyForecasts(yhat=values[..., 0], quantiles=values[..., 1:])


def _refuse(rows: pa.Table, wrong: npt.ArrayLike, what: str) -> None:
    wrong = np.asarray(wrong, dtype=np.bool_)
    if wrong.any():
        place = int(np.flatnonzero(wrong)[0])
        name = "|".join(str(rows[key][place].as_py()) for key in SERIES)
        raise PublishingError(
            f"{wrong.sum()} series have day forecasts with {what}, the first is {name}; the policies in force "
            "stay: train again (jobs/train_forecasts.py)"
        )


def _terms(rows: pa.Table) -> Terms:
    unit_cost = _column(rows, "unit_cost")
    return Terms(
        service_level=_column(rows, "service_level"),
        pack_size=_column(rows, "pack_size"),
        minimum_order=_column(rows, "minimum_order"),
        order_cost=_column(rows, "order_cost"),
        holding_cost=np.nan_to_num(_column(rows, "holding_cost_rate") * unit_cost),
        unit_cost=unit_cost,
        unit_price=_column(rows, "unit_price"),
        shelf_life_days=_column(rows, "shelf_life_days"),
        review_days=_column(rows, "review_days"),
        breaks=_breaks(rows),
    )


def _breaks(rows: pa.Table) -> QuantityBreaks | None:
    """Price regions of series of which any has quantity breaks; the list price first, inf where there is no region."""
    texts = rows["quantity_breaks"].to_pylist()
    if not any(texts):
        return None
    read = [read_quantity_breaks(text) if text else () for text in texts]
    width = 1 + max(map(len, read))
    least, cost = np.zeros((len(read), width)), np.full((len(read), width), np.inf)
    cost[:, 0] = np.nan_to_num(_column(rows, "unit_cost"), nan=np.inf)
    for row, pairs in enumerate(read):
        for place, (units, price) in enumerate(pairs, start=1):
            least[row, place], cost[row, place] = units, price
    return QuantityBreaks(least, cost)


def _policies(rows: pa.Table, batch: SeriesBatch, levels: Levels, plan: Plan) -> pa.Table:
    size = rows.num_rows

    def repeated(value: object, type_: pa.DataType) -> pa.Array:
        return pa.repeat(pa.scalar(value, type_), size)

    def lists(values: FloatArray) -> pa.Array:
        offsets = np.arange(size + 1, dtype=np.int32) * values.shape[1]
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel()))

    columns = {
        **{name: rows[name] for name in _COPIED},
        "policy_version": repeated(plan.policy_version, pa.string()),
        "forecast_version": repeated(plan.forecast_version, pa.string()),
        "method": repeated(plan.method, pa.string()),
        "as_of": repeated(plan.as_of, pa.date32()),
        "created_at": repeated(plan.created_at, TIME),
        "reorder_point": pa.array(levels.reorder_point.astype(np.int64)),
        "order_up_to": pa.array(levels.order_up_to.astype(np.int64)),
        "safety_stock": pa.array(levels.safety_stock),
        "service_level": pa.array(levels.service_level),
        "binding_constraint": pa.array(levels.binding_constraint.tolist(), pa.string()),
        "cumulative_mean": lists(batch.demand.cumulative_mean),
        "cumulative_std": lists(batch.demand.cumulative_std),
        "correlation": repeated(plan.correlation, pa.float64()),
    }
    schema = INVENTORY_POLICIES.schema
    columns |= {field.name: pa.nulls(size, field.type) for field in schema if field.name in LATER}
    return pa.table([columns[name] for name in schema.names], names=schema.names).cast(schema)


def _column(rows: pa.Table, name: str) -> FloatArray:
    return _numbers(rows, rows[name])


def _numbers(rows: pa.Table, values: pa.ChunkedArray) -> FloatArray:
    return np.asarray(values.cast(pa.float64()).to_numpy(), dtype=np.float64).reshape(rows.num_rows)


def _matrix(rows: pa.Table, name: str, horizon: int) -> FloatArray:
    values = rows[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.float64).reshape(-1, horizon)
