"""Fit and forecast a batch of series: those on the same days together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np

from pipelines.forecasting.compiled import product
from pipelines.forecasting.prophet_map import additive, multiplicative
from pipelines.forecasting.prophet_map.features import (
    FLAT,
    LINEAR,
    MULTIPLICATIVE,
    WEEKLY_FROM_DAYS,
    YEARLY_FROM_DAYS,
    Calendar,
    Specification,
    calendar,
    calendar_days,
)
from pipelines.forecasting.prophet_map.intervals import deviation_scale, standard_quantiles
from pipelines.forecasting.prophet_map.moments import segment_moments
from pipelines.forecasting.series import Floats, Integers

TREND_PRIOR = 5.0
"""Standard deviation of Prophet's priors on k and m."""
CONSTANT_SIGMA = 1e-9


@dataclass(frozen=True)
class Fitted:
    """Fitted series that share their days; N series, S changepoints, K features.

    Attributes:
        rows: (N,) places in the batch.
        first, last: the first and last observed day.
        changepoints: (S,) days after `first`; none: S = 1 at day 0 and a coefficient of zero, as in Prophet.
        scale: (N,) units that 1 stands for.
        k, m, sigma: (N,); delta: (N, S); beta: (N, K).
    """

    specification: Specification
    rows: Integers
    first: np.datetime64
    last: np.datetime64
    changepoints: Integers
    scale: Floats
    k: Floats
    m: Floats
    delta: Floats
    beta: Floats
    sigma: Floats

    @property
    def span(self) -> int:
        """Days from the first to the last observed one: what t = 1 stands for."""
        return int((self.last - self.first).astype(np.int64))


@dataclass(frozen=True)
class Days:
    """The observed days of series that share them, and what depends on nothing else."""

    specification: Specification
    calendar: Calendar
    observed: Integers
    changepoints: Integers
    """Days after the first, (S,)."""

    @property
    def t(self) -> Floats:
        """(n,) 0 on the first observed day, 1 on the last."""
        return np.asarray((self.observed - self.observed[0]) / (self.observed[-1] - self.observed[0]), float)

    @property
    def changepoint_times(self) -> Floats:
        """(S,) the changepoints in units of t."""
        return np.asarray(self.changepoints / (self.observed[-1] - self.observed[0]), float)


def fit(demand: Floats, end: date, base: Specification, horizon: int = 1) -> list[Fitted]:
    """Maximum a posteriori of every series with at least two known days.

    Args:
        demand: (N, T) units a day up to `end`, NaN where unknown.
        base: its `weekly` and `yearly` say what a series may have; a short history turns them off.
        horizon: days after `end` whose features will be wanted; only makes the shared calendar longer.
    """
    return [_fit_group(demand[rows], rows, days) for rows, days in _groups(demand, end, base, horizon)]


def _groups(demand: Floats, end: date, base: Specification, horizon: int) -> Iterator[tuple[Integers, Days]]:
    known = np.isfinite(demand)
    enough = np.flatnonzero(known.sum(axis=1) >= 2)
    if not len(enough):
        return
    before = calendar_days(demand.shape[1]) - demand.shape[1]
    packed = np.packbits(known[enough], axis=1)
    _, member = np.unique(packed, axis=0, return_inverse=True)
    order = np.argsort(member, kind="stable")
    for rows in np.split(enough[order], np.flatnonzero(np.diff(member[order])) + 1):
        observed = np.flatnonzero(known[rows[0]]) + before
        yield rows, _days(observed, end, base, demand.shape[1], horizon)


def _days(observed: Integers, end: date, base: Specification, days: int, horizon: int) -> Days:
    span = int(observed[-1] - observed[0])
    gap = int(np.diff(observed).min())
    specification = replace(
        base,
        weekly=base.weekly and span >= WEEKLY_FROM_DAYS and gap < 7,
        yearly=base.yearly and span >= YEARLY_FROM_DAYS,
    )
    return Days(
        specification,
        calendar(specification, end, days, horizon),
        observed,
        changepoint_days(observed, specification),
    )


def changepoint_days(observed: Integers, specification: Specification) -> Integers:
    """(S,) days after the first observed one on which the trend may change: evenly spread over observed days."""
    size = int(np.floor(len(observed) * specification.changepoint_range))
    count = min(specification.n_changepoints, size - 1)
    if count <= 0 or specification.growth == FLAT:
        return np.zeros(1, np.int64)
    places = np.linspace(0, size - 1, count + 1).round().astype(int)[1:]
    return np.asarray(observed[places] - observed[0], np.int64)


def _fit_group(demand: Floats, rows: Integers, days: Days) -> Fitted:
    known = np.ascontiguousarray(demand[:, np.isfinite(demand[0])])
    scale = np.abs(known).max(axis=1)
    scale = np.where(scale > 0, scale, 1.0)
    y = known / scale[:, None]
    solved = _solve(y, days)
    constant = known.min(axis=1) == known.max(axis=1)
    for values in (solved.k, solved.delta, solved.beta):
        values[constant] = 0.0
    solved.m[constant], solved.sigma[constant] = y[constant, 0], CONSTANT_SIGMA
    return replace(solved, rows=rows, scale=scale)


def _solve(y: Floats, days: Days) -> Fitted:
    specification = days.specification
    features = days.calendar.features[days.observed]
    scales = np.concatenate([[TREND_PRIOR, TREND_PRIOR], days.calendar.scales])
    count, hinges = len(y), len(days.changepoints)
    if specification.seasonality_mode == MULTIPLICATIVE:
        theta = np.zeros((count, len(scales) + hinges))
        theta[:, 1] = y.mean(axis=1)
        variances, _ = multiplicative.fit(
            y,
            grid(days),
            np.zeros_like(theta),
            scales**-2,
            specification.changepoint_prior_scale,
            specification.growth == LINEAR,
            theta,
        )
        ridge, delta = theta[:, : len(scales)], theta[:, len(scales) :]
    else:
        t, at = days.t, days.changepoint_times
        slope = t if specification.growth == LINEAR else np.zeros_like(t)
        hinge = np.maximum(t[:, None] - at, 0.0) if specification.growth == LINEAR else np.zeros((len(t), hinges))
        common = additive.shared(np.column_stack([slope, np.ones_like(t), features]), hinge, scales)
        start = np.zeros((count, hinges))
        ridge, delta, variances = additive.fit(y, common, specification.changepoint_prior_scale, start)
    k, delta = ridge[:, 0].copy(), delta.copy()
    if not days.changepoints.any():
        k, delta = k + delta[:, 0], np.zeros_like(delta)
    first = days.calendar.first + days.observed[0]
    return Fitted(
        specification=specification,
        rows=np.arange(count),
        first=first,
        last=days.calendar.first + days.observed[-1],
        changepoints=days.changepoints,
        scale=np.ones(count),
        k=k,
        m=ridge[:, 1].copy(),
        delta=delta,
        beta=ridge[:, 2:].copy(),
        sigma=np.sqrt(variances),
    )


def grid(days: Days) -> multiplicative.Grid:
    """What the multiplicative solver needs to know of the days."""
    sums = days.calendar.moments
    if sums is None:
        raise ValueError("the calendar was made for an additive model: it has no moments")
    boundaries = days.observed[0] + days.changepoints
    history = days.calendar.features[: days.calendar.days]
    return multiplicative.Grid(
        days.t,
        np.ascontiguousarray(days.calendar.features[days.observed]),
        days.changepoint_times,
        np.searchsorted(days.observed, boundaries),
        segment_moments(sums, history, days.observed, boundaries),
    )


def forecast(
    fitted: Fitted, features: Floats, ahead: Integers, probabilities: Sequence[float]
) -> tuple[Floats, Floats]:
    """Expected demand (N, h) and quantiles (N, h, q) in units, as Prophet's `predict` and samples have them.

    Args:
        features: (h, K) of the days asked for, all after the last observed one.
        ahead: (h,) days after the last observed one, ascending.
    """
    t = 1.0 + ahead / fitted.span
    slope = fitted.k + fitted.delta.sum(axis=1)
    offset = fitted.m - (fitted.delta * (fitted.changepoints / fitted.span)).sum(axis=1)
    trend = slope[:, None] * t + offset[:, None]
    season = product(fitted.beta, np.ascontiguousarray(features.T))
    multiplies = fitted.specification.seasonality_mode == MULTIPLICATIVE
    yhat = trend * (1 + season) if multiplies else trend + season
    deviation = _deviation(fitted, ahead) * (np.abs(1 + season) if multiplies else 1.0)
    variance = deviation**2 + fitted.sigma[:, None] ** 2
    changes = np.broadcast_to(_chance(fitted) * ahead, variance.shape)
    standard = standard_quantiles(changes, deviation**2 / variance, probabilities)
    quantiles = yhat[:, :, None] + np.sqrt(variance)[:, :, None] * standard
    return yhat * fitted.scale[:, None], quantiles * fitted.scale[:, None, None]


def _chance(fitted: Fitted) -> float:
    return min(len(fitted.changepoints) / fitted.span, 1.0)


def _deviation(fitted: Fitted, ahead: Integers) -> Floats:
    if fitted.specification.growth == FLAT:
        return np.zeros((len(fitted.k), len(ahead)))
    size = np.abs(fitted.delta).mean(axis=1) + 1e-8
    every = deviation_scale(int(ahead[-1]), np.array([_chance(fitted)]))[0]
    return np.asarray(size[:, None] / fitted.span * every[ahead - 1], float)
