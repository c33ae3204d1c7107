"""The watch for anomalies as a process, or as a thread of the live one."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime

from pipelines.anomalies.gathering import Gatherer
from pipelines.anomalies.watch import AnomalyWatch
from pipelines.contracts import topics
from pipelines.contracts.alerts import Alert
from pipelines.contracts.tables import ANOMALIES, ANOMALY_SCORES
from pipelines.io import kafka
from pipelines.io.alerts import send_alerts
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.operations.maintenance import TableKeeper
from pipelines.operations.settings import Settings


def watch_anomalies(settings: Settings, tables: Tables, stop: threading.Event, *, once: bool = False) -> None:
    """Look now and then until `stop` is set; `once`: one look.

    Raises:
        OwnershipError: another process watches this home.
        UsageError: `anomalies.rules` names a rule that does not exist.
        BrokerError: no broker answers.
    """
    with ownership(settings, ANOMALIES.owner):
        kafka.prepare(settings, write=(topics.ALERTS,))
        producer = kafka.producer(settings)

        def send(alerts: Sequence[Alert]) -> None:
            send_alerts(producer, alerts)

        watch = AnomalyWatch(tables, settings.anomalies, Gatherer(tables).view, send)
        keeper = TableKeeper(tables, settings, (ANOMALIES, ANOMALY_SCORES))
        watch.resume()
        watch.look(datetime.now(UTC))
        while not once and not stop.wait(settings.anomalies.look_seconds):
            watch.look(datetime.now(UTC))
            keeper.tick()
