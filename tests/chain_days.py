"""A simulated chain, day by day, through the real ingest, plan and restock stages: real tables, no Spark, no broker.

Its suppliers cancel, postpone, deliver less, deliver in parts and come late; its people reject proposals, cut them,
and leave some lying; its stores now and then get far too much, which others may have. What each order meets with
follows from its id.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
from scipy import stats

from pipelines.contracts.tables import (
    BRONZE_EVENTS,
    FORECASTS,
    INGEST_BATCHES,
    ORDER_OUTBOX,
    ORDER_PROPOSALS,
    ORDER_STATUS,
    QUANTILE_COLUMNS,
    QUANTILES,
    SHIPMENT_EVENTS,
    STOCK_MOVEMENTS,
)
from pipelines.ingestion.catalog import load_catalog
from pipelines.ingestion.ingestor import Ingestor
from pipelines.inventory.planning import plan
from pipelines.io import published
from pipelines.io.delta import Tables
from pipelines.operations.settings import Settings
from pipelines.restocking.engine import RestockEngine
from pipelines.restocking.expiry import Expiry
from pipelines.simulation.chain import write_catalog
from pipelines.simulation.demand import expected_demand
from pipelines.simulation.messages import Message, time_text
from pipelines.simulation.plan import HOUR_MS, NO_FAULTS, Plan
from pipelines.simulation.stock import Arrival, Movement
from pipelines.simulation.world import Order, World

CUTOFF = date(2026, 3, 1)
STEP_HOURS, HISTORY_DAYS, HORIZON = 12, 21, 28
KEPT = (BRONZE_EVENTS, STOCK_MOVEMENTS, ORDER_STATUS, SHIPMENT_EVENTS, INGEST_BATCHES, ORDER_OUTBOX, ORDER_PROPOSALS)
SURPLUS = {3: 250, 17: 300, 33: 250}
"""On these days a store gets so many units of something that it did not order."""


def fate(order_id: str, kinds: int) -> int:
    return int.from_bytes(hashlib.sha256(order_id.encode()).digest()[:4], "big") % kinds


class ChainDays:
    """The chain and Stockcast, side by side."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.tables = settings, Tables(settings)
        chosen = Plan(cutoff=CUTOFF, seed=11, stores=6, products=4, days=HISTORY_DAYS, low_stock=0, faults=NO_FAULTS)
        write_catalog(folder, chosen)
        load_catalog(settings, self.tables, folder)
        self.world = World(chosen)
        self.world.advance(24 * HISTORY_DAYS)
        self.met: Counter[str] = Counter()
        self._offsets: Counter[str] = Counter()
        self._batch = self._number = 0
        self._handled: set[str] = set()
        self._decided_by_people: set[str] = set()
        self._ingestor = Ingestor(self.tables, settings.ingest, "days", lambda: self.now)
        self._ingestor.resume(new_stream=True)
        restock = settings.restock.model_copy(update={"snapshot_seconds": 1e9})
        self.engine = RestockEngine(
            self.tables, restock, lambda flags: None, lambda: self.now, approval_value=settings.orders.approval_value
        )
        self.engine.resume()
        self._expiry = Expiry(self.tables, settings.orders.expiry_hours, self._expire)
        self._locations = {store.location_id for store in self.world.chain.stores}

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.world.now_ms / 1000, UTC)

    def run(self, days: int) -> None:
        self._take_in()
        for day in range(days):
            self._night(CUTOFF + timedelta(days=day - 1))
            if day in SURPLUS:
                self._surplus(day)
            for _ in range(24 // STEP_HOURS):
                self._answer_orders()
                self.world.advance(STEP_HOURS)
                self._take_in()
        self.engine.save()

    def _night(self, as_of: date) -> None:
        self.engine.save()
        if as_of.day % 10 == 0:  # as its keepers would: every commit is a small file
            for kept in KEPT:
                self.tables.handle(kept).optimize.compact()
        self._expiry.expire(self.now)
        version = f"f-{as_of:%Y%m%d}"
        first = self.world.hour
        daily = expected_demand(self.world.model, first, 24 * HORIZON).reshape(HORIZON, 24, -1).sum(axis=1)
        deviation = np.sqrt(1.3 * daily)
        columns: dict[str, object] = {"location_id": [], "sku": [], "target_time": []}
        for number in range(self.world.chain.size):
            columns["location_id"] += [self.world.chain.store(number).location_id] * HORIZON
            columns["sku"] += [self.world.chain.product(number).sku] * HORIZON
            columns["target_time"] += [self.now + timedelta(days=day) for day in range(HORIZON)]
        flat, spread = daily.T.ravel(), deviation.T.ravel()
        columns["yhat"] = flat
        for name, probability in zip(QUANTILE_COLUMNS, QUANTILES, strict=True):
            columns[name] = np.maximum(flat + stats.norm.ppf(probability) * spread, 0.0)
        size = len(flat)
        columns |= {"grain": ["day"] * size, "forecast_version": [version] * size, "model": ["true"] * size}
        columns |= {"created_at": [self.now] * size}
        table = pa.table(columns).select(FORECASTS.schema.names).cast(FORECASTS.schema)
        self.tables.overwrite(FORECASTS, table)
        published.publish(self.tables, published.Published(published.FORECASTS, version, as_of, None, self.now))
        plan(None, self.settings, self.tables, as_of, self.now)
        self.engine.tick()

    def _take_in(self) -> None:
        rows = []
        for message in self.world.outbox.until(self.world.now_ms):
            rows.append(
                {"topic": message.topic, "partition": 0, "offset": self._offsets[message.topic],
                 "kafka_timestamp": self.now, "key": message.key, "value": message.value, "headers": None}
            )  # fmt: skip
            self._offsets[message.topic] += 1
        schema = pa.schema([BRONZE_EVENTS.schema.field(name) for name in rows[0]])
        self.engine.stage(self._ingestor.take_in(self._batch, pa.Table.from_pylist(rows, schema=schema)))
        self._batch += 1

    # What becomes of orders. -------------------------------------------------------------------------------------

    def _answer_orders(self) -> None:
        for payload in self.tables.read(ORDER_PROPOSALS, ("payload",))["payload"].to_pylist():
            order = json.loads(payload)
            if order["order_id"] not in self._decided_by_people:
                self._decided_by_people.add(order["order_id"])
                self._decide(order)
        for payload in self.tables.read(ORDER_OUTBOX, ("payload",))["payload"].to_pylist():
            order = json.loads(payload)
            if order["order_id"] not in self._handled:
                self._handled.add(order["order_id"])
                self._carry_out(order)

    def _decide(self, order: dict) -> None:
        kind = ("rejected", "expires", "cut", "approved", "approved")[fate(order["order_id"], 5)]
        self.met[kind] += 1
        if kind == "cut":
            self._status(order, "approved", 2, quantity=max(1, order["quantity"] * 2 // 3), actor="ann", reason="less")
        elif kind != "expires":
            self._status(order, kind, 2, actor="ann")

    def _carry_out(self, order: dict) -> None:
        series = self.world.series_of(order["location_id"], order["sku"])
        quantity, order_id = order["quantity"], order["order_id"]
        if order["supplier_id"] in self._locations:
            self.met["transferred"] += 1
            self._hand_over(order, series)
            return
        kind = ("cancelled", "postponed", "confirmed less", "in parts", "late", "", "", "", "")[fate(order_id, 9)]
        self.met[kind or "as asked"] += 1
        if kind == "cancelled":
            self._status(order, "cancelled", 5)
        elif kind == "postponed":
            eta = self.now + timedelta(days=5)
            self._status(order, "acknowledged", 1, eta=eta.isoformat(), quantity=quantity)
            self._arrive(order_id, series, quantity, 5 * 24)
        elif kind == "confirmed less":
            less = max(1, quantity // 2)
            self._status(order, "acknowledged", 1, quantity=less)
            self._arrive(order_id, series, less, 30)
        elif kind == "in parts":
            self._arrive(order_id, series, quantity // 2, 20)
            self._arrive(order_id, series, quantity - quantity // 2, 90)
        elif kind == "late":
            self._arrive(order_id, series, quantity, 8 * 24)
        else:
            self.world.accept(Order(order_id, series, quantity), self.world.now_ms + 60_000)

    def _hand_over(self, order: dict, series: int) -> None:
        """The source books it out at once, the target in most of a day later."""
        source, stock = self.world.series_of(order["supplier_id"], order["sku"]), self.world.stock
        assert stock.physical[source] >= order["quantity"], f"{order['supplier_id']} does not have what was promised"
        stock.physical[source] -= order["quantity"]
        stock.book[source] -= order["quantity"]
        out = Movement(source, "transfer_out", order["quantity"], self.world.now_ms + 30_000, int(stock.book[source]))
        self.world.outbox.push(self.world.scribe.movements([out]))
        self._arrive(order["order_id"], series, order["quantity"], 18)

    def _surplus(self, day: int) -> None:
        products = len(self.world.chain.products)
        for product in range(products):
            store = (day + product) % len(self.world.chain.stores)
            self._arrive(f"surplus-{day}-{product}", store * products + product, SURPLUS[day], 6)

    def _arrive(self, order_id: str, series: int, quantity: int, hours: int) -> None:
        if quantity > 0:
            heapq.heappush(self.world.stock.arrivals, Arrival(self.world.hour + hours, order_id, series, quantity))

    def _status(self, order: dict, status: str, hours: int, **extra: object) -> None:
        self._number += 1
        at = self.world.now_ms + hours * HOUR_MS + self._number
        event = {
            "event_id": f"st-{self._number}",
            "event_time": time_text(at),
            "order_id": order["order_id"],
            "status": status,
            "actor": "supplier",
            **extra,
        }
        self._push(order["order_id"], at, orjson.dumps(event))

    def _expire(self, events) -> None:
        for order_id, event in events:
            self.met["expired"] += 1
            self._push(order_id, self.world.now_ms + 1, event)

    def _push(self, order_id: str, at: int, value: bytes) -> None:
        self.world.outbox.push([Message(at, at, "restock.order_status", order_id.encode(), value)])
