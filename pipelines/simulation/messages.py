"""Messages: the chain's happenings as Kafka records, and the queue in which they wait for their time."""

from __future__ import annotations

import heapq
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from pipelines.contracts import topics
from pipelines.simulation.chain import Chain
from pipelines.simulation.demand import local_time, promotions, week_of
from pipelines.simulation.plan import HOUR_MS, TICKETS, random_stream
from pipelines.simulation.shipping import Delivery, carrier, itinerary
from pipelines.simulation.stock import Hour, Movement

VALID, DUPLICATE, CONFLICT, TOMBSTONE, MALFORMED = "valid", "duplicate", "conflict", "tombstone", "malformed"

_SALES_FROM_MS = 10 * 60_000
_JOIN_TICKET = 0.3
_LARGEST_TICKETS = 4


@dataclass(frozen=True, slots=True)
class Message:
    """A Kafka record that is due at `send_at`; its event happened at `event_at` (milliseconds since 1970).

    `label` is `valid`, `duplicate`, `conflict`, `tombstone` or `malformed:KIND`; `late` records were held back.
    """

    send_at: int
    event_at: int
    topic: str
    key: bytes
    value: bytes | None
    label: str = VALID
    late: bool = False


class Outbox:
    """Messages in order of `send_at`; equal times leave in the order in which they came."""

    def __init__(self, messages: Sequence[Message] = ()) -> None:
        self._heap: list[tuple[int, int, Message]] = []
        self._next = 0
        self.push(messages)

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, messages: Sequence[Message]) -> None:
        """Add messages."""
        for message in messages:
            heapq.heappush(self._heap, (message.send_at, self._next, message))
            self._next += 1

    def peek(self) -> Message | None:
        """The next message, left in place."""
        return self._heap[0][2] if self._heap else None

    def pop(self) -> Message:
        """The next message, taken out."""
        return heapq.heappop(self._heap)[2]

    def until(self, limit_ms: int) -> Iterator[Message]:
        """Take out what is due before `limit_ms`."""
        while self._heap and self._heap[0][0] < limit_ms:
            yield self.pop()

    def held_back(self, limit_ms: int) -> list[Message]:
        """Take out what happened before `limit_ms` although it is due later."""
        held = [entry for entry in sorted(self._heap) if entry[2].event_at < limit_ms]
        self._heap = [entry for entry in self._heap if entry[2].event_at >= limit_ms]
        heapq.heapify(self._heap)
        return [message for _, _, message in held]

    def messages(self) -> list[Message]:
        """All messages in order, left in place."""
        return [message for _, _, message in sorted(self._heap)]


def dump(message: Message) -> list[Any]:
    """A message in JSON's types."""
    key, value = b64encode(message.key).decode(), message.value
    encoded = None if value is None else b64encode(value).decode()
    return [
        message.send_at,
        message.event_at,
        message.topic,
        key,
        encoded,
        message.label,
        message.late,
    ]


def load(values: Sequence[Any]) -> Message:
    """The inverse of `dump`."""
    send_at, event_at, topic, key, value, label, late = values
    return Message(send_at, event_at, topic, b64decode(key), None if value is None else b64decode(value), label, late)


def time_text(milliseconds: int) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return str(np.datetime64(milliseconds, "ms")) + "Z"


class Scribe:
    """Writes happenings down as valid messages, with event ids that follow from the plan and the order of calls.

    Attributes:
        counters: the last number given to each kind of id; carried from history to live.
    """

    def __init__(self, chain: Chain, counters: dict[str, int] | None = None) -> None:
        self.chain = chain
        self.counters: dict[str, int] = counters if counters is not None else {}
        self._run = chain.plan.run
        series = range(chain.size)
        self._location = [chain.store(number).location_id for number in series]
        self._sku = [chain.product(number).sku for number in series]
        self._key = [topics.series_key(self._location[number], self._sku[number]).encode() for number in series]

    def identifier(self, kind: str) -> str:
        """A new identifier: the plan's run, the kind and a number."""
        self.counters[kind] = number = self.counters.get(kind, 0) + 1
        return f"{self._run}-{kind}{number:x}"

    def sales(self, hours: Sequence[Hour]) -> list[Message]:
        """The hours' sales as tickets of one or several products, and their returns."""
        if not hours:
            return []
        rows = _ticket_rows(self.chain, hours)
        prices, promoted = self._prices(hours)
        messages = []
        first = hours[0].hour
        ticket_id, last_ticket = "", -1
        for hour, series, quantity, kind, ticket, at_ms in rows:
            if ticket != last_ticket:
                ticket_id, last_ticket = self.identifier("t"), ticket
            payload = {
                "event_id": self.identifier("s"),
                "event_time": time_text(at_ms),
                "location_id": self._location[series],
                "sku": self._sku[series],
                "kind": kind,
                "quantity": quantity,
                "unit_price": prices[hour - first][series],
                "promotion": promoted[hour - first][series],
                "ticket_id": ticket_id,
            }
            messages.append(_message(topics.POS_SALES, self._key[series], at_ms, payload))
        return messages

    def movements(self, movements: Sequence[Movement]) -> list[Message]:
        """Stock movements, each with the level after it."""
        messages = []
        for movement in movements:
            payload = {
                "event_id": self.identifier("m"),
                "event_time": time_text(movement.at_ms),
                "location_id": self._location[movement.series],
                "sku": self._sku[movement.series],
                "kind": movement.kind,
                "quantity": movement.quantity,
                "on_hand": movement.on_hand,
            }
            if movement.order_id is not None:
                payload["order_id"] = movement.order_id
            key = self._key[movement.series]
            messages.append(_message(topics.INVENTORY_MOVEMENTS, key, movement.at_ms, payload))
        return messages

    def shipment(self, delivery: Delivery, rng: np.random.Generator) -> list[Message]:
        """All events of a delivery, those still to come included."""
        steps = itinerary(self.chain, delivery)
        carrier_id, mode = carrier(self.chain, delivery, rng)
        common = {
            "shipment_id": delivery.shipment_id,
            "supplier_id": self.chain.sourcing[delivery.series].supplier_id,
            "carrier_id": carrier_id,
            "origin": steps[0].node,
            "destination": steps[-1].node,
            "order_id": delivery.order_id,
            "sku": self._sku[delivery.series],
            "quantity": delivery.quantity,
            "mode": mode,
        }
        return [
            _message(
                topics.SHIPMENT_EVENTS,
                delivery.shipment_id.encode(),
                step.at_ms,
                {
                    "event_id": self.identifier("h"),
                    "event_time": time_text(step.at_ms),
                    **common,
                    "node": step.node,
                    "status": step.status,
                    "eta": time_text(step.eta_ms),
                },
            )
            for step in steps
        ]

    def order_status(self, delivery: Delivery, steps: Sequence[tuple[str, int]], actor: str) -> list[Message]:
        """Statuses of an order: (status, milliseconds since 1970)."""
        return [
            _message(
                topics.ORDER_STATUS,
                delivery.order_id.encode(),
                at_ms,
                {
                    "event_id": self.identifier("o"),
                    "event_time": time_text(at_ms),
                    "order_id": delivery.order_id,
                    "status": status,
                    "quantity": delivery.quantity,
                    "eta": time_text(delivery.promised_ms),
                    "actor": actor,
                },
            )
            for status, at_ms in steps
        ]

    def _prices(self, hours: Sequence[Hour]) -> tuple[list[list[float]], list[list[bool]]]:
        """Price and whether promoted, by hour and series."""
        chain = self.chain
        span = np.array([hour.hour for hour in hours])
        list_price = np.array([product.unit_price for product in chain.products])
        known = {int(week): promotions(chain, int(week)) for week in _weeks(span)}
        discount = np.empty((len(hours), chain.size))
        products = len(chain.products)
        for number, store in enumerate(chain.stores):
            _, day = local_time(span, store.timezone)
            place = slice(number * products, (number + 1) * products)
            discount[:, place] = [known[int(week)].discount for week in week_of(day)]
        price = np.round(np.tile(list_price, len(chain.stores)) * (1 - discount), 2)
        return price.tolist(), (discount > 0).tolist()


def _weeks(hours: np.ndarray) -> np.ndarray:
    """All weeks that the hours can fall in, whatever the zone."""
    days = np.array([hours.min() // 24 - 1, hours.max() // 24 + 1])
    return np.arange(week_of(days)[0], week_of(days)[1] + 1)


def _message(topic: str, key: bytes, at_ms: int, payload: dict[str, Any]) -> Message:
    return Message(at_ms, at_ms, topic, key, orjson.dumps(payload))


def _ticket_rows(chain: Chain, hours: Sequence[Hour]) -> list[tuple[int, int, int, str, int, int]]:
    """(hour, series, quantity, kind, ticket number, time) of every sale and return, in order of time."""
    rng = random_stream(chain.plan, TICKETS, hours[0].hour)
    first = hours[0].hour
    sold = np.array([hour.sold for hour in hours])
    returned = np.array([hour.returned for hour in hours])
    row, series, quantity = _split(sold, rng)
    if not row.size and not returned.any():
        return []
    order = np.lexsort((rng.random(row.size), series // len(chain.products), row))
    row, series, quantity = row[order], series[order], quantity[order]
    store = series // len(chain.products)
    fresh = np.ones(row.size, dtype=bool)
    fresh[1:] = (
        (row[1:] != row[:-1])
        | (store[1:] != store[:-1])
        | (series[1:] == series[:-1])
        | (rng.random(max(row.size - 1, 0)) >= _JOIN_TICKET)
    )
    ticket = np.cumsum(fresh)
    moment = rng.integers(_SALES_FROM_MS, HOUR_MS, ticket[-1] + 1 if ticket.size else 1)
    at_ms = (first + row) * HOUR_MS + moment[ticket]
    kind = np.full(row.size, "sale")
    back_row, back_series = np.nonzero(returned)
    back_ms = (first + back_row) * HOUR_MS + rng.integers(_SALES_FROM_MS, HOUR_MS, back_row.size)
    count = int(ticket[-1]) if ticket.size else 0
    columns = (
        np.concatenate([first + row, first + back_row]),
        np.concatenate([series, back_series]),
        np.concatenate([quantity, returned[back_row, back_series]]),
        np.concatenate([kind, np.full(back_row.size, "return")]),
        np.concatenate([ticket, count + 1 + np.arange(back_row.size)]),
        np.concatenate([at_ms, back_ms]),
    )
    in_time = np.lexsort((columns[4], columns[5]))
    return list(zip(*(column[in_time].tolist() for column in columns), strict=True))


def _split(sold: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split each (hour, series)'s units into one to four parts: row, series and quantity of each part."""
    row, series = np.nonzero(sold)
    units = sold[row, series]
    parts = np.minimum(1 + rng.binomial(units - 1, 0.25), _LARGEST_TICKETS)
    rows, all_series, quantities = [], [], []
    for count in range(1, _LARGEST_TICKETS + 1):
        chosen = parts == count
        split = 1 + rng.multinomial(units[chosen] - count, np.full(count, 1 / count))
        rows.append(np.repeat(row[chosen], count))
        all_series.append(np.repeat(series[chosen], count))
        quantities.append(split.ravel())
    return np.concatenate(rows), np.concatenate(all_series), np.concatenate(quantities)
