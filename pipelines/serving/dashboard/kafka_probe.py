"""Looking at Kafka every few seconds, in a thread of its own: what waits there, and what it has on `alerts`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson
from confluent_kafka import Consumer, KafkaException, TopicPartition

from pipelines.contracts import topics
from pipelines.errors import StockcastError
from pipelines.io import kafka
from pipelines.operations.settings import Settings
from pipelines.restocking.relay import GROUP, PLACE

log = logging.getLogger("stockcast.dashboard")

TIMEOUT = 3.0
ALERTS_KEPT = 1_000


@dataclass(frozen=True)
class KafkaState:
    """What the last look found. `ends`: topic and partition to the offset after the newest record."""

    answers: bool = False
    ends: Mapping[tuple[str, int], int] = field(default_factory=dict)
    relayed: int | None = None


class KafkaProbe:
    """Looks at offsets and reads `alerts`. A broker that is away is a finding, not an error."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dashboard-kafka", daemon=True)
        self._lock = threading.Lock()
        self._alerts: list[dict[str, Any]] = []
        self._places: dict[int, int] = {}
        self.state = KafkaState()
        self.looks = 0

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """End; waits for the look at hand."""
        self._stop.set()
        self._thread.join(3 * TIMEOUT)

    def take_alerts(self) -> list[dict[str, Any]]:
        """Messages of `alerts` since the last call."""
        with self._lock:
            taken, self._alerts = self._alerts, []
            return taken

    def _run(self) -> None:
        clients: list[Consumer] = []
        while not self._stop.is_set():
            try:
                if not clients:
                    clients = [kafka.consumer(self._settings, name) for name in ("stockcast-dashboard", GROUP)]
                self._look(*clients)
            except (KafkaException, StockcastError) as error:
                if self.state.answers or self.looks == 0:
                    log.warning("Kafka does not answer: %s", error)
                self.state = KafkaState()
                _close(clients)
                clients = []
            except Exception:
                log.exception("looking at Kafka failed; trying again")
            self.looks += 1
            self._stop.wait(self._settings.dashboard.probe_seconds)
        _close(clients)

    def _look(self, client: Consumer, relay: Consumer) -> None:
        known = client.list_topics(timeout=TIMEOUT).topics
        ends = {}
        for name in topics.INPUT_TOPICS:
            for partition in known[name].partitions if name in known else ():
                _, end = client.get_watermark_offsets(TopicPartition(name, partition), timeout=TIMEOUT)
                ends[(name, partition)] = int(end)
        self.state = KafkaState(True, ends, self._relayed(relay))
        if topics.ALERTS in known:
            self._read_alerts(client, known[topics.ALERTS].partitions)

    def _relayed(self, relay: Consumer) -> int | None:
        with suppress(KafkaException):
            (found,) = relay.committed([TopicPartition(*PLACE)], timeout=TIMEOUT)
            if found.error is None:
                return max(0, int(found.offset))
        return None

    def _read_alerts(self, client: Consumer, partitions: Any) -> None:
        for partition in partitions:
            if partition not in self._places:
                low, high = client.get_watermark_offsets(TopicPartition(topics.ALERTS, partition), timeout=TIMEOUT)
                self._places[partition] = max(low, high - ALERTS_KEPT)
        client.assign([TopicPartition(topics.ALERTS, partition, place) for partition, place in self._places.items()])
        found = []
        for message in client.consume(ALERTS_KEPT, timeout=0.5):
            if message.error() is None:
                self._places[message.partition()] = message.offset() + 1
                with suppress(ValueError, TypeError):
                    found.append(dict(orjson.loads(message.value())))
        client.unassign()
        if found:
            with self._lock:
                self._alerts += found


def _close(clients: list[Consumer]) -> None:
    for client in clients:
        with suppress(KafkaException, RuntimeError):
            client.close()
