"""Planted troubles of a simulated chain: what somebody ought to notice, with the time at which it begins."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import orjson

from pipelines.contracts import topics
from pipelines.simulation.messages import Message, time_text
from pipelines.simulation.plan import HOUR_MS, HOURS_PER_DAY, Plan, random_stream
from pipelines.simulation.shipping import Delivery
from pipelines.simulation.stock import Hour
from pipelines.simulation.world import Order, World

BLOCKED_HUB, SLOW_SUPPLIER = "blocked_hub", "slow_supplier"
SHRINKAGE, UNIT_ERROR, PRICE_ERROR, PHANTOM_STOCK = "shrinkage", "unit_error", "price_error", "phantom_stock"
KINDS = (BLOCKED_HUB, SLOW_SUPPLIER, SHRINKAGE, UNIT_ERROR, PRICE_ERROR, PHANTOM_STOCK)

SLOWER = 2.0
"""A slow supplier's lead times, as a multiple."""
LOST_A_DAY = 0.06
"""Of the stock at a store with shrinkage, the share that goes unbooked every day."""
PIECES_A_PACK = 12
CENTS = 100
_RELEASE_MS = 4 * HOUR_MS


@dataclass(frozen=True)
class Trouble:
    """What is wrong from `begin` until before `end` (hours since 1970).

    Attributes:
        subject: a location (shrinkage, unit_error, price_error, blocked_hub), a supplier, or a series `location|sku`.
    """

    kind: str
    subject: str
    begin: int
    end: int

    def holds(self, hour: float) -> bool:
        """Whether it is on in that hour."""
        return self.begin <= hour < self.end


class TroubledWorld(World):
    """A world with troubles; without any it is the plain one, message for message."""

    def __init__(self, plan: Plan, troubles: Sequence[Trouble]) -> None:
        super().__init__(plan)
        self.troubles = tuple(troubles)

    def advance(self, hours: int = 1) -> list[Hour]:
        """See `World.advance`."""
        passed = []
        for _ in range(hours):
            self._lose()
            passed += super().advance(1)
        return passed

    def _on(self, kind: str) -> list[Trouble]:
        return [trouble for trouble in self.troubles if trouble.kind == kind and trouble.holds(self.hour)]

    def _lose(self) -> None:
        """Stock that goes without a word: stolen, or where no customer finds it."""
        for trouble in self._on(PHANTOM_STOCK):
            series = self.series_of(*trouble.subject.split("|"))
            self.stock.physical[series] = 0
        if self.hour % HOURS_PER_DAY:
            return
        for trouble in self._on(SHRINKAGE):
            rng = random_stream(self.plan, len(KINDS) + 100, self.hour)
            for series in range(self.chain.size):
                if self.chain.store(series).location_id == trouble.subject:
                    self.stock.physical[series] -= rng.binomial(max(int(self.stock.physical[series]), 0), LOST_A_DAY)

    def _dispatch(self, order: Order, now_ms: int, rng: np.random.Generator) -> Delivery:
        supplier = self.chain.sourcing[order.series].supplier_id
        slow = any(trouble.subject == supplier for trouble in self._on(SLOW_SUPPLIER))
        if not slow:
            return super()._dispatch(order, now_ms, rng)
        lead = self.rules.lead_time_hours
        try:
            self.rules.lead_time_hours = lambda series, rng: SLOWER * lead(series, rng)  # type: ignore[method-assign]
            return super()._dispatch(order, now_ms, rng)
        finally:
            self.rules.lead_time_hours = lead  # type: ignore[method-assign]

    def _enqueue(self, messages: list[Message]) -> None:
        shipments = [message for message in messages if message.topic == topics.SHIPMENT_EVENTS]
        others = [self._misbooked(message) for message in messages if message.topic != topics.SHIPMENT_EVENTS]
        super()._enqueue([*others, *self._held_up(shipments)])

    def _misbooked(self, message: Message) -> Message:
        wrong = [trouble for trouble in self.troubles if trouble.kind in {UNIT_ERROR, PRICE_ERROR}]
        if message.topic != topics.POS_SALES or message.value is None or not wrong:
            return message
        payload = orjson.loads(message.value)
        for trouble in wrong:
            if payload["location_id"] == trouble.subject and trouble.holds(message.event_at / HOUR_MS):
                if trouble.kind == UNIT_ERROR:
                    payload["quantity"] *= PIECES_A_PACK
                else:
                    payload["unit_price"] *= CENTS
        return replace(message, value=orjson.dumps(payload))

    def _held_up(self, messages: list[Message]) -> list[Message]:
        """What would leave a blocked hub leaves after it is free again; what follows is put off as well."""
        blocks = [trouble for trouble in self.troubles if trouble.kind == BLOCKED_HUB]
        if not blocks:
            return messages
        by_shipment: dict[bytes, list[Message]] = defaultdict(list)
        for message in messages:
            by_shipment[message.key].append(message)
        return [moved for key, events in by_shipment.items() for moved in self._held(key, events, blocks)]

    def _held(self, key: bytes, events: list[Message], blocks: Sequence[Trouble]) -> list[Message]:
        ordered = sorted(events, key=lambda event: event.event_at)
        payloads = [orjson.loads(event.value or b"{}") for event in ordered]
        for block in blocks:
            at_hub = [place for place, payload in enumerate(payloads) if payload["node"] == block.subject]
            if len(at_hub) < 2:
                continue
            leaves = at_hub[-1]
            left_at = ordered[leaves].event_at
            if not block.holds(left_at / HOUR_MS):
                continue
            rng = random_stream(self.plan, len(KINDS) + 101, *key)
            shift = block.end * HOUR_MS - left_at + int(rng.integers(0, _RELEASE_MS))
            for place in range(leaves, len(ordered)):
                moved = ordered[place].event_at + shift
                payloads[place]["event_time"] = time_text(moved)
                ordered[place] = replace(
                    ordered[place], send_at=moved, event_at=moved, value=orjson.dumps(payloads[place])
                )
        return ordered
