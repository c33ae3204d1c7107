"""The tracker as a process, or as a thread of the live one."""

from __future__ import annotations

import threading

from pipelines.contracts.tables import SHIPMENTS
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.operations.maintenance import TableKeeper
from pipelines.operations.settings import Settings
from pipelines.shipments.risk.deliveries import RiskAssessor
from pipelines.shipments.tracker import ShipmentTracker


def follow_shipments(settings: Settings, tables: Tables, stop: threading.Event, *, once: bool = False) -> None:
    """Track until `stop` is set; `once`: what has been taken in so far.

    Raises:
        OwnershipError: another process tracks the shipments of this home.
    """
    with ownership(settings, SHIPMENTS.owner):
        upkeep = TableKeeper(tables, settings, (SHIPMENTS,)).tick
        assess = RiskAssessor(settings, tables)
        tracker = ShipmentTracker(tables, settings.shipments, assess=assess, upkeep=upkeep)
        tracker.resume()
        if once:
            tracker.catch_up()
            tracker.save()
        else:
            tracker.run(stop.wait)
