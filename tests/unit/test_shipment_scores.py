"""Scores and the baseline of a supplier's rate."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.shipments.risk.scores import calibration_table, key_rates, scores


def test_scores_of_a_perfect_and_of_a_blind_ranking():
    late = np.array([0, 0, 1, 1])
    assert scores(late, late.astype(float)) == {"pr_auc": 1.0, "roc_auc": 1.0, "brier": 0.0, "late": 0.5}
    assert scores(late, np.full(4, 0.5)) == {"pr_auc": 0.5, "roc_auc": 0.5, "brier": 0.25, "late": 0.5}


def test_calibration_table_counts_every_row_once():
    chance = np.random.default_rng(1)
    probability = chance.random(1003)
    late = chance.random(1003) < probability
    table = calibration_table(late, probability)
    assert table["rows"].sum() == 1003
    assert len(table) == 5
    np.testing.assert_allclose(table["late"], table["predicted"], atol=0.1)


def test_rates_are_shrunk_and_unknown_keys_get_everybodys():
    found = key_rates(np.array(["a"] * 20 + ["b"] * 20), np.array([1] * 20 + [0] * 20), np.array(["a", "b", "c"]))
    assert found.tolist() == pytest.approx([0.75, 0.25, 0.5])
