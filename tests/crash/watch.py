"""Whether anything is left to do, seen from outside: Kafka with confluent-kafka, the tables with deltalake."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Consumer, KafkaException, TopicPartition
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from tests.reconciler import INPUT_TOPICS


class Tail:
    """Rows of a table by a key, the newest of each: only the files that are new since the last look are read."""

    def __init__(self, home: Path, name: str, *columns: str) -> None:
        self._uri, self._columns = f"{home}/tables/{name}", list(columns)
        self._read: set[str] = set()
        self._rows: list[dict[str, Any]] = []

    def rows(self) -> list[dict[str, Any]]:
        """All rows that were ever there; some more than once after files were merged."""
        try:
            files = DeltaTable(self._uri).file_uris()
        except TableNotFoundError:
            return []
        for file in files:
            if file not in self._read:
                self._rows += pq.read_table(file, columns=self._columns, partitioning=None).to_pylist()
                self._read.add(file)
        return self._rows


class Watch:
    """Sees how far the chain has come. `why` says what is not done yet."""

    def __init__(self, home: Path, bootstrap: str, api_port: int | None) -> None:
        self._home, self._bootstrap, self._api_port = home, bootstrap, api_port
        self._batches = Tail(home, "silver/ingest_batches", "topic", "end_offsets", "last_sequence")
        self._outbox = Tail(home, "gold/order_outbox", "order_id")
        self._calls = Tail(home, "gold/supplier_calls", "order_id")
        self._published: dict[bytes, int] = {}
        self._client: Consumer | None = None
        self.why = "nothing was looked at yet"

    @property
    def orders(self) -> int:
        """Orders published so far."""
        return len(self._published)

    def at_rest(self, *, sending: bool = True) -> bool:
        """Whether all is consumed, decided, published and sent."""
        try:
            self.why = self._undone(sending)
        except (KafkaException, OSError, httpx.HTTPError, pa.ArrowException) as error:
            self.why = f"not to be seen just now: {error}"
        return not self.why

    def violations(self) -> list[str]:
        """What is wrong at first sight."""
        doubled = [key.decode() for key, count in self._published.items() if count > 1]
        return [f"R6: {len(doubled)} orders were published twice, such as {doubled[0]}"] if doubled else []

    def close(self) -> None:
        """Leave the broker."""
        if self._client is not None:
            self._client.close()

    def _undone(self, sending: bool) -> str:
        ends, taken, last = self._ends(), {}, 0
        for row in self._batches.rows():
            last = max(last, row["last_sequence"])
            for partition, offset in json.loads(row["end_offsets"]).items():
                place = (row["topic"], int(partition))
                taken[place] = max(offset, taken.get(place, 0))
        if behind := {place: end - taken.get(place, 0) for place, end in ends.items() if end > taken.get(place, 0)}:
            return f"records to take in: {behind}"
        positions = self._read("gold/inventory_positions", "sequence")
        decided = max((row["sequence"] for row in positions), default=0)
        if decided < last:
            return f"decided up to place {decided} of {last}"
        pointer = {row["artefact"]: row["version"] for row in self._read("gold/published", "artefact", "version")}
        active = sorted(
            self._read("gold/policy_activations", "activated_at", "policy_version"), key=lambda row: row["activated_at"]
        )
        if "policies" in pointer and (not active or active[-1]["policy_version"] != pointer["policies"]):
            return f"policies {pointer['policies']} are not active"
        outbox = {row["order_id"].encode() for row in self._outbox.rows()}
        self._follow()
        if missing := outbox - set(self._published):
            return f"orders to publish: {len(missing)}"
        sent = {row["order_id"].encode() for row in self._calls.rows()} if sending else outbox
        if missing := outbox - sent:
            return f"orders to send: {len(missing)}"
        if self._api_port is not None:
            unsent = httpx.get(f"http://127.0.0.1:{self._api_port}/health", timeout=5).json()["unsent_decisions"]
            if unsent:
                return f"decisions to send: {unsent}"
        return "" if self._ends() == ends else "records came meanwhile"

    def _read(self, name: str, *columns: str) -> list[dict[str, Any]]:
        try:
            table = DeltaTable(f"{self._home}/tables/{name}")
            return [
                row
                for file in table.file_uris()
                for row in pq.read_table(file, columns=list(columns), partitioning=None).to_pylist()
            ]
        except TableNotFoundError:
            return []

    def _connect(self) -> Consumer:
        if self._client is None:
            self._client = Consumer(
                {
                    "bootstrap.servers": self._bootstrap,
                    "group.id": f"watch-{time.time_ns()}",
                    "isolation.level": "read_committed",
                    "enable.auto.commit": False,
                    "auto.offset.reset": "earliest",
                    "log_level": 2,
                }
            )
            found = self._client.list_topics(timeout=15).topics["restock.orders"].partitions
            self._client.assign([TopicPartition("restock.orders", number, 0) for number in found])
        return self._client

    def _ends(self) -> dict[tuple[str, int], int]:
        client = self._connect()
        topics = client.list_topics(timeout=15).topics
        return {
            (name, number): client.get_watermark_offsets(TopicPartition(name, number), timeout=15)[1]
            for name in INPUT_TOPICS
            for number in topics[name].partitions
        }

    def _follow(self) -> None:
        while messages := self._connect().consume(500, 0.1):
            for message in messages:
                if message.error() is None:
                    self._published[message.key()] = self._published.get(message.key(), 0) + 1
