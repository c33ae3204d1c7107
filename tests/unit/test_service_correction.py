"""The correction learnt from achieved service: planning with it achieves what was wanted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from pipelines.inventory.service_correction import learn_correction

PLANNED = (0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)


def replayed(shift: dict[str, float], cycles: int, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Cycles served of each series where a class achieves the score that was planned with plus its shift."""
    achieved = np.stack([ndtr(ndtri(PLANNED) + shift[name]) for name in names], axis=1)
    return achieved * cycles, np.full(achieved.shape, float(cycles))


@pytest.mark.parametrize("shift", [0.4, -0.3, 0.0], ids=["too good", "too bad", "right"])
@pytest.mark.parametrize("wanted", [0.85, 0.95, 0.97])
def test_planning_with_it_achieves_what_was_wanted(shift, wanted):
    names = ["a"] * 20
    correction = learn_correction(PLANNED, *replayed({"a": shift}, 1000, names), names)

    planned = correction.plan_with(wanted, ["a"])[0]

    assert float(ndtr(ndtri(planned) + shift)) == pytest.approx(wanted, abs=0.004)


def test_classes_are_corrected_apart_and_a_small_one_like_all():
    names = ["many"] * 30 + ["other"] * 30 + ["few"]
    served, cycles = replayed({"many": 0.5, "other": -0.2, "few": -3.0}, 500, names)
    served[:, -1], cycles[:, -1] = served[:, -1] / 250, 2
    correction = learn_correction(PLANNED, served, cycles, names)

    many, other, few, unseen = correction.plan_with(0.95, ["many", "other", "few", "new"])

    assert many < 0.95 < other
    assert few == pytest.approx(unseen, abs=0.01)


def test_levels_beyond_those_tried_are_shifted_like_the_nearest():
    correction = learn_correction(PLANNED, *replayed({"a": -0.2}, 10**6, ["a"]), ["a"])

    assert ndtri(correction.plan_with(0.9995, ["a"])[0]) == pytest.approx(ndtri(0.9995) + 0.2, abs=0.01)
    assert correction.plan_with(0.999999, ["a"])[0] <= 0.9999


def test_more_wanted_is_never_planned_with_less():
    rng = np.random.default_rng(3)
    names = ["a"] * 3
    correction = learn_correction(PLANNED, rng.binomial(40, 0.9, (7, 3)), np.full((7, 3), 40), names)

    planned = [correction.plan_with(wanted, ["a"])[0] for wanted in np.linspace(0.6, 0.999, 50)]

    assert (np.diff(planned) >= -1e-9).all()
