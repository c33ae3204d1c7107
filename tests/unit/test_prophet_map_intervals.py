"""Quantiles from the table against samples that Prophet draws."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtri

from pipelines.forecasting.prophet_map.features import Specification, calendar, calendar_days
from pipelines.forecasting.prophet_map.fitting import Fitted, forecast
from pipelines.forecasting.prophet_map.intervals import deviation_scale, standard_quantiles
from pipelines.forecasting.prophet_map.parameters import to_json, to_prophet

END = date(2024, 1, 5)
PROBABILITIES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
HORIZONS = (1, 7, 28, 90)
SAMPLES = 40_000
CASES = {
    "strong trend": {"days": 730, "changes": 25, "size": 0.6, "sigma": 0.03},
    "strong trend, multiplied": {"days": 730, "changes": 25, "size": 0.6, "sigma": 0.03, "mode": "multiplicative"},
    "weak trend": {"days": 730, "changes": 25, "size": 0.02, "sigma": 0.1},
    "no trend": {"days": 730, "changes": 25, "size": 0.0, "sigma": 0.1},
    "long history": {"days": 1461, "changes": 25, "size": 0.3, "sigma": 0.05},
    "three months": {"days": 90, "changes": 25, "size": 0.3, "sigma": 0.05},
    "two weeks": {"days": 14, "changes": 10, "size": 0.1, "sigma": 0.05},
    "four days": {"days": 4, "changes": 2, "size": 0.1, "sigma": 0.05},
}


def fitted(days: int, changes: int, size: float, sigma: float, mode: str = "additive") -> Fitted:
    """A model as if it had been fitted, with changes of the trend of the given mean size."""
    rng = np.random.default_rng(days)
    specification = Specification(seasonality_mode=mode, weekly=True, yearly=False)
    delta = rng.laplace(size=changes)
    delta *= size / max(np.abs(delta).mean(), 1e-12)
    last = np.datetime64(END, "D")
    return Fitted(
        specification=specification,
        rows=np.zeros(1, int),
        first=last - (days - 1),
        last=last,
        changepoints=np.linspace(0, 0.8 * (days - 1), changes + 1).round().astype(int)[1:],
        scale=np.array([50.0]),
        k=np.array([0.1]),
        m=np.array([0.5]),
        delta=(delta - delta.mean())[None, :],
        beta=0.2 * rng.normal(size=(1, 6)),
        sigma=np.array([sigma]),
    )


def table(model: Fitted, horizon: int) -> np.ndarray:
    """(h, q)"""
    known = calendar(model.specification, END, 64, horizon)
    return forecast(model, known.features[known.days :], np.arange(1, horizon + 1), PROBABILITIES)[1][0]


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_quantiles_are_those_of_prophets_samples(case):
    # given a model, and many samples of it
    model = fitted(**case)
    horizon = max(HORIZONS)
    quantiles = table(model, horizon)
    stock = to_prophet(to_json(model, "prophet_batched", END, calendar_days(case["days"]))[0])
    stock.uncertainty_samples = SAMPLES
    future = pd.DataFrame({"ds": pd.date_range(END, periods=horizon + 1)[1:]})
    np.random.seed(1)
    draws = stock.predictive_samples(future)["yhat"]
    # a change can come in each of a few steps only, where the history is as short as that
    allowed = 0.001 if case["days"] > 365 else 0.004 if case["days"] > 14 else 0.02
    # then the share of the samples below each quantile is its probability
    for ahead in HORIZONS:
        shares = (draws[ahead - 1] < quantiles[ahead - 1][:, None]).mean(axis=1)
        error = 4 * np.sqrt(np.array(PROBABILITIES) * (1 - np.array(PROBABILITIES)) / SAMPLES)
        assert (np.abs(shares - PROBABILITIES) < error + allowed).all(), (ahead, shares)


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_quantiles_are_symmetric_and_never_cross_and_widen_with_the_horizon(case):
    quantiles = table(fitted(**case), 90)
    middle = quantiles[:, 3]
    mirrored = 2 * middle[:, None] - quantiles[:, ::-1]
    np.testing.assert_allclose(quantiles, mirrored, atol=1e-4 * np.ptp(quantiles))
    assert (np.diff(quantiles, axis=1) > 0).all()
    weekday = np.arange(90) % 7 == 0
    assert (np.diff(quantiles[weekday, -1] - quantiles[weekday, 0]) > -1e-9).all()


def test_without_a_share_of_the_trend_they_are_the_normal_ones():
    found = standard_quantiles(np.array([0.5, 7.0]), np.zeros(2), PROBABILITIES)
    np.testing.assert_allclose(found, np.tile(ndtri(PROBABILITIES), (2, 1)))


@pytest.mark.parametrize("changes", [0.001, 0.1, 3.0, 1000.0])
def test_from_all_noise_to_all_trend_they_change_without_a_jump(changes):
    shares = np.linspace(0, 1, 400)
    found = standard_quantiles(np.full(400, changes), shares, PROBABILITIES)
    assert np.abs(np.diff(found, axis=0)).max() < 0.12
    assert (np.diff(found, axis=1) >= 0).all()


def test_with_very_many_changes_the_sum_is_normal_again():
    found = standard_quantiles(np.array([200.0]), np.array([0.9]), PROBABILITIES)[0]
    np.testing.assert_allclose(found, ndtri(PROBABILITIES), atol=0.02)


def test_the_deviation_is_the_root_of_the_sum_of_squares():
    # given a change with chance ½ in each step, of standard deviation √2, acting from half a step before
    found = deviation_scale(3, np.array([0.5]))[0]
    np.testing.assert_allclose(found, np.sqrt(2 * 0.5 * np.cumsum(np.array([0.5, 1.5, 2.5]) ** 2)))
