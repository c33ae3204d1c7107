"""Whether anything is left to do, seen from outside: Kafka with confluent-kafka, the tables with deltalake."""

from __future__ import annotations

import json
import time
from operator import itemgetter
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
    """A table's rows as they come: only the files that are new since the last look are read."""

    def __init__(self, home: Path, name: str, *columns: str) -> None:
        self._uri, self._columns = f"{home}/tables/{name}", list(columns)
        self._table: DeltaTable | None = None
        self._files: set[str] = set()
        self._rows: list[dict[str, Any]] = []
        self._newest: list[dict[str, Any]] = []

    def rows(self) -> list[dict[str, Any]]:
        """All rows that were ever there; some more than once after files were merged."""
        self._look()
        return self._rows

    def newest(self) -> list[dict[str, Any]]:
        """The rows of the files that the last change brought: all, where the table is replaced as a whole."""
        self._look()
        return self._newest

    def _look(self) -> None:
        try:
            if self._table is None:
                self._table = DeltaTable(self._uri)
            else:
                version = self._table.version()
                self._table.update_incremental()
                if self._table.version() == version:
                    return
        except TableNotFoundError:
            return
        files = self._table.file_uris()
        new = [file for file in files if file not in self._files]
        self._files.update(new)
        if new:
            found = [pq.read_table(file, columns=self._columns, partitioning=None).to_pylist() for file in new]
            self._newest = [row for rows in found for row in rows]
            self._rows += self._newest


class Watch:
    """Sees how far the chain has come. `why` says what is not done yet."""

    def __init__(self, home: Path, bootstrap: str, api_port: int | None) -> None:
        self._home, self._bootstrap, self._api_port = home, bootstrap, api_port
        self._batches = Tail(home, "silver/ingest_batches", "topic", "end_offsets", "last_sequence")
        self._outbox = Tail(home, "gold/order_outbox", "order_id")
        self._calls = Tail(home, "gold/supplier_calls", "order_id")
        self._positions = Tail(home, "gold/inventory_positions", "sequence")
        self._pointers = Tail(home, "gold/published", "artefact", "version")
        self._activations = Tail(home, "gold/policy_activations", "activated_at", "policy_version")
        self._published: dict[bytes, int] = {}
        self._client: Consumer | None = None
        self._inputs: list[TopicPartition] = []
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
        decided = max((row["sequence"] for row in self._positions.newest()), default=0)
        if decided < last:
            return f"decided up to place {decided} of {last}"
        pointer = {row["artefact"]: row["version"] for row in self._pointers.newest()}
        active = max(self._activations.rows(), key=itemgetter("activated_at"), default={"policy_version": None})
        if pointer.get("policies", active["policy_version"]) != active["policy_version"]:
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
        if not self._inputs:
            topics = client.list_topics(timeout=15).topics
            self._inputs = [TopicPartition(name, number) for name in INPUT_TOPICS for number in topics[name].partitions]
        return {
            (place.topic, place.partition): client.get_watermark_offsets(place, timeout=15)[1] for place in self._inputs
        }

    def _follow(self) -> None:
        while messages := self._connect().consume(500, 0.1):
            for message in messages:
                if message.error() is None:
                    self._published[message.key()] = self._published.get(message.key(), 0) + 1
