"""What is told, how often, and that it is told once: budget, episodes, tables and views."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from bench.anomaly_trial import QUIET_DAYS, STATED_HOURS, run_trial
from pipelines.anomalies.budget import episodes, threshold
from pipelines.anomalies.gathering import Gatherer
from pipelines.anomalies.history import LedgerHistory
from pipelines.anomalies.registry import Finding, Look
from pipelines.anomalies.view import DemandDays, View
from pipelines.anomalies.watch import AnomalyWatch, Episodes, together
from pipelines.contracts.tables import (
    DAILY_DEMAND,
    FORECASTS,
    INVENTORY_POSITIONS,
    PRODUCTS,
    PUBLICATIONS,
    QUANTILE_COLUMNS,
    SHIPMENTS,
    STOCK_MOVEMENTS,
)
from pipelines.operations.settings import AnomaliesSettings

NOW = datetime(2024, 3, 1, 12, 30, tzinfo=UTC)
DAY = timedelta(days=1)


def a_view(now: datetime = NOW) -> View:
    return View(now, DemandDays.none(now.date()))


@dataclass
class Told:
    """A rule that finds what it is given."""

    name: ClassVar[str] = "told"
    findings: list[Finding] = field(default_factory=list)

    def look(self, view: View) -> Look:
        del view
        return Look(100, list(self.findings))


# The budget. ----------------------------------------------------------------------------------------------


def test_more_subjects_need_more_surprise():
    assert threshold(1000, 1.0, [], NOW.date()) == pytest.approx(3)
    assert threshold(1000, 0.1, [], NOW.date()) == pytest.approx(4)


def test_what_has_been_raises_the_threshold_until_the_budget_is_kept():
    # given chances that are no chances: every day a subject with a surprise of 8
    today = date(2024, 3, 1)
    past = [(today - (back + 1) * DAY, f"s-{back}", 8.0 + back / 100) for back in range(20)]
    least = threshold(100, 0.1, past, today)
    # then two of twenty days' episodes would have passed
    assert sum(peak >= least for peak in episodes(past)) == 2


def test_a_few_days_are_not_enough_to_judge_by():
    today = date(2024, 3, 1)
    assert threshold(100, 1.0, [(today - DAY, "s", 50.0)], today) == pytest.approx(2)


def test_what_lasts_counts_once():
    days = [(date(2024, 2, 1) + place * DAY, "s", float(place)) for place in (0, 1, 2, 10)]
    assert sorted(episodes(days)) == [2.0, 10.0]


# Episodes. ------------------------------------------------------------------------------------------------


def test_many_products_of_a_place_are_one_finding():
    findings = [Finding(f"north|s-{number}", 5.0 + number, f"product {number}") for number in range(5)]
    findings.append(Finding("south|s-1", 9.0, "alone"))
    told = {finding.subject: finding for finding in together(findings)}
    assert set(told) == {"north", "south|s-1"}
    assert told["north"].message.startswith("5 products at north at once, such as: product 4")
    assert len(told["north"].details["subjects"]) == 5


def test_an_episode_begins_once_and_ends_when_it_is_no_longer_seen():
    rule = Told(findings=[Finding("north|s-1", 6.0, "much")])
    watch = Episodes([rule], 1.0)
    begun, ended = watch.look(a_view())
    assert ([row["subject"] for row, _ in begun], ended) == (["north|s-1"], [])
    assert watch.look(a_view(NOW + timedelta(hours=1))) == ([], [])
    # less than the threshold, and yet not over
    rule.findings = [Finding("north|s-1", 1.9, "less")]
    assert watch.look(a_view(NOW + timedelta(hours=2))) == ([], [])
    rule.findings = []
    begun, ended = watch.look(a_view(NOW + timedelta(hours=3)))
    assert (begun, [row["subject"] for row in ended]) == ([], ["north|s-1"])


def test_a_rule_that_fails_costs_its_own_findings(caplog):
    @dataclass
    class Broken(Told):
        name: ClassVar[str] = "broken"

        def look(self, view: View) -> Look:
            raise ValueError("no such column")

    watch = Episodes([Broken(), Told(findings=[Finding("north|s-1", 6.0, "much")])], 1.0)
    begun, _ = watch.look(a_view())
    assert [row["rule"] for row, _ in begun] == ["told"]
    assert "the rule broken failed" in caplog.text


# Tables. --------------------------------------------------------------------------------------------------


def test_it_is_told_once_entered_and_closed_whoever_looks(tables, settings):
    # given books below zero
    level = [-3]

    def gather(now: datetime) -> View:
        return View(now, DemandDays.none(now.date()), stock={"north|s-1": level[0]})

    sent = []

    def a_watch() -> AnomalyWatch:
        watch = AnomalyWatch(tables, AnomaliesSettings(rules=("negative_stock",)), gather, sent.extend)
        watch.resume()
        return watch

    # when looked at by a watch, and by another that has just started
    a_watch().look(NOW)
    assert a_watch().look(NOW + timedelta(minutes=5)) == []
    # and when it has been mended
    level[0] = 2
    a_watch().look(NOW + timedelta(hours=2))
    # then it was told and ended once
    assert [(alert.kind, alert.subject) for alert in sent] == [
        ("negative_stock", "north"),
        ("negative_stock_over", "north"),
    ]
    rows = DeltaTable(f"{settings.home}/tables/gold/anomalies").to_pyarrow_table().to_pylist()
    begin = NOW.replace(minute=0)
    assert [(row["rule"], row["opened_at"], row["closed_at"]) for row in rows] == [
        ("negative_stock", begin, NOW + timedelta(hours=2))
    ]
    assert json.loads(rows[0]["details"]) == {"products": 1, "lowest": {"s-1": -3}}
    assert json.loads(sent[0].encode())["details"]["threshold"] >= 0


def test_what_was_told_before_a_crash_has_the_same_id(tables):
    def gather(now: datetime) -> View:
        return View(now, DemandDays.none(now.date()), stock={"north|s-1": -1})

    def dies(alerts):
        first.extend(alerts)
        raise KeyboardInterrupt

    first, second = [], []
    watch = AnomalyWatch(tables, AnomaliesSettings(rules=("negative_stock",)), gather, dies)
    watch.resume()
    with pytest.raises(KeyboardInterrupt):
        watch.look(NOW)
    watch = AnomalyWatch(tables, AnomaliesSettings(rules=("negative_stock",)), gather, second.extend)
    watch.resume()
    watch.look(NOW + timedelta(minutes=10))
    assert [alert.alert_id for alert in first] == [alert.alert_id for alert in second]


def test_the_books_before_a_count_are_those_that_the_ledger_gives(tables, settings):
    # given a count of 10, sales of 3 and a receipt of 6, and a count that finds 11; the ledger in two halves
    at = [NOW - DAY + timedelta(hours=hour) for hour in range(5)]
    rows = pd.DataFrame(
        {
            "location_id": "north",
            "sku": "s-1",
            "event_time": pd.to_datetime(at, utc=True),
            "kind": ["count", "sale", "receipt", "count", "sale"],
            "quantity": [10, 3, 6, 11, 1],
            "change": [None, -3.0, 6.0, None, -1.0],
        }
    )
    history = LedgerHistory(rows[rows.kind == "count"], NOW - 2 * DAY)
    history.add(rows.iloc[3:])
    history.add(rows.iloc[:3])
    found = history.counts()
    assert found[["expected", "counted"]].values.tolist() == [[13.0, 11.0]]
    # and the last time that stock was brought or counted
    assert history.brought() == {"north|s-1": at[3]}


def test_a_view_is_what_the_tables_hold(tables):
    # given a day's forecast made before the day, and one made after it
    today = NOW.date()
    for version, as_of, yhat in (("v1", today - 3 * DAY, 5.0), ("v2", today - DAY, 7.0)):
        tables.append(
            PUBLICATIONS, _rows(PUBLICATIONS, artefact="forecasts", version=version, as_of=as_of, published_at=NOW)
        )
        for back in (2, 1, 0, -1):
            day = today - back * DAY
            if day > as_of:
                at = datetime.combine(day, datetime.min.time(), UTC)
                quantiles = dict.fromkeys(QUANTILE_COLUMNS, yhat)
                row = {"location_id": "north", "sku": "s-1", "grain": "day", "target_time": at, "yhat": yhat}
                tables.append(FORECASTS, _rows(FORECASTS, forecast_version=version, **row, **quantiles))
    day = {"location_id": "north", "sku": "s-1", "in_stock_fraction": 1.0}
    tables.append(DAILY_DEMAND, _rows(DAILY_DEMAND, date=today - 2 * DAY, demand=4, **day))
    tables.append(DAILY_DEMAND, _rows(DAILY_DEMAND, date=today - DAY, demand=9, **day))
    sale = {"location_id": "north", "sku": "s-1", "kind": "sale", "quantity": 2, "change": -2, "unit_price": 3.0}
    for hours in (1, 30):
        tables.append(STOCK_MOVEMENTS, _rows(STOCK_MOVEMENTS, event_time=NOW - timedelta(hours=hours), **sale))
    tables.append(INVENTORY_POSITIONS, _rows(INVENTORY_POSITIONS, location_id="north", sku="s-1", on_hand=8))
    tables.append(PRODUCTS, _rows(PRODUCTS, sku="s-1", unit_cost=2.0, unit_price=3.0))
    tables.append(SHIPMENTS, _rows(SHIPMENTS, shipment_id="h-1", supplier_id="sup", started=NOW - DAY))
    # when looked at
    view = Gatherer(tables).view(NOW)
    # then each day stands beside the forecast that did not know it
    assert view.demand.demand[0, -2:].tolist() == [4.0, 9.0]
    assert view.demand.mean[0, -2:].tolist() == pytest.approx([5.0, 5.0])
    assert view.demand.today_mean.tolist() == pytest.approx([7.0])
    assert len(view.lines) == 1
    assert (view.stock, view.products) == ({"north|s-1": 8}, {"s-1": (2.0, 3.0)})
    assert list(view.shipments.shipment_id) == ["h-1"]
    assert view.usual.quantities["sale", "s-1"][0] == 1
    assert view.elapsed_share("north") == pytest.approx(1.0)


def _rows(table, **values) -> pa.Table:
    return pa.Table.from_pylist([values], schema=table.schema)


# The whole, on a simulated chain. -------------------------------------------------------------------------


def test_planted_troubles_are_found_in_time_and_quiet_days_stay_within_the_budget():
    quiet_days = QUIET_DAYS // 4
    outcome = run_trial(5, stores=4, products=12, quiet_days=quiet_days, every_hours=12)
    for trouble in outcome.troubles:
        alarm = outcome.found(trouble)
        assert alarm is not None, trouble
        assert alarm.hour - trouble.begin <= STATED_HOURS[trouble.kind], trouble
    assert len(outcome.false_alarms) <= quiet_days
    assert np.median(outcome.look_seconds) < 5
