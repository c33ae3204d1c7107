"""Series within their pools: what sums of many series teach, and how far one series is moved by it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from pipelines.contracts.tables import QUANTILES
from pipelines.forecasting.engines import EngineOptions, create, fit_safely
from pipelines.forecasting.pooled.design import joined, months, shape_design, trend_design, weekdays
from pipelines.forecasting.pooled.pools import Pools, expected_logs, learn_pool, learn_pools, pool_data
from pipelines.forecasting.pooled.regression import regress
from pipelines.forecasting.pooled.series_level import Priors, fit_levels, learn_priors
from pipelines.forecasting.series import SeriesBatch

END = date(2024, 6, 30)
DAYS = 900
HORIZON = 28
SPREAD = 0.15


def days_until(end: date, count: int) -> np.ndarray:
    return np.datetime64(end, "D") - np.arange(count - 1, -1, -1)


def chain(seed: int = 0, count: int = 80, spread: float = SPREAD) -> tuple[SeriesBatch, np.ndarray, np.ndarray]:
    """Series of four categories in five stores, their future, and the means behind both.

    A category has its weekday shape, the chain its months; a series differs in its weekdays by `spread`.
    """
    rng = np.random.default_rng(seed)
    days = days_until(END + timedelta(days=HORIZON), DAYS + HORIZON)
    week = rng.normal(0, 0.3, (4, 7))
    month = np.array([-0.4, -0.3, 0, 0.1, 0.2, 0.25, 0.3, 0.2, 0.1, 0, 0.1, -0.3])
    category, store = rng.integers(0, 4, count), rng.integers(0, 5, count)
    own = rng.normal(0, spread, (count, 7))
    level = np.exp(rng.normal(2, 0.8, count))
    mean = level[:, None] * np.exp((week[category] + own)[:, weekdays(days)] + month[months(days)])
    demand = rng.poisson(mean).astype(float)
    return batch_of(demand[:, :DAYS], category, store), demand[:, DAYS:], mean


def batch_of(demand: np.ndarray, category: np.ndarray, store: np.ndarray) -> SeriesBatch:
    return SeriesBatch(
        location_id=tuple(f"s{place}" for place in store),
        sku=tuple(f"p{row}" for row in range(len(demand))),
        category=tuple(f"c{kind}" for kind in category),
        timezone=("UTC",) * len(demand),
        end=END,
        demand=demand,
        promotion=np.zeros_like(demand),
        start=np.zeros(len(demand), np.int64),
    )


BATCH, FUTURE, MEAN = chain()
POOLS = learn_pools(BATCH, [END])
ENGINE = create("pooled", EngineOptions(pools=POOLS))


class TestRegression:
    def fitted(self, log_mean: np.ndarray, count: int = DAYS, seed: int = 1):
        days = days_until(END, count)
        design = joined(shape_design(days), trend_design(days, days[0], days[-1]))
        demand = np.random.default_rng(seed).poisson(np.exp(log_mean))[None].astype(float)
        return design, regress(
            demand, np.full((1, count), np.log(demand.mean())), design, {"slope": 0.05, "year": 0.05}
        )

    def test_months_that_change_in_steps_are_told_from_a_smooth_year(self):
        days = days_until(END, DAYS)
        steps = np.array([-0.4, 0.2, -0.1, 0.3, 0, 0.1, -0.3, 0.2, 0, -0.2, 0.4, -0.2])[months(days)]
        smooth = 0.3 * np.sin(2 * np.pi * days.astype(int) / 365.25)
        _, stepped = self.fitted(8 + steps)
        _, curved = self.fitted(8 + smooth)
        assert stepped.deviations["month"] > 10 * stepped.deviations["season"]
        assert curved.deviations["season"] > 3 * curved.deviations["month"]

    def test_a_block_that_explains_nothing_shrinks_to_nothing(self):
        _, fitted = self.fitted(np.full(DAYS, 9.0))
        assert all(fitted.deviations[name] < 0.01 for name in ("weekday", "month", "monthday", "ramp"))

    def test_the_mean_comes_back(self):
        days = days_until(END, DAYS)
        truth = 9 + 0.3 * np.cos(2 * np.pi * weekdays(days) / 7) + np.where(days >= np.datetime64("2024-01-01"), 0.1, 0)
        design, fitted = self.fitted(truth)
        rng = np.random.default_rng(1)
        offset = np.log(rng.poisson(np.exp(truth)).mean())
        np.testing.assert_allclose(offset + design.columns @ fitted.coefficients[0], truth, atol=0.01)

    def test_scatter_beyond_a_counts_own_is_measured(self):
        rng = np.random.default_rng(2)
        days = days_until(END, DAYS)
        demand = rng.negative_binomial(50, 50 / (50 + 200), DAYS)[None].astype(float)  # variance 5 times the mean
        fitted = regress(demand, np.full((1, DAYS), np.log(200.0)), shape_design(days), {})
        assert fitted.dispersion[0] == pytest.approx(5, rel=0.2)

    def test_unknown_days_change_nothing_but_the_evidence(self):
        days = days_until(END, DAYS)
        demand = np.full((1, DAYS), 100.0)
        demand[0, 100:300] = np.nan
        fitted = regress(demand, np.full((1, DAYS), np.log(100.0)), shape_design(days), {})
        np.testing.assert_allclose(fitted.coefficients, 0, atol=1e-6)


class TestPools:
    def test_the_spread_between_series_is_learnt(self):
        assert POOLS.of[END].priors.weekday == pytest.approx(SPREAD, rel=0.25)
        assert POOLS.of[END].priors.month < 0.03

    def test_series_that_are_all_alike_are_held_to_their_pool(self):
        batch, _, _ = chain(seed=3, spread=0.0)
        assert learn_pool(pool_data(batch)).priors.weekday < 0.04

    def test_a_category_has_its_own_week(self):
        pool = POOLS.of[END]
        days = days_until(END, 7)
        logs = pool.design(days).columns @ np.array([pool.coefficients(f"c{k}", "nowhere") for k in range(4)]).T
        rows = np.array([int(name[1:]) for name in BATCH.category])
        week = MEAN[:, DAYS - 7 : DAYS]
        for kind in range(4):
            mean = np.log(week[rows == kind].sum(axis=0))
            np.testing.assert_allclose(logs[:, kind] - logs[:, kind].mean(), mean - mean.mean(), atol=0.1)

    def test_a_pool_that_knows_more_than_the_cutoff_is_never_used(self):
        early = END - timedelta(days=100)
        pools = Pools({early: POOLS.of[END], END: POOLS.of[END]})
        assert pools.at(END - timedelta(days=1)) is pools.of[early]
        assert pools.at(early - timedelta(days=1)) is None

    def test_what_comes_after_the_cutoff_changes_nothing_before_it(self):
        cutoff = END - timedelta(days=200)
        changed = BATCH.demand.copy()
        changed[:, -200:] *= 7
        pools = [learn_pools(replace(BATCH, demand=demand), [cutoff]) for demand in (BATCH.demand, changed)]
        np.testing.assert_array_equal(pools[0].of[cutoff].chain, pools[1].of[cutoff].chain)
        assert pools[0].of[cutoff].priors == pools[1].of[cutoff].priors

    def test_a_chain_that_sold_nothing_has_no_pool(self):
        nothing = replace(BATCH, demand=np.zeros_like(BATCH.demand))
        assert learn_pools(nothing, [END]).of == {}

    def test_a_year_with_holidays_keeps_their_effect_out_of_the_rest(self):
        holidays = [("feast", date(year, 5, 20)) for year in (2022, 2023, 2024)]
        demand = BATCH.demand.copy()
        days = days_until(END, DAYS)
        demand[:, np.isin(days, np.array([day for _, day in holidays], "datetime64[D]"))] *= 4
        batch = replace(BATCH, demand=demand)
        pool = learn_pool(pool_data(batch, holidays=holidays))
        feast = np.array([np.datetime64("2024-05-20"), np.datetime64("2024-05-27")])
        logs = pool.design(feast).columns @ pool.chain
        assert np.exp(logs[0] - logs[1]) == pytest.approx(4, rel=0.15)


class TestLevels:
    def fit(self, demand: np.ndarray):
        batch = batch_of(demand, np.zeros(len(demand), int), np.zeros(len(demand), int))
        return fit_levels(batch, np.zeros_like(demand), Priors(0.01, 0.01))

    def test_a_level_that_changed_is_followed(self):
        rng = np.random.default_rng(4)
        steady = rng.poisson(20, (1, 600)).astype(float)
        moved = steady.copy()
        moved[0, -120:] = rng.poisson(60, 120)
        assert self.fit(steady).level[0] == pytest.approx(20, rel=0.03)
        assert self.fit(moved).level[0] == pytest.approx(60, rel=0.1)

    def test_a_wandering_level_is_less_certain_than_a_steady_one(self):
        rng = np.random.default_rng(5)
        steady = rng.poisson(30, (20, 700)).astype(float)
        walk = rng.poisson(30 * np.exp(np.cumsum(rng.normal(0, 0.03, (20, 700)), axis=1))).astype(float)
        assert np.median(self.fit(walk).deviation) > 3 * np.median(self.fit(steady).deviation)

    def test_unknown_days_are_not_zeros(self):
        demand = np.random.default_rng(6).poisson(20, (1, 600)).astype(float)
        demand[0, -40:-5] = np.nan
        assert self.fit(demand).level[0] == pytest.approx(20, rel=0.05)

    def test_a_series_that_never_sold_has_level_zero(self):
        assert self.fit(np.zeros((1, 100))).level[0] == 0

    def test_priors_come_back_from_series_that_follow_them(self):
        rng = np.random.default_rng(7)
        days = days_until(END, DAYS)
        effects = rng.normal(0, 0.2, (100, 7))
        demand = rng.poisson(30 * np.exp(effects[:, weekdays(days)])).astype(float)
        batch = batch_of(demand, np.zeros(100, int), np.zeros(100, int))
        assert learn_priors(batch, np.zeros_like(demand)).weekday == pytest.approx(0.2, rel=0.15)


class TestEngine:
    def test_is_close_to_the_mean_that_made_the_demand(self):
        forecast = fit_safely(ENGINE, BATCH, HORIZON, QUANTILES)
        truth = MEAN[:, DAYS:]
        assert np.abs(forecast.yhat - truth).sum() / truth.sum() < 0.06
        alone = fit_safely(create("prophet_batched", EngineOptions()), BATCH, HORIZON, QUANTILES)
        assert np.abs(forecast.yhat - truth).sum() < 0.75 * np.abs(alone.yhat - truth).sum()

    def test_the_interval_holds(self):
        forecast = fit_safely(ENGINE, BATCH, HORIZON, QUANTILES)
        low, high = forecast.quantiles[:, :, QUANTILES.index(0.1)], forecast.quantiles[:, :, QUANTILES.index(0.9)]
        assert 0.78 < ((low <= FUTURE) & (high >= FUTURE)).mean() < 0.88  # counts: at least 80 %, a little above

    def test_a_series_of_ten_days_has_the_week_of_its_category(self):
        short = BATCH.demand.copy()
        short[:, :-10] = np.nan
        batch = replace(BATCH, demand=short, start=np.full(len(BATCH), DAYS - 10))
        forecast = fit_safely(ENGINE, batch, HORIZON, QUANTILES)
        truth = MEAN[:, DAYS:]
        assert np.abs(forecast.yhat - truth).sum() / truth.sum() < 0.2

    def test_parameters_with_a_pool_give_the_forecast_again(self):
        forecast = fit_safely(ENGINE, BATCH.take(np.arange(5)), HORIZON, QUANTILES)
        for row in range(5):
            yhat, quantiles = create("pooled", EngineOptions()).replay(forecast.parameters[row], HORIZON, QUANTILES)
            np.testing.assert_allclose(yhat, forecast.yhat[row], rtol=1e-9)
            np.testing.assert_allclose(quantiles, forecast.quantiles[row])

    def test_other_series_in_the_batch_do_not_matter(self):
        whole = fit_safely(ENGINE, BATCH, HORIZON, QUANTILES)
        one = fit_safely(ENGINE, BATCH.take(np.array([17])), HORIZON, QUANTILES)
        np.testing.assert_array_equal(one.yhat[0], whole.yhat[17])

    def test_growth_is_carried_on_with_caution(self):
        # given a chain that grew by a fifth a year
        days = days_until(END, DAYS)
        growth = np.exp(0.2 * np.arange(DAYS) / 365.25)
        demand = np.random.default_rng(8).poisson(np.tile(30 * growth, (40, 1))).astype(float)
        batch = batch_of(demand, np.arange(40) % 2, np.arange(40) % 3)
        engine = create("pooled", EngineOptions(pools=learn_pools(batch, [END])))
        # then the next quarter is above the last month, by no more than that growth
        forecast = fit_safely(engine, batch, 90, QUANTILES)
        last = 30 * growth[-1]
        assert last * 0.99 < forecast.yhat[:, -7:].mean() < last * np.exp(0.2 * 90 / 365.25) * 1.01
        assert len(days) == DAYS


def test_beats_prophet_on_real_sales(shared_data):
    rows = pd.read_parquet(shared_data / "store_item_daily.parquet")
    sales = rows.pivot_table(index=["store", "item"], columns="date", values="sales")
    cutoff = date(2016, 6, 30)
    days = (pd.Timestamp(cutoff) - pd.to_datetime(sales.columns[0])).days + 1
    demand = sales.to_numpy(float)
    history, actual = demand[:, :days], demand[:, days : days + 90]
    stores, items = (sales.index.get_level_values(name).to_numpy() for name in ("store", "item"))
    batch = replace(batch_of(history, items % 5, stores), end=cutoff)
    pools = learn_pools(batch, [cutoff])
    wape = {}
    for name in ("pooled", "prophet_batched"):
        forecast = fit_safely(create(name, EngineOptions(pools=pools)), batch, 90, QUANTILES)
        wape[name] = np.abs(forecast.yhat - actual).sum() / actual.sum()
    assert wape["pooled"] < 0.96 * wape["prophet_batched"]
    assert expected_logs(pools.of[cutoff], batch, 90).shape == (500, days + 90)
