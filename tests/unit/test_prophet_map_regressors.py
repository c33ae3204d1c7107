"""Regressors in the batched engine: Prophet's posterior, its standardising, and its models again."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from pipelines.forecasting.prophet_map import fitting
from pipelines.forecasting.prophet_map.features import Specification, future_features, prophet
from pipelines.forecasting.prophet_map.parameters import to_json, to_prophet
from pipelines.forecasting.prophet_map.posterior import log_posterior

END, DAYS, HORIZON = date(2024, 3, 31), 300, 14
DATES = pd.date_range(end=pd.Timestamp(END), periods=DAYS)
FUTURE = pd.date_range(pd.Timestamp(END) + pd.Timedelta(days=1), periods=HORIZON)
NAMES = ("price", "promotion")


@pytest.fixture(scope="module", params=["additive", "multiplicative"])
def case(request):
    """Two series whose demand follows a price and a promotion, some days unknown; and both fits of the first."""
    rng = np.random.default_rng(2)
    price, promotion = rng.normal(10, 1, (2, DAYS + HORIZON)), rng.random((2, DAYS + HORIZON)) < 0.2
    week = 1 + 0.3 * np.sin(2 * np.pi * np.arange(DAYS + HORIZON) / 7)
    mean = 30 * week * (1 - 0.05 * (price - 10)) * (1 + 0.5 * promotion)
    demand = rng.poisson(mean)[:, :DAYS].astype(float)
    demand[:, 40:50] = np.nan
    values = np.stack([price, promotion.astype(float)], axis=2)
    specification = Specification(seasonality_mode=request.param, regressors=NAMES)
    fitted = fitting.fit(demand, END, specification, HORIZON, values[:, :DAYS])
    model = prophet().Prophet(seasonality_mode=request.param, uncertainty_samples=0)
    for name in NAMES:
        model.add_regressor(name)
    history = pd.DataFrame({"ds": DATES, "y": demand[0], **dict(zip(NAMES, values[0, :DAYS].T, strict=True))})
    model.fit(history)
    future = pd.DataFrame({"ds": FUTURE, **dict(zip(NAMES, values[0, DAYS:].T, strict=True))})
    return fitted, values, mean, model, future


def test_the_posterior_is_at_least_stans(case):
    fitted, _, _, stan, _ = case
    features, scales, _, _ = stan.make_all_seasonality_features(stan.history)
    given = (stan.history["y_scaled"].to_numpy(), stan.history["t"].to_numpy(), features.to_numpy(float))
    given += (np.array(scales), stan.changepoints_t)
    theirs = {name: np.ravel(stan.params[name]) for name in ("delta", "beta")}
    theirs |= {name: float(np.ravel(stan.params[name])[0]) for name in ("k", "m", "sigma_obs")}
    one = fitted[0]
    ours = {"k": one.k[0], "m": one.m[0], "sigma_obs": one.sigma[0], "delta": one.delta[0], "beta": one.beta[0]}
    mine, other = (log_posterior(*given, parameters, one.specification) for parameters in (ours, theirs))
    assert mine >= other - 1e-6 * abs(other)


def test_the_effects_are_found(case):
    fitted, values, mean, _, _ = case
    features = future_features(fitted[0].specification, END, 320, HORIZON)
    for one in fitted:
        yhat, _ = fitting.forecast(one, features, np.arange(1, HORIZON + 1), (0.1, 0.9), values[one.rows, DAYS:])
        np.testing.assert_allclose(yhat[0], mean[one.rows[0], DAYS:], rtol=0.25)
        assert np.abs(yhat[0] / mean[one.rows[0], DAYS:] - 1).mean() < 0.1


def test_stored_parameters_open_as_a_prophet_model_that_predicts_the_same(case):
    fitted, values, _, stan, future = case
    features = future_features(fitted[0].specification, END, 320, HORIZON)
    yhat, _ = fitting.forecast(fitted[0], features, np.arange(1, HORIZON + 1), (0.1, 0.9), values[:1, DAYS:])
    model = to_prophet(to_json(fitted[0], "prophet_batched", END, 320)[0])
    np.testing.assert_allclose(model.predict(future)["yhat"], yhat[0], rtol=1e-9)
    np.testing.assert_allclose(stan.predict(future)["yhat"], yhat[0], rtol=0.03)


def test_a_model_with_regressors_does_not_guess_their_future(case):
    fitted, _, _, _, _ = case
    features = future_features(fitted[0].specification, END, 320, HORIZON)
    with pytest.raises(ValueError, match="future values of its regressors"):
        fitting.forecast(fitted[0], features, np.arange(1, HORIZON + 1), (0.1, 0.9))


@pytest.mark.parametrize(
    ("regressors", "message"),
    [(np.zeros((1, DAYS, 1)), "expected"), (np.full((1, DAYS, 2), np.nan), "missing on a day")],
    ids=["one too few", "unknown"],
)
def test_regressors_that_do_not_fit_are_refused(regressors, message):
    with pytest.raises(ValueError, match=message):
        fitting.fit(np.arange(DAYS)[None].astype(float), END, Specification(regressors=NAMES), 1, regressors)
