"""What must be true of the tables and topics at rest, checked by readers that share no code with the pipeline.

Nothing here imports `pipelines`: Kafka is read with confluent-kafka, the tables with deltalake, and the stock is
computed anew with pandas. The rules are R1 to R10 of the crash test.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
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


def reconcile(home: Path | str, bootstrap: str, valid_ids: set[str]) -> list[str]:
    """Violations of R1 to R7, R9 and R10, in words; none when all is well.

    Args:
        valid_ids: event ids of the ledger topics that the sender knows to be valid.
    """
    sent = read_topics(bootstrap, *INPUT_TOPICS)
    ledger = read_table(home, "silver/stock_movements")
    return [
        *_bronze(home, sent),
        *_ledger(ledger, sent, valid_ids),
        *_identity(home, sent),
        *_positions(home, ledger),
        *_orders(home, bootstrap),
        *_levels(home),
    ]


def _bronze(home, sent):
    bronze = read_table(home, "bronze/events")
    found = Counter(zip(bronze.topic, bronze.partition, bronze.offset, strict=True))
    expected = {(record.topic, record.partition, record.offset): record for record in sent}
    if missing := set(expected) - set(found):
        yield f"R1: {len(missing)} records are not in bronze, such as {min(missing)}"
    if doubled := [place for place, count in found.items() if count > 1]:
        yield f"R2: {len(doubled)} records are in bronze more than once, such as {min(doubled)}"
    for row in bronze.itertuples():
        record = expected.get((row.topic, row.partition, row.offset))
        if record is None or (row.key, row.value) != (record.key, record.value):
            yield f"R3: {row.topic}/{row.partition}/{row.offset} differs from what the broker holds"
            return


def _ledger(ledger, sent, valid_ids):
    found = Counter(ledger.event_id)
    if missing := valid_ids - set(found):
        yield f"R4: {len(missing)} valid events are not in the ledger, such as {min(missing)}"
    if extra := set(found) - valid_ids:
        yield f"R4: {len(extra)} events in the ledger are not valid, such as {min(extra)}"
    if doubled := [name for name, count in found.items() if count > 1]:
        yield f"R4: {len(doubled)} events are in the ledger more than once, such as {min(doubled)}"
    if ledger.sequence.nunique() != len(ledger):
        yield "R4: two ledger rows share a place"
    first = {}
    for record in sent:
        if record.topic in LEDGER_TOPICS and record.value:
            try:
                event = json.loads(record.value)
            except ValueError:
                continue
            if isinstance(event, dict) and event.get("event_id") in valid_ids:
                first.setdefault(event["event_id"], event)
    for row in ledger.itertuples():
        event = first.get(row.event_id)
        if event is not None and (event["quantity"], event["kind"]) != (row.quantity, row.kind):
            yield f"R4: {row.event_id} is not what was sent first"
            return


def _identity(home, sent):
    batches = read_table(home, "silver/ingest_batches")
    parts = {name: int(batches[name].sum()) for name in ("good", "quarantined", "duplicates", "tombstones")}
    if sum(parts.values()) != len(sent) or int(batches.consumed.sum()) != len(sent):
        yield f"R9: {len(sent)} records were sent, and {parts} came of them"
    tombstones = sum(record.value is None and record.key is not None for record in sent)
    silver = sum(
        len(read_table(home, name))
        for name in ("silver/stock_movements", "silver/shipment_events", "silver/order_status")
    )
    counted = (parts["good"], parts["quarantined"], parts["tombstones"])
    there = (silver, len(read_table(home, "silver/quarantine")), tombstones)
    if counted != there:
        yield f"R9: counted (good, quarantined, tombstones) {counted}, found {there}"


def _positions(home, ledger):
    positions = read_table(home, "gold/inventory_positions").set_index(["location_id", "sku"]).on_hand
    expected = stock(ledger)
    if not positions.sort_index().astype(int).equals(expected.sort_index().rename("on_hand").astype(int)):
        different = [key for key in expected.index if positions.get(key) != expected[key]]
        example = different[0] if different else None
        yield f"R5: {len(different)} positions differ from the ledger, such as {example}: {positions.get(example)}"


def _orders(home, bootstrap):
    outbox = read_table(home, "gold/order_outbox")
    published = defaultdict(list)
    for record in read_topics(bootstrap, "restock.orders"):
        published[record.key.decode()].append(record.value)
    for order_id, count in Counter(outbox.order_id).items():
        if count > 1:
            yield f"R6: order {order_id} is in the outbox {count} times"
    for row in outbox.itertuples():
        values = published.pop(row.order_id, [])
        if len(values) != 1:
            yield f"R6: order {row.order_id} is on restock.orders {len(values)} times"
        elif values[0] != row.payload.encode():
            yield f"R7: order {row.order_id} was published with another content"
    if published:
        yield f"R6: {len(published)} orders on restock.orders are not in the outbox"
    if sorted(outbox["sequence"]) != list(range(1, len(outbox) + 1)):
        yield "R6: the outbox has gaps"
    if set(read_table(home, "gold/orders").order_id) != set(outbox.order_id):
        yield "R6: gold/orders and the outbox hold different orders"


def _levels(home):
    in_force = read_table(home, "gold/published").set_index("artefact").version
    policies = read_table(home, "gold/inventory_policies")
    policies = policies[policies.policy_version == in_force["policies"]].set_index(["location_id", "sku"])
    for row in read_table(home, "gold/inventory_positions").itertuples():
        if (row.location_id, row.sku) not in policies.index or pd.notna(row.hold_until):
            continue
        policy = policies.loc[(row.location_id, row.sku)]
        position = row.on_hand + row.on_order
        if position <= policy.reorder_point and not len(row.open_orders):
            yield f"R10: {row.location_id}|{row.sku} lies at {position}, at or below its reorder point, nothing open"
    for order in read_table(home, "gold/orders").itertuples():
        reached = order.on_hand + order.on_order + order.quantity
        pack = policies.pack_size.get((order.location_id, order.sku), 1)
        if not order.order_up_to <= reached < order.order_up_to + pack:
            yield f"R10: order {order.order_id} reaches {reached}, order-up-to {order.order_up_to}, pack {pack}"
