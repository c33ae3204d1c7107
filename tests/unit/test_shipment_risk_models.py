"""The contract of models of lateness: every registered one keeps it, and is chosen by its name alone."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from pipelines.errors import UsageError
from pipelines.shipments.risk.columns import canonical
from pipelines.shipments.risk.drift import Followed
from pipelines.shipments.risk.features import features, prediction_days
from pipelines.shipments.risk.plugins import DEFAULT, Lesson, model_class, registered
from pipelines.shipments.risk.training import Learning, train_risk
from tests.shipments_data import MAPPING, deliveries

EVERY = pytest.mark.parametrize("name", registered())


@pytest.fixture(scope="module")
def lesson() -> Lesson:
    rows = canonical(deliveries(1200), MAPPING)
    found = features(rows, prediction_days(rows, 1.0), rows)
    x = found.to_numpy(float)
    x[::7, 3], x[:, 5] = np.nan, np.nan
    late = (rows["delivered"] > rows["scheduled"]).to_numpy(float)
    return Lesson(tuple(found.columns), x, late, np.linspace(0.5, 1, len(x)), seeds=1, iterations=40)


def test_the_three_that_are_promised_are_there_and_the_default():
    assert {"boosting", "logistic", "supplier_rate", DEFAULT} <= set(registered())
    with pytest.raises(UsageError, match=r"shipments\.risk_model is 'oracle'; expected one of: .*boosting"):
        model_class("oracle")


@EVERY
def test_log_odds_are_finite_and_of_each_row_alone(name, lesson):
    model = model_class(name).fit(lesson)
    together = model.log_odds(lesson.x[:60])
    assert together.shape == (60,)
    assert np.isfinite(together).all()
    alone = np.concatenate([model.log_odds(lesson.x[place : place + 1]) for place in range(60)])
    np.testing.assert_allclose(alone, together, atol=1e-9)


@EVERY
def test_it_ranks_late_ones_higher_and_tells_the_same_again(name, lesson):
    first, again = (model_class(name).fit(lesson).log_odds(lesson.x) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first[lesson.late == 1].mean() > first[lesson.late == 0].mean() + 0.2


@EVERY
def test_it_is_stored_as_plain_json(name, lesson):
    model = model_class(name).fit(lesson)
    stored = json.loads(json.dumps(model.as_json(), allow_nan=False))
    np.testing.assert_allclose(model_class(name).from_json(stored).log_odds(lesson.x), model.log_odds(lesson.x))


@EVERY
def test_training_takes_it_by_name(name):
    """Probabilities, intervals and reasons come with whatever model is named."""
    frame = deliveries(900)
    model = train_risk(frame, MAPPING, learning=Learning(model=name, seeds=1, slices=1, iterations=30))
    scored = model.score(frame.tail(20))
    assert model.kind == name
    assert scored["late_probability"].between(0, 1).all()
    assert (scored["reasons"].str.len() == 3).all()


def test_the_shift_follows_a_changed_rate_from_outcomes_known_before():
    """Told 5 %, twice as many and more come late with one supplier; only days after that tell it."""
    chance = np.random.default_rng(5)
    day = np.sort(chance.integers(0, 200, 2000)).astype(float)
    supplier = chance.choice(["turned", "same"], 2000)
    truth = np.where((supplier == "turned") & (day >= 100), 0.4, 0.05)
    late = (chance.random(2000) < truth).astype(float)
    followed = Followed(day, np.full(2000, np.log(0.05 / 0.95)), late, supplier)
    asked, both = np.array([100.0, 200.0, 200.0, 2000.0]), np.array(["turned", "turned", "same", "turned"])
    told = 1 / (1 + np.exp(-(np.log(0.05 / 0.95) + followed.shift(asked, both))))
    assert told[0] < 0.09
    assert told[1] == pytest.approx(0.4, abs=0.12)
    assert told[2] < 0.12
    assert told[3] == pytest.approx(0.05)
    pd.testing.assert_frame_equal(Followed.of(followed.frame()).frame(), followed.frame())
