"""A late shipment over the real broker: proposed by the tracker's process, approved over HTTP, told to every order."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta

import httpx
import pyarrow as pa
from deltalake import DeltaTable

from pipelines.contracts import topics
from pipelines.contracts.tables import INGEST_BATCHES, INVENTORY_POSITIONS, LOCATIONS, ORDERS, SHIPMENT_EVENTS
from pipelines.io.delta import Tables
from pipelines.shipments.following import follow_shipments
from tests.chain import plant_catalog, plant_policies
from tests.kafka.test_order_api_process import TOKEN, api_process, take_in
from tests.reconciler import read_topics

PLACES = {"hub": (50.0, 8.0), "s-1": (50.2, 8.0)}


def plant(tables, now):
    """Two orders of a shipment that is held up at a hub, twenty kilometres from where they are waited for."""
    series = [("s-1", "tea"), ("s-1", "mate")]
    plant_catalog(tables, series)
    rows = [
        {"location_id": name, "kind": "store", "region": "north", "timezone": "UTC", "latitude": lat, "longitude": lon}
        for name, (lat, lon) in PLACES.items()
    ]
    tables.overwrite(LOCATIONS, pa.Table.from_pylist(rows, schema=LOCATIONS.schema))
    plant_policies(tables, series, as_of=now.date() - timedelta(days=1))
    events = []
    for number, (place, sku) in enumerate(series):
        order_id = f"rr-o-{number}"
        order = {"order_id": order_id, "state": "sent", "location_id": place, "sku": sku, "quantity": 200}
        tables.append(ORDERS, pa.Table.from_pylist([order], schema=ORDERS.schema))
        stock = {"location_id": place, "sku": sku, "on_hand": 6, "sequence": 1}
        tables.append(INVENTORY_POSITIONS, pa.Table.from_pylist([stock], schema=INVENTORY_POSITIONS.schema))
        for step, (status, eta) in enumerate((("departed", 1), ("exception", 60))):
            events.append(
                {
                    **{"event_id": f"{number}-{step}", "event_time": now - timedelta(hours=3 - step)},
                    **{"shipment_id": "rr-h", "supplier_id": "u", "carrier_id": "slow", "mode": "road", "node": "hub"},
                    **{"origin": "u", "destination": "s-1", "status": status, "order_id": order_id, "sku": sku},
                    **{"quantity": 200, "eta": now + timedelta(days=eta), "sequence": 2 * number + step + 1},
                }
            )
    tables.append(SHIPMENT_EVENTS, pa.Table.from_pylist(events, schema=SHIPMENT_EVENTS.schema))
    batch = {"batch_id": 0, "topic": topics.SHIPMENT_EVENTS, "last_sequence": len(events), "end_offsets": "{}"}
    tables.append(INGEST_BATCHES, pa.Table.from_pylist([batch], schema=INGEST_BATCHES.schema))


def heard(settings, topic, key):
    records = read_topics(settings.kafka.bootstrap_servers, topic)
    return [record for record in records if record.key.startswith(key)]


def test_what_is_proposed_on_kafka_and_approved_over_http_reaches_every_order_on_board(broker, tmp_path):
    settings = broker.model_copy(update={"home": str(tmp_path / "home")})
    tables, now = Tables(settings), datetime.now(UTC)
    plant(tables, now)
    # given a tracker that has proposed another way on `alerts`
    assert follow_shipments(settings, Tables(settings), threading.Event(), once=True) == 2
    (record,) = heard(settings, topics.ALERTS, b"rr-h")
    details = json.loads(record.value)["details"]
    best = details["alternatives"][0]
    assert (details["proposal"], best["kind"]) == (best["option"], "expedite")
    # when a person approves it at the order API
    with api_process(settings) as (_, address):
        headers = {"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": "rr-1"}
        body = {"option": best["option"], "reason": "the fair is on"}
        answer = httpx.post(f"{address}/v1/shipments/rr-h/reroute", json=body, headers=headers)
        assert answer.status_code == 202, answer.text
        while httpx.get(f"{address}/health").json()["unsent_decisions"]:
            time.sleep(0.05)
    # then it is one event on Kafka; taken in, the tracker enters it and tells the other order as well
    (decided,) = [one for one in heard(settings, topics.ORDER_STATUS, b"rr-o") if b"the fair" in one.value]
    take_in(settings, [decided])
    assert follow_shipments(settings, Tables(settings), threading.Event(), once=True) == 2
    (shipment,) = DeltaTable(f"{settings.home}/tables/gold/shipments").to_pyarrow_table().to_pylist()
    assert shipment["reroute"] == best["option"]
    assert shipment["expected_arrival"] < now + timedelta(days=1)
    etas = {}
    for one in heard(settings, topics.ORDER_STATUS, b"rr-o"):
        event = json.loads(one.value)
        etas.setdefault(event["order_id"], []).append((event["event_time"], event["eta"]))
    newest = {max(told)[1] for told in etas.values()}
    assert set(etas) == {"rr-o-0", "rr-o-1"}
    assert newest == {answer.json()["eta"]}
