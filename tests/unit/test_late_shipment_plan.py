"""From a shipment's event to a flag on the shelf: tracker, ledger and restock stage together, through real ingest."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import count

import pyarrow as pa

from pipelines.contracts.tables import BRONZE_EVENTS
from pipelines.ingestion.ingestor import Ingestor
from pipelines.operations.settings import ShipmentsSettings
from pipelines.restocking.engine import RestockEngine
from pipelines.shipments.consequences import Consequences
from pipelines.shipments.routing.offering import Router
from pipelines.shipments.routing.steering import Reroutes
from pipelines.shipments.tracker import ShipmentTracker
from tests.chain import plant_catalog, plant_policies

START = datetime(2024, 6, 3, 0, tzinfo=UTC)
SERIES = ("s-1", "tea")


class Chain:
    """All stages on one home, events handed from one to the next as Kafka would."""

    def __init__(self, tables, settings):
        self.tables, self.now, self.flags, self.alerts = tables, START, [], []
        self._offsets, self._batches, self._sent = count(), count(), []
        self._ingestor = Ingestor(tables, settings.ingest, "chain", lambda: self.now)
        self._ingestor.resume(new_stream=True)
        self.engine = RestockEngine(tables, settings.restock, self._flag, lambda: self.now)
        self.engine.resume()
        self._settings = settings
        self.track()

    def track(self):
        """A tracker that begins, or goes on where another ended."""
        options = ShipmentsSettings(save_seconds=0)
        router = Router(self.tables, self._settings)
        tell = Consequences(self.tables, options, self.tell_orders, self.alerts.extend, router)
        self._tracker = ShipmentTracker(self.tables, options, lambda: self.now, tell=tell, steer=Reroutes(self.tables))
        self._tracker.resume()

    def _flag(self, flags):
        self.flags += [json.loads(value) for _, value in flags]

    def tell_orders(self, messages):
        """Sent instead of to Kafka; taken in when something happens next."""
        self._sent += [("restock.order_status", key, value) for key, value in messages]

    def happens(self, topic, hours, **event):
        """An event, so many hours after the start, and all that follows from it."""
        self.now = START + timedelta(hours=hours)
        body = {"event_id": f"e-{hours}-{topic}", "event_time": self.now.isoformat(), **event}
        self.take_in([(topic, "k", json.dumps(body).encode())])

    def decided(self):
        """What people have decided meanwhile takes its way."""
        told, self._sent = self._sent, []
        self.take_in(told)

    def take_in(self, messages):
        rows = [
            {
                **{"topic": topic, "partition": 0, "offset": next(self._offsets), "kafka_timestamp": self.now},
                **{"key": key.encode(), "value": value, "headers": None},
            }
            for topic, key, value in messages
        ]
        schema = BRONZE_EVENTS.schema.remove(BRONZE_EVENTS.schema.get_field_index("ingested_at"))
        self._ingestor.take_in(next(self._batches), pa.Table.from_pylist(rows, schema=schema))
        self.engine.catch_up()
        self.engine.save()
        self._tracker.catch_up()
        self._tracker.save()
        if self._sent:
            told, self._sent = self._sent, []
            self.take_in(told)

    def order(self, series=SERIES):
        """The one order that a series has, as its position counts it."""
        return next(iter(self.engine._fold.positions[series].open_orders.items()))


def test_a_late_shipment_flags_the_series_before_its_shelf_is_empty(tables, settings):
    # given six sold a day, two days of lead time, and an order under way that comes in half a day
    plant_catalog(tables, [SERIES])
    plant_policies(tables, [SERIES], as_of=START.date() - timedelta(days=1))
    chain, series = Chain(tables, settings), {"location_id": "s-1", "sku": "tea"}
    chain.happens("inventory.movements", 0, kind="count", quantity=18, **series)
    order_id, order = chain.order()
    assert order.quantity == 36
    way = {
        "supplier_id": "u",
        "carrier_id": "c",
        "origin": "u",
        "destination": "s-1",
        "order_id": order_id,
        "sku": "tea",
    }
    due = START + timedelta(days=2)
    chain.happens("shipments.events", 2, shipment_id="h", node="u", status="departed", eta=due.isoformat(), **way)
    chain.happens("pos.sales", 36, kind="sale", quantity=8, **series)
    flags = len(chain.flags)
    # when the shipment is held up for four days
    late = (due + timedelta(days=4)).isoformat()
    chain.happens("shipments.events", 37, shipment_id="h", node="hub", status="exception", eta=late, **way)
    # then the order is expected when the shipment is, and the series is flagged while ten are still on the shelf
    assert chain.order()[1].expected_receipt == int((due + timedelta(days=4)).timestamp()) * 1_000_000
    assert len(chain.flags) == flags + 1
    flag = chain.flags[-1]
    assert (flag["location_id"], flag["sku"], flag["on_hand"]) == ("s-1", "tea", 10)
    assert flag["stockout_probability"] > 0.2
    # and people are told, with what it costs
    assert [alert.kind for alert in chain.alerts] == ["late_shipment"]
    assert chain.alerts[0].details["lost_units"] > 5
    # when the goods are sent another way and that is confirmed, then the order is expected earlier again
    sooner = (START + timedelta(hours=60)).isoformat()
    chain.happens("restock.order_status", 38, order_id=order_id, status="shipped", eta=sooner, actor="planner")
    assert chain.order()[1].expected_receipt == int((START + timedelta(hours=60)).timestamp()) * 1_000_000
