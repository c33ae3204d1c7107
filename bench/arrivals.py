"""When orders became visible: in the outbox, by the age of its commit files; on Kafka, to a plain consumer."""

from __future__ import annotations

import json
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import orjson
import pyarrow.parquet as pq
from confluent_kafka import TopicPartition

from bench.workload import ORDER_UP_TO, PACK, REORDER_POINT, Workload
from pipelines.contracts import topics
from pipelines.contracts.tables import ORDER_OUTBOX
from pipelines.io import kafka
from pipelines.io.delta import Tables
from pipelines.operations.settings import Settings

RETURNED = 10
"""Units that may come back after the last order of a series."""

Arrived = list[tuple[float, dict[str, Any]]]
"""Seconds since 1970, and the order."""


def outbox_arrivals(tables: Tables) -> Arrived:
    """Each order of the outbox with the time at which its commit appeared in the table's log.

    A commit file is complete when it gets its name, so its age is when any reader could first see its rows.
    """
    root = Path(tables.uri(ORDER_OUTBOX))
    arrived: Arrived = []
    for commit in sorted((root / "_delta_log").glob("*.json")):
        visible = commit.stat().st_mtime
        for line in commit.read_text().splitlines():
            if (added := json.loads(line).get("add")) is not None:
                for payload in pq.read_table(root / unquote(added["path"]), columns=["payload"]).column(0).to_pylist():
                    arrived.append((visible, orjson.loads(payload)))
    return arrived


class OrderListener:
    """A consumer of committed orders that notes when each arrived. Call `step` until all is there."""

    def __init__(self, settings: Settings) -> None:
        self.arrived: Arrived = []
        self._client = kafka.consumer(settings, "bench-orders", **{"fetch.wait.max.ms": 50})
        places = range(settings.kafka.partitions)
        self._client.assign([TopicPartition(topics.RESTOCK_ORDERS, partition, 0) for partition in places])

    def step(self) -> None:
        """Wait a moment for an order."""
        message = self._client.poll(0.1)
        if message is not None and message.error() is None:
            self.arrived.append((time.time(), orjson.loads(message.value())))

    def close(self) -> None:
        """Leave."""
        self._client.close()


def check_orders(workload: Workload, sent: int, orders: list[dict[str, Any]]) -> None:
    """Every series must end above its reorder point and not above its level, with what was ordered.

    Raises:
        AssertionError: an order is missing, doubled or too much: the figures would mean nothing.
    """
    position = dict(zip(workload.all_keys(), workload.opening_levels(), strict=True))
    for number, _, _, _, change in islice(workload.changes(), sent):
        position[workload.key(number)] += change
    triggers = Counter(order["trigger_event_id"] for order in orders)
    if repeated := [trigger for trigger, times in triggers.items() if times > 1]:
        raise AssertionError(f"{len(repeated)} events ordered twice, among them {repeated[0]}")
    for order in orders:
        position[order["location_id"], order["sku"]] += order["quantity"]
    highest = ORDER_UP_TO + PACK + RETURNED
    wrong = {key: level for key, level in position.items() if not REORDER_POINT < level <= highest}
    if wrong:
        raise AssertionError(f"{len(wrong)} of {len(position)} series end at a wrong position: {min(wrong.items())}")
