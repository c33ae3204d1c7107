"""Demand classes, the rolling-origin backtest, and the choice of a model for each series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import ClassVar

import numpy as np
import pytest

from pipelines.contracts.tables import QUANTILES
from pipelines.errors import UsageError
from pipelines.forecasting.demand_classes import demand_classes, demand_statistics
from pipelines.forecasting.engines import EngineOptions, ForecastBatch, create, register
from pipelines.forecasting.metrics import pinball
from pipelines.forecasting.models.seasonal_naive import SeasonalNaive
from pipelines.forecasting.rolling import Task, backtest, unsuitable
from pipelines.forecasting.selection import Competition, choose, competition, train_batch
from pipelines.forecasting.series import from_matrix
from pipelines.operations.settings import ForecastSettings

END = date(2024, 3, 10)
HORIZON = 10
OPTIONS = EngineOptions()
TASK = Task(HORIZON, 30, QUANTILES, cutoffs=3)


def weekly(days: int, level: float = 20.0, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.poisson(level * (1 + 0.5 * np.sin(2 * np.pi * np.arange(days) / 7))).astype(float)


@dataclass(frozen=True)
class Scaled:
    """Seasonal naive, multiplied on chosen series; raises on others."""

    name: str
    factor: float = 1.0
    fails_on: tuple[str, ...] = ()

    def fit_forecast(self, batch, horizon, probabilities):
        if set(batch.sku) & set(self.fails_on):
            raise RuntimeError("out of luck")
        found = SeasonalNaive(OPTIONS).fit_forecast(batch, horizon, probabilities)
        return ForecastBatch(self.factor * found.yhat, self.factor * found.quantiles, found.parameters, found.failures)

    def replay(self, parameters, horizon, probabilities):
        raise NotImplementedError


def contest(*engines, fallback: str = "category_profile", **options) -> Competition:
    """All classes have these candidates, the first favoured; seasonal naive is what they are compared with."""
    names = tuple(engine.name for engine in engines)
    by_name = {"seasonal_naive": SeasonalNaive(OPTIONS), **{engine.name: engine for engine in engines}}
    classes = dict.fromkeys(("smooth", "erratic", "intermittent", "lumpy"), names)
    made = create(fallback, OPTIONS) if isinstance(fallback, str) else fallback
    return Competition(by_name, classes, names[0], made, **options)


class TestDemandClasses:
    def test_by_hand(self):
        # given 4 known days of which 2 with demand, 2 and 6 units
        interval, variation = demand_statistics(from_matrix([[0.0, 2.0, 0.0, 6.0]], END))
        assert interval[0] == 2
        assert variation[0] == pytest.approx(4 / 16)

    @pytest.mark.parametrize(
        ("chance", "sizes", "expected"),
        [
            (1.0, [9, 10, 11], "smooth"),
            (1.0, [1, 1, 30], "erratic"),
            (0.2, [5, 6], "intermittent"),
            (0.2, [1, 1, 40], "lumpy"),
            (0.0, [1], "no_demand"),
        ],
        ids=str,
    )
    def test_regular_or_not_in_time_and_in_size(self, chance, sizes, expected):
        rng = np.random.default_rng(3)
        demand = (rng.random(200) < chance) * rng.choice(sizes, 200)
        assert demand_classes(from_matrix(demand.astype(float), END), 30) == (expected,)

    def test_days_before_the_first_and_days_without_stock_are_no_zeros(self):
        demand = np.full(100, np.nan)
        demand[50::2] = 5.0
        assert demand_classes(from_matrix(demand, END), 20) == ("smooth",)
        assert demand_classes(from_matrix(demand, END), 30) == ("short",)


@pytest.mark.parametrize(
    ("demand", "reason"),
    [
        (weekly(100), None),
        (weekly(20), "too short: 20 known days, 30 are needed"),
        (np.full(100, 5.0), "constant demand of 5 a day"),
        (np.zeros(100), "constant demand of 0 a day"),
        (np.full(100, np.nan), "no sales yet"),
    ],
    ids=["weekly", "short", "constant", "zeros", "nothing"],
)
def test_what_a_model_is_not_fitted_to(demand, reason):
    found = unsuitable(from_matrix(demand, END), 30)[0]
    assert found is None if reason is None else found.startswith(reason)


class TestBacktest:
    def run(self, engine, demand):
        batch = from_matrix(demand, END, [("a", "b")] * len(np.atleast_2d(demand)))
        return backtest({"it": engine}, {"it": np.ones(len(batch), bool)}, batch, TASK)["it"]

    @pytest.mark.parametrize("name", ["moving_average", "tsb", "sba", "ets", "theta", "pooled", "prophet_batched"])
    def test_no_forecast_changes_with_days_after_its_cutoff(self, name):
        # given the same series twice, the second with other days after each cutoff in turn
        one = weekly(120)
        origins = TASK.origins(END)
        for place, origin in enumerate(origins):
            other = one.copy()
            other[len(one) - (END - origin).days :] = 777
            # when
            tested = self.run(create(name, OPTIONS), np.array([one, other]))
            # then forecasts from this cutoff and those before it are equal, and what came is not
            np.testing.assert_array_equal(tested.yhat[0, : place + 1], tested.yhat[1, : place + 1])
            np.testing.assert_array_equal(tested.quantiles[0, : place + 1], tested.quantiles[1, : place + 1])
            assert np.isfinite(tested.yhat[0]).all()
            assert (tested.actual[1, place] == 777).all()

    def test_origins_are_spaced_and_leave_the_horizon(self):
        task = Task(28, 30, QUANTILES, cutoffs=3, spacing=14)
        assert task.origins(END) == tuple(END - timedelta(days=back) for back in (56, 42, 28))

    def test_forecasts_the_right_days(self):
        # given a series that repeats every week without noise
        tested = self.run(SeasonalNaive(OPTIONS), np.tile(np.arange(7.0), 15))
        scores = tested.scores(np.ones(1), QUANTILES)
        assert scores.WAPE[0] == 0
        assert scores.coverage[0] == 1
        assert scores.days[0] == 3 * HORIZON

    def test_a_cutoff_before_which_a_series_is_too_short_is_not_scored(self):
        tested = self.run(SeasonalNaive(OPTIONS), weekly(55))
        assert np.isfinite(tested.yhat[0]).all(axis=1).tolist() == [False, True, True]
        nothing = self.run(SeasonalNaive(OPTIONS), weekly(35))
        assert np.isnan(nothing.scores(np.ones(1), QUANTILES).days[0])

    def test_unknown_days_do_not_count(self):
        demand = weekly(100)
        demand[-3:] = np.nan
        assert self.run(SeasonalNaive(OPTIONS), demand).scores(np.ones(1), QUANTILES).days[0] == 3 * HORIZON - 3

    def test_an_ensemble_is_the_median_of_members_that_are_fitted_once(self):
        # given an ensemble of three, all of which compete
        settings = ForecastSettings(ensemble=("moving_average", "tsb", "seasonal_naive"))
        options = EngineOptions(settings)
        names = (*settings.ensemble, "median_ensemble")
        engines = {name: create(name, options) for name in names}
        batch = from_matrix(np.array([weekly(100), weekly(100, seed=4)]), END)
        # when
        tested = backtest(engines, dict.fromkeys(names, np.ones(2, bool)), batch, TASK)
        # then
        members = np.array([tested[name].yhat for name in settings.ensemble])
        np.testing.assert_array_equal(tested["median_ensemble"].yhat, np.median(members, axis=0))


def test_pinball_loss_is_least_for_the_true_quantiles():
    rng = np.random.default_rng(2)
    y = rng.normal(50, 8, (1, 20_000))
    true = np.quantile(y, QUANTILES)
    losses = [
        pinball(y, np.broadcast_to(50 + width * (true - 50), (1, 20_000, 7)), QUANTILES).mean()
        for width in (0.7, 0.9, 1.0, 1.1, 1.4)
    ]
    assert np.argmin(losses) == 2


class TestChoose:
    competes = np.ones((2, 1), bool)
    incumbent = np.zeros(1, np.int64)

    def choose(self, incumbent: Sequence[float], challenger: Sequence[float], margin=0.02, noise=1.0):
        losses = np.array([[incumbent], [challenger]], float)
        place, gain = choose(losses, self.competes, self.incumbent, margin, noise)
        return int(place[0]), float(gain[0])

    def test_clearly_better_every_week_takes_over(self):
        place, gain = self.choose([10, 11, 9, 10], [8, 9, 7, 8])
        assert place == 1
        assert gain == pytest.approx(0.2)

    def test_better_by_less_than_the_margin_does_not(self):
        assert self.choose([10, 11, 9, 10], [9.9, 10.9, 8.9, 9.9])[0] == 0

    def test_better_by_one_lucky_week_does_not(self):
        assert self.choose([10, 10, 30, 10], [11, 11, 11, 11], noise=0)[0] == 1
        assert self.choose([10, 10, 30, 10], [11, 11, 11, 11])[0] == 0

    def test_only_weeks_that_both_have_count(self):
        assert self.choose([10, 10, 100, np.nan], [8, 8, np.nan, 900])[0] == 1

    def test_an_incumbent_that_was_never_scored_gives_way(self):
        place, gain = self.choose([np.nan] * 3, [5, 5, 5])
        assert place == 1
        assert np.isnan(gain)

    def test_who_does_not_compete_is_never_chosen(self):
        losses = np.array([[[10.0, 10]], [[1.0, 1]]])
        assert choose(losses, np.array([[True], [False]]), self.incumbent, 0.0, 0.0)[0][0] == 0


class TestTrainBatch:
    batch = from_matrix(np.array([weekly(100), weekly(100, seed=2)]), END)
    good, far_off = Scaled("good"), Scaled("far_off", 3.0)

    def test_the_better_model_takes_over_and_the_reason_says_by_how_much(self):
        outcome = train_batch(self.batch, contest(self.far_off, self.good), TASK)
        assert outcome.model == ("good", "good")
        assert outcome.status == ("ok", "ok")
        assert outcome.reason[0].startswith("good loses ")
        assert "where far_off loses" in outcome.reason[0]
        expected = SeasonalNaive(OPTIONS).fit_forecast(self.batch, HORIZON, QUANTILES)
        np.testing.assert_array_equal(outcome.forecast.yhat, expected.yhat)
        np.testing.assert_array_equal(outcome.tested.yhat, outcome.candidates["good"].yhat)

    def test_yesterdays_model_stays_unless_it_is_clearly_beaten(self):
        slightly_better = Scaled("slightly", 0.999)
        both = contest(self.good, slightly_better)
        assert train_batch(self.batch, both, TASK, ["slightly", None]).model == ("slightly", "good")
        beaten = contest(self.good, self.far_off)
        assert train_batch(self.batch, beaten, TASK, ["far_off", "gone"]).model == ("good", "good")

    def test_a_series_that_a_model_fails_on_gets_the_next_best(self):
        fails = Scaled("fails", 1.0, ("sku-0",))
        outcome = train_batch(self.batch, contest(fails, self.far_off), TASK)
        assert outcome.status == ("ok", "ok")
        assert outcome.model == ("far_off", "fails")
        assert "fails failed" in outcome.reason[0]
        assert "RuntimeError: out of luck" in outcome.reason[0]
        assert outcome.default_failure == ("RuntimeError: out of luck", None)

    def test_that_the_engine_failed_is_said_even_where_it_was_not_wanted(self):
        fails = Scaled("fails", 1.0, ("sku-0",))
        outcome = train_batch(self.batch, contest(fails, self.good), TASK, ["good", "good"])
        assert outcome.model == ("good", "good")
        assert outcome.reason == ("fails failed: RuntimeError: out of luck", None)

    def test_one_that_all_models_fail_on_falls_back_and_says_why(self):
        outcome = train_batch(self.batch, contest(Scaled("fails", 1.0, ("sku-0",))), TASK)
        assert outcome.status == ("fallback", "ok")
        assert outcome.model == ("category_profile", "fails")
        assert outcome.reason[0].endswith("RuntimeError: out of luck")
        assert not outcome.tested.there[0]
        assert outcome.attempted == (True, True)

    def test_one_that_even_the_fallback_fails_on_is_failed_and_stops_nobody(self):
        broken = Scaled("broken", 1.0, ("sku-0",))
        outcome = train_batch(self.batch, contest(broken, fallback=broken), TASK)
        assert outcome.status == ("failed", "ok")
        assert np.isnan(outcome.forecast.yhat[0]).all()
        assert np.isfinite(outcome.forecast.yhat[1]).all()

    def test_every_kind_of_series_gets_a_sound_forecast_a_status_and_where_due_a_reason(self):
        rng = np.random.default_rng(5)
        rare, nothing = (rng.random(100) < 0.1).astype(float), np.full(100, np.nan)
        short = np.where(np.arange(100) < 80, np.nan, weekly(100))
        kinds = np.array([weekly(100), rare, short, np.full(100, 5.0), np.zeros(100), nothing])
        settings = ForecastSettings(engine="moving_average")
        outcome = train_batch(from_matrix(kinds, END), competition(settings, OPTIONS), TASK)
        assert np.isfinite(outcome.forecast.yhat).all()
        assert np.isfinite(outcome.forecast.quantiles).all()
        assert outcome.status == ("ok", "ok", "fallback", "fallback", "fallback", "fallback")
        assert outcome.demand_class[1] == "intermittent"
        assert outcome.model[1] in settings.candidates["intermittent"]
        assert all(outcome.reason[2:])

    def test_costly_models_compete_for_a_share_of_the_series(self):
        names = [("store", f"sku-{row}") for row in range(400)]
        batch = from_matrix(np.tile(weekly(60), (400, 1)), END, names)
        limited = contest(self.good, Scaled("costly"), sampled={"costly": 0.1})
        outcome = train_batch(batch, limited, Task(HORIZON, 30, QUANTILES))
        assert 15 < outcome.candidates["costly"].there.sum() < 75


class TestCompetition:
    def test_default_stands_for_the_engine_and_members_of_ensembles_come_along(self):
        settings = ForecastSettings(
            engine="tsb", candidates={"smooth": ("default", "median_ensemble")}, ensemble=("sba", "moving_average")
        )
        made = competition(settings, EngineOptions(settings))
        assert made.classes["smooth"] == ("tsb", "median_ensemble")
        assert made.classes["lumpy"] == ("tsb",)
        assert {"sba", "moving_average", "seasonal_naive"} <= set(made.engines)

    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            ({"engine": "profet"}, r"forecast.engine is 'profet'.*prophet"),
            ({"candidates": {"smooth": ("profet",)}}, r"forecast.candidates.smooth names 'profet'"),
            ({"candidates": {"smoth": ("tsb",)}}, r"no demand class 'smoth'.*smooth"),
            ({"ensemble": ("median_ensemble",), "engine": "median_ensemble"}, "not median_ensemble itself"),
        ],
        ids=["engine", "candidate", "class", "ensemble of itself"],
    )
    def test_what_does_not_exist_is_refused_with_what_does(self, settings, told):
        with pytest.raises(UsageError, match=told):
            competition(ForecastSettings(**settings), OPTIONS)


def test_a_plug_in_competes_by_one_line_of_configuration():
    @register("last_value")
    @dataclass(frozen=True)
    class LastValue(SeasonalNaive):
        name: ClassVar[str] = "last_value"

    made = competition(ForecastSettings(candidates={"smooth": ("default", "last_value")}), OPTIONS)
    assert isinstance(made.engines["last_value"], LastValue)
