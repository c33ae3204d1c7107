"""Stored parameters open as ordinary Prophet models."""

from __future__ import annotations

from datetime import date, timedelta

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from prophet.serialize import model_from_json, model_to_json

from pipelines.contracts.tables import QUANTILES
from pipelines.forecasting.engines import EngineOptions, ForecastBatch, create
from pipelines.forecasting.prophet_map.parameters import from_json, to_prophet
from pipelines.forecasting.series import SeriesBatch, from_matrix
from pipelines.operations.settings import ForecastSettings

END = date(2024, 1, 5)
HORIZON = 20
CASES = {
    "additive": {"seasonality_mode": "additive"},
    "multiplicative": {"seasonality_mode": "multiplicative"},
    "flat": {"growth": "flat"},
    "holidays": {"holidays_country": "US"},
    "multiplicative holidays": {"holidays_country": "US", "seasonality_mode": "multiplicative"},
}
LENGTHS = {"two years": 760, "half a year": 180, "twenty days": 20, "four days": 4, "two days": 2}


@pytest.fixture(scope="module")
def batch() -> SeriesBatch:
    rng = np.random.default_rng(3)
    days = max(LENGTHS.values())
    level = 40 * (1 + 0.3 * np.sin(2 * np.pi * np.arange(days) / 7)) + np.arange(days) / 20
    demand = rng.poisson(level, (len(LENGTHS), days)).astype(float)
    for row, length in enumerate(LENGTHS.values()):
        demand[row, :-length] = np.nan
    # the second series' last days are unknown
    demand[1, -5:] = np.nan
    return from_matrix(demand, END)


@pytest.fixture(scope="module", params=CASES.values(), ids=list(CASES))
def fitted(request, batch) -> tuple[object, ForecastBatch]:
    engine = create("prophet_batched", EngineOptions(ForecastSettings(**request.param)))
    return engine, engine.fit_forecast(batch, HORIZON, QUANTILES)


@pytest.fixture(autouse=True)
def _no_window():
    with mpl.rc_context({"backend": "Agg"}):
        yield
        plt.close("all")


def future(horizon: int = HORIZON) -> pd.DataFrame:
    return pd.DataFrame({"ds": pd.date_range(END + timedelta(days=1), periods=horizon)})


def history(batch: SeriesBatch, row: int) -> pd.DataFrame:
    known = np.isfinite(batch.demand[row])
    return pd.DataFrame({"ds": pd.to_datetime(batch.dates[known]), "y": batch.demand[row, known]})


@pytest.mark.parametrize("row", range(len(LENGTHS)), ids=list(LENGTHS))
def test_predict_agrees_with_the_forecast(fitted, row):
    engine, forecast = fitted
    model = to_prophet(forecast.parameters[row])
    predicted = np.maximum(model.predict(future())["yhat"].to_numpy(), 0)
    np.testing.assert_allclose(predicted, forecast.yhat[row], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(predicted, engine.replay(forecast.parameters[row], HORIZON, QUANTILES)[0], rtol=1e-9)


@pytest.mark.parametrize("row", range(len(LENGTHS)), ids=list(LENGTHS))
def test_a_stored_model_that_prophet_wrote_and_read_again_predicts_the_same(fitted, batch, row):
    _, forecast = fitted
    model = to_prophet(forecast.parameters[row], history(batch, row))
    again = model_from_json(model_to_json(model))
    model.uncertainty_samples = again.uncertainty_samples = 0
    np.testing.assert_allclose(again.predict(future())["yhat"], model.predict(future())["yhat"], rtol=1e-12)


@pytest.mark.parametrize("with_history", [True, False])
def test_prophets_own_plots_can_be_drawn(fitted, batch, with_history):
    _, forecast = fitted
    model = to_prophet(forecast.parameters[0], history(batch, 0) if with_history else None)
    frame = model.predict(future(HORIZON + 380))
    assert model.plot(frame).axes
    titles = {axes.get_ylabel() for axes in model.plot_components(frame).axes}
    assert {"trend", "weekly", "yearly"} <= titles


def test_the_fit_of_the_past_is_that_of_the_model(fitted, batch):
    # given a model with its history, when it predicts the past
    _, forecast = fitted
    seen = history(batch, 0)
    inside = to_prophet(forecast.parameters[0], seen).predict(seen)["yhat"].to_numpy()
    # then what is left is noise of the fitted size
    parameters = from_json(forecast.parameters[0])
    left = np.sqrt(np.mean((seen["y"].to_numpy() - inside) ** 2))
    assert left == pytest.approx(parameters.sigma[0] * parameters.scale[0], rel=0.02)


def test_a_future_frame_begins_after_the_last_known_day(fitted, batch):
    _, forecast = fitted
    for known in (None, history(batch, 1)):
        frame = to_prophet(forecast.parameters[1], known).make_future_dataframe(3, include_history=False)
        assert frame["ds"].iloc[0].date() == END - timedelta(days=4)


def test_a_holiday_moves_the_forecast_of_its_day_alone():
    # given two years in which Independence Day sells four times as much
    rng = np.random.default_rng(1)
    end = date(2023, 7, 1)
    dates = pd.date_range(end=pd.Timestamp(end), periods=800)
    level = 40 * (1 + 3 * ((dates.month == 7) & (dates.day == 4)))
    batch = from_matrix(rng.poisson(level, (1, len(dates))).astype(float), end)
    for mode in ("additive", "multiplicative"):
        options = EngineOptions(ForecastSettings(holidays_country="US", seasonality_mode=mode))
        # when the next one is forecast
        yhat = create("prophet_batched", options).fit_forecast(batch, 6, QUANTILES).yhat[0]
        # then it is the third day, and stands alone
        assert yhat[2] > 100
        assert np.delete(yhat, 2).max() < 60
