"""The history phase: everything before the cutoff, as fast as the broker takes it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

from pipelines.contracts import topics
from pipelines.errors import UsageError
from pipelines.io import kafka
from pipelines.io.ownership import ownership
from pipelines.operations.settings import Settings
from pipelines.simulation import store
from pipelines.simulation.manifest import Manifest
from pipelines.simulation.messages import Message
from pipelines.simulation.plan import HOUR_MS, HOURS_PER_DAY, Plan, moment
from pipelines.simulation.sending import Advance, Progress, no_progress, open_sender
from pipelines.simulation.world import World

log = logging.getLogger("stockcast.simulation")


def history(world: World) -> Iterator[list[Message]]:
    """A new world's history, one list of messages a day, in the order in which they are to be sent.

    The last list also holds what was held back. What is still to happen (deliveries under way) stays in the
    world's outbox.
    """
    while world.hour < world.plan.cutoff_hour:
        world.advance(HOURS_PER_DAY)
        yield list(world.outbox.until(world.now_ms))
    yield world.outbox.held_back(world.now_ms)


def simulate_history(
    settings: Settings,
    plan: Plan,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> Manifest:
    """Send a plan's history to Kafka and save the world for the live phase.

    A history that was sent before, by this home's state, is not sent again. One that was cut short is sent
    again from the start: its event ids are the same.

    Returns:
        What was sent for the plan so far.

    Raises:
        UsageError: the home holds another chain, or history would reach into the future.
        BrokerError: the broker cannot be reached or did not take everything.
    """
    if plan.cutoff_hour * HOUR_MS > time.time() * 1000:
        raise UsageError(f"history would end before {plan.cutoff}, which is still to come; end it earlier")
    known = store.load_world(settings, plan)
    store.prepare(settings, plan)
    if known is not None:
        log.info("the history up to %s was sent before; nothing to send", plan.cutoff)
        return known.manifest
    world = World(plan)
    with ownership(settings, "simulation"), open_sender(settings) as sender:
        for day in history(world):
            if stop is not None and stop.is_set():
                raise KeyboardInterrupt
            for message in day:
                sender.send(message.topic, message.key, message.value)
                world.manifest.add(message)
            fraction = (world.hour - plan.start_hour) / (plan.cutoff_hour - plan.start_hour)
            progress(Advance("history", world.manifest.messages, moment(world.now_ms), fraction))
        sender.flush()
        _conclude(settings, world)
    return world.manifest


def _conclude(settings: Settings, world: World) -> None:
    ends = kafka.end_offsets(settings, [topics.RESTOCK_ORDERS])
    world.order_offsets = {partition: offset for (_, partition), offset in ends.items()}
    store.save_true_demand(settings, world)
    store.save_world(settings, world)
