"""From a batch to the rows of a training: fitted in the first pass, calibrated and scored in the second."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from pipelines.contracts.tables import QUANTILE_COLUMNS, QUANTILES
from pipelines.forecasting.calibration import Calibration, calibrate, corrected
from pipelines.forecasting.censoring import Censoring
from pipelines.forecasting.engines import EngineOptions
from pipelines.forecasting.fitted import FITTED_SERIES, FitPlan, dense_histograms, fitted_rows, sparse_histograms
from pipelines.forecasting.hour_of_week import PROFILE, HourlyPlan
from pipelines.forecasting.hourly import IntradayProfiles
from pipelines.forecasting.replaying import replay_many, replayer
from pipelines.forecasting.rolling import Task
from pipelines.forecasting.selection import competition, train_batch
from pipelines.forecasting.series import from_matrix
from pipelines.forecasting.trained import TRAINED_SERIES, FinishPlan, trained_rows
from pipelines.operations.settings import ForecastSettings

END = date(2024, 3, 10)
TASK = Task(14, 30, QUANTILES, cutoffs=3)
HOURS = HourlyPlan(48, IntradayProfiles(), PROFILE)
CANDIDATES = dict.fromkeys(("smooth", "erratic", "intermittent", "lumpy"), ("moving_average",))


def series(count: int) -> np.ndarray:
    """Levels that wander: a moving average's own intervals are far too narrow for them."""
    rng = np.random.default_rng(8)
    level = 60 * np.exp(np.cumsum(rng.normal(0, 0.12, (count, 140)), axis=1))
    return rng.poisson(level).astype(float)


@pytest.fixture(scope="module")
def passes():
    """A batch of forty ordinary series and one without a sale, fitted; and what calibration makes of it."""
    demand = np.vstack([series(40), np.full(140, np.nan)])
    batch = from_matrix(demand, END)
    settings = ForecastSettings(engine="moving_average", candidates=CANDIDATES)
    contest = competition(settings, EngineOptions(settings))
    outcome = train_batch(batch, contest, TASK)
    plan = FitPlan(contest, TASK, END, 256, HOURS, Censoring(), {"sku-3": "sku-old"})
    fitted = pa.Table.from_batches([fitted_rows(batch, outcome, HOURS.shapes(pa.table({}), batch, 14), plan)])
    dense = dense_histograms(*sparse_histograms(outcome, contest.names, TASK), contest.names, TASK)
    calibration = calibrate(dense, QUANTILES)
    return outcome, fitted, calibration, pa.Table.from_batches([finished(fitted, calibration)])


def finished(fitted: pa.Table, calibration: Calibration) -> pa.RecordBatch:
    return trained_rows(fitted, FinishPlan(TASK, 256, HOURS, calibration))


def steps(table: pa.Table, name: str, row: int) -> np.ndarray:
    return np.array([[step[column] for column in QUANTILE_COLUMNS] for step in table.column(name)[row].as_py()])


def test_tables_are_as_declared(passes):
    _, fitted, _, trained = passes
    assert fitted.schema == FITTED_SERIES.schema
    assert trained.schema == TRAINED_SERIES.schema
    assert fitted.column("place").is_valid().to_pylist() == [True] + [False] * 40


def test_histograms_survive_the_way_through_the_table(passes):
    outcome, fitted, _, _ = passes
    place, mass = (np.array(fitted.column(name)[0].as_py()) for name in ("place", "mass"))
    whole = dense_histograms(place, mass, ("moving_average",), TASK)
    direct = dense_histograms(*sparse_histograms(outcome, ("moving_average",), TASK), ("moving_average",), TASK)
    assert whole.keys() == direct.keys()
    for key, masses in whole.items():
        np.testing.assert_array_equal(masses, direct[key])


def test_what_is_published_is_corrected_and_its_parameters_give_it_again(passes):
    outcome, _, calibration, trained = passes
    key = ("smooth", "moving_average")
    assert key in calibration.of
    row = outcome.demand_class.index("smooth")
    published = steps(trained, "day", row)
    np.testing.assert_allclose(published, corrected(outcome.forecast.quantiles[row], calibration.of[key], QUANTILES))
    assert (published[:, -1] > outcome.forecast.quantiles[row, :, -1]).all()
    text = trained.column("parameters")[row].as_py()
    _, again = replay_many(replayer("moving_average"), [text], 14, QUANTILES)
    np.testing.assert_allclose(again[0], published)


def test_coverage_is_reported_by_what_the_other_cutoffs_taught(passes):
    _, fitted, calibration, trained = passes
    days, covered = (np.nansum(trained.column(name).to_numpy()) for name in ("days", "covered"))
    plain = finished(fitted, Calibration())
    before = np.nansum(plain.column("covered").to_numpy(zero_copy_only=False)) / days
    assert before < 0.7
    assert covered / days == pytest.approx(0.8, abs=0.06)
    # and a correction that knew the days it is held against is not what is reported
    flattering = finished(fitted, replace(calibration, without=tuple([calibration.of] * 3)))
    assert np.nansum(flattering.column("covered").to_numpy(zero_copy_only=False)) != covered


def test_hours_add_up_to_their_day(passes):
    _, _, _, trained = passes
    day = [step["yhat"] for step in trained.column("day")[0].as_py()]
    hour = np.array([step["yhat"] for step in trained.column("hour")[0].as_py()])
    np.testing.assert_allclose(hour.reshape(2, 24).sum(axis=1), day[:2], rtol=1e-9)


def test_a_series_without_a_sale_has_a_forecast_and_no_scores(passes):
    _, _, _, trained = passes
    row = trained.slice(40).to_pylist()[0]
    assert row["status"] == "fallback"
    assert row["WAPE"] is None
    assert row["backtest_yhat"] is None
    assert len(row["day"]) == 14


def test_the_newest_cutoffs_days_are_kept_for_comparison(passes):
    outcome, _, _, trained = passes
    row = trained.slice(0).to_pylist()[0]
    np.testing.assert_allclose(row["backtest_yhat"], outcome.tested.yhat[0, -1], rtol=1e-6)
    assert len(row["backtest_actual"]) == 14


def test_that_a_series_goes_on_from_another_is_said(passes):
    _, _, _, trained = passes
    assert trained.column("reason")[3].as_py() == "goes on from the history of sku-old"
