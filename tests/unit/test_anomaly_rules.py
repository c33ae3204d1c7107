"""The contract that every alert rule keeps, and what each of ours finds and leaves alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from pipelines.anomalies.registry import CERTAIN, RARE, create, registered
from pipelines.anomalies.view import COUNT_COLUMNS, LINE_COLUMNS, SHIPMENT_COLUMNS, DemandDays, Usual, View
from pipelines.errors import UsageError
from pipelines.operations.settings import AnomaliesSettings

NOW = datetime(2024, 3, 1, 18, tzinfo=UTC)
STORES = ("north", "south", "east")
SKUS = tuple(f"sku-{number}" for number in range(12))
KEYS = np.array([f"{store}|{sku}" for store in STORES for sku in SKUS], object)
DAYS = 28


def quiet_view(seed: int = 1) -> View:
    """A chain in which all goes as forecast: Poisson demand of 6 a day, everything in stock, no count off by more than
    chance, deliveries an hour or two from their promise."""
    chance = np.random.default_rng(seed)
    shape = (len(KEYS), DAYS)
    level = np.full(shape, 6.0)
    demand = DemandDays(
        keys=KEYS,
        first=NOW.date() - timedelta(days=DAYS),
        demand=chance.poisson(level).astype(float),
        mean=level,
        variance=level * 1.05,
        in_stock=np.ones(shape),
        today_mean=np.full(len(KEYS), 6.0),
        today_variance=np.full(len(KEYS), 6.3),
    )
    return View(
        now=NOW,
        demand=demand,
        lines=lines(chance),
        counts=counts(chance),
        stock=dict.fromkeys(KEYS.tolist(), 40),
        shipments=shipments(chance),
        products=dict.fromkeys(SKUS, (2.0, 3.0)),
        usual=Usual(
            {(kind, sku): (500, 0.3, 0.4) for kind in ("sale", "receipt") for sku in SKUS},
            {store: np.linspace(0, 1, 25) for store in STORES},
        ),
    )


def lines(chance: np.random.Generator) -> pd.DataFrame:
    """Two sales of each series today."""
    rows = []
    for key in KEYS:
        store, sku = key.split("|")
        for hour in chance.uniform(9, 17, 2):
            at = NOW.replace(hour=0) + timedelta(hours=float(hour))
            rows.append((store, sku, at, "sale", int(chance.choice([1, 1, 1, 2])), 3.0))
    return pd.DataFrame(rows, columns=list(LINE_COLUMNS))


def counts(chance: np.random.Generator) -> pd.DataFrame:
    """Each series was counted in the last two weeks and a month before."""
    rows = []
    for number, key in enumerate(KEYS):
        for days in (number % 13 + 0.5, number % 13 + 30.5):
            counted = 40 + float(chance.integers(-2, 2))
            rows.append((*key.split("|"), NOW - timedelta(days=days), 40.0, counted))
    return pd.DataFrame(rows, columns=list(COUNT_COLUMNS))


def shipments(chance: np.random.Generator) -> pd.DataFrame:
    """A delivery a day of each of two suppliers, for two months."""
    rows = []
    for supplier in ("sup-a", "sup-b"):
        for day in range(60):
            promised = NOW - timedelta(days=day, hours=2)
            came = promised + timedelta(hours=float(chance.normal(0, 1)))
            rows.append((f"{supplier}-{day}", supplier, "delivered", promised - timedelta(days=3), promised, came))
    return pd.DataFrame(rows, columns=list(SHIPMENT_COLUMNS))


def changed(view: View, name: str, **parts: np.ndarray) -> View:
    return replace(view, **{name: replace(getattr(view, name), **parts)})


@pytest.fixture(scope="module", params=registered())
def rule(request):
    return create([request.param])[0]


def test_an_empty_chain_has_no_findings(rule):
    look = rule.look(View(NOW, DemandDays.none(NOW.date())))
    assert (look.tested, look.findings) == (0, [])


def test_the_same_view_gives_the_same_findings_each_subject_once(rule):
    view = troubled_view()
    first, second = rule.look(view), rule.look(view)
    assert first == second
    subjects = [finding.subject for finding in first.findings]
    assert len(subjects) == len(set(subjects))


def test_findings_are_rare_told_in_words_and_name_what_is_known(rule):
    view = troubled_view()
    known = {*KEYS, *STORES, "sup-a", "sup-b"}
    for finding in rule.look(view).findings:
        assert finding.surprise >= RARE
        assert finding.subject in known
        assert len(finding.message) > 40
        assert finding.severity in {"critical", "high", "low"}


def test_what_is_as_usual_is_not_told(rule):
    surprises = [finding.surprise for seed in range(5) for finding in rule.look(quiet_view(seed)).findings]
    assert all(surprise < 5 for surprise in surprises)
    assert len(surprises) <= 20


def test_every_rule_finds_what_it_is_for(rule):
    assert any(finding.surprise >= 3 for finding in rule.look(troubled_view()).findings)


def troubled_view() -> View:
    """A chain in which everything that ours look for goes wrong, each at another place."""
    view = quiet_view()
    demand = view.demand.demand.copy()
    demand[0, -1] = 60  # an outlier
    demand[1, -14:] += 7  # a drift
    demand[2, -6:] = 0  # phantom stock
    sold = view.lines[~((view.lines.location_id == "north") & (view.lines.sku == "sku-2"))]
    off = sold.location_id == "south"
    sold = sold.assign(
        quantity=sold.quantity.where(~off, sold.quantity * 12),
        unit_price=sold.unit_price.where(sold.location_id != "east", 300.0),
    )
    recent = view.counts.event_time > pd.Timestamp(NOW - timedelta(days=14))
    shrunk = recent & (view.counts.location_id == "east")
    slow = view.shipments.promised > pd.Timestamp(NOW - timedelta(days=7))
    slow &= view.shipments.supplier_id == "sup-b"
    late = view.shipments.delivered + pd.Timedelta(hours=30)
    return replace(
        changed(view, "demand", demand=demand),
        lines=sold,
        counts=view.counts.assign(counted=view.counts.counted.where(~shrunk, view.counts.counted - 9)),
        stock={**view.stock, "north|sku-3": -4},
        shipments=view.shipments.assign(delivered=view.shipments.delivered.where(~slow, late)),
    )


def found(name: str, view: View) -> dict[str, float]:
    return {finding.subject: finding.surprise for finding in create([name])[0].look(view).findings}


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("demand_outlier", "north|sku-0"),
        ("demand_drift", "north|sku-1"),
        ("phantom_stock", "north|sku-2"),
        ("negative_stock", "north"),
        ("quantity_error", "south"),
        ("price_error", "east"),
        ("count_shrinkage", "east"),
        ("supplier_slowdown", "sup-b"),
    ],
)
def test_what_was_planted_is_found_and_little_else(name, subject):
    surprises = found(name, troubled_view())
    assert surprises[subject] >= 3
    assert sum(surprise >= 3 for surprise in surprises.values()) <= 3


def test_an_empty_shelf_explains_days_without_sales():
    view = troubled_view()
    in_stock = view.demand.in_stock.copy()
    in_stock[2, -6:] = 0
    seen = found("phantom_stock", changed(view, "demand", in_stock=in_stock))
    # then only today counts, in which there is stock and the afternoon is over
    assert seen.get("north|sku-2", 0.0) < 4 < found("phantom_stock", view)["north|sku-2"]


def test_days_before_a_receipt_say_nothing_of_what_came_with_it():
    view = troubled_view()
    brought = {"north|sku-2": NOW - timedelta(hours=1)}
    assert "north|sku-2" not in found("phantom_stock", replace(view, brought=brought))


def test_a_sale_today_ends_the_doubt():
    view = quiet_view()
    demand = view.demand.demand.copy()
    demand[2, -6:] = 0
    assert "north|sku-2" not in found("phantom_stock", changed(view, "demand", demand=demand))


def test_books_below_zero_are_a_fact():
    assert found("negative_stock", troubled_view()) == {"north": CERTAIN}


def test_one_wild_count_is_no_shrinkage():
    view = quiet_view()
    counted = view.counts.counted.copy()
    counted[0] = 0
    assert found("count_shrinkage", replace(view, counts=view.counts.assign(counted=counted))) == {}


def test_promotions_are_no_price_errors():
    view = quiet_view()
    half = view.lines.assign(unit_price=1.5)
    assert found("price_error", replace(view, lines=half)) == {}


def test_a_delivery_that_has_not_come_counts_as_late_as_it_is():
    view = quiet_view()
    rows = view.shipments
    missing = (rows.supplier_id == "sup-a") & (rows.promised > pd.Timestamp(NOW - timedelta(days=7)))
    held = rows.assign(delivered=rows.delivered.where(~missing), state=rows.state.where(~missing, "departed"))
    assert list(found("supplier_slowdown", replace(view, shipments=held))) == ["sup-a"]


def test_all_rules_are_in_force_unless_settings_say_otherwise():
    assert sorted(AnomaliesSettings().rules) == list(registered())


def test_an_unknown_rule_is_refused_with_those_that_exist():
    with pytest.raises(UsageError, match=r"no_such_rule.*phantom_stock"):
        create(["no_such_rule"])


def test_days_are_named_by_their_dates():
    assert quiet_view().demand.day(DAYS - 1) == date(2024, 2, 29)
