"""Censored demand: what was sold while the shelf was empty for a while says too little of what was wanted.

Sales of a period are demand cut off by stock. Taking them for demand biases every model low, and the restock
orders made from it keep the shelf empty: the spiral of Wecker (1978), "Predicting demand from sales data in the
presence of stockouts". Leaving such days out instead ("mask") is no cure: the shelf empties most easily on
strong days, so the days that are left are the weak ones (Nahmias 1994, "Demand estimation in lost sales inventory
systems"; Agrawal and Smith 1996, "Estimating negative binomial demand for retail inventory management with
unobservable lost sales").

"impute" completes a censored day by its expected remainder. Given the day's rate λ, the units wanted during the
exposure e (the share of a day's demand that falls into the hours with stock) are Poisson(λ e), whatever rule ended
the exposure: a stopping time carries no further information on λ. With a gamma distributed rate of mean m and
shape k (negative binomial days), the expectation of the hidden rest, given that s units were sold, is

    (1 - e) m (k + s) / (k + m e).

This is the E-step of the EM algorithm (Dempster, Laird and Rubin 1977; for stockouts Vulcano, van Ryzin and
Ratliff 2012); its fixed point is the maximum likelihood estimate Σs / Σe. Dividing a day's sales by its share, s/e,
is biased high for days that their own sales ended: with the S-th unit sold, E[S/e] = λ S/(S - 1) (Haldane 1945).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.signal import lfilter

from pipelines.forecasting.hourly import IntradayProfiles
from pipelines.forecasting.series import EPOCH, Floats, Integers, SeriesBatch, from_arrow

NONE, MASK, IMPUTE = "none", "mask", "impute"
METHODS = (NONE, MASK, IMPUTE)

ABANDONED_DAYS = 28
"""A series that is out of stock after its last sale is of unknown demand for so long; then it counts as given up."""

FULL = 1.0 - 1e-9
_LEVEL_DAYS, _WEEKDAY_WEEKS = 21.0, 8.0
"""Memories of the expected demand: days of its level, weeks of its weekday shape."""
_PRIOR_DAYS, _PRIOR_WEEKDAYS = 3.0, 1.0
"""Days that a series' first weeks count in its level, and that an average weekday counts in each weekday's."""
_FIRST_DAYS = 28
_PRIOR_DISPERSION, _PRIOR_DISPERSION_DAYS = 0.1, 14.0
"""1/k where nothing is known of it, and the days that this counts."""


@dataclass(frozen=True)
class Censoring:
    """How days without stock are read.

    Attributes:
        method: none (as zero or whatever was sold), mask (unknown) or impute.
        floor: imputing, the exposure below which a day is unknown: there would be little left but the guess.
        profiles: how a day's demand spreads over its hours, which weighs the hours without stock.
    """

    method: str = IMPUTE
    floor: float = 0.05
    profiles: IntradayProfiles = field(default_factory=IntradayProfiles)


def read_series(rows: pa.RecordBatch | pa.Table, end: date, censoring: Censoring) -> SeriesBatch:
    """`frames.series_rows` as arrays, days with censored demand treated as the options say.

    Where the rows have `out_hour` and `out_share` (`frames.hourly_history`), a day's exposure is weighed by the hours
    that were without stock; otherwise it is the day's share of time with stock. `ends_out` tells of series
    whose stock ran out with their last sale: the days after it are unknown, not zero, for `ABANDONED_DAYS`.
    """
    table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
    batch = from_arrow(table, end)
    if "out_hour" in table.column_names:
        batch = replace(batch, exposure=_exposure(table, batch, censoring.profiles))
    return censor(batch, censoring.method, censoring.floor)


def censor(batch: SeriesBatch, method: str = IMPUTE, floor: float = 0.05) -> SeriesBatch:
    """A batch of recorded sales as one of demand.

    Args:
        batch: with `exposure`; without it nothing is known of stock and the batch is returned as it is.
        method: "none": sales as they were recorded. "mask": days that were not in stock all day are unknown.
            "impute": completed by the expected rest, unknown below the `floor` of exposure. Nothing later
            than a day is used for it (but for the first four weeks of a series, which start each other), so
            that a backtest at any cutoff sees what would have been known then.

    Returns:
        The batch with NaN for unknown days; its `exposure` tells completed days (below 1) from known ones.
    """
    exposure = batch.exposure
    if exposure is None:
        return batch
    inside = np.arange(batch.days) >= batch.start[:, None]
    sales = np.where(inside, np.nan_to_num(batch.demand), 0.0)
    # Sales in spite of a recorded level of zero: the record is wrong, the sales are not.
    share = np.where(inside, np.where((sales > 0) & (exposure <= 0), 1.0, exposure), 0.0)
    if method == NONE:
        return replace(batch, demand=np.where(inside, sales, np.nan), exposure=inside.astype(float))
    limit = FULL if method == MASK else floor
    demand = np.where(inside & (share >= limit), sales, np.nan)
    rows = np.flatnonzero(((share < FULL) & inside).any(axis=1))
    if method == IMPUTE and len(rows):
        completed = sales[rows] + expected_rest(sales[rows], share[rows], batch.start[rows])
        demand[rows] = np.where(np.isfinite(demand[rows]), completed, np.nan)
    return replace(batch, demand=demand, exposure=np.where(np.isfinite(demand), share, 0.0))


def expected_rest(sales: Floats, exposure: Floats, start: Integers) -> Floats:
    """Units that were wanted in the part of each day that was without stock, in expectation.

    Args:
        sales: (n, T) units sold; exposure: (n, T) share of the day's demand that met stock; start: (n,) column
            of each series' first day.

    Returns:
        (n, T); zero where the exposure is 1 and before the first day.
    """
    mean, shape = _expected_day(sales, exposure, start)
    inside = np.arange(sales.shape[1]) >= start[:, None]
    rest = (1.0 - exposure) * mean * (shape + sales) / (shape + mean * exposure)
    return np.where(inside, rest, 0.0)


def _expected_day(sales: Floats, exposure: Floats, start: Integers) -> tuple[Floats, Floats]:
    """(n, T) mean m and gamma shape k of each day's rate, from the days before it."""
    column = np.arange(sales.shape[1])
    first = (column >= start[:, None]) & (column < start[:, None] + _FIRST_DAYS)
    opening = _ratio((sales * first).sum(axis=1), (exposure * first).sum(axis=1))
    weekday = _weekday_index(sales, exposure)
    units = _before(sales, 1 - 1 / _LEVEL_DAYS)
    days = _before(exposure * weekday, 1 - 1 / _LEVEL_DAYS)
    level = (units + _PRIOR_DAYS * opening[:, None]) / (days + _PRIOR_DAYS)
    mean = np.maximum(level * weekday, 1e-9)
    seen = (exposure >= FULL) & (column >= start[:, None])
    prior = _PRIOR_DISPERSION_DAYS * np.maximum(opening[:, None], 1e-9) ** 2
    excess = _before(np.where(seen, (sales - mean) ** 2 - mean, 0.0), 1.0) + _PRIOR_DISPERSION * prior
    dispersion = excess / (_before(np.where(seen, mean**2, 0.0), 1.0) + prior)
    return mean, 1.0 / np.clip(dispersion, 1e-3, 4.0)


def _weekday_index(sales: Floats, exposure: Floats) -> Floats:
    """(n, T) factor of each day's weekday, mean 1 over a week, from the days at least a week before."""
    units, seen = (_before(values, 1 - 1 / _WEEKDAY_WEEKS, 7) for values in (sales, exposure))
    level = _ratio(_last_week(units), _last_week(seen))
    index = (units + _PRIOR_WEEKDAYS * level) / np.maximum((seen + _PRIOR_WEEKDAYS) * level, 1e-12)
    index = np.where(level > 0, index, 1.0)
    return index / np.maximum(_last_week(index) / 7, 1e-12)


def _last_week(values: Floats) -> Floats:
    """(n, T) sum over each day and the six before it; before the first, days count as the first."""
    padded = np.concatenate([np.repeat(values[:, :1], 6, axis=1), values], axis=1)
    return np.asarray(lfilter(np.ones(7), 1.0, padded, axis=1)[:, 6:], float)


def _before(values: Floats, decay: float, step: int = 1) -> Floats:
    """Along axis 1, the decayed sum of what came before each place, in steps: Σ_{i>0} decay^(i-1) v_{t - i step}."""
    taps = np.zeros(step + 1)
    taps[step] = 1.0
    feedback = -decay * taps
    feedback[0] = 1.0
    return np.asarray(lfilter(taps, feedback, values, axis=1), float)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 1e-9)


# Exposure from the hours without stock -----------------------------------------------------------------


def _exposure(table: pa.Table, batch: SeriesBatch, profiles: IntradayProfiles) -> Floats:
    given = batch.exposure if batch.exposure is not None else np.ones_like(batch.demand)
    lists = table.column("out_hour").combine_chunks()
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    rows = np.repeat(np.arange(table.num_rows), lengths)
    seconds = lists.flatten().cast(pa.timestamp("s", tz="UTC")).cast(pa.int64())
    hours = seconds.to_numpy(zero_copy_only=False).astype(np.int64) // 3600
    shares = _flat(table, "out_share")
    exposure = exposure_from_hours(batch, rows, hours, shares, profiles, given)
    return _after_the_last_sale(table, batch, exposure)


def exposure_from_hours(
    batch: SeriesBatch, rows: Integers, hours: Integers, out: Floats, profiles: IntradayProfiles, otherwise: Floats
) -> Floats:
    """(n, T) share of each UTC day's demand that falls into its time with stock.

    Args:
        rows, hours, out: each hour without stock for a while: the series' row, hours since 1970 (UTC), and the
            share of the hour without stock, 0 to 1; negative where sales contradict what was recorded.
        profiles: weighs the hours by their local weekday and hour.
        otherwise: (n, T) the share of each day's time with stock: its exposure where the hours explain too
            little of the time without, since hourly demand does not reach that far.
    """
    first = (batch.end - EPOCH).days - batch.days + 1
    column = hours // 24 - first
    inside = (column >= 0) & (column < batch.days)
    rows, hours, out, column = rows[inside], hours[inside], out[inside], column[inside]
    place = rows * batch.days + column
    weight = np.zeros(len(rows))
    for (timezone, category), chosen in _groups(batch, rows):
        weight[chosen] = _weights(hours[chosen], timezone, profiles[category])
    size = len(batch) * batch.days
    lost = np.bincount(place, weights=weight * np.maximum(out, 0.0), minlength=size).reshape(otherwise.shape)
    time = np.bincount(place, weights=np.abs(out) / 24, minlength=size).reshape(otherwise.shape)
    explained = time > 1.0 - otherwise - 0.5 / 24
    exposure = np.where(explained, np.clip(1.0 - lost, 0.0, 1.0), otherwise)
    return np.where(exposure < 1e-9, 0.0, exposure)


def _groups(batch: SeriesBatch, rows: Integers) -> Iterable[tuple[tuple[str, str], Integers]]:
    """The places in `rows` that share a time zone and a category."""
    keys = list(zip(batch.timezone, batch.category, strict=True))
    names = sorted(set(keys))
    number = np.array([names.index(key) for key in keys], np.int64)[rows]
    for index, name in enumerate(names):
        yield name, np.flatnonzero(number == index).astype(np.int64)


def _weights(hours: Integers, timezone: str, profile: Floats) -> Floats:
    """The share of its UTC day's demand that each hour (since 1970, UTC) has."""
    days, place = np.unique(hours // 24, return_inverse=True)
    utc = pd.to_datetime((days[:, None] * 24 + np.arange(24)).ravel() * 3600, unit="s", utc=True)
    local = utc.tz_convert(timezone)
    rate = profile[local.weekday.to_numpy(), local.hour.to_numpy()].reshape(-1, 24)
    return np.asarray((rate / rate.sum(axis=1, keepdims=True))[place, hours % 24], float)


def _after_the_last_sale(table: pa.Table, batch: SeriesBatch, exposure: Floats) -> Floats:
    """No exposure after the last row of a series whose stock ended with it, for a while."""
    ends_out = np.asarray(table.column("ends_out").fill_null(False).to_numpy(), bool)
    if not ends_out.any():
        return exposure
    lists = table.column("date").combine_chunks()
    days = lists.flatten().cast(pa.date32()).cast(pa.int32()).to_numpy(zero_copy_only=False).astype(np.int64)
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    last = np.full(table.num_rows, np.iinfo(np.int64).min)
    np.maximum.at(last, np.repeat(np.arange(table.num_rows), lengths), days)
    column = last - ((batch.end - EPOCH).days - batch.days + 1)
    after = np.arange(batch.days) - np.where(lengths > 0, column, batch.days)[:, None]
    return np.where(ends_out[:, None] & (after > 0) & (after <= ABANDONED_DAYS), 0.0, exposure)


def _flat(table: pa.Table, name: str) -> Floats:
    values: pa.Array[Any] = table.column(name).combine_chunks().flatten()
    return np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False), float)
