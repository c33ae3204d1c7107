"""A direct hourly fit: each series' own week of local hours, leaning on its category's profile.

A log-linear model of the units in a local weekday w and hour h, with the category's profile p as its offset:

    E[units] = L p(w, h) a(w) b(k, h),    k = working day or weekend

L is the level of recent weeks. The factors a and b are gamma distributed with mean 1 around the category and are
replaced by their posterior means: (units sold + κ) / (units expected without the factor + κ), the conjugate form of
a ridge penalty on their logarithms. κ, the units that the prior counts, is one over the variance of the factors,
estimated for each series from its own cells by the method of moments (empirical Bayes): a series whose hours are as
its category's keeps the category's profile, one that sells at other hours and enough to show it gets its own.

Weekday and hour are those of the series' time zone and each cell counts as often as it occurred with stock, so that
neither a 23-hour day nor an empty shelf bends the shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pyarrow as pa

from pipelines.contracts.tables import QUANTILES
from pipelines.forecasting.distributions import demand_quantiles, variance_from_quantiles
from pipelines.forecasting.hourly import IntradayProfiles, hourly_forecast, local_cells, utc_day_shares
from pipelines.forecasting.series import EPOCH, Floats, Integers, SeriesBatch

PROFILE, DIRECT = "profile", "direct"
"""Ways from days to hours."""

ROUNDS = 4
"""Rounds of alternating the factors; each is a fixed-point step of the posterior mean."""
LEVEL_HALF_LIFE_DAYS = 14.0
_PRIOR_VARIANCE, _PRIOR_CELLS = 0.01, 12.0
"""Variance of the factors around the category's where nothing is known of it, and the cells that this counts."""
_PRIOR_HOURS = 48.0
"""Hours of the category's share that are added to those with stock, so that no cell's rate rests on nothing."""

_WEEKEND = np.array([0, 0, 0, 0, 0, 1, 1])


@dataclass(frozen=True)
class HourlyPlan:
    """How days become hours, for `hours` hours.

    Attributes:
        method: "profile": every series has the intraday profile of its category. "direct": its own week of
            hours, leaning on that profile as far as its sales do not show another (`fit_hour_of_week`).
        coherent: the hours of a day add up to the day's forecast; False: direct hours keep their own level.
        weeks: of hourly history behind the direct fit.
    """

    hours: int
    profiles: IntradayProfiles
    method: str = DIRECT
    coherent: bool = True
    weeks: int = 8

    def forecast(
        self, rows: pa.RecordBatch | pa.Table, batch: SeriesBatch, yhat: Floats, quantiles: Floats
    ) -> tuple[Floats, Floats]:
        """Hours (n, hours) and their quantiles (n, hours, q) of the contract's probabilities.

        Args:
            rows: what `batch` was read from. yhat, quantiles: its daily forecast; series without one have NaN
                there and zeros here.
        """
        return self.spread(self.shapes(rows, batch, yhat.shape[1]), yhat, quantiles)

    def shapes(self, rows: pa.RecordBatch | pa.Table, batch: SeriesBatch, horizon: int) -> Floats:
        """(n, days, 24) what each hour of the days after `batch.end` has of its day: expected units, or shares."""
        days = min(-(-self.hours // 24), horizon)
        if self.method == PROFILE:
            return profile_shapes(batch, self.profiles, days)
        return direct_shapes(fit_hour_of_week(batch, read_history(rows), self.profiles, self.weeks), batch, days)

    def spread(self, shapes: Floats, yhat: Floats, quantiles: Floats) -> tuple[Floats, Floats]:
        """The days' forecasts over their hours, by `shapes`: see `forecast`."""
        coherent = self.coherent or self.method == PROFILE
        return spread_hours(shapes, np.nan_to_num(yhat), np.nan_to_num(quantiles), QUANTILES, self.hours, coherent)


@dataclass(frozen=True)
class HourlyHistory:
    """Hours with sales or without stock, of n series (`row` places each in the batch); times are UTC hours
    since 1970. `out` is the share of the hour without stock."""

    sold_row: Integers
    sold_hour: Integers
    units: Floats
    out_row: Integers
    out_hour: Integers
    out: Floats


def read_history(rows: pa.RecordBatch | pa.Table) -> HourlyHistory:
    """From `frames.series_rows` with `frames.hourly_history` joined."""
    table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
    sold_row, sold_hour, units = _lists(table, "sold_hour", "sold_units")
    out_row, out_hour, out = _lists(table, "out_hour", "out_share")
    return HourlyHistory(sold_row, sold_hour, units, out_row, out_hour, np.maximum(out, 0.0))


def fit_hour_of_week(batch: SeriesBatch, history: HourlyHistory, profiles: IntradayProfiles, weeks: int) -> Floats:
    """Expected units of each series in an hour of each local weekday.

    Args:
        batch: names the series, their first days and the last day of data.
        history: hours after `batch.end` or before the last `weeks` weeks are not looked at.

    Returns:
        (n, 7, 24), Monday first; positive.
    """
    days = 7 * weeks
    first = batch.end - timedelta(days=days - 1)
    begin = 24 * (first - EPOCH).days
    units, hours = (np.zeros((len(batch), 168)) for _ in range(2))
    recent_units, recent_hours = (np.zeros((len(batch), 168)) for _ in range(2))
    age = np.repeat(np.arange(days - 1, -1, -1), 24)
    weight = 0.5 ** (age / LEVEL_HALF_LIFE_DAYS)
    start = 24 * np.clip(batch.start - (batch.days - days), 0, days)
    for timezone, rows in _by_timezone(batch):
        cell = local_cells(timezone, first, days)
        for target, weighted in ((hours, np.ones(24 * days)), (recent_hours, weight)):
            target[rows] = _occurrences(cell, weighted, start[rows])
        for target, weighted in ((units, np.ones(24 * days)), (recent_units, weight)):
            _add(target, rows, history.sold_row, history.sold_hour - begin, history.units, cell, weighted)
        for target, weighted in ((hours, np.ones(24 * days)), (recent_hours, weight)):
            _add(target, rows, history.out_row, history.out_hour - begin, -history.out, cell, weighted)
    profile = np.array([profiles[category] for category in batch.category]).reshape(-1, 168)
    shape = _shape(units, np.maximum(hours, 0.0), profile)
    expected = (np.maximum(recent_hours, 0.0) * shape).sum(axis=1) + _PRIOR_HOURS / 168 * 1e-3
    level = recent_units.sum(axis=1) / expected
    return np.asarray((np.maximum(level, 1e-9)[:, None] * shape).reshape(-1, 7, 24), float)


def direct_hours(
    rate: Floats,
    batch: SeriesBatch,
    yhat: Floats,
    quantiles: Floats,
    probabilities: tuple[float, ...],
    hours: int,
    reconciled: bool = True,
) -> tuple[Floats, Floats]:
    """Hourly forecasts after `batch.end` from `fit_hour_of_week`.

    Args:
        rate: (n, 7, 24). yhat, quantiles: (n, h) and (n, h, q), the daily forecast.
        hours: how many, at most 24 h.
        reconciled: hours are shares of the day's forecast and add up to it: the top-down form of a temporal
            hierarchy (Athanasopoulos, Hyndman, Kourentzes and Petropoulos 2017), the day being the better
            informed level. False: the hours' own level; negative binomial with the day's relative variance.

    Returns:
        (n, hours) and (n, hours, q).
    """
    days = min(-(-hours // 24), yhat.shape[1])
    return spread_hours(direct_shapes(rate, batch, days), yhat, quantiles, probabilities, hours, reconciled)


def direct_shapes(rate: Floats, batch: SeriesBatch, days: int) -> Floats:
    """(n, days, 24) expected units in each hour of the days after `batch.end`, from `fit_hour_of_week`."""
    first = batch.end + timedelta(days=1)
    means = np.empty((len(batch), days, 24))
    for timezone, rows in _by_timezone(batch):
        cells = rate.reshape(-1, 168)[rows][:, local_cells(timezone, first, days)]
        means[rows] = cells.reshape(len(cells), days, 24)  # there may be no days
    return means


def spread_hours(
    shapes: Floats, yhat: Floats, quantiles: Floats, probabilities: tuple[float, ...], hours: int, reconciled: bool
) -> tuple[Floats, Floats]:
    """(n, hours) and (n, hours, q) from shapes (n, days, 24) and the days' forecast; see `direct_hours`."""
    days = shapes.shape[1]
    if reconciled:
        shares = shapes / shapes.sum(axis=2, keepdims=True)
        return hourly_forecast(yhat, quantiles, shares, probabilities, min(hours, 24 * days))
    day = yhat[:, :days, None]
    variance = variance_from_quantiles(quantiles[:, :days], probabilities)[:, :, None]
    relative = np.divide(np.maximum(variance - day, 0.0), day**2, out=np.zeros_like(day), where=day > 0)
    mean = shapes.reshape(len(shapes), -1)[:, :hours]
    spread = (shapes + relative * shapes**2).reshape(len(shapes), -1)[:, :hours]
    return mean, demand_quantiles(mean, spread, probabilities)


def profile_hours(
    batch: SeriesBatch,
    profiles: IntradayProfiles,
    yhat: Floats,
    quantiles: Floats,
    probabilities: tuple[float, ...],
    hours: int,
) -> tuple[Floats, Floats]:
    """Hourly forecasts after `batch.end` from the categories' profiles; see `hourly_forecast`."""
    days = min(-(-hours // 24), yhat.shape[1])
    return hourly_forecast(yhat, quantiles, profile_shapes(batch, profiles, days), probabilities, min(hours, 24 * days))


def profile_shapes(batch: SeriesBatch, profiles: IntradayProfiles, days: int) -> Floats:
    """(n, days, 24) shares of the days after `batch.end` by the categories' profiles."""
    first = batch.end + timedelta(days=1)
    keys = list(zip(batch.category, batch.timezone, strict=True))
    known = {key: utc_day_shares(profiles[key[0]], key[1], first, days) for key in set(keys)}
    return np.array([known[key] for key in keys]).reshape(len(batch), days, 24)


def _shape(units: Floats, hours: Floats, profile: Floats) -> Floats:
    """(n, 168) p a b, adding up to 1 over a week."""
    hours = hours + _PRIOR_HOURS / 168
    units = units + _PRIOR_HOURS / 168 * profile * _ratio(units.sum(axis=1), (hours * profile).sum(axis=1))[:, None]
    level = _ratio(units.sum(axis=1), (hours * profile).sum(axis=1))[:, None]
    expected = (level * hours * profile).reshape(-1, 7, 24)
    sold = units.reshape(-1, 7, 24)
    weekday, hour = np.ones((len(units), 7)), np.ones((len(units), 2, 24))
    for _ in range(ROUNDS):
        by_hour = hour[:, _WEEKEND]
        weekday = _factors(sold.sum(axis=2), (expected * by_hour).sum(axis=2))
        scaled = expected * weekday[:, :, None]
        kinds = [kind == _WEEKEND for kind in (0, 1)]
        sums = [np.stack([values[:, kind].sum(axis=1) for kind in kinds], axis=1) for values in (sold, scaled)]
        hour = _factors(*sums)
    shape = profile * (weekday[:, :, None] * hour[:, _WEEKEND]).reshape(-1, 168)
    return np.asarray(shape / shape.sum(axis=1, keepdims=True), float)


def _factors(sold: Floats, expected: Floats) -> Floats:
    """Posterior means of gamma factors with mean 1 behind Poisson counts; any shape, series first.

    The factors' variance v is that of the cells of a series: Σ((y - m)² - m) / Σm², with a prior.
    """
    axes = tuple(range(1, sold.ndim))
    squares = (expected**2).sum(axis=axes)
    cells = np.maximum((expected > 0).sum(axis=axes), 1)
    prior = _PRIOR_CELLS * squares / cells
    excess = ((sold - expected) ** 2 - sold).sum(axis=axes) + _PRIOR_VARIANCE * prior
    variance = np.clip(_ratio(excess, squares + prior), 1e-4, 25.0)
    units = (1.0 / variance).reshape(-1, *(1,) * len(axes))
    return np.asarray((sold + units) / (expected + units), float)


def _by_timezone(batch: SeriesBatch) -> list[tuple[str, Integers]]:
    names = np.array(batch.timezone)
    return [(str(name), np.flatnonzero(names == name).astype(np.int64)) for name in sorted(set(batch.timezone))]


def _occurrences(cell: Integers, weight: Floats, start: Integers) -> Floats:
    """(len(start), 168) the weighted times that each cell occurred from hour `start` on."""
    places, index = np.unique(start, return_inverse=True)
    found = [np.bincount(cell[place:], weights=weight[place:], minlength=168) for place in places]
    return np.array(found, float).reshape(-1, 168)[index]


def _add(
    target: Floats, rows: Integers, row: Integers, hour: Integers, value: Floats, cell: Integers, weight: Floats
) -> None:
    """Add the values of these rows' hours to their cells; hours outside `cell` are left out."""
    chosen = np.isin(row, rows) & (hour >= 0) & (hour < len(cell))
    row, hour, value = row[chosen], hour[chosen], value[chosen]
    sums = np.bincount(row * 168 + cell[hour], weights=value * weight[hour], minlength=target.size)
    target += sums.reshape(target.shape)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 1e-12)


def _lists(table: pa.Table, hours: str, values: str) -> tuple[Integers, Integers, Floats]:
    lists = table.column(hours).combine_chunks()
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    seconds = lists.flatten().cast(pa.timestamp("s", tz="UTC")).cast(pa.int64())
    numbers = table.column(values).combine_chunks().flatten().cast(pa.float64())
    return (
        np.repeat(np.arange(table.num_rows), lengths),
        seconds.to_numpy(zero_copy_only=False).astype(np.int64) // 3600,
        np.asarray(numbers.to_numpy(zero_copy_only=False), float),
    )
