from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from pipelines.contracts.tables import QUANTILES
from pipelines.forecasting.category import category_profiles
from pipelines.forecasting.distributions import demand_quantiles
from pipelines.forecasting.hourly import (
    IntradayProfiles,
    hourly_forecast,
    intraday_profiles,
    local_hours,
    utc_day_shares,
)

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"
SPRING, AUTUMN = date(2024, 3, 31), date(2024, 10, 27)  # Berlin's 23-hour and 25-hour Sundays


class TestLocalHours:
    def test_the_hour_that_spring_skips_does_not_occur(self):
        counts = local_hours(BERLIN, SPRING, 1)
        assert counts[6, 2] == 0
        assert counts[6, 3] == 1
        assert counts.sum() == 24

    def test_the_hour_that_autumn_repeats_occurs_twice(self):
        counts = local_hours(BERLIN, AUTUMN, 1)
        assert counts[6, 2] == 2
        assert counts.sum() == 24

    def test_eight_ordinary_weeks_hold_every_hour_eight_times(self):
        assert (local_hours(NEW_YORK, date(2024, 5, 1), 56) == 8).all()


class TestProfiles:
    def statistics(self, timezone: str, first: date, days: int, rate: np.ndarray, category="tea", units=1e6):
        """What a category sells whose every local hour has the same rate whenever it occurs."""
        cells = local_hours(timezone, first, days) * rate * units
        return pd.DataFrame(
            [
                {"category": category, "timezone": timezone, "weekday": w, "hour": h, "units": cells[w, h]}
                for w in range(7)
                for h in range(24)
            ]
        )

    @pytest.mark.parametrize(
        ("first", "last"),
        [(date(2024, 3, 18), date(2024, 3, 31)), (date(2024, 10, 21), date(2024, 11, 3))],
        ids=["23-hour day", "25-hour day"],
    )
    def test_a_clock_change_does_not_bend_the_profile(self, first, last):
        # given a constant rate per hour, over weeks with a clock change
        rate = np.linspace(1, 2, 168).reshape(7, 24)
        rows = self.statistics(BERLIN, first, (last - first).days + 1, rate)
        # when
        profile = intraday_profiles(rows, first, last)["tea"]
        # then the hours that occurred have their true share of the week
        seen = local_hours(BERLIN, first, 14) > 0
        np.testing.assert_allclose(profile[seen], (rate / rate.sum())[seen], rtol=0.01)

    def test_a_thin_category_leans_on_the_chain_and_an_unknown_one_is_the_chain(self):
        # given a chain that sells in the evening, and a category with one sale in the morning
        first, last = date(2024, 5, 6), date(2024, 6, 30)
        evening = np.zeros((7, 24))
        evening[:, 18] = 1
        rows = self.statistics("UTC", first, 56, evening)
        thin = pd.DataFrame([{"category": "rare", "timezone": "UTC", "weekday": 0, "hour": 8, "units": 1.0}])
        # when
        profiles = intraday_profiles(pd.concat([rows, thin]), first, last)
        # then
        assert profiles["rare"][:, 18].sum() > 0.99
        np.testing.assert_allclose(profiles["never seen"], profiles.overall)
        for profile in (profiles["rare"], profiles["tea"], profiles.overall):
            assert profile.sum() == pytest.approx(1)
            assert (profile > 0).all()

    def test_without_any_sales_the_day_is_flat(self):
        empty = pd.DataFrame(columns=["category", "timezone", "weekday", "hour", "units"])
        profiles = intraday_profiles(empty, date(2024, 5, 6), date(2024, 6, 30))
        np.testing.assert_allclose(profiles["tea"], 1 / 168)


class TestShares:
    @pytest.mark.parametrize("timezone", ["UTC", BERLIN, NEW_YORK, "Asia/Kathmandu"])
    @pytest.mark.parametrize("first", [SPRING, AUTUMN, date(2024, 6, 1)])
    def test_every_utc_day_adds_up_to_one(self, timezone, first):
        profile = np.random.default_rng(1).random((7, 24))
        shares = utc_day_shares(profile, timezone, first, 3)
        np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-12)

    def test_hours_are_local(self):
        # given a shop that sells at 10 o'clock local time on a Monday only
        profile = np.zeros((7, 24)) + 1e-12
        profile[0, 10] = 1
        # when the UTC day is Monday 2024-07-01, New York being four hours behind
        shares = utc_day_shares(profile, NEW_YORK, date(2024, 7, 1), 1)
        # then
        assert shares[0].argmax() == 14

    def test_before_and_after_the_clock_change(self):
        profile = np.zeros((7, 24)) + 1e-12
        profile[:, 10] = 1
        shares = utc_day_shares(profile, BERLIN, date(2024, 3, 30), 2)
        assert shares.argmax(axis=1).tolist() == [9, 8]


class TestHourlyForecast:
    def given(self, level: float, dispersion: float = 1.5):
        yhat = np.full((3, 28), level) * np.array([[1.0], [0.0], [7.3]])
        quantiles = demand_quantiles(yhat, yhat * dispersion, QUANTILES)
        profile = np.random.default_rng(2).random((7, 24))
        shares = np.array([utc_day_shares(profile, BERLIN, SPRING, 3)] * 3)
        return yhat, quantiles, shares

    @pytest.mark.parametrize("level", [0.3, 12, 1e6])
    def test_the_hours_of_a_day_add_up_to_the_day(self, level):
        yhat, quantiles, shares = self.given(level)
        hourly, _ = hourly_forecast(yhat, quantiles, shares, QUANTILES, 72)
        np.testing.assert_allclose(hourly.reshape(3, 3, 24).sum(axis=2), yhat[:, :3], rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("level", [0.3, 12, 1e6])
    @pytest.mark.parametrize("dispersion", [0.2, 1.5, 40])
    def test_quantiles_are_finite_non_negative_and_do_not_cross(self, level, dispersion):
        _, quantiles = hourly_forecast(*self.given(level, dispersion), QUANTILES, 72)
        assert np.isfinite(quantiles).all()
        assert quantiles.min() >= 0
        assert (np.diff(quantiles, axis=2) >= 0).all()

    def test_the_spread_is_that_of_units_falling_into_hours(self):
        # given simulated days: a negative binomial total whose units choose their hours independently
        rng = np.random.default_rng(3)
        mean, variance, share = 40.0, 100.0, 0.1
        totals = rng.negative_binomial(mean**2 / (variance - mean), mean / variance, 200_000)
        hour = rng.binomial(totals, share)
        shares = np.full((1, 1, 24), (1 - share) / 23)
        shares[0, 0, 0] = share
        day = demand_quantiles(np.array([[mean]]), np.array([[variance]]), QUANTILES)
        # when
        _, quantiles = hourly_forecast(np.array([[mean]]), day, shares, QUANTILES, 24)
        # then
        np.testing.assert_allclose(quantiles[0, 0], np.quantile(hour, QUANTILES), atol=1)

    def test_a_horizon_may_end_within_a_day(self):
        yhat, quantiles, shares = self.given(5)
        hourly, spread = hourly_forecast(yhat, quantiles, shares, QUANTILES, 50)
        assert hourly.shape == (3, 50)
        assert spread.shape == (3, 50, len(QUANTILES))


def test_profiles_default_to_a_flat_week():
    assert IntradayProfiles()["anything"].sum() == pytest.approx(1)


def test_category_profiles_have_level_shape_and_dispersion():
    # given a category that sells twice as much on Saturdays
    rows = pd.DataFrame(
        {
            "category": ["tea"],
            "level": 6.0,
            "dispersion": 2.5,
            **{f"units_{day}": 1400.0 if day == 5 else 700.0 for day in range(7)},
            **{f"days_{day}": 100.0 for day in range(7)},
        }
    )
    # when
    profile = category_profiles(rows)["tea"]
    # then
    assert profile.level == 6.0
    assert profile.dispersion == 2.5
    assert profile.weekday.mean() == pytest.approx(1)
    assert profile.weekday[5] / profile.weekday[0] == pytest.approx(2, rel=0.02)
