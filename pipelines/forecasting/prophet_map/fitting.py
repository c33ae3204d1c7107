"""Fit and forecast a batch of series: those on the same days together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

import numpy as np
import numpy.typing as npt

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
from pipelines.forecasting.prophet_map.moments import moments_of_days, segment_moments
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
        k, m, sigma: (N,); delta: (N, S); beta: (N, K + R), the coefficients of R regressors last.
        centre, spread: (N, R) what regressors are standardised by.
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
    centre: Floats = field(default_factory=lambda: np.empty((1, 0)))
    spread: Floats = field(default_factory=lambda: np.empty((1, 0)))

    @property
    def span(self) -> int:
        """Days from the first to the last observed one: what t = 1 stands for."""
        return int((self.last - self.first).astype(np.int64))

    def where(self, chosen: npt.NDArray[np.bool_]) -> Fitted:
        """The chosen (N,) of the series."""
        each = ("rows", "scale", "k", "m", "delta", "beta", "sigma")
        return replace(self, **{name: getattr(self, name)[chosen] for name in each})


@dataclass(frozen=True)
class Days:
    """The observed days of series that share them, and what depends on nothing else."""

    specification: Specification
    calendar: Calendar
    observed: Integers
    changepoints: Integers
    """Days after the first, (S,)."""
    regressors: Floats | None = None
    """(n, R) standardised, of a series that does not share its days; None: the calendar's features alone."""

    @property
    def features(self) -> Floats:
        """(n, K + R) of the observed days."""
        features = self.calendar.features[self.observed]
        return np.ascontiguousarray(features if self.regressors is None else np.hstack([features, self.regressors]))

    @property
    def scales(self) -> Floats:
        """(K + R,) the priors' standard deviations."""
        own = np.full(len(self.specification.regressors), self.specification.holidays_prior_scale)
        return np.concatenate([self.calendar.scales, own])

    @property
    def t(self) -> Floats:
        """(n,) 0 on the first observed day, 1 on the last."""
        return np.asarray((self.observed - self.observed[0]) / (self.observed[-1] - self.observed[0]), float)

    @property
    def changepoint_times(self) -> Floats:
        """(S,) the changepoints in units of t."""
        return np.asarray(self.changepoints / (self.observed[-1] - self.observed[0]), float)


def fit(
    demand: Floats,
    end: date,
    base: Specification,
    horizon: int = 1,
    regressors: Floats | None = None,
    start: Sequence[Fitted] = (),
) -> list[Fitted]:
    """Maximum a posteriori of every series with at least two known days.

    Args:
        demand: (N, T) units a day up to `end`, NaN where unknown.
        base: its `weekly` and `yearly` say what a series may have; a short history turns them off.
        horizon: days after `end` whose features will be wanted; only makes the shared calendar longer.
        regressors: (N, T, R) values of `base.regressors` on the same days, known on every known day. A series then
            has features of its own, and shares its normal equations with no other: several times slower.
        start: earlier fits of the same rows, say yesterday's, for multiplicative models to start from: half the steps.
            Results then agree with those of a cold start to the solver's tolerance, not to the last bit. An additive
            model is solved exactly and gains nothing.

    Raises:
        ValueError: the regressors' shape does not fit, or one is missing on a known day.
    """
    known = np.isfinite(demand)
    if regressors is None:
        regressors = np.empty((*demand.shape, 0))
    if regressors.shape != (*demand.shape, len(base.regressors)):
        raise ValueError(
            f"regressors have the shape {regressors.shape}, expected {(*demand.shape, len(base.regressors))}: a value "
            f"for every series and day of each of {list(base.regressors)}"
        )
    if not np.isfinite(regressors[known]).all():
        raise ValueError("a regressor is missing on a day with demand: fill it, or make that day's demand NaN")
    return [
        _fit_group(demand[rows], regressors[rows], rows, end, base, horizon, start)
        for rows in _groups(known, alone=bool(base.regressors))
    ]


def _groups(known: npt.NDArray[np.bool_], alone: bool) -> Iterator[Integers]:
    """Rows that share their known days, at least two of them; each by itself if `alone`."""
    enough = np.flatnonzero(known.sum(axis=1) >= 2)
    if alone or not len(enough):
        yield from enough[:, None]
        return
    _, member = np.unique(np.packbits(known[enough], axis=1), axis=0, return_inverse=True)
    order = np.argsort(member, kind="stable")
    yield from np.split(enough[order], np.flatnonzero(np.diff(member[order])) + 1)


def _days(
    observed: Integers, end: date, base: Specification, days: int, horizon: int, regressors: Floats | None
) -> Days:
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
        regressors,
    )


def changepoint_days(observed: Integers, specification: Specification) -> Integers:
    """(S,) days after the first observed one on which the trend may change: evenly spread over observed days."""
    size = int(np.floor(len(observed) * specification.changepoint_range))
    count = min(specification.n_changepoints, size - 1)
    if count <= 0 or specification.growth == FLAT:
        return np.zeros(1, np.int64)
    places = np.linspace(0, size - 1, count + 1).round().astype(int)[1:]
    return np.asarray(observed[places] - observed[0], np.int64)


def _fit_group(
    demand: Floats,
    regressors: Floats,
    rows: Integers,
    end: date,
    base: Specification,
    horizon: int,
    start: Sequence[Fitted],
) -> Fitted:
    on = np.flatnonzero(np.isfinite(demand[0]))
    own, centre, spread = _standardised(regressors[0, on])
    observed = on + calendar_days(demand.shape[1]) - demand.shape[1]
    days = _days(observed, end, base, demand.shape[1], horizon, own if base.regressors else None)
    known = np.ascontiguousarray(demand[:, on])
    scale = np.abs(known).max(axis=1)
    scale = np.where(scale > 0, scale, 1.0)
    y = known / scale[:, None]
    theta = _cold(y, days)
    for earlier in start:
        _warm(theta, rows, scale, days, earlier)
    solved = _solve(y, days, theta)
    constant = known.min(axis=1) == known.max(axis=1)
    for values in (solved.k, solved.delta, solved.beta):
        values[constant] = 0.0
    solved.m[constant], solved.sigma[constant] = y[constant, 0], CONSTANT_SIGMA
    return replace(solved, rows=rows, scale=scale, centre=centre[None], spread=spread[None])


def _standardised(values: Floats) -> tuple[Floats, Floats, Floats]:
    """Values (n, R) as Prophet standardises them, by mean and deviation unless constant or 0 and 1; and those (R,)."""
    centre, spread = np.zeros(values.shape[1]), np.ones(values.shape[1])
    for place, column in enumerate(values.T):
        distinct = np.unique(column)
        if len(distinct) > 1 and not np.array_equal(distinct, [0.0, 1.0]):
            centre[place], spread[place] = column.mean(), column.std(ddof=1)
    return (values - centre) / spread, centre, spread


def _cold(y: Floats, days: Days) -> Floats:
    """(N, 2 + K + S) k, m, β, δ of a level trend."""
    theta = np.zeros((len(y), 2 + len(days.scales) + len(days.changepoints)))
    theta[:, 1] = y.mean(axis=1)
    return theta


def _warm(theta: Floats, rows: Integers, scale: Floats, days: Days, earlier: Fitted) -> None:
    """Put what an earlier fit found for the same rows into theta, in today's units of demand and time."""
    features = earlier.beta.shape[1]
    if (features, len(earlier.changepoints)) != (len(days.scales), len(days.changepoints)):
        return
    _, here, there = np.intersect1d(rows, earlier.rows, return_indices=True)
    units = (earlier.scale[there] / scale[here])[:, None]
    slopes = units * (days.observed[-1] - days.observed[0]) / earlier.span
    theta[here, :1] = slopes * earlier.k[there, None]
    theta[here, 1:2] = units * earlier.m[there, None]
    theta[here, 2 : 2 + features] = earlier.beta[there]
    theta[here, 2 + features :] = slopes * earlier.delta[there]


def _solve(y: Floats, days: Days, theta: Floats) -> Fitted:
    """Solve from theta (N, 2 + K + S), which is changed in place."""
    specification = days.specification
    scales = np.concatenate([[TREND_PRIOR, TREND_PRIOR], days.scales])
    count, hinges = len(y), len(days.changepoints)
    if specification.seasonality_mode == MULTIPLICATIVE:
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
        common = additive.shared(np.column_stack([slope, np.ones_like(t), days.features]), hinge, scales)
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
    positions = np.searchsorted(days.observed, boundaries)
    if days.regressors is not None:
        moments = moments_of_days(days.features, days.t, positions)
    else:
        history = days.calendar.features[: days.calendar.days]
        moments = segment_moments(sums, history, days.observed, boundaries)
    return multiplicative.Grid(days.t, days.features, days.changepoint_times, positions, moments)


def forecast(
    fitted: Fitted,
    features: Floats,
    ahead: Integers,
    probabilities: Sequence[float],
    regressors: Floats | None = None,
) -> tuple[Floats, Floats]:
    """Expected demand (N, h) and quantiles (N, h, q) in units, as Prophet's `predict` and samples have them.

    Args:
        features: (h, K) of the days asked for, all after the last observed one.
        ahead: (h,) days after the last observed one, ascending.
        regressors: (N, h, R) of the same days; needed where the model has regressors.
    """
    t = 1.0 + ahead / fitted.span
    slope = fitted.k + fitted.delta.sum(axis=1)
    offset = fitted.m - (fitted.delta * (fitted.changepoints / fitted.span)).sum(axis=1)
    trend = slope[:, None] * t + offset[:, None]
    season = _season(fitted, features)
    if fitted.specification.regressors:
        if regressors is None:
            raise ValueError(f"the model needs future values of its regressors {list(fitted.specification.regressors)}")
        own = (regressors - fitted.centre[:, None]) / fitted.spread[:, None]
        season = season + (own * fitted.beta[:, None, features.shape[1] :]).sum(axis=2)
    multiplies = fitted.specification.seasonality_mode == MULTIPLICATIVE
    yhat = trend * (1 + season) if multiplies else trend + season
    deviation = _deviation(fitted, ahead) * (np.abs(1 + season) if multiplies else 1.0)
    variance = deviation**2 + fitted.sigma[:, None] ** 2
    changes = np.broadcast_to(_chance(fitted) * ahead, variance.shape)
    standard = standard_quantiles(changes, deviation**2 / variance, probabilities)
    quantiles = yhat[:, :, None] + np.sqrt(variance)[:, :, None] * standard
    return yhat * fitted.scale[:, None], quantiles * fitted.scale[:, None, None]


def largest_factor(fitted: Fitted, features: Floats) -> Floats:
    """(N,) the most by which season and holidays multiply the trend on days with these features (h, K)."""
    return np.asarray(1 + _season(fitted, features).max(axis=1), float)


def _season(fitted: Fitted, features: Floats) -> Floats:
    return product(np.ascontiguousarray(fitted.beta[:, : features.shape[1]]), np.ascontiguousarray(features.T))


def _chance(fitted: Fitted) -> float:
    return min(len(fitted.changepoints) / fitted.span, 1.0)


def _deviation(fitted: Fitted, ahead: Integers) -> Floats:
    if fitted.specification.growth == FLAT:
        return np.zeros((len(fitted.k), len(ahead)))
    size = np.abs(fitted.delta).mean(axis=1) + 1e-8
    every = deviation_scale(int(ahead[-1]), np.array([_chance(fitted)]))[0]
    return np.asarray(size[:, None] / fitted.span * every[ahead - 1], float)
