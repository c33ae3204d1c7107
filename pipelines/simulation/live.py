"""The live phase: hour by hour from the cutoff to the wall clock, then with it; restock orders are answered."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime

from pipelines.errors import UsageError
from pipelines.io.ownership import ownership
from pipelines.operations.settings import Settings
from pipelines.simulation import store
from pipelines.simulation.manifest import Manifest
from pipelines.simulation.messages import Message
from pipelines.simulation.orders import OrderSource, kafka_orders
from pipelines.simulation.plan import Plan, moment
from pipelines.simulation.sending import Advance, Pace, Progress, Sender, no_progress, open_sender
from pipelines.simulation.world import Order, World

log = logging.getLogger("stockcast.simulation")

_SAVE_SECONDS = 2.0
_ORDERS_EVERY_SECONDS = 0.05
_IDLE_SECONDS = 0.1
_REPORT_SECONDS = 0.2
ORDERS_FROM = ("saved", "beginning", "end")


@dataclass(frozen=True)
class LiveOptions:
    """How a live phase runs.

    Attributes:
        rate: messages a second while simulated time is behind the wall clock; None: as fast as possible.
        until: simulated time at which it ends; None: goes on with the wall clock until stopped.
        max_events: ends after so many messages; the rest stays for the next live phase.
        orders_from: where to start on `restock.orders`: `saved` (where the last phase ended; after history,
            at its end), `beginning` or `end`.
    """

    rate: float | None = 200.0
    until: datetime | None = None
    max_events: int | None = None
    orders_from: str = "saved"

    def __post_init__(self) -> None:
        if self.rate is not None and self.rate <= 0:
            raise UsageError(f"rate is {self.rate}; expected events per second above 0")
        if self.orders_from not in ORDERS_FROM:
            raise UsageError(f"orders-from is {self.orders_from}; expected one of {', '.join(ORDERS_FROM)}")
        if self.until is not None and self.until.tzinfo is None:
            raise UsageError(f"until is {self.until}, without a zone; add one, for example Z")


def simulate_live(
    settings: Settings,
    plan: Plan | None = None,
    options: LiveOptions | None = None,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
    clock: Callable[[], float] = time.time,
) -> Manifest:
    """Go on from the saved world: sales and movements in simulated time, orders answered and delivered.

    No event is sent before the wall clock has reached its time. The state is saved every few seconds and at
    the end, so that the next live phase goes on where this one ended.

    Args:
        plan: refused where the home holds another; None: whatever it holds.
        stop: ends the phase in an orderly way.
        clock: seconds since 1970.

    Raises:
        UsageError: no history was simulated in this home, or it holds another chain.
        BrokerError: the broker cannot be reached or did not take everything.
    """
    options = options or LiveOptions()
    with ExitStack() as stack:
        stack.enter_context(ownership(settings, "simulation"))
        world = store.load_world(settings, plan)
        if world is None:
            raise UsageError(
                f"{settings.home} holds no simulated history; run `stockcast simulate --phase history` first"
            )
        store.prepare(settings, world.plan)
        sender = stack.enter_context(open_sender(settings, **{"linger.ms": 2}))
        source = kafka_orders(settings, world.order_offsets, options.orders_from)
        orders = stack.enter_context(closing(source))
        live = _Live(settings, world, sender, orders, options, progress, stop or threading.Event(), clock)
        try:
            live.run()
        finally:
            sender.flush()
            live.save()
            store.save_true_demand(settings, world)
    return world.manifest


class _Live:
    """One live phase."""

    def __init__(
        self,
        settings: Settings,
        world: World,
        sender: Sender,
        orders: OrderSource,
        options: LiveOptions,
        progress: Progress,
        stop: threading.Event,
        clock: Callable[[], float],
    ) -> None:
        self._settings, self._world, self._sender, self._orders = settings, world, sender, orders
        self._options, self._progress, self._stop, self._clock = options, progress, stop, clock
        self._until_ms = None if options.until is None else int(options.until.timestamp() * 1000)
        self._now_ms = self._start_ms = min(world.now_ms, int(clock() * 1000))
        self._sent = 0
        self._pace = Pace(options.rate)
        self._saved = self._looked = self._reported = 0.0

    def run(self) -> None:
        """Until the end that the options set, or until stopped."""
        self._accept(self._orders.waiting(self._world.series_of))
        limit = self._limit()
        while not self._drain(limit):
            if self._until_ms is not None and limit >= self._until_ms:
                for message in self._world.outbox.held_back(max(self._until_ms, self._now_ms + 1)):
                    self._send(message)
                return
            self._world.advance()
            limit = self._limit()

    def save(self) -> None:
        """Save the world, with the place reached among the orders."""
        self._world.order_offsets = self._orders.offsets
        store.save_world(self._settings, self._world)
        self._saved = time.monotonic()

    def _limit(self) -> int:
        now_ms = self._world.now_ms
        return now_ms if self._until_ms is None else min(now_ms, self._until_ms)

    def _drain(self, limit_ms: int) -> bool:
        """Send what is due before simulated `limit_ms`, none before its time; True where the phase is to end."""
        outbox = self._world.outbox
        while not self._is_over():
            self._look_around()
            message, wall_ms = outbox.peek(), int(self._clock() * 1000)
            due_ms = limit_ms if message is None else min(message.send_at, limit_ms)
            if due_ms > wall_ms:
                self._now_ms = max(self._now_ms, wall_ms)
                self._sender.flush()
                self._stop.wait(min(_IDLE_SECONDS, (due_ms - wall_ms) / 1000))
            elif message is None or message.send_at >= limit_ms:
                self._now_ms = max(self._now_ms, limit_ms)
                return False
            else:
                self._pace.wait()
                self._now_ms = max(self._now_ms, message.send_at)
                self._send(outbox.pop())
        return True

    def _is_over(self) -> bool:
        most = self._options.max_events
        return self._stop.is_set() or (most is not None and self._sent >= most)

    def _send(self, message: Message) -> None:
        self._sender.send(message.topic, message.key, message.value)
        self._world.manifest.add(message)
        self._sent += 1

    def _accept(self, orders: Iterable[Order]) -> None:
        for order in orders:
            if self._world.accept(order, self._now_ms):
                log.debug("order %s accepted: %d units", order.order_id, order.quantity)

    def _look_around(self) -> None:
        """Take orders, save and report, each now and then."""
        now = time.monotonic()
        if now - self._looked >= _ORDERS_EVERY_SECONDS:
            self._looked = now
            self._accept(self._orders.poll(self._world.series_of))
        if now - self._saved >= _SAVE_SECONDS:
            self._sender.flush()
            self.save()
        if now - self._reported >= _REPORT_SECONDS:
            self._reported = now
            self._progress(Advance("live", self._sent, moment(self._now_ms), self._fraction()))

    def _fraction(self) -> float | None:
        if self._until_ms is None or self._until_ms <= self._start_ms:
            return None
        return min(1.0, (self._now_ms - self._start_ms) / (self._until_ms - self._start_ms))
