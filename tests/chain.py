"""A small seeded stream of events with faults, and planted policies, for tests of the live side."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
from confluent_kafka import Producer

from pipelines.contracts.tables import INVENTORY_POLICIES, LOCATIONS, PRODUCTS
from pipelines.io.delta import Tables
from pipelines.io.published import POLICIES, Published, publish

KINDS = ("sale",) * 12 + ("return", "receipt", "adjustment", "count")


@dataclass
class Events:
    """Seeded events for some series: valid ones, exact duplicates, late ones and bad ones."""

    seed: int
    series: int = 40
    duplicates: float = 0.05
    late: float = 0.03
    bad: float = 0.01
    valid_ids: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._number = 0
        self._held: list[tuple[str, str, bytes]] = []
        self._time = datetime.now(UTC) - timedelta(minutes=30)

    def series_of(self, number: int) -> tuple[str, str]:
        return f"store-{number % 5}", f"item-{number // 5}"

    def take(self, count: int) -> list[tuple[str, str, bytes]]:
        """The next messages: (topic, key, value)."""
        messages: list[tuple[str, str, bytes]] = []
        while len(messages) < count:
            message = self._bad() if self._chance.random() < self.bad else self._valid()
            if self._chance.random() < self.late:
                self._held.append(message)
                continue
            messages.append(message)
            if self._chance.random() < self.duplicates:
                messages.append(message)
            if self._held and self._chance.random() < 0.05:
                messages.append(self._held.pop(0))
        messages += self._held
        self._held.clear()
        return messages

    def _valid(self) -> tuple[str, str, bytes]:
        self._number += 1
        self._time += timedelta(milliseconds=self._chance.randrange(1, 40))
        location_id, sku = self.series_of(self._chance.randrange(self.series))
        kind = self._chance.choice(KINDS)
        quantity = {"count": 40, "adjustment": self._chance.choice((-2, 1))}.get(kind, self._chance.randrange(1, 4))
        event = {
            "event_id": f"e{self.seed}-{self._number}",
            "event_time": self._time.isoformat().replace("+00:00", "Z"),
            "location_id": location_id,
            "sku": sku,
            "kind": kind,
            "quantity": quantity,
        }
        self.valid_ids.add(event["event_id"])
        topic = "pos.sales" if kind in {"sale", "return"} else "inventory.movements"
        return topic, f"{location_id}|{sku}", json.dumps(event).encode()

    def _bad(self) -> tuple[str, str, bytes]:
        self._number += 1
        event = {"event_id": f"bad{self.seed}-{self._number}", "event_time": "2026-01-01", "sku": "item-0"}
        return "pos.sales", "store-0|item-0", self._chance.choice((b"{", b"", json.dumps(event).encode(), b"[1]"))


def send(bootstrap: str, messages: list[tuple[str, str, bytes]]) -> None:
    """Produce, and make sure that the broker acknowledged each."""
    producer, failures = Producer({"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True}), []
    for topic, key, value in messages:
        producer.produce(topic, value, key=key, on_delivery=lambda error, _: failures.append(error) if error else None)
        producer.poll(0)
    producer.flush()
    assert not failures


def plant_catalog(tables: Tables, series: list[tuple[str, str]]) -> None:
    """A catalog that knows the series."""
    skus, places = sorted({sku for _, sku in series}), sorted({place for place, _ in series})
    tables.overwrite(PRODUCTS, _rows(PRODUCTS, [{"sku": sku, "name": sku, "category": "c"} for sku in skus]))
    rows = [{"location_id": place, "kind": "store", "region": "north", "timezone": "UTC"} for place in places]
    tables.overwrite(LOCATIONS, _rows(LOCATIONS, rows))


def plant_policies(
    tables: Tables, series: list[tuple[str, str]], version: str = "p-1", as_of: date | None = None, **levels: int
) -> None:
    """Policies for the series, in force from the day after `as_of` (default: two days ago) on."""
    now = datetime.now(UTC)
    as_of = as_of or (now - timedelta(days=2)).date()
    rows = [
        {
            "location_id": location_id,
            "sku": sku,
            "policy_version": version,
            "forecast_version": "f-1",
            "reorder_point": levels.get("reorder_point", 20),
            "order_up_to": levels.get("order_up_to", 50),
            "safety_stock": 8.0,
            "lead_time_days": 2.0,
            "lead_time_std_days": 0.5,
            "review_days": 1.0,
            "service_level": 0.95,
            "method": "order_up_to",
            "binding_constraint": "service_level",
            "supplier_id": "sup-1",
            "pack_size": levels.get("pack_size", 6),
            "minimum_order": 1,
            "unit_cost": 1.0,
            "unit_price": 2.0,
            "as_of": as_of,
            "cumulative_mean": [6.0 * day for day in range(1, 29)],
            "cumulative_std": [3.0 * day**0.5 for day in range(1, 29)],
            "created_at": now,
        }
        for location_id, sku in series
    ]
    tables.append(INVENTORY_POLICIES, _rows(INVENTORY_POLICIES, rows))
    publish(tables, Published(POLICIES, version, as_of, None, now))


def _rows(table, rows):
    return pa.Table.from_pylist(rows, schema=table.schema)
