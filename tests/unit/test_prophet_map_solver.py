"""The solver's parts, each against dense linear algebra or the conditions of its optimum."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.forecasting.compiled import product
from pipelines.forecasting.prophet_map import multiplicative
from pipelines.forecasting.prophet_map.features import MULTIPLICATIVE, Specification, calendar
from pipelines.forecasting.prophet_map.fitting import Days, changepoint_days, grid
from pipelines.forecasting.prophet_map.lasso import cholesky, lasso, solve_lower, solve_upper
from pipelines.forecasting.prophet_map.moments import segment_moments, suffix_moments
from pipelines.forecasting.prophet_map.noise import noise_penalty, noise_variance

END = date(2024, 3, 10)
SEEDS = st.integers(0, 2**32 - 1)

# Machine code is compiled in the first example, so examples have no deadline.
often = settings(max_examples=60, deadline=None)
rarely = settings(max_examples=12, deadline=None)


@often
@given(SEEDS, st.integers(0, 6), st.integers(1, 40), st.integers(1, 9))
def test_product_is_the_matrix_product_and_the_same_for_a_row_alone(seed, rows, inner, columns):
    rng = np.random.default_rng(seed)
    one, other = rng.normal(size=(rows, inner)), rng.normal(size=(inner, columns))
    whole = product(one, other)
    np.testing.assert_allclose(whole, one @ other, rtol=1e-12, atol=1e-12)
    for row in range(rows):
        np.testing.assert_array_equal(product(one[row : row + 1].copy(), other), whole[row : row + 1])


@often
@given(SEEDS, st.integers(1, 12))
def test_cholesky_and_the_triangular_solves_give_the_solution(seed, size):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(size + 3, size))
    matrix, right = root.T @ root, rng.normal(size=size)
    factor, solution = matrix.copy(), right.copy()
    cholesky(factor, size)
    np.testing.assert_allclose(np.tril(factor), np.linalg.cholesky(matrix), rtol=1e-6, atol=1e-9)
    solve_lower(factor, size, solution)
    solve_upper(factor, size, solution)
    np.testing.assert_allclose(matrix @ solution, right, rtol=1e-6, atol=1e-6 * np.abs(right).max())


# The lasso ---------------------------------------------------------------------------------------------


def columns(rng: np.random.Generator, kind: str, size: int) -> np.ndarray:
    """Columns whose Gram matrix is regular, singular, or nearly so as that of neighbouring hinges is."""
    if kind == "regular":
        return rng.normal(size=(3 * size + 5, size))
    if kind == "fewer rows":
        return rng.normal(size=(max(size // 2, 1), size))
    if kind == "repeated":
        few = rng.normal(size=(3 * size + 5, max(size // 3, 1)))
        return few[:, rng.integers(0, few.shape[1], size)]
    days = np.linspace(0, 1, 900)
    return np.maximum(days[:, None] - np.linspace(0, 0.8, size + 1)[1:], 0.0)


def slopes(gram: np.ndarray, linear: np.ndarray, x: np.ndarray) -> np.ndarray:
    return gram @ x - linear


def objective(gram: np.ndarray, linear: np.ndarray, weight: float, x: np.ndarray) -> float:
    return float(0.5 * x @ gram @ x - linear @ x + weight * np.abs(x).sum())


@pytest.mark.parametrize("kind", ["regular", "fewer rows", "repeated", "hinges"])
@often
@given(SEEDS, st.integers(1, 30), st.floats(-6, 0.2), st.booleans())
def test_lasso_meets_the_conditions_of_the_minimum(kind, seed, size, exponent, warm):
    # given a positive semi-definite problem, its weight from hardly any to one that leaves nothing
    rng = np.random.default_rng(seed)
    design = columns(rng, kind, size)
    gram, linear = design.T @ design, design.T @ rng.normal(size=len(design))
    weight = 10.0**exponent * np.abs(linear).max()
    x = np.zeros(size)
    if warm:
        lasso(gram, linear + 0.3 * design.T @ rng.normal(size=len(design)), 1.3 * weight, x)
    # when
    lasso(gram, linear, weight, x)
    # then the slope is at most the weight, and against the sign wherever a coefficient is not zero
    slope = slopes(gram, linear, x)
    tolerance = 1e-6 * weight + 1e-10 * np.abs(linear).max()
    assert np.abs(slope).max() <= weight + tolerance
    active = x != 0
    np.testing.assert_allclose(slope[active], -weight * np.sign(x[active]), atol=tolerance)


@often
@given(SEEDS, st.integers(1, 20))
def test_no_other_point_has_a_lower_value(seed, size):
    rng = np.random.default_rng(seed)
    design = columns(rng, "hinges", size)
    gram, linear = design.T @ design, design.T @ rng.normal(size=len(design))
    weight = 0.05 * np.abs(linear).max()
    x = np.zeros(size)
    lasso(gram, linear, weight, x)
    lowest = objective(gram, linear, weight, x)
    for scale in (1e-4, 1e-2, 1.0):
        other = x + scale * rng.normal(size=size) * rng.integers(0, 2, size)
        assert objective(gram, linear, weight, other) >= lowest - 1e-12 * abs(lowest)


# The noise ---------------------------------------------------------------------------------------------


@often
@given(st.floats(1e-6, 1e6), st.integers(2, 3000), st.floats(-0.3, 0.3))
def test_the_noise_variance_is_the_best_one(residual, count, shift):
    variance = noise_variance(residual, count)
    best = noise_penalty(residual, count, variance)
    assert best <= noise_penalty(residual, count, variance * (1 + shift)) + 1e-9 * abs(best)


# Moments and the multiplicative model's normal equations -----------------------------------------------


def some_days(rng: np.random.Generator, length: int, missing: float) -> Days:
    """A stretch of a calendar, with missing days, and the changepoints that Prophet would choose."""
    specification = Specification(seasonality_mode=MULTIPLICATIVE, yearly=False)
    known = calendar(specification, END, 256, 7)
    begin = int(rng.integers(0, known.days - length + 1))
    kept = rng.random(length) >= missing
    kept[[0, -1]] = True
    observed = begin + np.flatnonzero(kept)
    return Days(specification, known, observed, changepoint_days(observed, specification))


def trend_columns(days: Days) -> np.ndarray:
    """(n, 2 + S): t, 1 and the hinges."""
    hinges = np.maximum(days.t[:, None] - days.changepoint_times, 0.0)
    return np.column_stack([days.t, np.ones_like(days.t), hinges])


def jacobian(days: Days, theta: np.ndarray) -> np.ndarray:
    """(n, 2 + K + S) of trend (1 + x β), by day, in the order k, m, β, δ."""
    features = days.calendar.features[days.observed]
    base = 2 + features.shape[1]
    basis = trend_columns(days)
    season = 1 + features @ theta[2:base]
    trend = basis @ np.concatenate([theta[:2], theta[base:]])
    by_trend = basis * season[:, None]
    return np.hstack([by_trend[:, :2], features * trend[:, None], by_trend[:, 2:]])


cases = given(SEEDS, st.integers(5, 256), st.sampled_from([0.0, 0.03, 0.5]))


@rarely
@cases
def test_segment_moments_are_sums_over_the_observed_days(seed, length, missing):
    rng = np.random.default_rng(seed)
    days = some_days(rng, length, missing)
    boundaries = days.observed[0] + days.changepoints
    found = grid(days).moments
    z = np.column_stack([np.ones(len(days.observed)), days.calendar.features[days.observed]])
    piece = np.searchsorted(boundaries, days.observed, side="right")
    for segment in range(len(boundaries) + 1):
        inside = piece == segment
        for order in range(3):
            expected = (z[inside] * days.t[inside, None] ** order).T @ z[inside]
            np.testing.assert_allclose(found[segment, order], expected, atol=1e-9)


def test_moments_of_a_stretch_do_not_depend_on_what_came_before_it():
    # given a calendar and a longer one with the same last days
    rng = np.random.default_rng(1)
    features = rng.normal(size=(400, 3))
    for days in (100, 237):
        short = suffix_moments(features[-days:])
        observed = np.sort(rng.choice(np.arange(days), days // 2, replace=False))
        boundaries = observed[[5, 20]]
        # then the moments are equal to the last bit
        before = 400 - days
        np.testing.assert_array_equal(
            segment_moments(short, features[-days:], observed, boundaries),
            segment_moments(suffix_moments(features), features, observed + before, boundaries + before),
        )


@rarely
@cases
def test_normal_equations_are_those_of_the_dense_jacobian(seed, length, missing):
    rng = np.random.default_rng(seed)
    days = some_days(rng, length, missing)
    places = grid(days)
    theta = rng.normal(size=2 + places.features.shape[1] + len(days.changepoints))
    dense = jacobian(days, theta)
    residual = rng.normal(size=len(days.observed))
    # when
    matrix, gradient = np.empty((len(theta), len(theta))), np.empty(len(theta))
    season, trend, unused = (np.empty(len(days.observed)) for _ in range(3))
    multiplicative._normal_matrix(places, theta, True, matrix)
    multiplicative._evaluate(residual, places, theta, season, trend, unused)
    multiplicative._gradient(places, season, trend, residual, True, gradient)
    # then
    np.testing.assert_allclose(matrix, dense.T @ dense, rtol=1e-8, atol=1e-8 * np.abs(dense.T @ dense).max())
    np.testing.assert_allclose(gradient, dense.T @ residual, rtol=1e-8, atol=1e-8 * np.abs(gradient).max())


def test_of_a_flat_trend_only_the_level_is_free():
    rng = np.random.default_rng(0)
    days = some_days(rng, 100, 0.1)
    flat = replace(days, changepoints=np.zeros(1, np.int64))
    places = grid(flat)
    theta = rng.normal(size=2 + places.features.shape[1] + 1)
    matrix = np.empty((len(theta), len(theta)))
    multiplicative._normal_matrix(places, theta, False, matrix)
    slope_and_change = [0, -1]
    assert not matrix[slope_and_change].any()
    assert not matrix[:, slope_and_change].any()
    assert matrix[1, 1] > 0
