"""Taking batches in: the identity of promise 1, duplicates and conflicts, and dying half-way."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from pipelines.contracts.tables import (
    BRONZE_EVENTS,
    HEADERS,
    INGEST_BATCHES,
    ORDER_STATUS,
    QUARANTINE,
    SHIPMENT_EVENTS,
    STOCK_MOVEMENTS,
)
from pipelines.ingestion.ingestor import Ingestor
from pipelines.ingestion.seen import SeenIds, id_key
from pipelines.operations.settings import IngestSettings
from tests.chain import plant_catalog

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def sale(event_id, quantity=1, **extra):
    return {
        "event_id": event_id,
        "event_time": "2026-03-01T11:00:00Z",
        "location_id": "s-1",
        "sku": "p-1",
        "kind": "sale",
        "quantity": quantity,
        **extra,
    }


class Topic:
    """Records with offsets, as a broker would hand them out."""

    def __init__(self):
        self.offset = 0

    def records(self, *values, topic="pos.sales", headers=None):
        rows = []
        for value in values:
            raw = json.dumps(value).encode() if isinstance(value, dict) else value
            rows.append(
                {
                    "topic": topic,
                    "partition": 0,
                    "offset": self.offset,
                    "kafka_timestamp": NOW + timedelta(milliseconds=self.offset),
                    "key": b"k",
                    "value": raw,
                    "headers": headers,
                }
            )
            self.offset += 1
        schema = pa.schema([BRONZE_EVENTS.schema.field(name) for name in rows[0]])
        assert schema.field("headers").type == HEADERS
        return pa.Table.from_pylist(rows, schema=schema)


def open_ingestor(tables, new_stream=False):
    ingestor = Ingestor(tables, IngestSettings(), "test", lambda: NOW)
    ingestor.resume(new_stream)
    return ingestor


def ids(tables):
    return sorted(tables.read(STOCK_MOVEMENTS, ("event_id",)).column(0).to_pylist())


def counts(tables):
    names = ("consumed", "good", "quarantined", "duplicates", "tombstones")
    rows = tables.read(INGEST_BATCHES, names).to_pylist()
    return tuple(sum(row[name] for row in rows) for name in names)


def test_every_record_ends_in_one_place(tables):
    # given good, repeated, conflicting, broken and empty records in one batch
    raw = Topic().records(sale("e-1"), sale("e-2"), sale("e-1"), sale("e-2", quantity=9), b"{", None)
    # when it is taken in
    open_ingestor(tables).take_in(0, raw)
    # then the parts add up, and the first of two contents stands
    assert counts(tables) == (6, 2, 2, 1, 1)
    assert ids(tables) == ["e-1", "e-2"]
    assert sorted(tables.read(QUARANTINE, ("reason",)).column(0).to_pylist()) == ["conflicting_event", "not_json"]
    assert tables.read(BRONZE_EVENTS).num_rows == 6


def test_duplicates_are_known_after_a_restart(tables):
    topic = Topic()
    open_ingestor(tables).take_in(0, topic.records(sale("e-1")))
    open_ingestor(tables).take_in(1, topic.records(sale("e-1"), sale("e-1", quantity=5)))
    assert ids(tables) == ["e-1"]
    assert counts(tables) == (3, 1, 1, 1, 0)


@pytest.mark.parametrize(
    "dies_after", [table.name for table in (BRONZE_EVENTS, QUARANTINE, SHIPMENT_EVENTS, STOCK_MOVEMENTS)]
)
def test_a_batch_that_died_half_way_comes_out_the_same(tables, monkeypatch, dies_after):
    # given a process that dies right after one of the commits of its second batch
    topic = Topic()
    ingestor = open_ingestor(tables)
    ingestor.take_in(0, topic.records(sale("e-0")))
    shipment = dict.fromkeys(("shipment_id", "supplier_id", "carrier_id", "origin", "destination", "node"), "x")
    shipment |= {"event_id": "h-1", "event_time": "2026-03-01T11:00:00Z", "status": "created"}
    raw = pa.concat_tables(
        [
            topic.records(sale("e-1"), sale("e-0"), sale("e-1", quantity=4), b"?"),
            topic.records(shipment, topic="shipments.events"),
        ]
    )
    append = tables.append

    def dying(table, *arguments, **options):
        written = append(table, *arguments, **options)
        if table.name == dies_after:
            raise KeyboardInterrupt
        return written

    monkeypatch.setattr(tables, "append", dying)
    with pytest.raises(KeyboardInterrupt):
        ingestor.take_in(1, raw)
    monkeypatch.undo()
    # when the next process repeats the batch
    open_ingestor(tables).take_in(1, raw)
    # then nothing is lost and nothing is doubled
    assert ids(tables) == ["e-0", "e-1"]
    assert counts(tables) == (6, 3, 2, 1, 0)
    assert tables.read(BRONZE_EVENTS).num_rows == 6
    assert tables.read(QUARANTINE).num_rows == 2
    assert tables.read(SHIPMENT_EVENTS).num_rows == 1
    assert sorted(tables.read(STOCK_MOVEMENTS, ("sequence",)).column(0).to_pylist()) == [1, 2]


@pytest.mark.parametrize("lost", [False, True], ids=["checkpoint kept", "checkpoint lost"])
@pytest.mark.parametrize("learns", [True, False], ids=["learns", "forgets"])
@pytest.mark.parametrize("dies_after", [table.name for table in (BRONZE_EVENTS, QUARANTINE, STOCK_MOVEMENTS)])
def test_a_catalog_that_changes_while_a_batch_lies_half_written_changes_no_verdict(
    tables, monkeypatch, dies_after, learns, lost
):
    # given a process that dies after one of the commits of a batch, and a catalog that changes before the next starts
    few, many = [("s-1", "p-1")], [("s-1", "p-1"), ("s-1", "p-2")]
    plant_catalog(tables, few if learns else many)
    raw = Topic().records(sale("e-1"), sale("e-2", sku="p-2"), sale("e-3"), sale("e-1", quantity=4), b"?")
    ingestor, append = open_ingestor(tables), tables.append

    def dying(table, *arguments, **options):
        written = append(table, *arguments, **options)
        if table.name == dies_after:
            raise KeyboardInterrupt
        return written

    monkeypatch.setattr(tables, "append", dying)
    with pytest.raises(KeyboardInterrupt):
        ingestor.take_in(0, raw)
    monkeypatch.undo()
    plant_catalog(tables, many if learns else few)
    # when the next process goes on, from its checkpoint or without one
    if lost:
        open_ingestor(tables, new_stream=True)
    else:
        open_ingestor(tables).take_in(0, raw)
    # then each record is in one place, and counted there
    good, quarantine = ids(tables), tables.read(QUARANTINE, ("offset",)).column(0).to_pylist()
    assert counts(tables) == (5, len(good), len(quarantine), 0, 0)
    assert len(good) + len(quarantine) == 5
    assert ("e-2" in good) != (1 in quarantine)
    written = dies_after != BRONZE_EVENTS.name
    assert ("e-2" in good) == (not learns if written else learns)
    assert tables.read(BRONZE_EVENTS).num_rows == 5
    # and doing it again changes nothing
    open_ingestor(tables, new_stream=True)
    assert counts(tables)[0] == 5


def test_the_sequence_orders_all_silver_tables(tables):
    status = {"event_id": "e-1", "event_time": "2026-03-01T11:00:00Z", "order_id": "o-1", "status": "approved"}
    topic = Topic()
    raw = pa.concat_tables(
        [topic.records(sale("e-1")), topic.records(status, topic="restock.order_status"), topic.records(sale("e-2"))]
    )
    taken = open_ingestor(tables).take_in(0, raw)
    assert taken.ledger.column("sequence").to_pylist() == [1, 3]
    assert taken.statuses.column("sequence").to_pylist() == [2]
    assert tables.read(ORDER_STATUS).num_rows == 1
    assert (taken.previous_sequence, taken.last_sequence) == (0, 3)


def test_a_replayed_record_marks_its_quarantine_row(tables):
    topic = Topic()
    ingestor = open_ingestor(tables)
    ingestor.take_in(0, topic.records(b"{", b"["))
    header = [{"key": "stockcast-replay-of", "value": b"pos.sales/0/1"}]
    ingestor.take_in(1, topic.records(sale("e-1"), headers=header))
    rows = {row["offset"]: row["replayed_at"] for row in tables.read(QUARANTINE).to_pylist()}
    assert rows[0] is None
    assert rows[1] == NOW
    assert ids(tables) == ["e-1"]


def test_ids_are_forgotten_after_the_horizon_and_not_before(tables):
    # given an event, and the same one again just within and just beyond the seven days
    topic, days = Topic(), [0, 7, 9]
    moments = iter([NOW + timedelta(days=day) for day in days])
    ingestor = Ingestor(tables, IngestSettings(), "test", lambda: next(moments, NOW))
    for batch, _ in enumerate(days):
        ingestor.take_in(batch, topic.records(sale("e-1")))
    # then it is recognised within, and beyond it left to the nightly reconciliation
    assert counts(tables) == (3, 2, 0, 1, 0)


def test_many_ids_are_all_found_again():
    # given more ids than fit the dictionary, added in uneven portions
    seen, names, chance = SeenIds(), [f"e-{number}" for number in range(200_000)], random.Random(3)
    start = 0
    while start < len(names):
        portion = names[start : start + chance.randrange(1, 40_000)]
        seen.add([id_key("t", name) for name in portion], [hash(name) % 1000 for name in portion])
        start += len(portion)
    # then each is found with its payload, and no other is
    assert len(seen) == len(names)
    sample = chance.sample(names, 5000)
    assert seen.find([id_key("t", name) for name in sample]) == [hash(name) % 1000 for name in sample]
    assert seen.find([id_key("t", f"other-{number}") for number in range(5000)]) == [None] * 5000
