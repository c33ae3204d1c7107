"""Multiplicative seasonality: Gauss-Newton steps, each a linear problem whose matrix comes from segment moments."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipelines.forecasting.compiled import compiled
from pipelines.forecasting.prophet_map.lasso import cholesky, lasso, solve_lower, solve_upper
from pipelines.forecasting.prophet_map.noise import SMALLEST_VARIANCE, noise_penalty, noise_variance
from pipelines.forecasting.series import Floats, Integers

_STEPS = 60
_HALVINGS = 12
_SETTLED = 1e-9


class Grid(NamedTuple):
    """The n days that series share.

    Attributes:
        t: (n,) time, 0 on the first day, 1 on the last.
        features: (n, K).
        changepoints: (S,) in the units of t.
        positions: (S,) the first of the n days at or after each changepoint.
        moments: (S + 1, 3, K + 1, K + 1) of each segment, see `moments.segment_moments`.
    """

    t: Floats
    features: Floats
    changepoints: Floats
    positions: Integers
    moments: Floats


@compiled
def _evaluate(y: Floats, grid: Grid, theta: Floats, season: Floats, trend: Floats, residual: Floats) -> float:
    """Fill season (1 + x β), trend and residual by day; returns the sum of squared residuals."""
    count = y.shape[0]
    features = grid.features.shape[1]
    total = 0.0
    slope, offset = theta[0], theta[1]
    piece = 0
    for day in range(count):
        while piece < grid.positions.shape[0] and day >= grid.positions[piece]:
            change = theta[2 + features + piece]
            slope += change
            offset -= change * grid.changepoints[piece]
            piece += 1
        effect = 1.0
        for column in range(features):
            effect += grid.features[day, column] * theta[2 + column]
        season[day] = effect
        trend[day] = slope * grid.t[day] + offset
        residual[day] = y[day] - trend[day] * effect
        total += residual[day] * residual[day]
    return total


@compiled
def _pieces(grid: Grid, theta: Floats) -> tuple[Floats, Floats]:
    """Slope and offset (S + 1,) of the trend within each segment."""
    hinges = grid.changepoints.shape[0]
    first = theta.shape[0] - hinges
    slopes, offsets = np.empty(hinges + 1), np.empty(hinges + 1)
    slopes[0], offsets[0] = theta[0], theta[1]
    for piece in range(hinges):
        slopes[piece + 1] = slopes[piece] + theta[first + piece]
        offsets[piece + 1] = offsets[piece] - theta[first + piece] * grid.changepoints[piece]
    return slopes, offsets


@compiled
def _season_block(grid: Grid, slopes: Floats, offsets: Floats, matrix: Floats) -> None:
    """Σ g² x xᵀ into the lower triangle of the features' block."""
    features = grid.moments.shape[2] - 1
    for piece in range(slopes.shape[0]):
        moments = grid.moments[piece]
        constant = offsets[piece] * offsets[piece]
        mixed = 2.0 * offsets[piece] * slopes[piece]
        quadratic = slopes[piece] * slopes[piece]
        for row in range(1, features + 1):
            for column in range(1, row + 1):
                matrix[1 + row, 1 + column] += (
                    constant * moments[0, row, column]
                    + mixed * moments[1, row, column]
                    + quadratic * moments[2, row, column]
                )


@compiled
def _suffix_sums(grid: Grid, slopes: Floats, offsets: Floats, beta: Floats) -> tuple[Floats, Floats, Floats]:
    """Over the segments from each one on, with e = 1 + x β, z = (1, x) and g the trend: Σ tᵖ e² (S + 2, 3),
    Σ t e g z and Σ e g z (S + 2, K + 1)."""
    pieces, _, size, _ = grid.moments.shape
    weights = np.ones(size)
    weights[1:] = beta
    squares = np.zeros((pieces + 1, 3))
    linear, constant = np.zeros((pieces + 1, size)), np.zeros((pieces + 1, size))
    product = np.empty((3, size))
    for piece in range(pieces - 1, -1, -1):
        for order in range(3):
            for row in range(size):
                total = 0.0
                for column in range(size):
                    total += grid.moments[piece, order, row, column] * weights[column]
                product[order, row] = total
            squares[piece, order] = squares[piece + 1, order] + np.sum(weights * product[order])
        slope, offset = slopes[piece], offsets[piece]
        linear[piece] = linear[piece + 1] + offset * product[1] + slope * product[2]
        constant[piece] = constant[piece + 1] + offset * product[0] + slope * product[1]
    return squares, linear, constant


@compiled
def _normal_matrix(grid: Grid, theta: Floats, linear_trend: bool, matrix: Floats) -> None:
    """JᵀJ of f = trend (1 + x β) at theta, coefficients in the order k, m, β, δ."""
    features = grid.moments.shape[2] - 1
    base = 2 + features
    matrix[:] = 0.0
    slopes, offsets = _pieces(grid, theta)
    _season_block(grid, slopes, offsets, matrix)
    squares, linear, constant = _suffix_sums(grid, slopes, offsets, theta[2:base])
    matrix[0, 0], matrix[1, 0], matrix[1, 1] = squares[0, 2], squares[0, 1], squares[0, 0]
    matrix[2:base, 0], matrix[2:base, 1] = linear[0, 1:], constant[0, 1:]
    for one in range(grid.changepoints.shape[0]):
        at, sums = grid.changepoints[one], squares[one + 1]
        matrix[base + one, 0] = sums[2] - at * sums[1]
        matrix[base + one, 1] = sums[1] - at * sums[0]
        matrix[base + one, 2:base] = linear[one + 1, 1:] - at * constant[one + 1, 1:]
        for other in range(one + 1):
            before = grid.changepoints[other]
            matrix[base + one, base + other] = sums[2] - (at + before) * sums[1] + at * before * sums[0]
    if not linear_trend:
        matrix[:, 0] = 0.0
        matrix[base:] = 0.0
    for row in range(matrix.shape[0]):
        for column in range(row):
            matrix[column, row] = matrix[row, column]


@compiled
def _gradient(grid: Grid, season: Floats, trend: Floats, residual: Floats, linear_trend: bool, out: Floats) -> None:
    """Jᵀ residual, in the order k, m, β, δ."""
    features = grid.features.shape[1]
    hinges = grid.changepoints.shape[0]
    out[:] = 0.0
    time, level = 0.0, 0.0
    piece = hinges - 1
    for day in range(residual.shape[0] - 1, -1, -1):
        value = season[day] * residual[day]
        time += grid.t[day] * value
        level += value
        while piece >= 0 and day == grid.positions[piece]:
            out[2 + features + piece] = time - grid.changepoints[piece] * level
            piece -= 1
        value = trend[day] * residual[day]
        for column in range(features):
            out[2 + column] += grid.features[day, column] * value
    out[0] = time
    out[1] = level
    if not linear_trend:
        out[0] = 0.0
        out[2 + features :] = 0.0


@compiled
def _penalty(theta: Floats, centre: Floats, precision: Floats, ridge: int, scale: float) -> float:
    total = 0.0
    for index in range(theta.shape[0]):
        difference = theta[index] - centre[index]
        if index < ridge:
            total += 0.5 * precision[index] * difference * difference
        else:
            total += abs(difference) / scale
    return total


@compiled
def _minimise(matrix: Floats, linear: Floats, ridge: int, weight: float, shift: Floats, theta: Floats) -> None:
    """Minimise ½ θᵀ M θ - bᵀ θ + w Σ|δ - shift| over θ = (ridge coefficients, δ), in place; M is overwritten."""
    size = theta.shape[0]
    hinges = size - ridge
    cholesky(matrix, ridge)
    reduced = linear[:ridge].copy()
    solve_lower(matrix, ridge, reduced)
    half = np.empty((hinges, ridge))
    for one in range(hinges):
        half[one] = matrix[ridge + one, :ridge]
        solve_lower(matrix, ridge, half[one])
    gram, target = np.empty((hinges, hinges)), np.empty(hinges)
    for one in range(hinges):
        total = linear[ridge + one]
        for index in range(ridge):
            total -= half[one, index] * reduced[index]
        target[one] = total
        for other in range(one + 1):
            product = matrix[ridge + one, ridge + other]
            for index in range(ridge):
                product -= half[one, index] * half[other, index]
            gram[one, other] = product
            gram[other, one] = product
    for one in range(hinges):
        for other in range(hinges):
            target[one] -= gram[one, other] * shift[other]
    moved = theta[ridge:] - shift
    lasso(gram, target, weight, moved)
    theta[ridge:] = moved + shift
    for one in range(hinges):
        if theta[ridge + one] != 0.0:
            for index in range(ridge):
                reduced[index] -= half[one, index] * theta[ridge + one]
    solve_upper(matrix, ridge, reduced)
    theta[:ridge] = reduced


@compiled
def fit(
    y: Floats,
    grid: Grid,
    centre: Floats,
    precision: Floats,
    scale: float,
    linear_trend: bool,
    theta: Floats,
) -> tuple[Floats, Integers]:
    """Maximum a posteriori of N scaled series, in place; returns noise variances (N,) and steps taken (N,).

    Each step replaces f by its tangent and solves that problem exactly (ridge and Laplace priors included); the step
    is halved while the posterior does not rise, and the noise variance is always at its closed form.

    Args:
        y: (N, n) scaled demand.
        centre: (N, 2 + K + S) the priors' means, in the order k, m, β, δ: Prophet's are zero.
        precision: (2 + K,) of the normal priors.
        scale: τ of the Laplace prior.
        linear_trend: False: flat, no slope.
        theta: (N, 2 + K + S) where to start; the result.
    """
    size = theta.shape[1]
    ridge = precision.shape[0]
    count = y.shape[1]
    matrix, linear = np.empty((size, size)), np.empty(size)
    season, trend, residual = np.empty(count), np.empty(count), np.empty(count)
    variances, steps = np.empty(y.shape[0]), np.zeros(y.shape[0], np.int64)
    trial, proposal = np.empty(size), np.empty(size)
    for row in range(y.shape[0]):
        squares = _evaluate(y[row], grid, theta[row], season, trend, residual)
        variance = noise_variance(squares, count)
        objective = noise_penalty(squares, count, variance) + _penalty(theta[row], centre[row], precision, ridge, scale)
        for step in range(_STEPS):
            steps[row] = step + 1
            _normal_matrix(grid, theta[row], linear_trend, matrix)
            _gradient(grid, season, trend, residual, linear_trend, linear)
            for index in range(size):
                total = 0.0
                for other in range(size):
                    total += matrix[index, other] * theta[row, other]
                linear[index] += total
            for index in range(ridge):
                linear[index] += variance * precision[index] * centre[row, index]
                matrix[index, index] += variance * precision[index]
            proposal[:] = theta[row]
            _minimise(matrix, linear, ridge, variance / scale, centre[row, ridge:], proposal)
            gained = 0.0
            share = 1.0
            for _ in range(_HALVINGS):
                trial[:] = theta[row] + share * (proposal - theta[row])
                squares = _evaluate(y[row], grid, trial, season, trend, residual)
                candidate = noise_variance(squares, count)
                value = noise_penalty(squares, count, candidate) + _penalty(trial, centre[row], precision, ridge, scale)
                if value < objective:
                    gained = objective - value
                    objective, variance = value, candidate
                    theta[row] = trial
                    break
                share *= 0.5
            if gained <= _SETTLED * (1.0 + abs(objective)):
                break
        variances[row] = max(variance, SMALLEST_VARIANCE)
    return variances, steps
