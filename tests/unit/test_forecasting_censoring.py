from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.contracts.tables import QUANTILES
from pipelines.forecasting.censoring import (
    ABANDONED_DAYS,
    METHODS,
    Censoring,
    censor,
    expected_rest,
    exposure_from_hours,
    read_series,
)
from pipelines.forecasting.engines import EngineOptions, create
from pipelines.forecasting.hourly import IntradayProfiles
from pipelines.forecasting.series import from_matrix
from pipelines.simulation.recording import Recording
from tests.censored_chain import profiles, simulate

END = date(2024, 3, 10)


@pytest.fixture(scope="module")
def chain() -> Recording:
    return simulate(safety=-1.5)


@pytest.fixture(scope="module")
def sold(chain):
    """What was sold, as series, with the exposure that the hours without stock give."""
    batch = chain.batch(chain.sold)
    hours, rows = np.nonzero(chain.in_stock < 1)
    exposure = exposure_from_hours(
        batch,
        rows,
        hours + chain.world.plan.start_hour,
        1 - chain.in_stock[hours, rows],
        profiles(chain),
        batch.exposure,
    )
    return replace(batch, exposure=exposure)


def mean_level(demand: np.ndarray) -> float:
    """Units a day of all series, days of unknown demand left out."""
    return float(np.nanmean(demand, axis=1).sum())


class TestOnASimulatedChain:
    """Every fifth unit that was wanted was not there."""

    def bias(self, chain, batch, method, **options) -> float:
        return mean_level(censor(batch, method, **options).demand) / mean_level(chain.daily(chain.wanted)) - 1

    def test_the_bias_of_the_demand_estimate_is_removed(self, chain, sold):
        assert self.bias(chain, sold, "none") < -0.15
        assert abs(self.bias(chain, sold, "impute")) < 0.02

    def test_leaving_the_days_out_is_no_cure_since_shelves_empty_on_strong_days(self, chain, sold):
        assert self.bias(chain, sold, "mask") < -0.05

    def test_dividing_by_the_share_overshoots(self, chain, sold):
        divided = np.where(sold.exposure > 0.05, sold.demand / np.maximum(sold.exposure, 0.05), np.nan)
        assert mean_level(divided) / mean_level(chain.daily(chain.wanted)) - 1 > 0.015

    def test_the_share_of_time_serves_where_no_hours_are_known(self, chain):
        assert abs(self.bias(chain, chain.batch(chain.sold), "impute")) < 0.02

    @pytest.mark.parametrize("engine", ["category_profile", "seasonal_naive"])
    def test_the_bias_of_the_forecast_is_removed(self, chain, sold, engine):
        def forecast(batch):
            model = create(engine, EngineOptions())
            cutoffs = [chain.end - timedelta(days=7 * week) for week in range(2, 12)]
            return sum(model.fit_forecast(batch.until(cutoff), 14, QUANTILES).yhat.sum() for cutoff in cutoffs)

        # given what the same model says that knows the true demand
        wanted = forecast(chain.batch(chain.wanted))
        # then
        assert forecast(censor(sold, "none")) / wanted - 1 < -0.15
        assert abs(forecast(censor(sold, "impute")) / wanted - 1) < 0.02

    def test_a_backtest_sees_nothing_later_than_its_cutoff(self, sold):
        cutoff = sold.end - timedelta(days=50)
        later = censor(sold, "impute").until(cutoff)
        np.testing.assert_array_equal(later.demand, censor(sold.until(cutoff), "impute").demand)
        np.testing.assert_array_equal(later.exposure, censor(sold.until(cutoff), "impute").exposure)

    def test_a_series_does_not_depend_on_those_beside_it(self, sold):
        whole = censor(sold, "impute").demand
        for row in range(0, len(sold), 7):
            alone = censor(sold.take(np.array([row])), "impute").demand[0]
            np.testing.assert_allclose(alone, whole[row, -len(alone) :])


class TestCensor:
    def batch(self, sales, exposure):
        return replace(from_matrix(np.atleast_2d(sales), END), exposure=np.atleast_2d(np.asarray(exposure, float)))

    def test_methods(self):
        # given a full day, a day half without stock, a day without, and one sold from no recorded stock
        batch = self.batch([10.0] * 40 + [4.0, 0.0, 3.0], [1.0] * 40 + [0.5, 0.0, 0.0])
        # then
        np.testing.assert_array_equal(censor(batch, "none").demand[0, -4:], [10, 4, 0, 3])
        np.testing.assert_array_equal(censor(batch, "mask").demand[0, -4:], [10, np.nan, np.nan, 3])
        full, half, without, sold_anyway = censor(batch, "impute").demand[0, -4:]
        assert (full, sold_anyway) == (10, 3)
        assert np.isnan(without)
        assert half == pytest.approx(4 + 5, abs=0.6)

    def test_a_strong_start_of_a_day_raises_what_is_expected_of_its_rest(self):
        rest = [
            expected_rest(np.array([[10.0] * 40 + [units]]), np.array([[1.0] * 40 + [0.5]]), np.array([0]))[0, -1]
            for units in (0.0, 5.0, 20.0)
        ]
        assert rest[0] < rest[1] < rest[2]
        assert rest[1] == pytest.approx(5, abs=0.3)

    def test_below_the_floor_a_day_is_unknown(self):
        batch = self.batch([10.0] * 30 + [1.0], [1.0] * 30 + [0.2])
        assert np.isfinite(censor(batch, "impute", floor=0.1).demand[0, -1])
        assert np.isnan(censor(batch, "impute", floor=0.3).demand[0, -1])

    def test_the_exposure_tells_completed_days_from_known_ones(self):
        batch = self.batch([10.0] * 30 + [4.0, 0.0], [1.0] * 30 + [0.5, 0.0])
        np.testing.assert_array_equal(censor(batch, "impute").exposure[0, -3:], [1, 0.5, 0])

    def test_the_weekday_is_regarded(self):
        # given a series that sells four times as much on one weekday
        sales = np.tile([20.0, 5, 5, 5, 5, 5, 5], 12)
        exposure = np.ones_like(sales)
        exposure[-7], exposure[-6] = 0.1, 0.1
        sales[-7], sales[-6] = 2.0, 0.5
        # when
        completed = censor(self.batch(sales, exposure)).demand[0]
        # then
        assert completed[-7] == pytest.approx(20, rel=0.15)
        assert completed[-6] == pytest.approx(5, rel=0.2)

    def test_without_stock_figures_nothing_is_done(self):
        batch = from_matrix(np.ones((2, 9)), END)
        assert censor(batch) is batch

    @settings(max_examples=60, deadline=None)
    @given(
        st.integers(0, 2**31),
        st.sampled_from(METHODS),
        st.floats(0, 1),
        st.sampled_from([0.0, 0.05, 1.0, 300.0, 1e6]),
    )
    def test_whatever_comes_demand_is_at_least_what_was_sold(self, seed, method, floor, level):
        rng = np.random.default_rng(seed)
        count, days = 4, int(rng.integers(1, 40))
        sales = rng.poisson(level, (count, days)).astype(float)
        sales[np.arange(days) < rng.integers(0, 40, (count, 1))] = np.nan
        exposure = rng.choice([0.0, 1e-12, 0.3, 0.999, 1.0], (count, days))
        batch = replace(from_matrix(sales, END), exposure=exposure)
        done = censor(batch, method, floor)
        known = np.isfinite(done.demand)
        assert (done.demand[known] >= sales[known]).all()
        assert not known[np.isnan(sales)].any()
        full = np.isfinite(sales) & (exposure == 1)
        np.testing.assert_array_equal(done.demand[full], sales[full])


class TestExposure:
    def test_an_hour_weighs_what_its_local_hour_sells(self):
        # given a shop in Berlin that sells at 9 and, three times as much, at 18 o'clock local time
        profile = np.full((7, 24), 1e-12)
        profile[:, 9], profile[:, 18] = 0.25, 0.75
        batch = replace(from_matrix(np.ones((1, 3)), date(2024, 4, 1)), timezone=("Europe/Berlin",))
        midnight = int(datetime(2024, 3, 30, tzinfo=UTC).timestamp()) // 3600
        # when half an hour of 18 o'clock is without stock: 17 UTC before and 16 UTC after the clocks change
        hours = midnight + np.array([17, 24 + 16, 48 + 17])
        exposure = exposure_from_hours(
            batch,
            np.zeros(3, int),
            hours,
            np.full(3, 0.5),
            IntradayProfiles(overall=profile),
            np.full((1, 3), 1 - 0.5 / 24),
        )
        # then
        np.testing.assert_allclose(exposure, [[1 - 0.375, 1 - 0.375, 1]], atol=1e-9)

    def test_hours_that_explain_too_little_give_way_to_the_share_of_time(self):
        # given a day without stock for six hours, of which one is listed, and one that sold in spite of its record
        batch = from_matrix(np.ones((1, 2)), date(1970, 1, 2))
        exposure = exposure_from_hours(
            batch,
            np.array([0, 0, 0]),
            np.array([5, 24 + 5, 24 + 6]),
            np.array([1.0, 1.0, -1.0]),
            IntradayProfiles(),
            np.array([[0.75, 22 / 24]]),
        )
        np.testing.assert_allclose(exposure, [[0.75, 23 / 24]])

    def rows(self, **columns):
        days = [END - timedelta(days=back) for back in range(49, 9, -1)]
        return pa.table(
            {
                **{"location_id": ["north"], "sku": ["tea"], "category": ["tea"], "timezone": ["UTC"]},
                "first_date": pa.array([days[0]], pa.date32()),
                "date": pa.array([days], pa.list_(pa.date32())),
                "demand": pa.array([[6] * 40], pa.list_(pa.int64())),
                "in_stock": pa.array([[1.0] * 39 + [0.5]], pa.list_(pa.float64())),
                "promotion": pa.array([[0.0] * 40], pa.list_(pa.float64())),
                **columns,
            }
        )

    def outages(self, ends_out):
        last = datetime(2024, 2, 29, 12, tzinfo=UTC)
        return {
            "out_hour": pa.array([[last + timedelta(hours=k) for k in range(12)]], pa.list_(pa.timestamp("us", "UTC"))),
            "out_share": pa.array([[1.0] * 12], pa.list_(pa.float64())),
            "ends_out": pa.array([ends_out]),
        }

    def test_hours_and_the_share_of_time_agree_where_the_day_is_flat(self):
        by_time = read_series(self.rows(), END, Censoring())
        by_hours = read_series(self.rows(**self.outages(False)), END, Censoring())
        np.testing.assert_allclose(by_hours.demand, by_time.demand)
        assert by_hours.demand[0, 39] == pytest.approx(6 + 3, abs=1.2)

    def test_after_a_last_sale_that_emptied_the_shelf_demand_is_unknown_not_zero(self):
        batch = read_series(self.rows(**self.outages(True)), END, Censoring())
        assert np.isnan(batch.demand[0, 40:]).all()
        zero = read_series(self.rows(**self.outages(False)), END, Censoring())
        np.testing.assert_array_equal(zero.demand[0, 40:], 0)

    def test_but_not_for_ever(self):
        batch = read_series(self.rows(**self.outages(True)), END + timedelta(days=30), Censoring())
        assert np.isnan(batch.demand[0, 40 : 40 + ABANDONED_DAYS]).all()
        np.testing.assert_array_equal(batch.demand[0, 40 + ABANDONED_DAYS :], 0)

    def test_series_without_any_history_stay_so(self):
        table = self.rows(**self.outages(True))
        nothing = {
            name: pa.array([None], table.schema.field(name).type)
            for name in ("first_date", "date", "demand", "in_stock", "promotion", "out_hour", "out_share", "ends_out")
        }
        for name, column in nothing.items():
            table = table.set_column(table.schema.get_field_index(name), name, column)
        assert read_series(table, END, Censoring()).days == 0
