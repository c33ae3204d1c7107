"""Judging a batch by columns agrees with judging each record alone, on anything that a topic may hold."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_validation import FIELDS, LIMITS, RAW, SALE, VALID

from pipelines.contracts.events import EVENT_TYPES
from pipelines.contracts.tables import BRONZE_EVENTS
from pipelines.ingestion.judging import judge_table
from pipelines.ingestion.seen import first_of_each, id_keys
from pipelines.ingestion.validation import Limits, Rejected, payload_hash, validate

ARRIVED = LIMITS.earliest_event_time + 826_027_200 * 1_000_000
"""2026-03-05."""

NAMES = sorted({name for event in VALID.values() for name in event} | {"on_hand", "eta", "mode", "unit_price", "x"})
TEXTS = [
    *("p-1", "s-1", "p-2", "a" * 64, "a" * 65, "p-1\n", "", "sale", "count", "adjustment", "receipt", "departed"),
    *("2026-02-28T23:59:60Z", "2026-02-29T00:00:00Z", "2024-02-29T12:00:00.5+05:30", "2026-03-01t10:00:00z"),
    *("1999-12-31T23:59:59Z", "0000-01-01T00:00:00Z", "2026-03-01T24:00:00Z", "2026-03-01T10:00:00.1234567Z"),
    *("9999-12-31T23:59:59Z", "2026-03-01T10:00:00.25Z", "2026-04-31T10:00:00Z", "2026-03-01T10:60:00Z"),
]
NUMBERS = [-(2**63), 2**63 - 1, 2**63, 2**64, 10_000_001, -10_000_000, -1, 0, 1, 0.0, -0.0, 2.5, -1e-9, 1e300]
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**64), 2**64),
    st.floats(allow_nan=False),
    st.text(max_size=6),
    st.sampled_from([*TEXTS, *NUMBERS]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["a", "b"]), st.integers(), max_size=2),
)


@st.composite
def values(draw):
    """A valid event, or one that something was done to, or bytes of another kind."""
    topic = draw(st.sampled_from([*VALID, "elsewhere"]))
    event = {**VALID.get(topic, SALE), "event_id": draw(st.sampled_from(["e-1", "e-2", "e-3"]))}
    changes = draw(st.dictionaries(st.sampled_from(NAMES), ODD, max_size=2))
    value = json.dumps({**event, **changes}, ensure_ascii=draw(st.booleans())).encode()
    raw = [case for name, (case, _) in RAW.items() if name not in {"300 KB", "depth 100,000"}]
    return topic, draw(st.one_of(st.just(value), st.just(value), st.sampled_from([*raw, None])))


def batch(records):
    schema = BRONZE_EVENTS.schema
    columns = {
        "topic": [topic for topic, _ in records],
        "kafka_timestamp": [ARRIVED] * len(records),
        "key": [b"k" if place % 3 else None for place in range(len(records))],
        "value": [value for _, value in records],
    }
    arrays = [
        pa.array(column, pa.int64()).cast(schema.field(name).type)
        if name == "kafka_timestamp"
        else pa.array(column, schema.field(name).type)
        for name, column in columns.items()
    ]
    return pa.table(arrays, names=list(columns))


def alone(raw, limits):
    """What `validate` says of each record: an event with its hash, a rejection, or None."""
    verdicts = []
    for row in raw.select(["topic", "key", "value"]).to_pylist():
        try:
            event = validate(row["topic"], row["key"], row["value"], ARRIVED, limits)
        except Rejected as rejected:
            verdicts.append(rejected.args)
        else:
            verdicts.append(None if event is None else (event, payload_hash(event)))
    return verdicts


def together(raw, limits):
    """The same, from `judge_table`."""
    judged = judge_table(raw, limits)
    verdicts = [None] * raw.num_rows
    for place, rejected in judged.rejected.items():
        verdicts[place] = rejected.args
    for events in judged.events.values():
        columns = {
            name: (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
            for name, column in events.columns.items()
        }
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        assert [row["event_id"] for row in rows] == events.ids
        for place, row, payload in zip(events.rows.tolist(), rows, events.payloads.tolist(), strict=True):
            assert verdicts[place] is None
            verdicts[place] = (row, payload)
    return verdicts


@pytest.mark.parametrize("topic", VALID)
@pytest.mark.parametrize(
    "odd", [[value] for value in NUMBERS] + [TEXTS, NUMBERS, [None, True, [], {}, "x", 3]], ids=repr
)
def test_every_field_takes_and_refuses_the_same_values(topic, odd):
    for field in EVENT_TYPES[topic].names:
        for kind in ({}, {"kind": "adjustment"}, {"kind": "count"}) if topic == "inventory.movements" else ({},):
            raw = batch([(topic, json.dumps({**VALID[topic], **kind, field: value}).encode()) for value in odd])
            assert together(raw, LIMITS) == alone(raw, LIMITS)


def test_every_known_case_is_judged_alike():
    records = [("pos.sales", json.dumps({**SALE, **change}).encode()) for change, _ in FIELDS.values()]
    records += [("pos.sales", raw) for raw, _ in RAW.values()]
    records += [(topic, json.dumps(event).encode()) for topic, event in VALID.items()]
    raw = batch(records)
    assert together(raw, LIMITS) == alone(raw, LIMITS)


@settings(max_examples=300, deadline=None)
@given(st.lists(values(), min_size=1, max_size=12), st.booleans())
def test_any_batch_is_judged_as_its_records_are(records, with_catalog):
    limits = LIMITS if with_catalog else Limits(LIMITS.earliest_event_time, LIMITS.future_tolerance, 1000, 262_144)
    raw = batch(records)
    assert together(raw, limits) == alone(raw, limits)


@pytest.mark.parametrize(
    "ids", [["a"], ["a", "b", "a", "c", "b", "a"], [f"e-{number % 700}" for number in range(2000)]]
)
def test_repeated_keys_point_to_their_first(ids):
    assert first_of_each(id_keys("t", ids)).tolist() == [ids.index(name) for name in ids]
