"""A chain small enough to decide orders in a test of the dashboard: ingestion and restock, without Spark and Kafka."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count

import pyarrow as pa

from pipelines.contracts import topics
from pipelines.contracts.tables import BRONZE_EVENTS, PRODUCTS
from pipelines.ingestion.ingestor import Ingestor
from pipelines.io.delta import Tables
from pipelines.restocking.engine import RestockEngine
from pipelines.serving.access import APPROVE, READ, Access, Caller
from pipelines.serving.dashboard.app import make_dashboard
from pipelines.serving.dashboard.desks import LocalDesk
from pipelines.serving.dashboard.sessions import Session, Sessions
from pipelines.serving.server import order_desk
from tests.chain import plant_catalog, plant_policies

SCRIPT = "<script>document.title='taken over'</script>Tea & <b>more</b>"
SERIES = [("store-0", "item-0"), ("store-0", "item-1"), ("store-1", "item-0"), ("store-1", "item-1")]
READER, APPROVER = "reader-token-0123456789", "approver-token-0123456789"
ACCESS = Access([(READER, Caller("rita", READ)), (APPROVER, Caller("anna", APPROVE))])
OPEN = Access([])
ANNA, RITA = Session(Caller("anna", APPROVE), APPROVER), Session(Caller("rita", READ), READER)


def plant(tables: Tables, **levels: int) -> None:
    """Catalog and policies for the series; the first product's name is an attack."""
    plant_catalog(tables, SERIES)
    names = {"item-0": SCRIPT, "item-1": "Coffee"}
    rows = [
        {"sku": sku, "name": name, "category": "drinks", "unit_cost": 1.0, "unit_price": 2.0}
        for sku, name in names.items()
    ]
    tables.overwrite(PRODUCTS, pa.Table.from_pylist(rows, schema=PRODUCTS.schema))
    plant_policies(tables, SERIES, **levels)


class SmallChain:
    """Events in, decided orders out, in one thread. What the desk sends is taken in when it is asked for."""

    def __init__(self, settings, approval_value: float | None = 0.0) -> None:
        self.tables = Tables(settings)
        self.settings = settings
        self.sent: list[tuple[str, str]] = []
        self._numbers, self._batches, self._offsets = count(), count(), count()
        self._ingestor = Ingestor(self.tables, settings.ingest, "test", lambda: datetime.now(UTC))
        self._ingestor.resume(new_stream=True)
        self._engine = RestockEngine(
            self.tables, settings.restock, lambda flags: None, lambda: datetime.now(UTC), approval_value=approval_value
        )
        self._engine.resume()

    def count_stock(self, series: tuple[str, str], on_hand: int) -> None:
        """A count of a series' stock: below the reorder point an order is decided."""
        event = {
            "event_id": f"e-{next(self._numbers)}",
            "event_time": (datetime.now(UTC) - timedelta(seconds=1)).isoformat().replace("+00:00", "Z"),
            "location_id": series[0],
            "sku": series[1],
            "kind": "count",
            "quantity": on_hand,
        }
        self.take(topics.INVENTORY_MOVEMENTS, json.dumps(event).encode(), "|".join(series).encode())

    def take(self, topic: str, value: bytes | None, key: bytes = b"k", *, save: bool = True) -> None:
        """One record through ingestion and restock."""
        record = {
            "topic": topic,
            "partition": 0,
            "offset": next(self._offsets),
            "kafka_timestamp": datetime.now(UTC),
            "key": key,
            "value": value,
            "headers": None,
        }
        schema = pa.schema([field for field in BRONZE_EVENTS.schema if field.name != "ingested_at"])
        taken = self._ingestor.take_in(next(self._batches), pa.Table.from_pylist([record], schema=schema))
        self._engine.stage(taken)
        if save:
            self._engine.save()

    def take_decisions(self) -> None:
        """What the desk has sent, as Kafka would bring it."""
        waiting, self.sent = self.sent, []
        for key, value in waiting:
            self.take(topics.ORDER_STATUS, value.encode(), key.encode())

    def send(self, messages) -> None:
        """Instead of a producer."""
        self.sent += [(key, value.decode() if isinstance(value, bytes) else value) for key, value in messages]


@contextmanager
def running_dashboard(chain: SmallChain, access: Access = OPEN):
    """The dashboard over the chain's tables, with the order API's own desk."""
    with order_desk(chain.settings, None, chain.send) as desk:
        yield make_dashboard(chain.settings, LocalDesk(desk), Sessions(access))
