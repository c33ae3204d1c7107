"""Mutated messages through the ingest code: no exception, and each record ends in exactly one place.

200,000 messages (FUZZ_MESSAGES) of seed 1 (FUZZ_SEED), about 20 s on one core; `make fuzz SEED=7` takes another.
"""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.contracts.tables import (
    BRONZE_EVENTS,
    INGEST_BATCHES,
    ORDER_STATUS,
    QUARANTINE,
    SHIPMENT_EVENTS,
    STOCK_MOVEMENTS,
)
from pipelines.ingestion.ingestor import Ingestor
from pipelines.ingestion.judging import judge_table
from pipelines.ingestion.times import parse_time
from pipelines.ingestion.validation import Limits
from pipelines.operations.settings import IngestSettings
from tests.chain import plant_catalog
from tests.fuzz import PLACES, SKUS, Mutator, violation

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MESSAGES = int(os.environ.get("FUZZ_MESSAGES", "200000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
BATCH = 5_000
SILVER = (STOCK_MOVEMENTS, SHIPMENT_EVENTS, ORDER_STATUS)
SCHEMA = pa.schema([field for field in BRONZE_EVENTS.schema if field.name != "ingested_at"])


def as_table(messages, first_offset):
    rows = [
        {
            "topic": topic,
            "partition": place % 2,
            "offset": first_offset + place,
            "kafka_timestamp": NOW + timedelta(microseconds=place),
            "key": key,
            "value": value,
        }
        for place, (topic, key, value) in enumerate(messages)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def open_ingestor(tables):
    ingestor = Ingestor(tables, IngestSettings(), "fuzz", lambda: NOW)
    ingestor.resume(new_stream=False)
    return ingestor


def test_whatever_comes_ends_in_one_place_byte_for_byte(tables):
    # given a catalog, and messages to most of which something was done
    plant_catalog(tables, [(place, sku) for place in PLACES for sku in SKUS])
    mutator = Mutator(SEED, NOW)
    sent = list(mutator.messages(MESSAGES))
    # when they are taken in, in batches, with restarts between
    ingestor = open_ingestor(tables)
    for batch, start in enumerate(range(0, MESSAGES, BATCH)):
        if batch % 3 == 2:
            ingestor = open_ingestor(tables)
        ingestor.take_in(batch, as_table(sent[start : start + BATCH], start))
    # then all are in bronze as they were sent
    bronze = tables.read(BRONZE_EVENTS, ("offset", "topic", "key", "value")).sort_by("offset")
    assert bronze.column("offset").to_pylist() == list(range(MESSAGES))
    columns = (bronze.column(name).to_pylist() for name in ("topic", "key", "value"))
    assert list(zip(*columns, strict=True)) == sent
    # and each was counted once, where it is
    counts = tables.read(INGEST_BATCHES).to_pylist()
    total = Counter({name: sum(row[name] for row in counts) for name in ("good", "quarantined", "duplicates")})
    tombstones = sum(value is None and key is not None for _, key, value in sent)
    assert sum(row["consumed"] for row in counts) == MESSAGES == sum(total.values()) + tombstones
    assert sum(row["tombstones"] for row in counts) == tombstones
    events = pa.concat_tables([tables.read(table, ("offset",)) for table in SILVER]).column(0).to_pylist()
    quarantine = tables.read(QUARANTINE, ("offset", "key", "value", "reason")).to_pylist()
    assert (len(events), len(quarantine)) == (total["good"], total["quarantined"])
    assert len({*events, *(row["offset"] for row in quarantine)}) == len(events) + len(quarantine)
    # and what was set aside is what was sent, with each reason that there is met
    assert all(sent[row["offset"]][1:] == (row["key"], row["value"]) for row in quarantine)
    reasons = Counter(row["reason"] for row in quarantine)
    assert len(reasons) >= 16, reasons
    assert min(total.values()) > MESSAGES / 100
    # and every event that nothing was done to is there, once, and all that is there is valid
    for table in SILVER:
        topics = {"silver/shipment_events": {"shipments.events"}, "silver/order_status": {"restock.order_status"}}
        mine = topics.get(table.name, {"pos.sales", "inventory.movements"})
        ids = tables.read(table, ("event_id",)).column(0).to_pylist()
        assert len(set(ids)) == len(ids)
        assert {event_id for topic, event_id in mutator.untouched if topic in mine} <= set(ids)
    ledger = tables.read(STOCK_MOVEMENTS).to_pylist()
    found = {
        row["offset"]: problem
        for row in ledger
        if (problem := violation(row["topic"], row, sent[row["offset"]][2], NOW)) is not None
    }
    assert not found
    assert sorted(tables.read(table, ("sequence",)).num_rows for table in SILVER)[0] > 0


LIMITS = Limits(
    parse_time("2000-01-01T00:00:00Z"), 300_000_000, 10_000_000, 262_144, frozenset(SKUS), frozenset(PLACES)
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=60) | JSON.map(lambda value: repr(value).encode("utf-8", "replace")), max_size=20))
def test_any_bytes_are_judged_without_an_exception(values):
    topics = ("pos.sales", "inventory.movements", "shipments.events", "restock.order_status", "elsewhere")
    raw = as_table([(topics[place % 5], None, value) for place, value in enumerate(values)], 0)
    judged = judge_table(raw, LIMITS)
    events = sum(len(found.ids) for found in judged.events.values())
    assert events + len(judged.rejected) == len(values)
