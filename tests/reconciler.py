"""Readers of the tables and topics that share no code with the pipeline: confluent-kafka, deltalake and pandas."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from confluent_kafka import Consumer, TopicPartition
from deltalake import DeltaTable
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

SIGNS = {"sale": -1, "return": 1, "receipt": 1, "adjustment": 1, "transfer_in": 1, "transfer_out": -1, "write_off": -1}
LEDGER_TOPICS = ("pos.sales", "inventory.movements")
INPUT_TOPICS = (*LEDGER_TOPICS, "shipments.events", "restock.order_status")


@dataclass(frozen=True)
class Record:
    """A record as the broker holds it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


def read_topics(bootstrap: str, *topics: str, timeout: float = 30.0) -> list[Record]:
    """Every committed record of the topics, in partition order."""
    client = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"reconciler-{time.time_ns()}",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )
    known = client.list_topics(timeout=15).topics
    places = [TopicPartition(topic, partition, 0) for topic in topics for partition in known[topic].partitions]
    client.assign(places)
    records, ended, deadline = [], set(), time.monotonic() + timeout
    while len(ended) < len(places):
        assert time.monotonic() < deadline, f"{topics} could not be read to their ends"
        message = client.poll(1.0)
        if message is None:
            continue
        if message.error() is not None:
            ended.add((message.topic(), message.partition()))
            continue
        records.append(Record(message.topic(), message.partition(), message.offset(), message.key(), message.value()))
    client.close()
    return records


def read_table(home: Path | str, name: str) -> pd.DataFrame:
    """A Delta table as pandas."""
    path = f"{home}/tables/{name}"
    files = SubTreeFileSystem(path, LocalFileSystem())
    return DeltaTable(path).to_pyarrow_dataset(filesystem=files).to_table().to_pandas()


def stock(events: pd.DataFrame) -> pd.Series:
    """On-hand stock per (location_id, sku): the latest count plus the changes after it."""

    def level(rows: pd.DataFrame) -> int:
        counts = rows[rows.kind == "count"].sort_values(["event_time", "event_id"])
        since, start = (counts.event_time.iloc[-1], counts.quantity.iloc[-1]) if len(counts) else (None, 0)
        changes = rows[rows.kind != "count"]
        if since is not None:
            changes = changes[changes.event_time > since]
        return int(start + (changes.kind.map(SIGNS) * changes.quantity).sum())

    return events.groupby(["location_id", "sku"])[["event_id", "event_time", "kind", "quantity"]].apply(level)
