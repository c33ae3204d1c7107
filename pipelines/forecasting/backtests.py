"""Stored backtests: each version's, a row a series, and two of them compared on the days that both forecast."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.contracts.tables import BACKTESTS
from pipelines.forecasting.series import EPOCH, Floats, Integers
from pipelines.io.delta import Tables

SERIES_AT_A_TIME = 100_000
LISTS = ("actual", "yhat", "low", "high")


def backtest_rows(trained: DataFrame, as_of: date, version: str) -> DataFrame:
    """`gold/backtests` rows of a training: those of `TRAINED_SERIES` that were backtested, up to `as_of`."""
    days = F.size("backtest_actual")
    return trained.where(F.col("backtest_yhat").isNotNull() & (days > 0)).select(
        "location_id",
        "sku",
        "model",
        F.lit(version).alias("forecast_version"),
        F.date_add(F.lit(as_of + timedelta(days=1)), -days).alias("first_day"),
        *(F.col(f"backtest_{name}").cast("array<float>").alias(name) for name in LISTS),
    )


@dataclass(frozen=True)
class Backtests:
    """Backtests of n series over up to h days; NaN where a day was not known or a series has fewer.

    Attributes:
        keys: (n,) `location_id|sku`, sorted and distinct.
        first_day: (n,) days since 1970-01-01 of each row's first column.
        actual, yhat: (n, h).
    """

    keys: npt.NDArray[np.object_]
    first_day: Integers
    actual: Floats
    yhat: Floats

    def take(self, rows: Integers) -> Backtests:
        """The named rows."""
        return Backtests(self.keys[rows], self.first_day[rows], self.actual[rows], self.yhat[rows])


@dataclass(frozen=True)
class Comparison:
    """Absolute errors of two models on the same known days of the same series, summed.

    Attributes:
        series, days: series and distinct days compared.
        actual: Σ|y|; `champion`, `challenger`: Σ|y - ŷ| of each.
        squares: per-series sums Σp², Σpc and Σc² of the two errors, from which the noise follows.
    """

    series: int = 0
    days: int = 0
    actual: float = 0.0
    champion: float = 0.0
    challenger: float = 0.0
    squares: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def gain(self) -> float:
        """The share by which the challenger's error is below the champion's; NaN where that is zero or unknown."""
        return 1 - self.challenger / self.champion if self.champion > 0 else float("nan")

    @property
    def noise(self) -> float:
        """Standard error of `gain`, the series taken as a sample: that of a ratio estimator (Cochran 1977,
        "Sampling Techniques", 6.3). Infinite for fewer than two series."""
        if self.series < 2 or self.champion <= 0:
            return float("inf")
        ratio = self.challenger / self.champion
        pp, pc_, cc = self.squares
        squares = max(cc - 2 * ratio * pc_ + ratio**2 * pp, 0.0)
        return float(np.sqrt(squares * self.series / (self.series - 1)) / self.champion)

    def __add__(self, other: Comparison) -> Comparison:
        squares = tuple(a + b for a, b in zip(self.squares, other.squares, strict=True))
        return Comparison(
            self.series + other.series,
            max(self.days, other.days),
            self.actual + other.actual,
            self.champion + other.champion,
            self.challenger + other.challenger,
            (squares[0], squares[1], squares[2]),
        )


def compare(champion: Backtests, challenger: Backtests) -> Comparison:
    """Both models' errors on the days of the series that both forecast and whose demand is known."""
    _, old, new = np.intersect1d(champion.keys, challenger.keys, assume_unique=True, return_indices=True)
    before, after = champion.take(old), challenger.take(new)
    width = before.yhat.shape[1]
    if not len(new) or not width or not after.yhat.shape[1]:
        return Comparison()
    day = after.first_day[:, None] + np.arange(after.yhat.shape[1])
    column = day - before.first_day[:, None]
    earlier = np.take_along_axis(before.yhat, np.clip(column, 0, width - 1), axis=1)
    common = (column >= 0) & (column < width) & np.isfinite(earlier + after.yhat + after.actual)
    actual = np.where(common, after.actual, 0.0)
    p = np.abs(np.where(common, earlier, 0.0) - actual).sum(axis=1)
    c = np.abs(np.where(common, after.yhat, 0.0) - actual).sum(axis=1)
    return Comparison(
        series=int(common.any(axis=1).sum()),
        days=len(np.unique(day[common])),
        actual=float(np.abs(actual).sum()),
        champion=float(p.sum()),
        challenger=float(c.sum()),
        squares=(float(p @ p), float(p @ c), float(c @ c)),
    )


def compare_stored(tables: Tables, champion: str, challenger: str) -> Comparison:
    """Two stored forecast versions compared, a hundred thousand series at a time."""
    total = Comparison()
    for locations in _portions(tables, challenger):
        total += compare(_read(tables, champion, locations), _read(tables, challenger, locations))
    return total


def to_arrays(rows: pa.Table) -> Backtests:
    """`gold/backtests` rows as arrays."""
    keys = pc.binary_join_element_wise(rows.column("location_id"), rows.column("sku"), "|")
    names = np.array(keys.to_pylist(), object)
    order = np.argsort(names)
    first = rows.column("first_day").cast(pa.int32()).to_numpy().astype(np.int64)
    width = max(pc.max(pc.list_value_length(rows.column("yhat"))).as_py() or 0, 0) if rows.num_rows else 0
    return Backtests(names[order], first[order], *(_matrix(rows, name, width)[order] for name in ("actual", "yhat")))


def first_day(day: date) -> int:
    """A day as `Backtests` counts it."""
    return (day - EPOCH).days


def _portions(tables: Tables, version: str) -> Iterator[list[str]]:
    """The version's locations, in groups of about `SERIES_AT_A_TIME` series."""
    where = pc.field("forecast_version") == version
    counts = pc.value_counts(tables.read(BACKTESTS, ("location_id",), where).column("location_id")).to_pylist()
    portion: list[str] = []
    held = 0
    for item in sorted(counts, key=lambda item: str(item["values"])):
        if portion and held + item["counts"] > SERIES_AT_A_TIME:
            yield portion
            portion, held = [], 0
        portion.append(item["values"])
        held += item["counts"]
    if portion:
        yield portion


def _read(tables: Tables, version: str, locations: list[str]) -> Backtests:
    where = (pc.field("forecast_version") == version) & pc.field("location_id").isin(pa.array(locations, pa.string()))
    return to_arrays(tables.read(BACKTESTS, ("location_id", "sku", "first_day", "actual", "yhat"), where))


def _matrix(rows: pa.Table, name: str, width: int) -> Floats:
    """(n, width) the lists of a column, NaN where they are shorter or hold a null."""
    lists = rows.column(name).combine_chunks()
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    matrix = np.full((rows.num_rows, width), np.nan)
    matrix[np.arange(width) < lengths[:, None]] = values
    return matrix
