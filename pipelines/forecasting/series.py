"""Many demand series as arrays: one row a series, one column a day, all ending on the same day."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

OUT_OF_STOCK = 0.0
UNKNOWN = "unknown"
"""The category of a product that the catalog does not know."""

EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class SeriesBatch:
    """Daily demand of n series over T days that end with `end`.

    Attributes:
        location_id, sku, category, timezone: n strings each.
        end: the last day, the same for every series.
        demand: (n, T) units a day; NaN before a series' first day and where demand was not observable.
        promotion: (n, T) share of the day's demand sold on promotion, 0 to 1.
        start: (n,) column of each series' first day; T where it has no history at all.
        exposure: (n, T) share of the day's demand that met stock, 1 for a day that is fully known; below 1 the
            day's demand was completed (`censoring`). None: nothing is known of stock.
    """

    location_id: tuple[str, ...]
    sku: tuple[str, ...]
    category: tuple[str, ...]
    timezone: tuple[str, ...]
    end: date
    demand: Floats
    promotion: Floats
    start: Integers
    exposure: Floats | None = None

    def __len__(self) -> int:
        return len(self.sku)

    @property
    def days(self) -> int:
        """T, the number of columns."""
        return int(self.demand.shape[1])

    @property
    def dates(self) -> npt.NDArray[np.datetime64]:
        """(T,) the columns' days."""
        return np.datetime64(self.end, "D") - np.arange(self.days - 1, -1, -1)

    @property
    def observed(self) -> Integers:
        """(n,) days whose demand is known."""
        return np.asarray(np.isfinite(self.demand).sum(axis=1), np.int64)

    @property
    def seeds(self) -> Integers:
        """(n,) a 32-bit seed for each series, a function of its name alone."""
        return np.array([seed(*key) for key in zip(self.location_id, self.sku, strict=True)], np.int64)

    def take(self, rows: Integers) -> SeriesBatch:
        """The named rows, in that order, without the columns that none of them needs."""
        start = self.start[rows]
        first = int(start.min()) if len(rows) else self.days
        keep = slice(min(first, self.days), None)
        picked = {
            name: tuple(getattr(self, name)[row] for row in rows)
            for name in ("location_id", "sku", "category", "timezone")
        }
        return SeriesBatch(
            **picked,
            end=self.end,
            demand=self.demand[rows, keep],
            promotion=self.promotion[rows, keep],
            start=start - keep.start,
            exposure=None if self.exposure is None else self.exposure[rows, keep],
        )

    def until(self, cutoff: date) -> SeriesBatch:
        """The same series as they were known at the end of day `cutoff`: nothing later is left in."""
        days = max(self.days - max((self.end - cutoff).days, 0), 0)
        return replace(
            self,
            end=min(cutoff, self.end),
            demand=self.demand[:, :days],
            promotion=self.promotion[:, :days],
            start=np.minimum(self.start, days),
            exposure=None if self.exposure is None else self.exposure[:, :days],
        )


def seed(location_id: str, sku: str) -> int:
    """A 32-bit seed that depends on the series' name alone, so the same data give the same forecast."""
    return int.from_bytes(hashlib.blake2b(f"{location_id}|{sku}".encode(), digest_size=4).digest(), "big")


def mask_stockouts(demand: Floats, in_stock: Floats) -> Floats:
    """Demand with NaN where nothing was sold and nothing was in stock all day: unknown, not zero.

    A day with some stock, or with sales in spite of a recorded level of zero, is kept as it is.

    Args:
        demand: units a day, any shape.
        in_stock: share of the day with stock, 0 to 1, same shape; NaN counts as in stock.
    """
    return np.where((demand == 0) & (in_stock == OUT_OF_STOCK), np.nan, demand)


# Arrow: those rows to arrays ---------------------------------------------------------------------------


def from_arrow(rows: pa.RecordBatch | pa.Table, end: date) -> SeriesBatch:
    """`series_rows` as arrays, masked, and zero-extended from each series' last row up to `end`.

    A day between a series' first day and `end` that has no row is a day in stock on which nothing sold.
    The exposure is the share of the day's time with stock; `censoring.read_series` makes demand of it.
    """
    table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
    count = table.num_rows
    last = (end - EPOCH).days
    first = _days(table.column("first_date"), missing=last + 1)
    start_day = int(first.min()) if count else last + 1
    width = max(last + 1 - start_day, 0)
    series, column = _cells(table, start_day)
    inside = (column >= 0) & (column < width)
    cells = (series[inside], column[inside])
    demand, promotion, in_stock = np.zeros((count, width)), np.zeros((count, width)), np.ones((count, width))
    for target, name in ((demand, "demand"), (promotion, "promotion"), (in_stock, "in_stock")):
        values = _values(table, name)[inside]
        target[cells] = np.where(np.isfinite(values), values, 1.0 if name == "in_stock" else 0.0)
    start = np.minimum(first - start_day, width)
    before = np.arange(width) < start[:, None]
    return SeriesBatch(
        **{name: _strings(table, name) for name in ("location_id", "sku", "category", "timezone")},
        end=end,
        demand=np.where(before, np.nan, mask_stockouts(demand, in_stock)),
        promotion=np.where(before, 0.0, promotion),
        start=start,
        exposure=in_stock,
    )


def from_matrix(demand: Floats, end: date, names: Sequence[tuple[str, str]] | None = None) -> SeriesBatch:
    """A batch from a matrix (n, T) that ends with `end`; leading NaN are days before the first. For tests,
    notebooks and benchmarks."""
    demand = np.atleast_2d(np.asarray(demand, float))
    names = names or [("store", f"sku-{row}") for row in range(len(demand))]
    known = np.isfinite(demand)
    start = np.where(known.any(axis=1), known.argmax(axis=1), demand.shape[1]).astype(np.int64)
    return SeriesBatch(
        location_id=tuple(name[0] for name in names),
        sku=tuple(name[1] for name in names),
        category=(UNKNOWN,) * len(demand),
        timezone=("UTC",) * len(demand),
        end=end,
        demand=demand,
        promotion=np.zeros_like(demand),
        start=start,
    )


def finite_rows(*arrays: Floats) -> npt.NDArray[np.bool_]:
    """(n,) whether a row holds nothing but finite numbers in every array (n, ...)."""
    rows = [np.isfinite(values).all(axis=tuple(range(1, values.ndim))) for values in arrays]
    return np.asarray(np.logical_and.reduce(rows), bool)


def future_dates(end: date, horizon: int) -> list[date]:
    """The `horizon` days after `end`."""
    return [end + timedelta(days=step) for step in range(1, horizon + 1)]


def _strings(table: pa.Table, name: str) -> tuple[str, ...]:
    return tuple(cast("list[str]", table.column(name).to_pylist()))


def _days(column: pa.ChunkedArray[Any], missing: int) -> Integers:
    days = column.cast(pa.date32()).cast(pa.int32()).fill_null(missing)
    return np.asarray(days.to_numpy(), np.int64)


def _flat(table: pa.Table, name: str) -> tuple[pa.Array[Any], Integers]:
    lists = table.column(name).combine_chunks()
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return lists.flatten(), lengths


def _cells(table: pa.Table, start_day: int) -> tuple[Integers, Integers]:
    dates, lengths = _flat(table, "date")
    days = dates.cast(pa.date32()).cast(pa.int32()).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.repeat(np.arange(table.num_rows), lengths), days - start_day


def _values(table: pa.Table, name: str) -> Floats:
    return np.asarray(_flat(table, name)[0].cast(pa.float64()).to_numpy(zero_copy_only=False), float)


def series_keys(rows: pa.Table) -> npt.NDArray[np.object_]:
    """`location_id|sku` of each row."""
    joined: Sequence[str] = pc.binary_join_element_wise(rows.column("location_id"), rows.column("sku"), "|").to_pylist()
    return np.array(joined, object)
