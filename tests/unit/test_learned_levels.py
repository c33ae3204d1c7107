"""Learnt levels: quantiles that follow their features, an environment that is the replay, a fair judgement."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from pipelines.contracts.tables import (
    DAILY_DEMAND,
    POLICY_CANDIDATES,
    PRODUCTS,
    QUANTILES,
    SERVICE_CORRECTIONS,
    SOURCING,
)
from pipelines.errors import MissingDataError
from pipelines.forecasting.series import from_matrix
from pipelines.forecasting.tracking import connect
from pipelines.inventory.lead_time_demand import Protection
from pipelines.inventory.learned.environment import ReplayEnvironment
from pipelines.inventory.learned.features import NAMES, Evenings, evenings, realised
from pipelines.inventory.learned.learning import (
    candidate_rows,
    correction_rows,
    daily_cost,
    halves,
    learn_levels,
    learn_policies,
)
from pipelines.inventory.learned.newsvendor import PROBABILITIES, QuantileModel, learn_newsvendor
from pipelines.inventory.learned.policy_search import SearchedPolicy, play
from pipelines.inventory.planning_inputs import with_corrected_service
from pipelines.inventory.policies import Terms
from pipelines.inventory.replay.history import History, RollingForecasts, sampled_lead_times
from pipelines.inventory.replay.laboratory import Supply
from pipelines.inventory.replay.results import buying_of
from pipelines.inventory.replay.results import play as replayed

END, SERIES, DAYS = date(2024, 6, 30), 6, 160


def terms_of(series=SERIES, **changes):
    values = {
        "service_level": 0.95, "pack_size": 4.0, "minimum_order": 1.0, "order_cost": 2.0, "holding_cost": 20.0,
        "unit_cost": 10.0, "unit_price": 15.0, "shelf_life_days": np.nan, "review_days": 1.0, **changes,
    }  # fmt: skip
    return Terms(**{name: np.full(series, value) for name, value in values.items()})


@pytest.fixture(scope="module")
def scene():
    """Poisson demand at rates of its own, forecast rightly but too narrowly: the quantiles promise too little."""
    rng = np.random.default_rng(5)
    rate = np.linspace(4, 20, SERIES)
    demand = rng.poisson(rate[:, None] * rng.gamma(4, 0.25, (SERIES, DAYS + 60)), (SERIES, DAYS + 60)).astype(float)
    batch = from_matrix(demand, END)
    start = END - timedelta(days=DAYS - 1)
    origins = tuple(start - timedelta(days=1) + timedelta(days=7 * week) for week in range(DAYS // 7 + 1))
    yhat = np.broadcast_to(rate[None, :, None], (len(origins), SERIES, 28))
    narrow = yhat[..., None] + np.linspace(-1, 1, len(QUANTILES))
    lead_time = sampled_lead_times((2, 3, 4), SERIES, DAYS, rng)
    history = History(batch, RollingForecasts(origins, yhat, narrow), lead_time, start, start + timedelta(days=35))
    points = np.tile([2.0, 3.0, 4.0], (SERIES, 1))
    return history, Supply(terms_of(), Protection.observed(points, np.ones(SERIES)))


def test_what_was_sold_is_what_the_order_had_to_last(scene):
    history, supply = scene
    found = realised(history, supply.protection)
    day, row = 17, 2
    lead = history.lead_time[row, day]
    assert found[row, day] == history.demand[row, day + 1 : day + 1 + lead + 1].sum()
    assert np.isnan(found[:, -1]).all()


def test_features_of_an_evening_do_not_change_with_what_comes_after(scene):
    history, supply = scene
    changed = history.batch.demand.copy()
    changed[:, history.first_column + 81 :] += 500
    other = replace(history, batch=replace(history.batch, demand=changed))
    one, two = (evenings(each, supply.protection, supply.terms) for each in (history, other))
    assert np.array_equal(one.values[:, :81], two.values[:, :81])
    assert not np.array_equal(one.values[:, 81:], two.values[:, 81:])


def test_learnt_quantiles_follow_the_feature_that_decides():
    # given demand whose spread grows with one feature and not with the others
    rng = np.random.default_rng(1)
    shape = (20, 80)
    values = rng.uniform(0.1, 0.5, (*shape, len(NAMES)))
    values[..., 0] = 1.0
    expected = np.full(shape, 50.0)
    sold = expected * (1 + values[..., 1] * rng.standard_normal(shape))
    model = learn_newsvendor(Evenings(expected, expected * 0.2, expected / 4, values), sold, rng)
    # when levels are asked for at a small and at a large spread
    probe = np.tile(values[0, 0], (2, 1))
    probe[:, 1] = (0.15, 0.45)
    found = model.level(probe, np.full(2, 0.96))
    # then they are the normal quantiles of each
    assert found == pytest.approx(1 + np.array([0.15, 0.45]) * 1.751, abs=0.1)
    # and the model is the same after it was written and read
    again = QuantileModel.from_json(model.to_json())
    assert np.array_equal(again.level(probe, np.full(2, 0.9)), model.level(probe, np.full(2, 0.9)))


def test_levels_rise_with_the_probability(scene):
    history, supply = scene
    known = evenings(history, supply.protection, supply.terms)
    model = learn_newsvendor(known, realised(history, supply.protection), np.random.default_rng(1))
    rows = known.values[:, 60]
    levels = [model.level(rows, np.full(SERIES, level)) for level in (0.4, *PROBABILITIES, 0.999)]
    assert (np.diff(levels, axis=0) >= -1e-9).all()


def test_too_little_to_learn_from_is_said(scene):
    history, supply = scene
    known = evenings(history, supply.protection, supply.terms)
    with pytest.raises(MissingDataError, match="200 evenings"):
        learn_newsvendor(known, np.full(known.expected.shape, np.nan), np.random.default_rng(1))


@pytest.mark.parametrize("review", [1.0, 3.0])
def test_the_environment_is_the_replay(scene, review):
    # given two rules, played in the environment and by the compiled replay
    history, supply = scene
    supply = Supply(terms_of(review_days=review, minimum_order=7.0), supply.protection)
    known = evenings(history, supply.protection, supply.terms)
    rules = np.array([[0.0, 1.5, 0.0, 1.0], [0.2, 0.5, 1.0, 2.0]])
    reward = play(ReplayEnvironment(history, supply.terms, known, 2), rules, supply.terms)
    for rule, found in zip(rules, reward, strict=True):
        levels = SearchedPolicy("x", rule, known).levels(history, supply.protection, supply.terms, (0.95,))
        (outcome,) = replayed(history, "x", levels, buying_of(supply.terms), (0.95,))
        days = outcome.totals["days"]
        assert -found == pytest.approx(float((daily_cost(outcome, supply) * days).sum()))


def test_the_environment_is_one_of_gymnasium(scene):
    # given the environment, wrapped as any of Gymnasium's is
    history, supply = scene
    known = evenings(history, supply.protection, supply.terms)
    environment = RecordEpisodeStatistics(ReplayEnvironment(history, supply.terms, known, 3))
    seen, _ = environment.reset(seed=1)
    # when agents order by chance until the end
    environment.action_space.seed(1)
    evenings_passed, ends = 0, np.zeros(3, bool)
    while not ends.all():
        assert environment.observation_space.contains(seen)
        actions = np.floor(environment.action_space.sample() % 20)
        seen, reward, ends, truncated, facts = environment.step(actions)
        assert (reward.shape, ends.shape) == ((3,), (3,))
        assert not truncated.any()
        evenings_passed += 1
    # then all have lived through the same history, and paid for it
    assert evenings_passed == history.demand.shape[1]
    assert (facts["episode"]["l"] == evenings_passed).all()
    assert (facts["episode"]["r"] < 0).all()


def test_no_day_is_judged_that_was_learnt_from(scene):
    older, newer = halves(scene[0])
    assert older.batch.end < newer.measured
    assert newer.batch.end == scene[0].batch.end
    assert (newer.measured - newer.start).days == 35
    assert np.array_equal(older.demand, scene[0].demand[:, : older.days])
    assert np.array_equal(newer.demand, scene[0].demand[:, -newer.days :])
    assert np.array_equal(newer.lead_time, scene[0].lead_time[:, -newer.days :])


def test_methods_stand_side_by_side_and_the_cheapest_is_champion(scene):
    # when all methods are learnt, tuned and judged, with a cost for each
    history, supply = scene
    learnt = learn_levels(history, supply, np.random.default_rng(2), generations=3)
    names = [judged.method for judged in learnt.methods]
    assert names == ["order_up_to", "learned_newsvendor", "policy_search"]
    assert learnt.champion.total == min(judged.total for judged in learnt.methods)
    # then a learnt one is not far off the tuned classical one, here where nothing but the spread is to be learnt
    assert learnt.methods[1].total < 1.1 * learnt.methods[0].total
    rows = candidate_rows(learnt, history, "run")
    assert rows.schema == POLICY_CANDIDATES.schema
    assert rows.num_rows == 3 * SERIES
    for row in rows.to_pylist():
        assert 0 <= row["reorder_point"] < row["order_up_to"]
        assert row["champion"] == (row["method"] == learnt.champion.method)
        assert row["daily_cost"] > 0


def test_the_service_that_was_missed_is_planned_for(scene):
    # given forecasts whose spread is far too narrow, so that what was wanted was not achieved
    history, supply = scene
    learnt = learn_levels(history, supply, np.random.default_rng(2), generations=1)
    rows = correction_rows(learnt.correction, END)
    terms = pa.table({"sku": ["sku-0", "new"], "service_level": [0.9, 0.9]})
    # when the plan takes what was learnt
    found = with_corrected_service(terms, rows, {"sku-0": history.batch.category[0]})["service_level"].to_pylist()
    # then it plans with more than what is wanted, also for what was not seen; and without it, with what is wanted
    assert all(level > 0.93 for level in found)
    assert with_corrected_service(terms, rows.slice(0, 0), {}) is terms


def test_the_job_learns_from_the_home_and_tracks_it(settings, tables):
    # given half a year of a chain's demand and its catalog
    rng = np.random.default_rng(3)
    days = [END - timedelta(days=ago) for ago in range(240)]
    keys = [("s-1", "a"), ("s-2", "a"), ("s-1", "b")]
    demand = [{"location_id": place, "sku": sku, "date": day, "demand": int(units)}
              for place, sku in keys for day, units in zip(days, rng.poisson(9, 240), strict=True)]  # fmt: skip
    products = [{"sku": sku, "name": sku, "category": "c", "unit_cost": 10.0, "unit_price": 14.0} for sku in "ab"]
    sourcing = [{"location_id": place, "sku": sku, "supplier_id": "u", "lead_time_days": 3.0, "lead_time_std_days": 0.5,
                 "pack_size": 4, "minimum_order": 1, "order_cost": 2.0, "holding_cost_rate": 1.0, "service_level": 0.95,
                 "review_days": 1.0} for place, sku in keys]  # fmt: skip
    for table, rows in ((DAILY_DEMAND, demand), (PRODUCTS, products), (SOURCING, sourcing)):
        tables.overwrite(table, pa.Table.from_pylist(rows, schema=table.schema))
    quick = settings.model_copy(update={"forecast": settings.forecast.model_copy(update={"engine": "moving_average"})})
    learnt = learn_policies(quick, tables, 120)
    # then every method has its levels of today and its cost for every series
    rows = tables.read(POLICY_CANDIDATES).to_pylist()
    assert len(rows) == 9
    assert {row["as_of"] for row in rows} == {END}
    assert {row["category"] for row in tables.read(SERVICE_CORRECTIONS).to_pylist()} == {"", "c"}
    # and the run holds the same figures, and the model as JSON
    client = connect(quick)
    run = client.get_run(rows[0]["run_id"])
    for judged in learnt.methods:
        assert run.data.metrics[f"daily_cost.{judged.method}"] == pytest.approx(judged.total)
    assert run.data.tags["champion"] == learnt.champion.method
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"newsvendor.json", "policy_search.json"}
