"""Drift told where it is, and silence where there is only chance."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from pipelines.forecasting.drift import (
    ALL,
    Window,
    level_change,
    measure,
    signal_limits,
    stability_index,
    tracking_signal,
)
from pipelines.operations.settings import DriftSettings

END = date(2024, 3, 29)
SETTINGS = DriftSettings()


def trigg(errors: list[float], smoothing: float) -> float:
    """Trigg's own recursion, both averages from zero."""
    smoothed = absolute = 0.0
    for error in errors:
        if np.isfinite(error):
            smoothed += smoothing * (error - smoothed)
            absolute += smoothing * (abs(error) - absolute)
    return smoothed / absolute


def test_the_tracking_signal_is_triggs_recursion_whatever_days_are_unknown():
    errors = np.random.default_rng(1).normal(0.3, 1, (50, 28))
    errors[np.random.default_rng(2).random(errors.shape) < 0.2] = np.nan
    expected = [trigg(row.tolist(), 0.1) for row in errors]
    np.testing.assert_allclose(tracking_signal(errors, 0.1), expected, rtol=1e-12)


def test_the_tracking_signal_is_unknown_for_few_days_and_for_no_errors():
    few, exact = np.full((1, 28), np.nan), np.zeros((1, 28))
    few[0, -6:] = 1.0
    assert np.isnan(tracking_signal(few, 0.1)).all()
    assert np.isnan(tracking_signal(exact, 0.1)).all()
    assert tracking_signal(np.ones((1, 28)), 0.1) == pytest.approx(1.0)


@pytest.mark.parametrize("days", [8, 14, 28, 60])
def test_chance_crosses_the_limit_rarely_however_few_days_there_are(days):
    errors = np.random.default_rng(days).normal(size=(20_000, days))
    crossed = np.abs(tracking_signal(errors, 0.1)) > signal_limits(errors, 0.1, 0.6)
    assert 0.005 < crossed.mean() < 0.04


def test_the_level_change_is_in_standard_deviations_of_the_weeks_before():
    weeks = np.array([[1000.0, 1100, 900, 1050, 950, 1000, 1080, 920, 2000]])
    before = weeks[0, :-1]
    expected = (2000 - before.mean()) / (before.std(ddof=1) * np.sqrt(1 + 1 / 8))
    assert level_change(weeks)[0] == pytest.approx(expected)
    # a constant series has at least the spread of a count
    assert level_change(np.array([[9.0] * 8 + [12.0]]))[0] == pytest.approx(1 / np.sqrt(1.125))


def test_the_stability_index_is_small_for_the_same_population_and_large_for_another():
    rng = np.random.default_rng(4)
    before, same, other = rng.gamma(2, 10, 2000), rng.gamma(2, 10, 2000), rng.gamma(2, 20, 2000)
    assert stability_index(before, same) < 0.03
    assert stability_index(before, other) > 0.25
    assert np.isnan(stability_index(before[:49], same[:49]))


def test_the_stability_index_of_known_shares():
    # given two halves that become a quarter and three quarters
    before = np.repeat([1.0, 3.0], 500)
    after = np.repeat([1.0, 3.0], [250, 750])
    a, b = np.array([250.5, 750.5]) / 1001, np.array([500.5, 500.5]) / 1001
    assert stability_index(before, after, bins=2) == pytest.approx(np.sum((a - b) * np.log(a / b)))


def published(series: int = 120, days: int = 28, factor: float = 1.0, width: float = 1.2816, seed: int = 7) -> Window:
    """Unbiased forecasts with an honest 80 % interval of demand around 100, times `factor`."""
    rng = np.random.default_rng(seed)
    actual = rng.normal(100, 10, (series, days))
    yhat = np.full_like(actual, 100.0 * factor)
    covered = (np.abs(actual - yhat) <= width * 10).astype(float)
    return Window(np.array([f"s{row:03d}|x" for row in range(series)], object), END, actual, yhat, covered)


def steady(series: int = 120) -> np.ndarray:
    return np.random.default_rng(8).poisson(700, (series, 9)).astype(float)


def told(window: Window, weeks: np.ndarray) -> list[str | None]:
    categories = ["tea" if row % 2 else "milk" for row in range(len(window.keys))]
    drifts = measure(window, categories, weeks, ["tea" if row % 2 else "milk" for row in range(len(weeks))], SETTINGS)
    assert drifts[0].scope == ALL
    assert sorted(drift.scope for drift in drifts[1:]) == ["milk", "tea"]
    return [drift.warning for drift in drifts]


def test_sound_forecasts_of_steady_demand_are_not_reported():
    assert told(published(), steady()) == [None, None, None]


@pytest.mark.parametrize(
    ("window", "said"),
    [
        (published(factor=1.3), "30% too high"),
        (published(factor=0.7), "30% too low"),
        (published(factor=1.08), "miss on one side again and again"),
        (published(width=0.5), "80 % interval covered 39%"),
        (published(width=4.0), "80 % interval covered 100%"),
    ],
    ids=["too high", "too low", "a little too high, always", "too narrow", "too wide"],
)
def test_each_way_to_be_wrong_is_told(window, said):
    whole = told(window, steady())[0]
    assert whole is not None
    assert said in whole


def test_a_shift_of_the_demand_itself_is_told():
    jumped, moved = steady(), steady()
    jumped[:, -1] *= 1.3
    moved[:60, -4:] *= 2.0
    assert "last week's demand is +" in str(told(published(), jumped)[0])
    assert "levels have shifted" in str(told(published(), moved)[0])


def test_the_bias_of_one_series_is_chance_and_that_of_many_is_not():
    assert "too high" not in str(told(published(series=1, factor=1.3), steady())[0])
    assert "too high" in str(told(published(series=20, factor=1.3), steady())[0])


def test_before_anything_was_published_only_the_demand_is_watched():
    drifts = measure(Window.empty(END, 28), [], steady(), ["tea"] * 120, SETTINGS)
    assert [drift.scope for drift in drifts] == [ALL, "tea"]
    assert drifts[0].scored_days == 0
    assert np.isnan(drifts[0].coverage)
    assert drifts[0].warning is None


class TestWindow:
    def scored(self, keys, end, value, days=1) -> Window:
        values = np.full((len(keys), days), float(value))
        return Window(np.array(keys, object), end, values, values + 1, np.ones_like(values))

    def test_days_move_out_and_new_ones_and_new_series_come_in(self):
        window = Window.empty(END - timedelta(days=1), 3)
        for night, keys in enumerate((["a|x"], ["a|x", "b|x"], ["b|x"], ["a|x"])):
            window = window.with_scored(self.scored(keys, END + timedelta(days=night), night))
        assert window.end == END + timedelta(days=3)
        np.testing.assert_equal(window.actual, [[1, np.nan, 3], [1, 2, np.nan]])

    def test_scoring_a_night_again_changes_nothing(self):
        one = Window.empty(END, 5).with_scored(self.scored(["a|x"], END, 4, days=2))
        again = one.with_scored(self.scored(["a|x"], END, 4, days=2))
        np.testing.assert_equal(again.actual, one.actual)

    def test_a_day_that_is_not_known_leaves_what_was(self):
        one = Window.empty(END, 3).with_scored(self.scored(["a|x"], END, 4, days=3))
        unknown = self.scored(["a|x"], END, np.nan, days=3)
        np.testing.assert_equal(one.with_scored(unknown).actual, one.actual)

    def test_a_longer_absence_than_the_window_forgets_all(self):
        one = Window.empty(END, 3).with_scored(self.scored(["a|x"], END, 4, days=3))
        later = one.with_scored(self.scored(["b|x"], END + timedelta(days=30), 5))
        np.testing.assert_equal(later.actual, [[np.nan] * 3, [np.nan, np.nan, 5]])
