"""Messages on `alerts`."""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import Producer

from pipelines.contracts import topics
from pipelines.contracts.alerts import Alert
from pipelines.io import kafka


def send_alerts(producer: Producer, alerts: Sequence[Alert]) -> None:
    """Publish alerts and return when the broker has them. A repeated one has the same id.

    Raises:
        BrokerError: one could not be delivered.
    """
    if alerts:
        kafka.send(producer, topics.ALERTS, [(alert.subject, alert.encode()) for alert in alerts])
