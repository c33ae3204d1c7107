"""The demand that forecasting is measured on: real series, varied to any number of them, or simulated ones."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

FILE = "store_item_daily.parquet"
LAST = date(2016, 12, 31)
HORIZON = 28
END = LAST - timedelta(days=HORIZON)
"""The last day of the history; the horizon after it is known, for the accuracy."""
CHUNK = 256


def series(data: Path | None, count: int, days: int) -> np.ndarray:
    """(count, days + HORIZON) units a day."""
    return np.vstack(list(chunks(data, count, days)))


def chunks(data: Path | None, count: int, days: int, size: int = CHUNK) -> Iterator[np.ndarray]:
    """The same, `size` series at a time: the first 500 are as they are, the others vary them.

    A varied series has another level (log-normal, σ = 0.5) and other noise (10 % a day, then rounded).
    """
    base = _base(data)[:, -(days + HORIZON) :]
    if base.shape[1] < days + HORIZON:
        raise ValueError(f"the data hold {base.shape[1]} days; {days + HORIZON} are needed")
    for first in range(0, count, size):
        numbers = np.arange(first, min(first + size, count))
        chunk = base[numbers % len(base)]
        for row, number in enumerate(numbers):
            if number >= len(base):
                chance = np.random.default_rng(int(number))
                noise = 1 + 0.1 * chance.standard_normal(chunk.shape[1])
                chunk[row] = np.rint(np.maximum(chunk[row] * noise * np.exp(0.5 * chance.standard_normal()), 0))
        yield chunk


def daily_units(data: Path | None) -> tuple[np.ndarray, list[tuple[str, str]], date]:
    """(n, T) units a day of every series, their (location_id, sku), and the last day, whatever the file holds."""
    if data is None:
        names = [(f"store-{row // 50}", f"item-{row % 50}") for row in range(500)]
        return _base(None), names, LAST
    rows = pd.read_parquet(data / FILE)
    wide = rows.pivot_table(index=["store", "item"], columns="date", values="sales", fill_value=0)
    names = [(f"store-{store}", f"item-{item}") for store, item in wide.index]
    return wide.to_numpy(float), names, pd.Timestamp(wide.columns[-1]).date()


def with_gaps(demand: np.ndarray, share: float) -> np.ndarray:
    """The same with a share of the days of the history unknown, other ones for each series."""
    missing = np.random.default_rng(3).random(demand.shape) < share
    missing[:, -HORIZON:] = False
    return np.where(missing, np.nan, demand)


def origin(data: Path | None) -> str:
    """Where the series come from, in words."""
    if data is None:
        return "simulated series (trend, week, year, Poisson noise)"
    return "real daily series of 10 stores × 50 items, from the 501st on varied in level and noise"


def wape(demand: np.ndarray, yhat: np.ndarray) -> float:
    """Weighted absolute percentage error on the horizon, all series pooled."""
    actual = demand[:, -HORIZON:]
    return float(np.abs(actual - yhat).sum() / np.abs(actual).sum())


def _base(data: Path | None) -> np.ndarray:
    if data is not None:
        rows = pd.read_parquet(data / FILE)
        return rows.pivot_table(index=["store", "item"], columns="date", values="sales").to_numpy(float)
    chance, day = np.random.default_rng(1), np.arange(4 * 365 + 1 + HORIZON)
    level = chance.lognormal(3.5, 0.6, (500, 1)) * (1 + chance.uniform(0, 0.6, (500, 1)) * day / len(day))
    week = 1 + 0.25 * np.sin(2 * np.pi * (day + chance.integers(0, 7, (500, 1))) / 7)
    year = 1 + 0.25 * np.sin(2 * np.pi * (day - 120) / 365.25)
    return chance.poisson(level * week * year).astype(float)
