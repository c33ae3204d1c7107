"""The tracker as a process, or as a thread of the live one."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from pipelines.contracts import topics
from pipelines.contracts.alerts import Alert
from pipelines.contracts.tables import SHIPMENTS
from pipelines.io import kafka
from pipelines.io.alerts import send_alerts
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.operations.maintenance import TableKeeper
from pipelines.operations.settings import Settings
from pipelines.shipments.consequences import Consequences, Messages
from pipelines.shipments.risk.deliveries import RiskAssessor
from pipelines.shipments.tracker import ShipmentTracker


def follow_shipments(settings: Settings, tables: Tables, stop: threading.Event, *, once: bool = False) -> None:
    """Track until `stop` is set; `once`: what has been taken in so far.

    Raises:
        OwnershipError: another process tracks the shipments of this home.
    """
    with ownership(settings, SHIPMENTS.owner):
        upkeep = TableKeeper(tables, settings, (SHIPMENTS,)).tick
        tracker = ShipmentTracker(
            tables,
            settings.shipments,
            assess=RiskAssessor(settings, tables),
            tell=_teller(settings, tables),
            upkeep=upkeep,
        )
        tracker.resume()
        if once:
            tracker.catch_up()
            tracker.save()
        else:
            tracker.run(stop.wait)


def _teller(settings: Settings, tables: Tables) -> Consequences:
    kafka.prepare(settings, write=(topics.ORDER_STATUS, topics.ALERTS))
    producer = kafka.producer(settings)

    def send_statuses(messages: Messages) -> None:
        kafka.send(producer, topics.ORDER_STATUS, messages)

    def tell(alerts: Sequence[Alert]) -> None:
        send_alerts(producer, alerts)

    return Consequences(tables, settings.shipments, send_statuses, tell)
