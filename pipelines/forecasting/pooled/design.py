"""Features of days for the log-linear model of a pool's demand, in blocks of columns that share a prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt

from pipelines.forecasting.series import Floats, Integers

Dates = npt.NDArray[np.datetime64]

YEAR = 365.25
FOURIER_ORDER = 10
RAMP_DAYS = 91
SHAPE = ("weekday", "month", "season", "monthday", "holiday")
"""Blocks whose columns depend on the date alone."""


@dataclass(frozen=True)
class Design:
    """Columns (T, K) and the block that each belongs to."""

    columns: Floats
    blocks: tuple[str, ...]

    def of(self, block: str) -> Integers:
        """Places of a block's columns."""
        return np.flatnonzero(np.asarray(self.blocks) == block).astype(np.int64)


def shape_design(days: Dates, holidays: Sequence[tuple[str, date]] = ()) -> Design:
    """The week, the year (as months, and as Fourier terms of order 10), the day of the month, and holidays.

    Months and Fourier terms describe the same thing; their priors' variances decide which is believed: steps
    from month to month, or a smooth year.
    """
    parts = [
        ("weekday", np.eye(7)[weekdays(days)]),
        ("month", np.eye(12)[months(days)]),
        ("season", fourier(days)),
        ("monthday", np.eye(31)[(days - days.astype("datetime64[M]")).astype(np.int64)]),
    ]
    for name in sorted({name for name, _ in holidays}):
        wanted = np.array([day for other, day in holidays if other == name], "datetime64[D]")
        parts.append(("holiday", np.isin(days, wanted).astype(float)[:, None]))
    return _joined(parts)


def trend_design(days: Dates, first: np.datetime64, end: np.datetime64) -> Design:
    """How the level moves, seen from `end`, the last day of a history that begins with `first`.

    slope: years since `end`. year: calendar years since that of `end`. step: a column for every turn of the year in the
    history, 1 after it. ramp: a column for every quarter of the history, rising from 0 to 1 in it and staying there: a
    level that wanders, and goes on flat. What happens after the end is in no column: it is not known by then.
    """
    elapsed = np.asarray((days - end).astype(np.int64), float)
    year = _years(days)
    turns = np.arange(int(_years(first)) + 1, int(_years(end)) + 1)
    starts = np.arange(int((first - end).astype(np.int64)), -RAMP_DAYS // 2, RAMP_DAYS)
    return _joined(
        [
            ("slope", (elapsed / YEAR)[:, None]),
            ("year", (year - _years(end)).astype(float)[:, None]),
            ("step", (year[:, None] >= turns).astype(float)),
            ("ramp", np.clip((np.minimum(elapsed, 0.0)[:, None] - starts) / RAMP_DAYS, 0.0, 1.0)),
        ]
    )


def joined(*designs: Design) -> Design:
    """Designs of the same days side by side."""
    return Design(
        np.ascontiguousarray(np.hstack([item.columns for item in designs])),
        tuple(block for item in designs for block in item.blocks),
    )


def weekdays(days: Dates) -> Integers:
    """0 for Monday; 1970-01-01 was a Thursday."""
    return np.asarray((days.astype("datetime64[D]").astype(np.int64) + 3) % 7, np.int64)


def months(days: Dates) -> Integers:
    """0 for January."""
    return np.asarray(days.astype("datetime64[M]").astype(np.int64) % 12, np.int64)


def _years(days: Dates | np.datetime64) -> Integers:
    return np.asarray(np.asarray(days).astype("datetime64[Y]").astype(np.int64) + 1970, np.int64)


def fourier(days: Dates) -> Floats:
    """(T, 20) sines and cosines of the year."""
    angle = 2 * np.pi * days.astype("datetime64[D]").astype(np.int64)[:, None] * np.arange(1, FOURIER_ORDER + 1) / YEAR
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)


def _joined(parts: Sequence[tuple[str, Floats]]) -> Design:
    return Design(
        np.hstack([columns for _, columns in parts]),
        tuple(name for name, columns in parts for _ in range(columns.shape[1])),
    )
