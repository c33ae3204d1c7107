"""A seeded stream of what tills and stock rooms send, with duplicates, disorder and faults; no pipeline code."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

KINDS = ("sale",) * 14 + ("return", "adjustment")
SHIPMENT_STEPS = ("created", "picked_up", "departed", "arrived", "delivered")

VALID, BAD, CONFLICT, TOMBSTONE = "valid", "bad", "conflict", "tombstone"


@dataclass(frozen=True)
class Message:
    """A record to send, and what should become of it: `event_id` of the event that it is or contradicts."""

    topic: str
    key: str
    value: bytes | None
    verdict: str
    event_id: str | None = None


@dataclass
class Stream:
    """An endless stream of messages about some series.

    Args:
        seed: the same seed and start give the same messages.
        start: event time of the first.
        mark: begins the event ids; differs from one run of the generator to the next.
        duplicates, late, bad: shares of the messages.
    """

    seed: int
    start: datetime
    mark: str
    series: int = 200
    duplicates: float = 0.05
    late: float = 0.03
    bad: float = 0.01
    _held: list[Message] = field(default_factory=list)
    _sent: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._chance = random.Random(f"{self.seed}-{self.mark}")
        self._number = 0
        self.now = self.start

    def take(self, count: int) -> list[Message]:
        """The next messages, about so many; whatever was held back for disorder comes by the end of the next take."""
        held, self._held = self._held, []
        messages: list[Message] = []
        while len(messages) < count:
            message = self._next()
            if self._chance.random() < self.late:
                self._held.append(message)
                continue
            messages.append(message)
            if self._chance.random() < self.duplicates:
                messages.insert(self._chance.randrange(max(0, len(messages) - 20), len(messages)) + 1, message)
        for message in held:
            messages.insert(self._chance.randrange(len(messages)), message)
        self._sent = [message for message in messages if message.verdict == VALID][-200:]
        return messages

    def receipt(self, order: dict[str, object], part: int, quantity: int) -> Message:
        """Goods that come in for an order; the same part of the same order is always the same event."""
        event = {
            "event_id": f"{order['order_id']}-receipt-{part}",
            "event_time": _text(self.now),
            "location_id": order["location_id"],
            "sku": order["sku"],
            "kind": "receipt",
            "quantity": quantity,
            "order_id": order["order_id"],
        }
        return _message("inventory.movements", f"{order['location_id']}|{order['sku']}", event)

    def _next(self) -> Message:
        self._number += 1
        self.now += timedelta(milliseconds=self._chance.randrange(1, 40))
        drawn = self._chance.random()
        if drawn < self.bad:
            return self._bad()
        if drawn < self.bad + 0.01:
            return self._shipment()
        if drawn < self.bad + 0.012:
            return Message("pos.sales", self._key(), None, TOMBSTONE)
        return self._movement()

    def _movement(self) -> Message:
        location_id, sku = self._key().split("|")
        kind = self._chance.choice(KINDS) if self._chance.random() > 0.01 else "count"
        quantity = {"count": 30, "adjustment": self._chance.choice((-2, 1))}.get(kind, self._chance.randrange(1, 5))
        event = {
            "event_id": f"{self.mark}-{self._number}",
            "event_time": _text(self.now),
            "location_id": location_id,
            "sku": sku,
            "kind": kind,
            "quantity": quantity,
        }
        topic = "pos.sales" if kind in {"sale", "return"} else "inventory.movements"
        return _message(topic, f"{location_id}|{sku}", event)

    def _shipment(self) -> Message:
        number = self._chance.randrange(50)
        event = {
            "event_id": f"{self.mark}-{self._number}",
            "event_time": _text(self.now),
            "shipment_id": f"shipment-{number}",
            "supplier_id": "sup-1",
            "carrier_id": "carrier-1",
            "origin": "store-0",
            "destination": "store-1",
            "node": "store-0",
            "status": self._chance.choice(SHIPMENT_STEPS),
        }
        return _message("shipments.events", event["shipment_id"], event)

    def _bad(self) -> Message:
        """Something that belongs into quarantine: no JSON, no event, or a contradiction of an earlier event."""
        earlier = [message for message in self._sent if message.topic == "pos.sales"]
        if earlier and self._chance.random() < 0.3:
            first = self._chance.choice(earlier)
            event = json.loads(first.value or b"")
            event["quantity"] += 1 + self._number
            return Message(first.topic, first.key, json.dumps(event).encode(), CONFLICT, first.event_id)
        event = {"event_id": f"{self.mark}-bad-{self._number}", "event_time": _text(self.now), "sku": "item-0"}
        value = self._chance.choice((b"{", b"", json.dumps(event).encode(), b"[1]", b'"\xff"', b'{"a": NaN}'))
        return Message("pos.sales", self._key(), value, BAD)

    def _key(self) -> str:
        return "|".join(series_of(self._chance.randrange(self.series)))


def series_of(number: int) -> tuple[str, str]:
    """Location and sku of the n-th series: ten stores."""
    return f"store-{number % 10}", f"item-{number // 10}"


def _message(topic: str, key: str, event: dict[str, object]) -> Message:
    return Message(topic, key, json.dumps(event).encode(), VALID, str(event["event_id"]))


def _text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
