"""The lasso with a dense Gram matrix, solved exactly: feature-sign search (Lee, Battle, Raina and Ng, 2006)."""

from __future__ import annotations

import numpy as np

from pipelines.forecasting.compiled import compiled
from pipelines.forecasting.series import Floats, Integers

_DEPENDENT = 1e-12
"""A column of which the other active ones leave less than this share of its square depends on them."""


@compiled
def cholesky(matrix: Floats, size: int) -> None:
    """Lower Cholesky factor of the leading block, in place; a pivot that rounding made non-positive is lifted."""
    for row in range(size):
        for column in range(row):
            total = matrix[row, column]
            for inner in range(column):
                total -= matrix[row, inner] * matrix[column, inner]
            matrix[row, column] = total / matrix[column, column]
        diagonal = matrix[row, row]
        total = diagonal
        for inner in range(row):
            total -= matrix[row, inner] * matrix[row, inner]
        floor = 1e-14 * abs(diagonal) + 1e-300
        matrix[row, row] = np.sqrt(max(total, floor))


@compiled
def solve_lower(factor: Floats, size: int, values: Floats) -> None:
    """L⁻¹ b, in place."""
    for row in range(size):
        total = values[row]
        for column in range(row):
            total -= factor[row, column] * values[column]
        values[row] = total / factor[row, row]


@compiled
def solve_upper(factor: Floats, size: int, values: Floats) -> None:
    """L⁻ᵀ b, in place."""
    for row in range(size - 1, -1, -1):
        values[row] /= factor[row, row]
        for column in range(row):
            values[column] -= factor[row, column] * values[row]


@compiled
def _objective(gram: Floats, linear: Floats, weight: float, x: Floats) -> float:
    total = 0.0
    for row in range(x.shape[0]):
        if x[row] != 0.0:
            product = 0.0
            for column in range(x.shape[0]):
                product += gram[row, column] * x[column]
            total += x[row] * (0.5 * product - linear[row]) + weight * abs(x[row])
    return total


@compiled
def _towards(gram: Floats, linear: Floats, weight: float, x: Floats, target: Floats) -> None:
    """Move x to the best point on the line to `target`: where it is, where coordinates cross zero, or its end."""
    count = x.shape[0]
    best = x.copy()
    lowest = _objective(gram, linear, weight, x)
    step = target - x
    for candidate in range(-1, count):
        share = 1.0
        if candidate >= 0:
            if step[candidate] == 0.0 or x[candidate] == 0.0:
                continue
            share = -x[candidate] / step[candidate]
            if share <= 0.0 or share >= 1.0:
                continue
        point = x + share * step
        if candidate >= 0:
            point[candidate] = 0.0
        value = _objective(gram, linear, weight, point)
        if value < lowest:
            lowest = value
            best = point
    x[:] = best


@compiled
def lasso(gram: Floats, linear: Floats, weight: float, x: Floats) -> int:
    """Minimise ½ xᵀ G x - bᵀ x + w Σ|x| from the start x, in place; returns the steps taken.

    Each step solves the unpenalised problem on the active set with its signs fixed, so the minimum is reached exactly
    however alike the columns are; coordinate descent crawls on hinge functions. Of columns that depend on each other,
    one is made to leave the active set.

    Args:
        gram: (n, n) positive semi-definite.
        linear: (n,) b, in the range of G.
        weight: w > 0.
        x: (n,) start; zero or the solution of a similar problem.
    """
    count = x.shape[0]
    active, factor, values = np.empty(count, np.int64), np.empty((count, count)), np.empty(count)
    sign, target = np.sign(x), np.empty(count)
    tolerance = 1e-9 * weight + 1e-15 * np.max(np.abs(linear))
    settled = not np.any(x)
    limit = 60 + 8 * len(x)
    for step in range(limit):
        entered = settled
        if settled:
            chosen, slope = _steepest(gram, linear, x)
            if abs(slope) - weight <= tolerance:
                return step
            sign[chosen] = -np.sign(slope)
        size = 0
        for row in range(count):
            if sign[row] != 0.0:
                active[size] = row
                size += 1
        dependent = _solve_active(gram, linear - weight * sign, active[:size], factor, values)
        if dependent >= 0:
            _slide(gram, linear - weight * sign, active[: dependent + 1], factor, sign, x)
            settled = False
            continue
        target[:] = 0.0
        settled = True
        for place in range(size):
            target[active[place]] = values[place]
            settled = settled and values[place] * sign[active[place]] >= 0.0
        if settled:
            x[:] = target
        else:
            before = x.copy()
            _towards(gram, linear, weight, x, target)
            if np.all(before == x):
                if entered:
                    return step
                settled = True
        sign[:] = np.sign(x)
    return limit


@compiled
def _steepest(gram: Floats, linear: Floats, x: Floats) -> tuple[int, float]:
    """The coordinate at zero along which the smooth part falls fastest, and its slope there."""
    chosen, steepest = -1, 0.0
    for row in range(x.shape[0]):
        if x[row] == 0.0:
            slope = -linear[row]
            for column in range(x.shape[0]):
                slope += gram[row, column] * x[column]
            if abs(slope) > abs(steepest):
                chosen, steepest = row, slope
    return chosen, steepest


@compiled
def _solve_active(gram: Floats, linear: Floats, active: Integers, factor: Floats, values: Floats) -> int:
    """Solve on the active set into `values`; or the place of the first column that depends on those before it."""
    size = active.shape[0]
    for row in range(size):
        values[row] = linear[active[row]]
        for column in range(size):
            factor[row, column] = gram[active[row], active[column]]
    cholesky(factor, size)
    for row in range(size):
        if factor[row, row] ** 2 <= _DEPENDENT * gram[active[row], active[row]]:
            return row
    solve_lower(factor, size, values)
    solve_upper(factor, size, values)
    return -1


@compiled
def _slide(gram: Floats, linear: Floats, active: Integers, factor: Floats, sign: Floats, x: Floats) -> None:
    """Move x, where the last of the active columns depends on the others, in the direction that changes nothing but
    the penalty, until a coefficient is zero and leaves the active set."""
    last = active.shape[0] - 1
    direction = np.empty(last + 1)
    for place in range(last):
        direction[place] = -gram[active[last], active[place]]
    solve_lower(factor, last, direction)
    solve_upper(factor, last, direction)
    direction[last] = 1.0
    rise = 0.0
    for place in range(last + 1):
        rise -= linear[active[place]] * direction[place]
    if rise > 0.0:
        direction *= -1.0
    leaving, share = last, np.inf
    for place in range(last + 1):
        row = active[place]
        if direction[place] * sign[row] < 0.0 and -x[row] / direction[place] < share:
            leaving, share = place, -x[row] / direction[place]
    if share == np.inf:
        share = 0.0
    for place in range(last + 1):
        x[active[place]] += share * direction[place]
    x[active[leaving]] = sign[active[leaving]] = 0.0
