"""The chain in time: hour after hour, stock moves and messages queue up; restock orders are taken and delivered."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from pipelines.simulation.chain import build_chain
from pipelines.simulation.demand import build_model, true_demand
from pipelines.simulation.faults import spoil
from pipelines.simulation.manifest import Manifest
from pipelines.simulation.messages import Message, Outbox, Scribe, dump, load
from pipelines.simulation.plan import FAULTS, HOUR_MS, HOURS_PER_DAY, ORDERS, Plan, random_stream
from pipelines.simulation.shipping import Delivery
from pipelines.simulation.stock import Arrival, Hour, Stock, Warehouse, received_at

log = logging.getLogger("stockcast.simulation")

_STATE_FORMAT = 1
_DEMAND_BLOCK_DAYS = 16
_SHIPPED_AT = 0.15
_ACKNOWLEDGED_MS = 2 * 60_000
_RECEIVED_STATUS_MS = 5 * 60_000


@dataclass(frozen=True)
class Order:
    """A restock order as the chain understands it."""

    order_id: str
    series: int
    quantity: int


class World:
    """A simulated chain at one moment.

    Attributes:
        hour: the next hour to pass, in hours since 1970; everything before it has happened.
        outbox: messages written and not yet sent.
        manifest: what was sent.
        orders: ids of the restock orders that were taken.
        order_offsets: next offset to read on `restock.orders`, by partition.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.chain = build_chain(plan)
        self.model = build_model(self.chain)
        self.rules = Warehouse(self.model)
        self.stock = self.rules.opening(self.model)
        self.hour = plan.start_hour
        self.outbox = Outbox()
        self.scribe = Scribe(self.chain)
        self.manifest = Manifest()
        self.orders: set[str] = set()
        self.order_offsets: dict[int, int] = {}
        self._batch = 0
        self._demand = (0, np.empty((0, self.chain.size), dtype=np.int64))
        self._series = {
            (self.chain.store(number).location_id, self.chain.product(number).sku): number
            for number in range(self.chain.size)
        }

    @property
    def now_ms(self) -> int:
        """The start of the next hour, in milliseconds since 1970."""
        return self.hour * HOUR_MS

    def series_of(self, location_id: str, sku: str) -> int | None:
        """The number of a series; None for one that is not the chain's."""
        return self._series.get((location_id, sku))

    def on_hand(self) -> dict[str, int]:
        """Stock by the books, by `location_id|sku`: what all events before `hour` add up to."""
        levels = self.stock.book.tolist()
        return {f"{location}|{sku}": levels[number] for (location, sku), number in self._series.items()}

    def advance(self, hours: int = 1) -> list[Hour]:
        """Let hours pass; their messages go to the outbox. The chain orders for itself in history only."""
        passed = []
        messages: list[Message] = []
        for _ in range(hours):
            replenish = self.hour < self.plan.cutoff_hour
            outcome = self.rules.step(self.stock, self.hour, self._demand_at(self.hour), replenish)
            passed.append(outcome)
            messages += self.scribe.movements(outcome.movements)
            for series, quantity in outcome.reorders:
                messages += self._reorder(series, quantity)
            self.hour += 1
        messages += self.scribe.sales(passed)
        self._enqueue(messages)
        return passed

    def accept(self, order: Order, now_ms: int) -> bool:
        """Take a restock order at a moment: it is acknowledged, shipped, and received after its lead time.

        Returns:
            False where the order was taken before.
        """
        if order.order_id in self.orders:
            return False
        self.orders.add(order.order_id)
        self.manifest.orders_accepted += 1
        rng = random_stream(self.plan, ORDERS, *order.order_id.encode())
        delivery = self._dispatch(order, now_ms, rng)
        supplier = self.chain.sourcing[order.series].supplier_id
        span = delivery.delivered_ms - delivery.placed_ms
        steps = (
            ("acknowledged", now_ms),
            ("shipped", now_ms + max(_ACKNOWLEDGED_MS, int(_SHIPPED_AT * span))),
            ("received", delivery.delivered_ms + _RECEIVED_STATUS_MS),
        )
        statuses = self.scribe.order_status(delivery, steps, supplier)
        self._enqueue([*statuses, *self.scribe.shipment(delivery, rng)])
        return True

    def _reorder(self, series: int, quantity: int) -> list[Message]:
        order_id = self.scribe.identifier("po")
        rng = random_stream(self.plan, ORDERS, self.hour, series)
        now_ms = self.now_ms + int(rng.integers(0, HOUR_MS // 2))
        delivery = self._dispatch(Order(order_id, series, quantity), now_ms, rng)
        self.stock.on_order[series] += quantity
        return self.scribe.shipment(delivery, rng)

    def _dispatch(self, order: Order, now_ms: int, rng: np.random.Generator) -> Delivery:
        lead_ms = self.rules.lead_time_hours(order.series, rng) * HOUR_MS
        due_hour = max(self.hour + 1, round((now_ms + lead_ms) / HOUR_MS))
        arrival = Arrival(due_hour, order.order_id, order.series, order.quantity)
        heapq.heappush(self.stock.arrivals, arrival)
        return Delivery(
            order_id=order.order_id,
            shipment_id=self.scribe.identifier("sh"),
            series=order.series,
            quantity=order.quantity,
            placed_ms=now_ms,
            promised_ms=now_ms + int(self.rules.lead[order.series] * HOURS_PER_DAY * HOUR_MS),
            delivered_ms=received_at(arrival) - 60_000,
        )

    def _enqueue(self, messages: list[Message]) -> None:
        rng = random_stream(self.plan, FAULTS, self._batch)
        self._batch += 1
        ordered = sorted(messages, key=lambda message: message.event_at)
        self.outbox.push(spoil(ordered, self.plan.faults, rng, lambda: self.scribe.identifier("x")))

    def _demand_at(self, hour: int) -> np.ndarray:
        first, block = self._demand
        if not first <= hour < first + len(block):
            first = hour - hour % HOURS_PER_DAY
            days = _DEMAND_BLOCK_DAYS if hour < self.plan.cutoff_hour - HOURS_PER_DAY else 1
            block = true_demand(self.model, first, days * HOURS_PER_DAY)
            self._demand = (first, block)
        row: np.ndarray = block[hour - first]
        return row

    def as_dict(self) -> dict[str, Any]:
        """The whole state in JSON's types."""
        arrays = {name: getattr(self.stock, name).tolist() for name in _arrays()}
        return {
            "format": _STATE_FORMAT,
            "plan": self.plan.as_dict(),
            "hour": self.hour,
            "stock": arrays,
            "arrivals": [[*_values(arrival)] for arrival in self.stock.arrivals],
            "outbox": [dump(message) for message in self.outbox.messages()],
            "counters": self.scribe.counters,
            "batch": self._batch,
            "manifest": self.manifest.as_dict(),
            "orders": sorted(self.orders),
            "order_offsets": {str(partition): offset for partition, offset in self.order_offsets.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> World:
        """The inverse of `as_dict`.

        Raises:
            ValueError: the state was written in another format.
        """
        if values.get("format") != _STATE_FORMAT:
            raise ValueError(f"expected format {_STATE_FORMAT}, found {values.get('format')}")
        world = cls(Plan.from_dict(values["plan"]))
        world.hour = values["hour"]
        world.stock = Stock(
            **{
                name: np.array(array, dtype=np.float64 if name == "rate" else np.int64)
                for name, array in values["stock"].items()
            },
            arrivals=[Arrival(*arrival) for arrival in values["arrivals"]],
        )
        world.outbox = Outbox([load(message) for message in values["outbox"]])
        world.scribe.counters.update(values["counters"])
        world._batch = values["batch"]
        world.manifest = Manifest.from_dict(values["manifest"])
        world.orders = set(values["orders"])
        world.order_offsets = {int(partition): offset for partition, offset in values["order_offsets"].items()}
        return world


def _arrays() -> list[str]:
    return [field.name for field in fields(Stock) if field.name != "arrivals"]


def _values(arrival: Arrival) -> tuple[int, str, int, int]:
    return arrival.due_hour, arrival.order_id, arrival.series, arrival.quantity
