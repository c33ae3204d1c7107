"""Thousands of shipments late at once: people hear of all of them, and other ways come in turn, the dearest first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from pipelines.contracts.tables import (
    INGEST_BATCHES,
    INVENTORY_POSITIONS,
    LOCATIONS,
    ORDERS,
    REROUTES,
    SHIPMENT_EVENTS,
)
from pipelines.operations.settings import RoutingSettings
from pipelines.shipments.consequences import Consequences
from pipelines.shipments.routing.offering import Router
from pipelines.shipments.tracker import ShipmentTracker
from tests.chain import plant_policies

NOW = datetime(2024, 6, 3, 9, tzinfo=UTC)
PROMISED = NOW + timedelta(days=1)
STORES, LATE, AT_ONCE = 40, 2000, 300


def put(tables, table, rows):
    tables.append(table, pa.Table.from_pylist(rows, schema=table.schema))


class Follower:
    """A tracker on a home, from a start to its end."""

    def __init__(self, tables, settings):
        self.alerts, self.tables, self._hears = [], tables, True
        routing = RoutingSettings(thought_at_once=AT_ONCE, expedite_surcharge=1.0, fixed_costs={"road": 0.5})
        settings = settings.model_copy(update={"routing": routing})
        self.consequences = Consequences(tables, settings.shipments, list, self._hear, Router(tables, settings))
        self.tracker = ShipmentTracker(tables, settings.shipments, lambda: NOW, tell=self.consequences)
        self.tracker.resume()

    def _hear(self, alerts):
        if not self._hears and alerts:
            raise ConnectionError("the broker is away")
        self.alerts += alerts

    def look(self):
        self.tracker.catch_up()
        self.tracker.save()

    def go_on(self, minutes=1):
        self.consequences.go_on(NOW + timedelta(minutes=minutes))

    def owing(self):
        return self.consequences.owing(NOW)

    def lose_the_broker(self):
        self._hears = False

    def said(self, kind):
        return {alert.subject: alert for alert in self.alerts if alert.kind == kind}

    def offered(self):
        """Shipments with offers, as another process reads them."""
        return set(self.tables.read(REROUTES, ("shipment_id",))["shipment_id"].to_pylist())


@pytest.fixture
def follower(tables, settings):
    """Goods for forty stores, held up at the hub by one to nine days, 2,000 shipments at once."""
    places = [("hub", 50.0), *((f"s-{number}", 51.0 + number / 40) for number in range(STORES))]
    common = {"kind": "store", "region": "north", "timezone": "UTC", "longitude": 8.0}
    put(tables, LOCATIONS, [{"location_id": name, "latitude": latitude, **common} for name, latitude in places])
    series = [(f"s-{number}", "tea") for number in range(STORES)]
    plant_policies(tables, series, as_of=NOW.date() - timedelta(days=1))
    put(tables, INVENTORY_POSITIONS, [
        {"location_id": place, "sku": sku, "on_hand": 10, "sequence": 1} for place, sku in series
    ])  # fmt: skip
    made = Follower(tables, settings)
    hold_up(tables, range(LATE))
    return made


def hold_up(tables, numbers, place: int = 1, node: str = "hub") -> None:
    """On the way in time, then held up by 24 hours and more, no two of one store by the same time."""
    events, orders = [], []
    for number in numbers:
        store, order_id, late = f"s-{number % STORES}", f"o-{number}", timedelta(hours=24 + number // STORES * 4)
        orders.append({"order_id": order_id, "location_id": store, "sku": "tea", "quantity": 40, "state": "sent"})
        for step, (status, eta) in enumerate((("departed", PROMISED), ("exception", PROMISED + late))):
            events.append(
                {
                    **{"event_id": f"e-{place}-{number}-{step}", "shipment_id": f"h-{number:04d}", "supplier_id": "u"},
                    **{"event_time": NOW - timedelta(hours=6 - step) + timedelta(minutes=place), "carrier_id": "slow"},
                    **{"origin": "u", "destination": store, "node": node, "status": status, "order_id": order_id},
                    **{"sku": "tea", "quantity": 40, "eta": eta, "mode": "road", "sequence": place},
                }
            )
    put(tables, ORDERS, orders)
    put(tables, SHIPMENT_EVENTS, events)
    put(tables, INGEST_BATCHES, [{"batch_id": place, "topic": "shipments.events", "last_sequence": place}])


def test_all_are_told_of_at_once_and_a_bounded_number_is_thought_of_the_dearest_first(follower):
    # when 2,000 become late in one look
    follower.look()
    # then all are told of, with what is at stake, and other ways are there for the dearest alone
    late = follower.said("late_shipment")
    assert len(late) == len(follower.alerts) == LATE
    first = follower.offered()
    assert len(first) == AT_ONCE
    assert first == {name for name, alert in late.items() if alert.details["alternatives"]}
    stakes = {name: alert.details["margin_at_risk"] for name, alert in late.items()}
    waiting = late.keys() - first
    assert min(stakes[name] for name in first) >= max(stakes[name] for name in waiting)
    for name in waiting:
        assert late[name].details["alternatives_to_come"]
        assert f"stockcast shipments show {name}" in late[name].message
    # when the tracker goes on, then as many come each time, in the same order, and at the end all have some
    before, rounds = first, 0
    follower.go_on()
    assert follower.offered() == first, "the save has just thought of as many as are allowed"
    while follower.owing():
        follower.go_on()
        new = follower.offered() - before
        rounds += bool(new)
        assert len(new) <= AT_ONCE
        rest = late.keys() - before - new
        assert not new or not rest or min(stakes[name] for name in new) >= max(stakes[name] for name in rest)
        before = before | new
        assert rounds < 20
    assert before == late.keys()
    assert rounds == -(-(LATE - AT_ONCE) // AT_ONCE)
    # and whoever had to wait for them has heard of them once
    ways = [alert for alert in follower.alerts if alert.kind == "late_shipment_ways"]
    assert sorted(alert.subject for alert in ways) == sorted(waiting)
    assert all(alert.details["alternatives"] for alert in ways)
    proposals = [alert.details["proposal"] for alert in ways if alert.details["proposal"]]
    assert len(proposals) > LATE / 4
    assert len({alert.alert_id for alert in follower.alerts}) == len(follower.alerts)


def test_what_was_owed_when_a_process_ended_is_thought_of_by_the_next(follower, tables, settings):
    # given a process that ends after its first save, and a second whose broker goes before it has told of its offers
    follower.look()
    first = follower.offered()
    second = Follower(tables, settings)
    second.lose_the_broker()
    with pytest.raises(ConnectionError):
        second.go_on()
    untold = follower.offered() - first
    assert len(untold) == AT_ONCE
    # when a third goes on, without any news of the shipments
    third = Follower(tables, settings)
    while third.owing():
        third.go_on(2)
    # then all have other ways, and all that had to wait are told, those that the second had thought of too
    assert len(third.offered()) == LATE
    ways = third.said("late_shipment_ways")
    assert ways.keys() == follower.said("late_shipment").keys() - first
    assert untold <= ways.keys()
    # and nothing is offered twice
    offers = tables.read(REROUTES, ("option_id",))["option_id"].to_pylist()
    assert len(set(offers)) == len(offers)


def test_what_is_no_longer_late_or_has_moved_on_is_thought_of_as_it_is_now(follower, tables):
    follower.look()
    late = follower.said("late_shipment")
    waiting = sorted(late.keys() - follower.offered())
    in_time, moved, ended = waiting[:3]
    # when of those that are owed one is in time after all, one has gone to another node, and one has come
    common = {"supplier_id": "u", "carrier_id": "slow", "mode": "road", "sku": "tea", "sequence": 2, "quantity": 40}
    told = ((in_time, "departed", PROMISED, "hub"), (moved, "arrived", None, "s-39"), (ended, "delivered", None, "s-1"))
    put(tables, SHIPMENT_EVENTS, [
        {**common, "event_id": f"n-{name}", "event_time": NOW - timedelta(hours=1), "shipment_id": name,
         "status": status, "eta": eta, "node": node}
        for name, status, eta, node in told
    ])  # fmt: skip
    put(tables, INGEST_BATCHES, [{"batch_id": 2, "topic": "shipments.events", "last_sequence": 2}])
    follower.look()
    while follower.owing():
        follower.go_on()
    # then the first and the last need no thought, and the other is helped from where it is
    assert late.keys() - follower.offered() == {in_time, ended}
    rows = tables.read(REROUTES, ("shipment_id", "node")).to_pylist()
    assert {row["node"] for row in rows if row["shipment_id"] == moved} == {"s-39"}
