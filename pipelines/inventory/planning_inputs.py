"""What a plan learns from the tables beside forecasts and catalog: lead times as they were, errors as they were."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import ndtri

from pipelines.contracts.tables import BACKTESTS, ORDERS, STOCK_MOVEMENTS, TIME
from pipelines.inventory.forecast_distribution import FloatArray
from pipelines.inventory.lead_times import LOOK_BACK_DAYS, LeadTimeRecords, Stated, lead_time_points, records_of
from pipelines.inventory.level_correlation import level_correlation
from pipelines.inventory.scenarios import LEVEL_CORRELATION
from pipelines.inventory.service_correction import ServiceCorrection
from pipelines.inventory.supplier_terms import calendar_of, longest_wait, order_windows
from pipelines.io.delta import Tables

LEAD_TIME_POINTS, ORDER_WINDOWS = "lead_time_points", "order_windows"
CORRELATION_DAYS = 28
"""The newest days of a backtest that the correlation is learnt from: about what a lead time spans."""
_INTERVAL_SCORES = 2 * float(ndtri(0.9))
"""A backtest's interval is the middle 80 %: so many standard deviations of a normal error."""


def lead_time_records(tables: Tables, as_of: date) -> LeadTimeRecords:
    """The orders of the last year and when they came, as known at the end of `as_of`."""
    orders = tables.read(ORDERS, columns=("order_id", "supplier_id", "location_id", "created_at", "state"))
    if orders.num_rows == 0:
        return LeadTimeRecords.none()
    since = datetime.combine(as_of - timedelta(days=LOOK_BACK_DAYS), datetime.min.time(), UTC)
    moment = pa.scalar(since, pa.timestamp("us", "UTC"))
    received = (pc.field("kind") == "receipt") & (pc.field("event_time") >= moment)
    return records_of(orders, tables.read(STOCK_MOVEMENTS, columns=("order_id", "event_time"), where=received), as_of)


def with_lead_times(terms: pa.Table, records: LeadTimeRecords) -> pa.Table:
    """Terms with the column `lead_time_points`, null for suppliers without a record.

    Where there are records, `lead_time_days` and `lead_time_std_days` are those of the points: what is planned with
    is what is shown and what a receipt is expected by.
    """
    stated = Stated(
        np.array(terms["supplier_id"].to_pylist(), object),
        np.array(terms["location_id"].to_pylist(), object),
        np.asarray(terms["lead_time_days"].to_numpy(), np.float64),
        np.asarray(terms["lead_time_std_days"].to_numpy(), np.float64),
    )
    seen = np.isin(stated.supplier.astype(str), np.unique(records.supplier[records.arrived].astype(str)))
    points: list[list[float] | None] = [None] * terms.num_rows
    mean, deviation = stated.mean.copy(), stated.deviation.copy()
    rows = np.flatnonzero(seen)
    if rows.size:
        found = lead_time_points(records, stated.take(rows))
        mean[rows], deviation[rows] = found.mean(axis=1), found.std(axis=1)
        for row, values in zip(rows, found.tolist(), strict=True):
            points[row] = values
    for name, values in (("lead_time_days", mean), ("lead_time_std_days", deviation)):
        terms = terms.set_column(terms.schema.get_field_index(name), name, pa.array(values))
    return terms.append_column(LEAD_TIME_POINTS, pa.array(points, pa.list_(pa.float64())))


def with_calendars(terms: pa.Table, suppliers: pa.Table, first: date) -> pa.Table:
    """With the column `order_windows`, and reviews as far apart as the supplier's order days from `first` on."""
    windows: dict[str, list[datetime]] = {}
    waits: dict[str, float] = {}
    for row in suppliers.to_pylist():
        found = calendar_of(row)
        if found is not None:
            windows[row["supplier_id"]] = order_windows(*found, first)
            waits[row["supplier_id"]] = longest_wait(found[0], first)
    names = terms["supplier_id"].to_pylist()
    review = [
        max(days, waits.get(name, 0.0)) for days, name in zip(terms["review_days"].to_pylist(), names, strict=True)
    ]
    terms = terms.set_column(terms.schema.get_field_index("review_days"), "review_days", pa.array(review, pa.float64()))
    return terms.append_column(ORDER_WINDOWS, pa.array([windows.get(name) for name in names], pa.list_(TIME)))


def with_corrected_service(terms: pa.Table, corrections: pa.Table, category_of: Mapping[str, str]) -> pa.Table:
    """Terms with the service level that has to be planned with, where what was achieved told what that is.

    Args:
        corrections: `gold/service_corrections`; empty: nothing was learnt, and nothing is changed.
        category_of: by sku.
    """
    rows = corrections.sort_by("wanted").to_pylist()
    if not rows:
        return terms
    shifts: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        shifts[row["category"]].append(row["shift"])
    wanted = sorted({row["wanted"] for row in rows})
    correction = ServiceCorrection(np.array(wanted), {name: np.array(values) for name, values in shifts.items()})
    levels = [
        float(correction.plan_with(level, [category_of.get(sku, "")])[0])
        for level, sku in zip(terms["service_level"].to_pylist(), terms["sku"].to_pylist(), strict=True)
    ]
    return terms.set_column(terms.schema.get_field_index("service_level"), "service_level", pa.array(levels))


def error_correlation(tables: Tables, forecast_version: str) -> float:
    """The correlation between a series' daily errors, from the backtest of the forecasts that are in force.

    A thousandth more or less changes no level; it is rounded to one, so that a version does not change by it.
    """
    rows = tables.read(
        BACKTESTS,
        columns=("actual", "yhat", "low", "high"),
        where=pc.field("forecast_version") == forecast_version,
    )
    if rows.num_rows == 0:
        return LEVEL_CORRELATION
    actual, yhat, low, high = (_newest(rows[name], CORRELATION_DAYS) for name in ("actual", "yhat", "low", "high"))
    return round(level_correlation(actual - yhat, np.nan_to_num((high - low) / _INTERVAL_SCORES)), 3)


def _newest(lists: pa.ChunkedArray, days: int) -> FloatArray:
    """(n, days) the last days of each list; NaN where it is shorter, or where nothing is known."""
    values = lists.combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = values.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths)
    place = ends[:, None] - days + np.arange(days)
    inside = place >= (ends - lengths)[:, None]
    out = np.full((len(lengths), days), np.nan)
    out[inside] = flat[place[inside]]
    return out
