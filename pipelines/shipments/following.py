"""The tracker as a process, or as a thread of the live one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from pipelines.contracts import topics
from pipelines.contracts.alerts import Alert
from pipelines.contracts.tables import BOTTLENECKS, REROUTES, SHIPMENTS
from pipelines.io import kafka
from pipelines.io.alerts import send_alerts
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.operations.maintenance import TableKeeper
from pipelines.operations.settings import Settings
from pipelines.shipments.bottleneck_watch import BottleneckWatch
from pipelines.shipments.consequences import Consequences, Messages
from pipelines.shipments.risk.deliveries import RiskAssessor
from pipelines.shipments.routing.offering import Router
from pipelines.shipments.routing.steering import Reroutes
from pipelines.shipments.tracker import ShipmentTracker


def follow_shipments(settings: Settings, tables: Tables, stop: threading.Event, *, once: bool = False) -> int:
    """Track until `stop` is set; `once`: what has been taken in so far.

    Returns:
        How many orders were told of an arrival: events on `restock.order_status` that ask to be taken in.

    Raises:
        OwnershipError: another process tracks the shipments of this home.
    """
    with ownership(settings, SHIPMENTS.owner):
        kafka.prepare(settings, write=(topics.ORDER_STATUS, topics.ALERTS))
        producer = kafka.producer(settings)

        told = 0

        def send_statuses(messages: Messages) -> None:
            nonlocal told
            sent = list(messages)
            kafka.send(producer, topics.ORDER_STATUS, sent)
            told += len(sent)

        def tell(alerts: Sequence[Alert]) -> None:
            send_alerts(producer, alerts)

        consequences = Consequences(tables, settings.shipments, send_statuses, tell, Router(tables, settings))
        keeper = TableKeeper(tables, settings, (SHIPMENTS, BOTTLENECKS, REROUTES))

        def upkeep() -> None:
            consequences.go_on(datetime.now(UTC))
            keeper.tick()

        tracker = ShipmentTracker(
            tables,
            settings.shipments,
            assess=RiskAssessor(settings, tables),
            tell=consequences,
            steer=Reroutes(tables),
            upkeep=upkeep,
        )
        watch = BottleneckWatch(tables, tell)
        tracker.resume()
        if once:
            tracker.catch_up()
            tracker.save()
            while consequences.owing(datetime.now(UTC)):
                consequences.go_on(datetime.now(UTC))
            watch.look(datetime.now(UTC))
        else:
            tracker.run(_looking(stop, watch, settings.shipments.look_seconds))
    return told


def _looking(stop: threading.Event, watch: BottleneckWatch, seconds: float) -> Callable[[float], bool]:
    """The tracker's wait, in which bottlenecks are looked for now and then."""
    looked_at = time.monotonic()

    def stopped(wait: float) -> bool:
        nonlocal looked_at
        if time.monotonic() - looked_at >= seconds:
            watch.look(datetime.now(UTC))
            looked_at = time.monotonic()
        return stop.wait(wait)

    return stopped
