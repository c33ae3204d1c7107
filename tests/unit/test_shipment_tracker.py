"""`gold/shipments` is what the set of events comes to, however they were cut into batches and whoever died."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from deltalake import DeltaTable

from pipelines.contracts.tables import INGEST_BATCHES, SHIPMENT_EVENTS
from pipelines.operations.settings import ShipmentsSettings
from pipelines.shipments.tracker import ShipmentTracker
from pipelines.shipments.tracking import Event, fold

START = datetime(2024, 3, 1, tzinfo=UTC)
WAY = ("created", "picked_up", "departed", "arrived", "customs", "departed", "arrived", "out_for_delivery", "delivered")
COMPARED = ("state", "node", "since", "promised", "eta", "delivered", "destination")


def shipment_events(number: int, chance: random.Random) -> list[dict]:
    """A way from supplier to store, some of its events repeated, some lost, some never reached."""
    steps = WAY[: chance.randint(1, len(WAY))]
    events = []
    for step, status in enumerate(steps):
        if chance.random() < 0.1:
            continue
        at = START + timedelta(hours=number % 7 + 5 * step)
        events.append(
            {
                "event_id": f"s{number}-{step}",
                "event_time": at,
                "shipment_id": f"shipment-{number}",
                "supplier_id": f"supplier-{number % 3}",
                "carrier_id": "carrier",
                "origin": "plant",
                "destination": f"store-{number % 4}",
                "node": "plant" if step < 2 else f"hub-{step}",
                "status": status,
                "order_id": f"order-{number}",
                "eta": START + timedelta(hours=60 + step) if step % 2 == 0 else None,
            }
        )
    return events


def stream(seed: int, shipments: int) -> list[dict]:
    """All events, out of order, each with its place."""
    chance = random.Random(seed)
    events = [event for number in range(shipments) for event in shipment_events(number, chance)]
    events.sort(key=lambda event: event["event_time"] + timedelta(hours=chance.uniform(0, 12)))
    return [{**event, "sequence": place} for place, event in enumerate(events, start=1)]


def take_in(tables, events: list[dict]) -> None:
    """One finished ingest batch."""
    tables.append(SHIPMENT_EVENTS, pa.Table.from_pylist(events, schema=SHIPMENT_EVENTS.schema))
    row = {"batch_id": 0, "topic": "shipments.events", "last_sequence": events[-1]["sequence"]}
    tables.append(INGEST_BATCHES, pa.Table.from_pylist([row], schema=INGEST_BATCHES.schema))


def read(tables_folder) -> dict[str, dict]:
    """The table as an outsider reads it."""
    rows = DeltaTable(f"{tables_folder}/tables/gold/shipments").to_pyarrow_table().to_pylist()
    assert len(rows) == len({row["shipment_id"] for row in rows})
    return {row["shipment_id"]: row for row in rows}


def test_the_table_follows_the_events_through_restarts_without_saving(tables, settings):
    # given a stream of events out of order, in batches of all sizes
    chance, events = random.Random(4), stream(4, 60)
    options = ShipmentsSettings(save_seconds=0, catch_up_rows=1000)
    tracker = ShipmentTracker(tables, options)
    tracker.resume()
    left = list(events)
    while left:
        size = chance.randint(1, 40)
        take_in(tables, left[:size])
        del left[:size]
        tracker.catch_up()
        if chance.random() < 0.3:
            # when a tracker dies and another goes on from the table
            tracker = ShipmentTracker(tables, options)
            tracker.resume()
    tracker.catch_up()
    tracker.save()
    # then every shipment is what its events come to
    told = defaultdict(list)
    for event in events:
        known = {name: value for name, value in event.items() if name not in ("shipment_id", "sequence")}
        told[event["shipment_id"]].append(Event(**known))
    found = read(settings.home)
    assert set(found) == set(told)
    for name, story in told.items():
        expected = fold(story)
        assert {column: found[name][column] for column in COMPARED} == {
            column: getattr(expected, column) for column in COMPARED
        }
        assert [one["event_id"] for one in found[name]["set_aside"]] == [one.event_id for one in expected.set_aside]
        assert found[name]["events"] == len(story)


def test_a_late_event_reopens_the_story_of_a_shipment_that_has_ended(tables, settings):
    # given a shipment that was called off, as far as is known, and a tracker that has forgotten its events
    base = shipment_events(1, random.Random(0))[0] | {"node": "plant", "status": "created", "event_id": "a"}
    called_off = {**base, "event_id": "c", "status": "cancelled", "event_time": START + timedelta(hours=30)}
    take_in(tables, [{**base, "sequence": 1}, {**called_off, "sequence": 2}])
    tracker = ShipmentTracker(tables, ShipmentsSettings())
    tracker.resume()
    tracker.catch_up()
    tracker.save()
    assert read(settings.home)["shipment-1"]["state"] == "cancelled"
    # when the news of its delivery, a day before that, comes late
    delivered = {**base, "event_id": "b", "status": "delivered", "event_time": START + timedelta(hours=9)}
    departed = {**base, "event_id": "d", "status": "departed", "event_time": START + timedelta(hours=8)}
    take_in(tables, [{**delivered, "sequence": 3}, {**departed, "sequence": 4}])
    tracker.catch_up()
    tracker.save()
    # then it was delivered, and calling it off is what could not be
    row = read(settings.home)["shipment-1"]
    assert (row["state"], row["delivered"]) == ("delivered", START + timedelta(hours=9))
    assert row["set_aside"] == [{"event_id": "c", "reason": "cancelled cannot follow delivered"}]
