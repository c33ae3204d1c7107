"""Quantiles that hold: corrections from the places of past demand in its forecast distributions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from pipelines.contracts.tables import QUANTILES
from pipelines.forecasting.calibration import (
    BUCKETS,
    UNIT,
    add_to_parameters,
    calibrate,
    corrected,
    correction,
    correction_in,
    corrections_of,
    place_histograms,
)
from pipelines.forecasting.distributions import demand_quantiles
from pipelines.forecasting.engines import EngineOptions
from pipelines.forecasting.models.tsb import TeunterSyntetosBabai
from pipelines.forecasting.replaying import replay_many

KEY = ("smooth", "model")
HORIZON = 28


def world(count: int, spread: float, shift: float = 0.0, seed: int = 1):
    """Demand of normal days, and quantiles of a model that is wrong about their spread and centre."""
    rng = np.random.default_rng(seed)
    level, width = rng.uniform(50, 150, (count, 1, 1)), rng.uniform(5, 15, (count, 1, 1))
    actual = level + width * rng.normal(size=(count, 3, HORIZON))
    quantiles = (level + shift * width)[..., None] + spread * width[..., None] * stats.norm.ppf(QUANTILES)
    return actual, np.broadcast_to(quantiles, (*actual.shape, len(QUANTILES))).copy()


def coverage(actual, quantiles) -> float:
    return float(((actual >= quantiles[..., 1]) & (actual <= quantiles[..., 5])).mean())


class TestCalibration:
    @pytest.mark.parametrize(
        ("spread", "shift"), [(0.6, 0.0), (1.7, 0.0), (0.8, 0.5)], ids=["too narrow", "too wide", "off centre"]
    )
    def test_intervals_of_new_series_hold_although_the_models_do_not(self, spread, shift):
        # given a backtest of 300 series by a model that is wrong
        actual, quantiles = world(300, spread, shift)
        learnt = calibrate({KEY: place_histograms(actual, quantiles, QUANTILES)}, QUANTILES)
        # when its quantiles of other series are corrected
        unseen, wrong = world(300, spread, shift, seed=2)
        right = corrected(wrong, learnt.of[KEY], QUANTILES)
        # then all of them are where they should be
        assert abs(coverage(unseen, wrong) - 0.8) > 0.05
        assert coverage(unseen, right) == pytest.approx(0.8, abs=0.015)
        shares = (unseen[..., None] < right).mean(axis=(0, 1, 2))
        np.testing.assert_allclose(shares, QUANTILES, atol=0.012)

    def test_a_model_that_is_right_is_left_alone_or_nearly(self):
        actual, quantiles = world(300, 1.0)
        masses = place_histograms(actual, quantiles, QUANTILES)
        np.testing.assert_allclose(
            correction(masses.sum(axis=0), QUANTILES), np.tile(QUANTILES, (BUCKETS, 1)), atol=0.01
        )

    def test_what_the_other_cutoffs_contradict_is_not_used(self):
        # given one cutoff of three in which a model that was right otherwise was far too low
        actual, quantiles = world(300, 1.0)
        actual[:, 1] += 60
        learnt = calibrate({KEY: place_histograms(actual, quantiles, QUANTILES)}, QUANTILES)
        before, after = learnt.deviations[KEY]
        assert after >= before
        assert KEY not in learnt.of

    def test_one_cutoff_is_not_enough(self):
        actual, quantiles = world(50, 0.5)
        assert not calibrate({KEY: place_histograms(actual[:, :1], quantiles[:, :1], QUANTILES)}, QUANTILES).of

    def test_few_days_hardly_correct(self):
        def found(count: int, cutoffs: int) -> float:
            actual, quantiles = world(count, 0.3)
            masses = place_histograms(actual[:, :cutoffs], quantiles[:, :cutoffs], QUANTILES)
            return abs(correction(masses.sum(axis=0), QUANTILES)[0, 0] - 0.05)

        assert found(1, 1) < 0.6 * found(300, 3)

    def test_each_stretch_of_the_horizon_has_its_own(self):
        # given a model that is right for a week and too narrow afterwards
        actual, quantiles = world(400, 1.0)
        centre = quantiles[..., 3:4]
        quantiles[:, :, 7:] = centre[:, :, 7:] + 0.5 * (quantiles[:, :, 7:] - centre[:, :, 7:])
        found = calibrate({KEY: place_histograms(actual, quantiles, QUANTILES)}, QUANTILES).of[KEY]
        assert found[0, 1] == pytest.approx(0.10, abs=0.02)
        assert found[1, 1] < 0.01

    def test_counts_of_a_right_model_lie_evenly(self):
        # given counts of a dozen units and their true distribution
        rng = np.random.default_rng(3)
        mean = np.full((500, 1, HORIZON), 12.0)
        actual = rng.negative_binomial(12, 0.5, mean.shape).astype(float)
        quantiles = demand_quantiles(mean, 2 * mean, QUANTILES)
        found = correction(place_histograms(actual, quantiles, QUANTILES).sum(axis=0), QUANTILES)
        np.testing.assert_allclose(found, np.tile(QUANTILES, (BUCKETS, 1)), atol=0.01)

    def test_a_few_counts_are_left_alone(self):
        quantiles = demand_quantiles(np.full((1, HORIZON), 0.7), np.full((1, HORIZON), 2.1), QUANTILES)
        moved = corrected(quantiles, np.tile([0.01, 0.02, 0.1, 0.5, 0.9, 0.98, 0.99], (BUCKETS, 1)), QUANTILES)
        np.testing.assert_array_equal(moved, quantiles)
        assert place_histograms(np.ones((1, 1, HORIZON)), quantiles[:, None], QUANTILES).sum() == 0

    def test_every_known_day_counts_once_and_unknown_ones_do_not(self):
        actual, quantiles = world(20, 1.0)
        actual[:5] = np.nan
        quantiles[5:8] = np.nan
        masses = place_histograms(actual, quantiles, QUANTILES)
        assert masses.sum() == 12 * 3 * HORIZON * UNIT
        assert masses.shape[0] == 3

    def test_histograms_add_up_whatever_the_calls(self):
        actual, quantiles = world(40, 0.7)
        whole = place_histograms(actual, quantiles, QUANTILES)
        parts = [place_histograms(actual[part], quantiles[part], QUANTILES) for part in (slice(0, 7), slice(7, 40))]
        np.testing.assert_array_equal(whole, parts[0] + parts[1])


@given(
    hnp.arrays(float, (2, 9, 7), elements=st.floats(0, 1e6)).map(lambda q: np.sort(q, axis=-1)),
    hnp.arrays(float, (2, BUCKETS, 7), elements=st.floats(0, 1)).map(lambda p: np.sort(p, axis=-1)),
)
def test_corrected_quantiles_are_finite_never_negative_and_never_cross(quantiles, corrections):
    found = corrected(quantiles, corrections, QUANTILES)
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert (np.diff(found, axis=-1) >= 0).all()


def test_series_without_a_correction_keep_their_quantiles():
    corrections, there = corrections_of(
        {("lumpy", "tsb"): np.full((BUCKETS, 7), 0.5)}, ["lumpy", "smooth"], ["tsb"] * 2, QUANTILES
    )
    assert there.tolist() == [True, False]
    _, quantiles = world(1, 1.0)
    np.testing.assert_allclose(corrected(quantiles, corrections[1], QUANTILES), quantiles, rtol=1e-9)


def test_parameters_with_a_correction_give_the_corrected_forecast_again():
    engine = TeunterSyntetosBabai(EngineOptions())
    parameters = '{"model":"tsb","end":"2024-03-10","level":30.0,"weekday":[1,1,1,1,1,1,1],"dispersion":2.0}'
    learnt = np.tile([0.01, 0.03, 0.2, 0.5, 0.8, 0.97, 0.99], (BUCKETS, 1))
    held = add_to_parameters(parameters, learnt)
    np.testing.assert_array_equal(correction_in(held), learnt)
    assert correction_in(parameters) is None
    yhat, quantiles = replay_many(engine, [parameters, held], HORIZON, QUANTILES)
    np.testing.assert_array_equal(yhat[0], yhat[1])
    np.testing.assert_allclose(quantiles[1], corrected(quantiles[0], learnt, QUANTILES))
    assert (quantiles[1, :, 0] < quantiles[0, :, 0]).all()
