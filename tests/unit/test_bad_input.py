"""Bad input, line by line of the catalogue, through the ingest code: the verdict, the reason, the bytes kept.

Elsewhere: a forecast with NaN, negative or crossing quantiles or a series missing is refused at publishing
(`tests/spark/test_training.py`); the order API's cases (same key and other body 422, wrong signature 401, stale
timestamp 401, unknown product 404, oversized body 413) are in `tests/unit/test_order_api.py`; the whole catalogue
through broker and stream, and an unknown product that becomes known, in `tests/e2e/test_bad_input_stream.py`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from pipelines.contracts.tables import (
    BRONZE_EVENTS,
    INGEST_BATCHES,
    ORDER_STATUS,
    QUARANTINE,
    SHIPMENT_EVENTS,
    STOCK_MOVEMENTS,
)
from pipelines.ingestion.ingestor import Ingestor
from pipelines.operations.settings import IngestSettings
from tests.bad_input import DUPLICATE, GOOD, SALES, TOMBSTONE, Case, catalogue
from tests.chain import plant_catalog

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KNOWN = [("s-1", "p-1"), ("s-1", "p-2")]
CASES = catalogue(NOW)
SILVER = (STOCK_MOVEMENTS, SHIPMENT_EVENTS, ORDER_STATUS)


def records(cases, first_offset=0, headers=None):
    """The cases as the broker would hand them out, a microsecond apart."""
    rows = [
        {
            "topic": case.topic,
            "partition": 0,
            "offset": first_offset + place,
            "kafka_timestamp": NOW + timedelta(microseconds=place),
            "key": case.key,
            "value": case.value,
            "headers": headers,
        }
        for place, case in enumerate(cases)
    ]
    schema = pa.schema([BRONZE_EVENTS.schema.field(name) for name in rows[0]])
    return pa.Table.from_pylist(rows, schema=schema)


def open_ingestor(tables, now=NOW, new_stream=False):
    plant_catalog(tables, KNOWN)
    ingestor = Ingestor(tables, IngestSettings(), "test", lambda: now)
    ingestor.resume(new_stream)
    return ingestor


def totals(tables):
    names = ("consumed", "good", "quarantined", "duplicates", "tombstones")
    rows = tables.read(INGEST_BATCHES, names).to_pylist()
    return {name: sum(row[name] for row in rows) for name in names}


def expected_totals(cases):
    special = {GOOD: "good", DUPLICATE: "duplicates", TOMBSTONE: "tombstones"}
    found = dict.fromkeys(("good", "quarantined", "duplicates", "tombstones"), 0)
    for case in cases:
        found[special.get(case.outcome, "quarantined")] += 1
    return {"consumed": len(cases), **found}


def by_offset(tables, table, *columns):
    rows = tables.read(table, ("topic", "offset", *columns)).to_pylist()
    assert len({(row["topic"], row["offset"]) for row in rows}) == len(rows)
    return {row["offset"]: row for row in rows}


@pytest.fixture(scope="module")
def taken_in(tmp_path_factory):
    """The whole catalogue, taken in as one batch."""
    from pipelines.io.delta import Tables
    from pipelines.operations.settings import load_settings

    home = tmp_path_factory.mktemp("bad-input")
    tables = Tables(load_settings(overrides=[f"home={home}"]))
    open_ingestor(tables).take_in(0, records(CASES))
    return (
        by_offset(tables, BRONZE_EVENTS, "key", "value"),
        by_offset(tables, QUARANTINE, "key", "value", "reason", "detail"),
        {offset for table in SILVER for offset in by_offset(tables, table)},
        totals(tables),
    )


@pytest.mark.parametrize("place", range(len(CASES)), ids=[case.name for case in CASES])
def test_bad_input(taken_in, place):
    bronze, quarantine, silver, _ = taken_in
    case: Case = CASES[place]
    # then the raw bytes are in bronze
    assert (bronze[place]["key"], bronze[place]["value"]) == (case.key, case.value)
    # and it ended in one place: as an event, or set aside byte for byte with a reason, or counted only
    assert (place in silver) == (case.outcome == GOOD)
    assert (place in quarantine) == (case.outcome not in {GOOD, DUPLICATE, TOMBSTONE})
    if place in quarantine:
        row = quarantine[place]
        assert row["reason"] == case.outcome
        assert (row["key"], row["value"]) == (case.key, case.value)
        assert 0 < len(row["detail"]) < 400
        assert row["detail"].isprintable(), "a detail is for a person's terminal"


def test_names_of_cases_are_unique():
    assert len({case.name for case in CASES} - {"an event"}) == len([c for c in CASES if c.name != "an event"])


def test_consumed_is_good_and_quarantined_and_duplicates_and_tombstones(taken_in):
    *_, counted = taken_in
    assert counted == expected_totals(CASES)


def test_cut_into_batches_with_restarts_between_the_verdicts_are_the_same(tables):
    whole = records(CASES)
    for batch, start in enumerate(range(0, len(CASES), 17)):
        open_ingestor(tables).take_in(batch, whole.slice(start, 17))
    assert totals(tables) == expected_totals(CASES)
    reasons = {offset: row["reason"] for offset, row in by_offset(tables, QUARANTINE, "reason").items()}
    assert reasons == {
        place: case.outcome for place, case in enumerate(CASES) if case.outcome not in {GOOD, DUPLICATE, TOMBSTONE}
    }


def test_a_whole_batch_bad(tables):
    bad = [case for case in CASES if case.outcome not in {GOOD, DUPLICATE, TOMBSTONE, "conflicting_event"}]
    taken = open_ingestor(tables).take_in(0, records(bad))
    assert taken.last_sequence == taken.previous_sequence == 0
    assert totals(tables) == expected_totals(bad)
    assert sum(tables.read(table).num_rows for table in SILVER) == 0


def test_nothing_but_tombstones(tables):
    nothing = [Case("", SALES, b"k", None, TOMBSTONE)] * 5
    open_ingestor(tables).take_in(0, records(nothing))
    assert totals(tables) == expected_totals(nothing)


@pytest.mark.parametrize("days", [0, 1, 6])
def test_a_repeated_id_after_a_restart_and_days_later(tables, days):
    # given an event
    repeats = [case for case in CASES if "repeated event id" in case.name]
    first = next(case for case in reversed(CASES) if case.outcome == GOOD and case.name == "an event")
    open_ingestor(tables).take_in(0, records([first]))
    # when the same comes again after a restart, days later, with the same and with another payload
    later = open_ingestor(tables, NOW + timedelta(days=days))
    taken = later.take_in(1, records(repeats, first_offset=1))
    # then the first stands, the same is counted, and the other is set aside
    assert totals(tables) == expected_totals([first, *repeats])
    assert [row["quantity"] for row in tables.read(STOCK_MOVEMENTS).to_pylist()] == [2]
    assert tables.read(QUARANTINE, ("reason",)).column(0).to_pylist() == ["conflicting_event"]
    assert taken.ledger.num_rows == 0
