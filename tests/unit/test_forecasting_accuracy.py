"""The whole training, held against its rivals on real and simulated demand that it has not seen."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from bench.accuracy import scores_at
from bench.accuracy_data import LAST, DataSet, intermittent, real

RIVALS = ("prophet_batched", "moving_average", "seasonal_naive")


def test_ninety_real_days_are_forecast_better_than_by_prophet_and_the_baselines(shared_data):
    cutoff = date(2016, 6, 30)
    data = DataSet("real", real(shared_data, 120), (cutoff,), 90)
    found = {row["model"]: row for row in scores_at(data, cutoff, RIVALS)}
    chosen = found["chosen, calibrated"]
    assert chosen["wape"] < 0.97 * found["prophet_batched"]["wape"]
    for rival in RIVALS:
        assert chosen["wape"] < found[rival]["wape"], rival
        assert chosen["pinball"] < found[rival]["pinball"], rival
    assert chosen["coverage"] == pytest.approx(0.8, abs=0.06)
    assert abs(chosen["bias"]) < 0.06


def test_on_rare_demand_the_choice_is_no_worse_than_any_single_model():
    data = DataSet("intermittent", intermittent(200), (date(2016, 9, 10),), 28)
    rivals = ("tsb", "sba", "pooled", "moving_average", "seasonal_naive")
    found = {row["model"]: row for row in scores_at(data, data.cutoffs[0], rivals)}
    best = min(found[rival]["pinball"] for rival in rivals)
    assert found["chosen, calibrated"]["pinball"] < 1.03 * best
    assert found["chosen, calibrated"]["pinball"] < 0.8 * found["seasonal_naive"]["pinball"]


def test_the_simulated_kinds_are_what_they_are_called():
    batch = intermittent(100)
    assert batch.end == LAST
    assert 0.3 < np.mean(batch.demand == 0) < 0.98
