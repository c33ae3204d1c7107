"""Forecasts that grow old: used and marked after 36 hours, replaced by a fixed rule and alerted after 7 days."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest

from pipelines.contracts.tables import INVENTORY_POLICIES, ORDER_OUTBOX, ORDER_STATUS, STOCK_MOVEMENTS
from pipelines.ingestion.ingestor import TakenIn
from pipelines.inventory.stockout import demand_between
from pipelines.io.delta import Tables
from pipelines.operations.settings import RestockSettings
from pipelines.restocking.decisions import decode_order
from pipelines.restocking.degradation import fixed_rule
from pipelines.restocking.engine import RestockEngine
from pipelines.restocking.policy_book import PolicyBook
from tests.chain import plant_policies

AS_OF = date(2026, 3, 1)
END = datetime(2026, 3, 2, tzinfo=UTC)
SERIES = [("s-1", "p-1"), ("s-1", "p-2")]


class Ledger:
    """Ledger rows for an engine, a sale at a time."""

    def __init__(self, tables, settings=None):
        self.settings = settings
        self.tables, self.sequence, self.flags, self.alerts = tables, 0, [], []
        self.engine = RestockEngine(tables, RestockSettings(), self.flags.extend, lambda: END, tell=self.alerts.append)
        self.engine.resume()

    def event(self, hours, kind, quantity, sku="p-1"):
        """An event this many hours after the day that the forecasts know; gives the orders that exist then."""
        self.sequence += 1
        at = END + timedelta(hours=hours)
        change = {"sale": -quantity, "count": None}[kind]
        row = dict.fromkeys(STOCK_MOVEMENTS.schema.names) | {
            "event_id": f"e-{self.sequence}", "event_time": at, "location_id": "s-1", "sku": sku, "kind": kind,
            "quantity": quantity, "change": change, "topic": "pos.sales", "partition": 0, "offset": self.sequence,
            "kafka_timestamp": at, "ingested_at": at, "sequence": self.sequence, "payload_hash": 1,
        }  # fmt: skip
        rows = pa.Table.from_pylist([row], schema=STOCK_MOVEMENTS.schema)
        empty = pa.table({})
        statuses = ORDER_STATUS.schema.empty_table()
        self.engine.stage(TakenIn(self.sequence, self.sequence - 1, self.sequence, rows, statuses, empty, empty))
        return [decode_order(text) for text in self.tables.read(ORDER_OUTBOX, ("payload",)).column(0).to_pylist()]


@pytest.fixture
def ledger(tables, settings):
    plant_policies(tables, SERIES, as_of=AS_OF)
    return Ledger(tables, settings)


@pytest.mark.parametrize(("hours", "marked"), [(1, False), (35.9, False), (36.1, True), (167, True)])
def test_an_older_forecast_is_used_and_the_order_says_so(ledger, hours, marked):
    ledger.event(0, "count", 30)
    (order,) = ledger.event(hours, "sale", 15)
    # then the levels are those of the policy, and the age is told
    assert (order["reorder_point"], order["order_up_to"]) == (20, 50)
    assert (f"; the forecast is {hours:.0f} h old" in order["explanation"]) == marked
    assert not ledger.alerts


def test_a_week_old_forecast_gives_way_to_the_fixed_rule_and_is_alerted_once(ledger):
    ledger.event(0, "count", 40)
    ledger.event(0, "count", 40, sku="p-2")
    # when forecasts are older than a week
    orders = ledger.event(7 * 24 + 1, "sale", 13)
    # then the reorder point is the mean demand of lead time and review, plus the safety stock in force: 6 x 3 + 8
    assert not orders, "27 is above 26"
    (order,) = ledger.event(7 * 24 + 2, "sale", 1)
    assert (order["reorder_point"], order["order_up_to"]) == (26, 56)
    assert "at or below the reorder point 26" in order["explanation"]
    assert order["explanation"].endswith(
        "; the forecast is 7 days old and was replaced by the fixed rule: 6.0 units a day"
    )
    # and it was told once
    ledger.event(8 * 24, "sale", 40, sku="p-2")
    (alert,) = ledger.alerts
    assert (alert.kind, alert.subject, alert.severity) == ("forecast_replaced", "f-1", "critical")
    assert "jobs/nightly.py" in alert.message
    # and a restart tells it under the same id
    again = Ledger(ledger.tables)
    again.sequence = ledger.sequence
    again.engine._sequence = ledger.sequence
    again.event(8 * 24 + 1, "sale", 1)
    assert [found.alert_id for found in again.alerts] == [alert.alert_id]
    # and the flag of what has run out shows the age
    assert json.loads(ledger.flags[-1][1])["forecast_age_hours"] == 192


def test_a_new_forecast_ends_the_fixed_rule(ledger):
    ledger.event(0, "count", 40)
    ledger.event(8 * 24, "sale", 1)
    plant_policies(ledger.tables, SERIES, version="p-2", as_of=AS_OF + timedelta(days=7), reorder_point=10)
    orders = ledger.event(8 * 24 + 1, "sale", 14)
    assert not orders, "25 is above the new 10"
    (order,) = ledger.event(8 * 24 + 2, "sale", 15)
    assert order["policy_version"] == "p-2"
    assert order["reorder_point"] == 10


def test_the_fixed_rule_keeps_mean_and_variance_of_the_whole_horizon(tables):
    plant_policies(tables, SERIES, as_of=AS_OF)
    policy = PolicyBook.load(tables, "p-1").get(SERIES[0])
    fixed = fixed_rule(policy)
    days = len(policy.cumulative_mean)
    assert fixed.cumulative_mean[-1] == pytest.approx(policy.cumulative_mean[-1])
    assert fixed.cumulative_std[-1] == pytest.approx(policy.cumulative_std[-1])
    one, other = (
        demand_between(fixed.cumulative_mean, fixed.cumulative_std, day, day + 1.0) for day in (0.0, days + 3.0)
    )
    assert one == pytest.approx(other), "every day is like every other, beyond the horizon too"
    assert fixed_rule(fixed).reorder_point == fixed.reorder_point


def test_policies_replaced_and_deleted_meanwhile_are_read_whole_or_not_at_all(ledger):
    # given a stage that decides by one version
    ledger.event(0, "count", 100)
    ledger.event(0, "count", 100, sku="p-2")
    # when half of another version is written, which is not in force yet, and the first one's rows are deleted
    other = Tables(ledger.settings)
    half = [{**row, "policy_version": "p-2", "reorder_point": 90} for row in other.read(INVENTORY_POLICIES).to_pylist()]
    other.append(INVENTORY_POLICIES, pa.Table.from_pylist(half[:1], schema=INVENTORY_POLICIES.schema))
    other.delete(INVENTORY_POLICIES, "policy_version = 'p-1'")
    # then it decides on by the version that it has read, whole
    orders = ledger.event(1, "sale", 15)
    assert not orders, "85 is above 20"
    (order,) = ledger.event(2, "sale", 70)
    assert (order["policy_version"], order["reorder_point"]) == ("p-1", 20)
    # and by the new one for every series as soon as that is complete and in force
    plant_policies(other, SERIES, version="p-3", as_of=AS_OF, reorder_point=90, order_up_to=120)
    orders = {order["sku"]: order for order in ledger.event(3, "sale", 11, sku="p-2")}
    assert (orders["p-2"]["policy_version"], orders["p-2"]["forecast_version"]) == ("p-3", "f-1")
