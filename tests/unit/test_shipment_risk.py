"""Lateness risk: learned from any file, from nothing that comes later, calibrated, explained, stored without pickle."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import average_precision_score, roc_auc_score

from pipelines.errors import LeakageError, MissingDataError, UsageError
from pipelines.shipments.risk.calibration import fit_platt, widening
from pipelines.shipments.risk.columns import ColumnMapping, canonical
from pipelines.shipments.risk.features import features, prediction_days, subject
from pipelines.shipments.risk.model import MODEL_FILE, RiskModel
from pipelines.shipments.risk.training import Learning, known_as_of, train_risk
from pipelines.shipments.risk.trees import Trees
from tests.shipments_data import MAPPING, deliveries

QUICK = Learning(seeds=1, slices=2, iterations=80)
CUT = date(2021, 12, 31)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return deliveries()


@pytest.fixture(scope="module")
def model(frame) -> RiskModel:
    return train_risk(frame, MAPPING, CUT, QUICK)


def later(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    rows = frame[frame["promised_on"] > pd.Timestamp(CUT)]
    return rows, rows["arrived_on"] > rows["promised_on"]


def test_learns_another_companys_file_by_its_mapping(model, frame):
    """Its columns have other names; the mapping, given as YAML or JSON would be, is all that says so."""
    rows, late = later(frame)
    scored = model.score(rows)
    assert scored["identifier"].tolist() == rows["consignment"].tolist()
    assert roc_auc_score(late, scored["late_probability"]) > 0.7
    assert average_precision_score(late, scored["late_probability"]) > 2 * late.mean()
    followed = model.score(rows, known=rows, reasons=False)["late_probability"]
    by_supplier = followed.groupby(rows["haulier_client"]).mean()
    assert by_supplier["slow"] == pytest.approx(0.5, abs=0.15)
    assert by_supplier["slow"] > 3 * by_supplier.drop("slow").max()


def test_another_file_needs_no_other_code(frame):
    """The same deliveries under other names, other date forms and with keys of other roles score the same."""
    other = frame.rename(columns={name: f"F {name.upper()}" for name in frame}).assign(
        **{
            f"F {name}".upper(): frame[name].dt.strftime("%d.%m.%Y")
            for name in ("promised_on", "arrived_on", "booked_on")
        }
    )
    given = MAPPING.model_dump()
    mapping = ColumnMapping.model_validate(
        {
            **given,
            **{name: f"F {given[name].upper()}" for name in ("scheduled", "delivered", "order", "identifier")},
            **{
                part: {role: f"F {column.upper()}" for role, column in given[part].items()}
                for part in ("keys", "numbers", "milestones")
            },
            "date_formats": ["%d.%m.%Y"],
        }
    )
    pd.testing.assert_frame_equal(canonical(other, mapping), canonical(frame, MAPPING))


def test_a_feature_knows_nothing_of_later_outcomes(frame):
    """Every outcome that became known on or after the day of prediction is turned round; no feature moves."""
    rows = canonical(frame, MAPPING)
    at = prediction_days(rows, 5.0)
    before = features(rows, at, rows)
    for row in (200, 700, 1400):
        changed = rows.copy()
        known = np.fmin(changed["delivered"], changed["scheduled"] + 1) >= at[row]
        late, open_still = changed["delivered"] > changed["scheduled"], changed["scheduled"] >= at[row]
        flipped = changed["scheduled"] + np.where(late, np.where(open_still, 0, 50), 30)
        changed["delivered"] = np.where(known, flipped, changed["delivered"])
        assert known[row]
        after = features(rows.iloc[[row]], at[[row]], changed)
        shared = [name for name in before if not name.startswith("order ") or "late" in name]
        pd.testing.assert_series_equal(after[shared].iloc[0], before[shared].iloc[row], check_names=False)


def test_its_own_order_tells_a_row_nothing(frame):
    """Rows that came early are known before their day of prediction: neither they nor their order's lines count."""
    rows = canonical(frame, MAPPING)
    at = prediction_days(rows, -30.0)
    row = 900
    own = rows["order"] == rows["order"].iloc[row]
    turned = rows.assign(delivered=np.where(own, rows["scheduled"] + 25, rows["delivered"]))
    one, two = (features(rows.iloc[[row]], at[[row]], known) for known in (rows, turned))
    pd.testing.assert_frame_equal(one, two)
    everybody = features(rows, at, turned).drop(index=np.flatnonzero(own))
    assert not everybody.equals(features(rows, at, rows).drop(index=np.flatnonzero(own)))


def test_by_how_much_is_known_later_than_that(frame):
    """A delivery is known to be late the day after it was due, its delay only when it comes."""
    rows = canonical(frame, MAPPING).head(2)
    rows = rows.assign(order=["a", "b"], scheduled=[100.0, 120.0], delivered=[150.0, np.nan])
    at = np.array([110.0, 110.0])
    day_110 = features(rows, at, rows)
    longer = features(rows, at, rows.assign(delivered=[190.0, np.nan]))
    in_time = features(rows, at, rows.assign(delivered=[99.0, np.nan]))
    pd.testing.assert_frame_equal(day_110, longer)
    assert day_110["all late 45"].iloc[1] > in_time["all late 45"].iloc[1]


def test_a_milestone_after_the_prediction_is_unknown(frame):
    """A booking made on the day of arrival would tell the delay; only its absence shows."""
    planted = frame.assign(booked_on=frame["arrived_on"])
    rows = canonical(planted, MAPPING)
    found = features(rows, prediction_days(rows, 4.0), rows)["days since ordered"]
    assert found.isna().all()


@pytest.mark.parametrize("leak", ["number", "outcome"])
def test_a_leaking_column_is_refused(frame, leak):
    """A column written down after delivery, and the outcome itself, are no features."""
    delay = (frame["arrived_on"] - frame["promised_on"]).dt.days
    column, error = ("penalty", LeakageError) if leak == "number" else ("arrived_on", UsageError)
    mapping = MAPPING.model_copy(update={"numbers": {"penalty": column}})
    with pytest.raises(error, match=column):
        train_risk(frame.assign(penalty=100 + delay * 3.5), mapping, CUT, QUICK)


def test_the_rows_being_scored_do_not_tell_their_outcome(model, frame):
    rows, _ = later(frame)
    blind = rows.drop(columns="arrived_on")
    pd.testing.assert_frame_equal(model.score(rows, reasons=False), model.score(blind, reasons=False))


def test_training_sees_nothing_after_its_day(frame):
    """Deliveries after `as_of` change nothing, whatever they were."""
    changed = frame.copy()
    after = changed["arrived_on"] > pd.Timestamp(CUT)
    changed.loc[after, "arrived_on"] += pd.Timedelta(days=40)
    changed.loc[changed["promised_on"] > pd.Timestamp(CUT) + pd.Timedelta(days=9), "kg"] = "0"
    one, two = (known_as_of(canonical(file, MAPPING), CUT) for file in (frame, changed))
    pd.testing.assert_frame_equal(one, two)
    overdue = one[one["delivered"].isna()]
    assert (overdue["scheduled"] < (CUT - date(1970, 1, 1)).days).all()


def test_histories_go_on_with_what_came_since(model, frame):
    """A supplier that turned bad after the training is seen through `known`, and not without."""
    rows, _ = later(frame)
    turned = rows.copy()
    good = turned["haulier_client"] == "good"
    turned.loc[good, "arrived_on"] = turned.loc[good, "promised_on"] + pd.Timedelta(days=9)
    end = rows.tail(60)[rows.tail(60)["haulier_client"] == "good"]
    frozen, followed = (
        model.score(end, known=known, reasons=False)["late_probability"].mean() for known in (None, turned)
    )
    assert followed > 1.5 * frozen


def test_reasons_name_what_raises_the_chance(model, frame):
    rows, _ = later(frame)
    scored = model.score(rows[rows["haulier_client"] == "slow"].head(20))
    assert all(len(reasons) == 3 for reasons in scored["reasons"])
    first = [reasons[0] for reasons in scored["reasons"]]
    assert np.mean(["supplier" in reason and ": +" in reason for reason in first]) > 0.8
    assert (scored["earliest_arrival"] <= scored["expected_arrival"]).all()
    assert (scored["expected_arrival"] <= scored["latest_arrival"]).all()


def test_intervals_cover(model, frame):
    rows, _ = later(frame)
    scored = model.score(rows, reasons=False)
    within = (rows["arrived_on"] >= scored["earliest_arrival"]) & (rows["arrived_on"] <= scored["latest_arrival"])
    assert within.mean() > 0.74


def test_a_stored_model_scores_the_same_and_a_changed_one_is_refused(model, frame, tmp_path):
    rows, _ = later(frame)
    digest = model.save(tmp_path)
    again = RiskModel.load(tmp_path, digest)
    pd.testing.assert_frame_equal(again.score(rows.head(50)), model.score(rows.head(50)))
    text = (tmp_path / MODEL_FILE).read_text()
    (tmp_path / MODEL_FILE).write_text(text.replace('"notice_days": 1.0', '"notice_days": 2.0'))
    with pytest.raises(UsageError, match="SHA-256"):
        RiskModel.load(tmp_path, digest)


@pytest.mark.parametrize("kind", [HistGradientBoostingClassifier, HistGradientBoostingRegressor])
def test_trees_are_scikit_learns(kind):
    chance = np.random.default_rng(2)
    x = chance.normal(size=(400, 4))
    x[chance.random(x.shape) < 0.2] = np.nan
    x[:, 3] = np.where(np.isnan(x[:, 3]), np.nan, 1.0)
    y = (np.nan_to_num(x[:, 0]) + np.isnan(x[:, 3]) > 0.3).astype(int)
    fitted = [kind(max_iter=10, random_state=seed, max_features=0.5).fit(x, y) for seed in (0, 1)]
    raw = [m.decision_function(x) if hasattr(m, "decision_function") else m.predict(x) for m in fitted]
    trees = Trees.from_json(Trees.of(fitted).as_json())
    np.testing.assert_allclose(trees.sums(x), np.mean(raw, axis=0), atol=1e-9)


def test_platt_mends_overconfidence():
    chance = np.random.default_rng(3)
    truth = chance.normal(-2, 1, 4000)
    late = (chance.random(4000) < 1 / (1 + np.exp(-truth))).astype(float)
    platt = fit_platt(3 * truth + 1, late)
    assert platt.slope == pytest.approx(1 / 3, abs=0.05)
    assert platt(3 * truth + 1).mean() == pytest.approx(late.mean(), abs=0.01)


def test_widening_reaches_the_coverage():
    actual = np.random.default_rng(4).normal(0, 10, 2000)
    widen = widening(actual, np.full(2000, -1.0), np.full(2000, 1.0), 0.8)
    assert np.mean(np.abs(actual) <= 1 + widen) == pytest.approx(0.8, abs=0.01)


def test_too_little_is_said_so(frame):
    with pytest.raises(MissingDataError, match="not enough"):
        train_risk(frame.head(100), MAPPING)
    with pytest.raises(UsageError, match="no column 'tons'"):
        train_risk(frame, MAPPING.model_copy(update={"numbers": {"weight": "tons"}}))


@pytest.mark.parametrize(
    ("feature", "about"),
    [
        ("supplier late 45", "supplier history"),
        ("supplier × mode delay 45", "supplier × mode history"),
        ("calendar: month", "calendar"),
        ("order total value", "order"),
        ("weight", "weight"),
        ("weight note late 365", "weight note history"),
    ],
)
def test_subjects(feature, about):
    assert subject(feature) == about
