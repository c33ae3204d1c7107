from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from pipelines.contracts.tables import QUANTILES
from pipelines.forecasting.distributions import demand_quantiles
from pipelines.forecasting.hour_of_week import (
    HourlyHistory,
    direct_hours,
    fit_hour_of_week,
    profile_hours,
)
from pipelines.forecasting.hourly import IntradayProfiles, local_cells
from pipelines.forecasting.series import EPOCH, from_matrix

BERLIN = "Europe/Berlin"
SPRING, AUTUMN = date(2024, 3, 31), date(2024, 10, 27)  # Berlin's 23-hour and 25-hour Sundays
WEEKS = 8
NONE = np.zeros(0, np.int64)

HOURS = np.arange(24)
NOON = np.exp(-((HOURS - 12.0) ** 2) / 8) + 1e-3
EVENING = np.exp(-((HOURS - 18.0) ** 2) / 8) + 1e-3
CATEGORY = np.tile(NOON / NOON.sum() / 7, (7, 1))
OWN = np.tile(EVENING / EVENING.sum() / 7, (7, 1))


def batch(end: date, count: int = 1, timezone: str = BERLIN, days: int = 70):
    made = from_matrix(np.ones((count, days)), end, [("s", f"{row}") for row in range(count)])
    return replace(made, timezone=(timezone,) * count)


def history(end: date, units: np.ndarray, out: np.ndarray | None = None) -> HourlyHistory:
    """Of (n, H) units a UTC hour that end with day `end`."""
    begin = 24 * (end - EPOCH).days + 24 - units.shape[1]
    sold = np.nonzero(units)
    empty = (NONE, NONE) if out is None else np.nonzero(out)
    shares = np.zeros(0) if out is None else out[empty]
    return HourlyHistory(sold[0], sold[1] + begin, units[sold], empty[0], empty[1] + begin, shares)


def sales(end: date, shape: np.ndarray, units_a_week: float, seed: int = 1, timezone: str = BERLIN) -> np.ndarray:
    """Poisson sales of eight weeks with this shape (7, 24) of local hours."""
    cell = local_cells(timezone, end - timedelta(days=7 * WEEKS - 1), 7 * WEEKS)
    return np.random.default_rng(seed).poisson(units_a_week * shape.ravel()[cell])[None].astype(float)


def fitted(end: date, units: np.ndarray, out: np.ndarray | None = None, timezone: str = BERLIN) -> np.ndarray:
    profiles = IntradayProfiles(overall=CATEGORY)
    return fit_hour_of_week(batch(end, len(units), timezone), history(end, units, out), profiles, WEEKS)


def distance(rate: np.ndarray, shape: np.ndarray) -> float:
    return float(np.abs(rate / rate.sum() - shape).sum())


class TestFit:
    @pytest.mark.parametrize("end", [SPRING + timedelta(days=9), AUTUMN + timedelta(days=9), date(2024, 8, 1)])
    def test_a_series_with_hours_of_its_own_gets_them_whatever_the_clocks_do(self, end):
        rate = fitted(end, sales(end, OWN, 300))[0]
        assert distance(rate, OWN) < 0.3 < 1.5 < distance(CATEGORY, OWN)
        assert rate.sum() == pytest.approx(300, rel=0.05)

    def test_one_that_sells_like_its_category_keeps_its_category_s_profile(self):
        end = date(2024, 8, 1)
        units = sales(end, CATEGORY, 70)
        own = np.bincount(local_cells(BERLIN, end - timedelta(days=55), 56), weights=units[0], minlength=168)
        rate = fitted(end, units)[0]
        assert distance(rate, CATEGORY) < 0.1 < 0.25 < distance(own.reshape(7, 24), CATEGORY)

    def test_one_that_hardly_sells_leans_on_its_category(self):
        end = date(2024, 8, 1)
        rate = fitted(end, sales(end, OWN, 0.5))[0]
        assert distance(rate, CATEGORY) < 0.6 * distance(OWN, CATEGORY)

    def test_one_that_never_sold_has_its_category_s_shape(self):
        rate = fitted(date(2024, 8, 1), np.zeros((1, 24 * 56)))[0]
        np.testing.assert_allclose(rate / rate.sum(), CATEGORY, rtol=1e-6)

    def test_a_weekend_of_its_own(self):
        end = date(2024, 8, 1)
        weekend = CATEGORY.copy()
        weekend[5:] = OWN[5:]
        assert distance(fitted(end, sales(end, weekend, 400))[0], weekend) < 0.15

    def test_hours_without_stock_do_not_count_as_hours_without_demand(self):
        # given a shop whose shelf is empty every evening from 17 o'clock on
        end = date(2024, 8, 1)
        flat = np.full((7, 24), 1 / 168)
        units = sales(end, flat, 1000, timezone="UTC")
        out = np.tile((np.arange(24) >= 17).astype(float), 56)[None]
        units[out > 0] = 0
        profiles = IntradayProfiles(overall=flat)
        rate = fit_hour_of_week(batch(end, timezone="UTC"), history(end, units, out), profiles, WEEKS)[0]
        # then its evenings are thought to be as the rest
        assert rate[:, 17:].mean() == pytest.approx(rate[:, :17].mean(), rel=0.1)
        assert rate.sum() == pytest.approx(1000, rel=0.1)

    def test_the_level_follows_recent_weeks_and_a_late_start_does_not_lessen_it(self):
        end = date(2024, 8, 1)
        rising = sales(end, CATEGORY, 100)
        rising[:, : 24 * 42] = 0
        assert 40 < fitted(end, rising)[0].sum() < 80
        started = replace(batch(end), start=np.array([70 - 14]))
        profiles = IntradayProfiles(overall=CATEGORY)
        assert fit_hour_of_week(started, history(end, rising), profiles, WEEKS)[0].sum() == pytest.approx(100, rel=0.1)

    def test_series_do_not_depend_on_each_other(self):
        end = date(2024, 8, 1)
        units = np.concatenate([sales(end, OWN, 50, 1), sales(end, CATEGORY, 500, 2)])
        both = fitted(end, units)
        np.testing.assert_allclose(both[1], fitted(end, units[1:])[0])


class TestForecast:
    def given(self, end):
        rate = fitted(end, np.concatenate([sales(end, OWN, 300), np.zeros((1, 24 * 56))]))
        yhat = np.array([[40.0] * 7, [0.5] * 7])
        return rate, batch(end, 2), yhat, demand_quantiles(yhat, 1.5 * yhat, QUANTILES)

    @pytest.mark.parametrize("change", [SPRING, AUTUMN], ids=["23 hours", "25 hours"])
    def test_the_hours_of_a_day_add_up_to_it_across_a_clock_change(self, change):
        end = change - timedelta(days=2)
        rate, series, yhat, quantiles = self.given(end)
        hours, spread = direct_hours(rate, series, yhat, quantiles, QUANTILES, 72)
        np.testing.assert_allclose(hours.reshape(2, 3, 24).sum(axis=2), yhat[:, :3], rtol=1e-9)
        assert spread.min() >= 0
        assert (np.diff(spread, axis=2) >= 0).all()
        # the peak stays at 18 o'clock local time
        utc = hours[0].reshape(3, 24).argmax(axis=1)
        offset = np.array([1, 2, 2] if change == SPRING else [2, 1, 1])
        assert (np.abs(utc + offset - 18) <= 1).all()

    def test_hours_of_their_own_level_need_not(self):
        rate, series, yhat, quantiles = self.given(date(2024, 8, 1))
        hours, spread = direct_hours(rate, series, yhat, quantiles, QUANTILES, 30, reconciled=False)
        assert hours.shape == (2, 30)
        assert hours[0, :24].sum() == pytest.approx(300 / 7, rel=0.1)
        assert (np.diff(spread, axis=2) >= 0).all()

    def test_both_methods_agree_where_the_series_is_as_its_category(self):
        rate, series, yhat, quantiles = self.given(date(2024, 8, 1))
        direct, _ = direct_hours(rate, series, yhat, quantiles, QUANTILES, 48)
        profile, _ = profile_hours(series, IntradayProfiles(overall=CATEGORY), yhat, quantiles, QUANTILES, 48)
        np.testing.assert_allclose(direct[1], profile[1], rtol=1e-6)
        assert np.abs(direct[0] - profile[0]).sum() > 20
