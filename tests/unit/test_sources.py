"""Which gaps there are between what was read and what Kafka holds, and reading on behind them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from pipelines.contracts.tables import INGEST_BATCHES, INGEST_GAPS
from pipelines.errors import SourceGapError
from pipelines.ingestion import sources
from pipelines.io.topic_state import TopicState

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TOPIC = "pos.sales"


def state(topic_id="a", beginnings=None, ends=None):
    return {TOPIC: TopicState(TOPIC, topic_id, beginnings or {0: 0, 1: 0}, ends or {0: 100, 1: 100})}


def finish(tables, at=NOW, **ends):
    row = dict.fromkeys(INGEST_BATCHES.schema.names, 0) | {
        "topic": TOPIC,
        "end_offsets": json.dumps({number.removeprefix("p"): offset for number, offset in ends.items()}),
        "finished_at": at,
    }
    tables.append(INGEST_BATCHES, pa.Table.from_pylist([row], schema=INGEST_BATCHES.schema))


def gaps(tables, states):
    return sources.find_gaps(sources.sources(tables), sources.next_offsets(tables), states)


@pytest.fixture
def read(tables):
    """Tables of a stream that has read up to 50 and 60."""
    sources.check_sources(tables, state(), NOW)
    finish(tables, NOW + timedelta(seconds=1), p0=50, p1=60)
    return tables


def test_a_first_start_records_what_it_reads_and_has_no_gap(tables):
    sources.check_sources(tables, state(beginnings={0: 7, 1: 0}), NOW)
    assert sources.next_offsets(tables) == {TOPIC: {0: 7, 1: 0}}
    assert gaps(tables, state(beginnings={0: 7, 1: 0})) == []


@pytest.mark.parametrize(
    ("states", "said"),
    [
        (state(), None),
        (state(beginnings={0: 50, 1: 60}), None),
        (state(beginnings={0: 50, 1: 61}), "pos.sales[1] no longer holds offsets 60 to 60 (1 not read)"),
        (state(ends={0: 49, 1: 100}), "pos.sales[0] ends at offset 49, and 50 was to be read next"),
        (state(topic_id="b"), "pos.sales[0] is another topic now (id b, was a): read up to offset 50 of the old"),
        (
            state(beginnings={0: 0, 1: 0, 2: 3}, ends={0: 90, 1: 90, 2: 9}),
            "pos.sales[2] no longer holds offsets 0 to 2",
        ),
        ({}, None),
    ],
    ids=["none", "read to the end", "retention", "truncated", "recreated", "a new partition's start", "deleted"],
)
def test_gaps(read, states, said):
    found = gaps(read, states)
    assert [said in str(gap) for gap in found[:1]] == ([] if said is None else [True])
    if said is not None:
        with pytest.raises(SourceGapError) as caught:
            sources.check_sources(read, states, NOW)
        assert "stockcast ingest acknowledge" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("hours", [-1, 0, 1], ids=["clock behind", "same time", "later"])
def test_an_acknowledged_topic_is_read_from_its_own_beginning(read, hours):
    states = state(topic_id="b", beginnings={0: 4, 1: 0, 2: 0}, ends={0: 5, 1: 9, 2: 0})
    sources.acknowledge(read, states, NOW + timedelta(hours=hours), "anna", gaps(read, states))
    assert sources.next_offsets(read) == {TOPIC: {0: 4, 1: 0, 2: 0}}
    assert gaps(read, states) == []
    assert {row["acknowledged_by"] for row in read.read(INGEST_GAPS).to_pylist()} == {"anna"}
    # and what is read from then on counts, what was read before does not
    finish(read, NOW + timedelta(hours=2), p0=5)
    assert sources.next_offsets(read) == {TOPIC: {0: 5, 1: 0, 2: 0}}


def test_an_acknowledged_overrun_leaves_the_other_partitions_where_they_were(read):
    states = state(beginnings={0: 70, 1: 0})
    sources.acknowledge(read, states, NOW, "anna", gaps(read, states))
    assert sources.next_offsets(read) == {TOPIC: {0: 70, 1: 60}}
    assert gaps(read, states) == []
