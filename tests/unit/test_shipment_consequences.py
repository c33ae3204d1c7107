"""A late shipment moves the plan: its orders hear of it, people are told what it costs and who could help."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from scipy.stats import nbinom

from pipelines.contracts.tables import (
    INGEST_BATCHES,
    INVENTORY_POSITIONS,
    ORDERS,
    SHIPMENT_EVENTS,
)
from pipelines.io.delta import Tables
from pipelines.operations.settings import ShipmentsSettings
from pipelines.shipments.consequences import Consequences
from pipelines.shipments.tracker import ShipmentTracker
from tests.chain import plant_policies

NOW = datetime(2024, 6, 3, 9, tzinfo=UTC)
PROMISED = NOW + timedelta(days=2)
SERIES = [("s-1", "tea"), ("s-2", "tea"), ("s-3", "tea")]


@pytest.fixture
def heard():
    return {"statuses": [], "alerts": []}


@pytest.fixture
def chain(tables: Tables) -> Tables:
    """One order under way to s-1, where ten are left of six a day; s-2 has far too many, s-3 just enough."""
    plant_policies(tables, SERIES, as_of=NOW.date() - timedelta(days=1))
    order = {"order_id": "o-1", "location_id": "s-1", "sku": "tea", "quantity": 40, "supplier_id": "u-1"}
    tables.append(ORDERS, pa.Table.from_pylist([{**order, "state": "sent"}], schema=ORDERS.schema))
    stock = zip(SERIES, (10, 200, 45), strict=True)
    rows = [{"location_id": place, "sku": sku, "on_hand": units, "sequence": 1} for (place, sku), units in stock]
    tables.append(INVENTORY_POSITIONS, pa.Table.from_pylist(rows, schema=INVENTORY_POSITIONS.schema))
    return tables


def tracker_of(tables, heard) -> ShipmentTracker:
    options = ShipmentsSettings(save_seconds=0)
    tell = Consequences(tables, options, heard["statuses"].extend, heard["alerts"].extend)
    tracker = ShipmentTracker(tables, options, lambda: NOW, tell=tell)
    tracker.resume()
    return tracker


def arrive(tables, place: int, status: str, eta: datetime, minutes: int = 0) -> None:
    """An event of the shipment that carries the order."""
    event = {
        **{"event_id": f"e-{place}", "event_time": NOW - timedelta(hours=5) + timedelta(hours=place, minutes=minutes)},
        **{"shipment_id": "h-1", "supplier_id": "u-1", "carrier_id": "c", "origin": "u-1", "destination": "s-1"},
        **{"node": "hub", "status": status, "order_id": "o-1", "sku": "tea", "eta": eta, "sequence": place},
    }
    tables.append(SHIPMENT_EVENTS, pa.Table.from_pylist([event], schema=SHIPMENT_EVENTS.schema))
    batch = {"batch_id": place, "topic": "shipments.events", "last_sequence": place}
    tables.append(INGEST_BATCHES, pa.Table.from_pylist([batch], schema=INGEST_BATCHES.schema))


def test_an_order_hears_of_its_arrival_once_and_again_when_it_moves(chain, heard):
    tracker = tracker_of(chain, heard)
    # given a shipment that is on its way in time
    arrive(chain, 1, "created", PROMISED)
    tracker.catch_up()
    tracker.save()
    assert [json.loads(value)["status"] for _, value in heard["statuses"]] == ["acknowledged"]
    # when its estimate moves by an hour, and a new tracker takes over, nobody is bothered
    arrive(chain, 2, "departed", PROMISED + timedelta(hours=1))
    tracker = tracker_of(chain, heard)
    tracker.catch_up()
    tracker.save()
    assert len(heard["statuses"]) == 1
    assert heard["alerts"] == []
    # when it moves by three days, then the order hears of it
    arrive(chain, 3, "exception", PROMISED + timedelta(days=3))
    tracker.catch_up()
    tracker.save()
    key, value = heard["statuses"][-1]
    event = json.loads(value)
    assert (key, event["order_id"], event["status"]) == ("o-1", "o-1", "shipped")
    assert datetime.fromisoformat(event["eta"]) == PROMISED + timedelta(days=3)
    assert len({json.loads(value)["event_id"] for _, value in heard["statuses"]}) == 2


def test_people_are_told_what_is_at_stake_and_who_could_help(chain, heard):
    tracker = tracker_of(chain, heard)
    arrive(chain, 1, "departed", PROMISED)
    arrive(chain, 2, "exception", PROMISED + timedelta(days=3))
    arrive(chain, 3, "exception", PROMISED + timedelta(days=4))
    tracker.catch_up()
    tracker.save()
    # then there is one alert, with the units and the margin that the delay costs
    assert len(heard["alerts"]) == 1
    alert = json.loads(heard["alerts"][0].encode())
    assert (alert["kind"], alert["severity"], alert["subject"]) == ("late_shipment", "critical", "h-1")
    expected = lost(10, 6, NOW, PROMISED + timedelta(days=4)) - lost(10, 6, NOW, PROMISED)
    assert alert["details"]["lost_units"] == pytest.approx(expected, rel=0.05)
    # a unit that costs 1 and sells for 2
    assert alert["details"]["margin_at_risk"] == pytest.approx(alert["details"]["lost_units"], abs=0.01)
    # and who could spare some: not s-3, which has less than its order-up-to level of 50
    assert alert["details"]["orders"][0]["spare"] == {"s-2": 150}
    assert "could spare: 150 at s-2" in alert["message"]
    assert alert["details"]["orders"][0]["command"].startswith("stockcast orders create --location s-1 --sku tea")
    # when the tracker is followed by another, its alert has the same id
    again = tracker_of(chain, heard)
    arrive(chain, 4, "departed", PROMISED + timedelta(days=4))
    again.catch_up()
    again.save()
    assert len({one.alert_id for one in heard["alerts"]}) == 1


def test_a_delay_that_costs_nothing_is_told_of_as_low(chain, heard):
    # given a shelf that lasts for a month
    row = {"location_id": "s-1", "sku": "tea", "on_hand": 200, "sequence": 2}
    chain.overwrite(INVENTORY_POSITIONS, pa.Table.from_pylist([row], schema=INVENTORY_POSITIONS.schema))
    tracker = tracker_of(chain, heard)
    arrive(chain, 1, "departed", PROMISED)
    arrive(chain, 2, "exception", PROMISED + timedelta(days=3))
    tracker.catch_up()
    tracker.save()
    (alert,) = heard["alerts"]
    assert (alert.severity, alert.details["lost_units"]) == ("low", 0.0)


def lost(on_hand: int, a_day: float, start: datetime, end: datetime) -> float:
    """E[(D - on hand)+] of a negative binomial with the plan's mean and, days independent but for the presumed tenth,
    its variance: by summing up."""
    days = (end - start) / timedelta(days=1)
    mean, variance = a_day * days, 9.0 * days
    table = nbinom(mean**2 / (variance - mean), mean / variance)
    return sum((units - on_hand) * table.pmf(units) for units in range(on_hand, 400))


def test_a_shipment_that_nobody_waits_for_or_that_has_come_tells_nobody(chain, heard):
    tracker = tracker_of(chain, heard)
    arrive(chain, 1, "departed", PROMISED - timedelta(days=9))
    arrive(chain, 2, "delivered", PROMISED)
    tracker.catch_up()
    tracker.save()
    assert heard == {"statuses": [], "alerts": []}


def test_a_late_shipment_with_an_order_that_was_placed_elsewhere_is_told_without_a_stake(tables, heard):
    # given a plan, but no order of ours
    plant_policies(tables, SERIES, as_of=NOW.date() - timedelta(days=1))
    tracker = tracker_of(tables, heard)
    arrive(tables, 1, "departed", PROMISED)
    arrive(tables, 2, "exception", PROMISED + timedelta(days=3))
    tracker.catch_up()
    tracker.save()
    assert [alert.details["orders"] for alert in heard["alerts"]] == [[]]
