"""Bad input, case by case: what is refused, with which reason, and what is accepted."""

from __future__ import annotations

import json

import pytest

from pipelines.contracts.events import EVENT_TYPES
from pipelines.ingestion.times import format_time, parse_time
from pipelines.ingestion.validation import Limits, Rejected, payload_hash, validate

ARRIVED = parse_time("2026-03-01T12:00:00Z")
LIMITS = Limits(
    earliest_event_time=parse_time("2000-01-01T00:00:00Z"),
    future_tolerance=300_000_000,
    largest_quantity=10_000_000,
    largest_value_bytes=262_144,
    skus=frozenset({"p-1"}),
    locations=frozenset({"s-1"}),
)
SALE = {
    "event_id": "e-1",
    "event_time": "2026-03-01T11:59:00Z",
    "location_id": "s-1",
    "sku": "p-1",
    "kind": "sale",
    "quantity": 2,
}
MOVEMENT = {**SALE, "kind": "receipt"}
SHIPMENT = {
    "event_id": "e-2",
    "event_time": "2026-03-01T11:59:00Z",
    "shipment_id": "sh-1",
    "supplier_id": "u-1",
    "carrier_id": "c-1",
    "origin": "hub-1",
    "destination": "s-1",
    "node": "hub-2",
    "status": "departed",
}
STATUS = {"event_id": "e-3", "event_time": "2026-03-01T11:59:00Z", "order_id": "o-1", "status": "approved"}
VALID = {
    "pos.sales": SALE,
    "inventory.movements": MOVEMENT,
    "shipments.events": SHIPMENT,
    "restock.order_status": STATUS,
}


def check(value, topic="pos.sales", key=b"k", arrived=ARRIVED):
    raw = json.dumps(value, ensure_ascii=False).encode() if isinstance(value, dict) else value
    return validate(topic, key, raw, arrived, LIMITS)


def reason(value, topic="pos.sales", key=b"k", arrived=ARRIVED):
    with pytest.raises(Rejected) as caught:
        check(value, topic, key, arrived)
    assert caught.value.detail
    assert len(caught.value.detail) < 400
    return caught.value.reason


@pytest.mark.parametrize("topic", VALID)
def test_a_valid_event_is_accepted(topic):
    assert check(VALID[topic], topic)["event_id"] == VALID[topic]["event_id"]


REQUIRED = [
    (topic, field.name) for topic, event_type in EVENT_TYPES.items() for field in event_type.fields if field.required
]


@pytest.mark.parametrize(("topic", "field"), REQUIRED, ids=lambda value: value)
def test_each_required_field_is_required(topic, field):
    without = {name: value for name, value in VALID[topic].items() if name != field}
    assert reason(without, topic) == "missing_field"
    assert reason({**VALID[topic], field: None}, topic) == "missing_field"


RAW = {
    "not JSON": (b"hello", "not_json"),
    "truncated": (json.dumps(SALE).encode()[:-5], "not_json"),
    "empty value": (b"", "empty_value"),
    "array at the root": (b"[1]", "not_an_object"),
    "scalar at the root": (b"3", "not_an_object"),
    "null at the root": (b"null", "not_an_object"),
    "invalid UTF-8": (json.dumps(SALE).encode().replace(b"e-1", b"\xff\xfe"), "not_json"),
    "byte-order mark": (b"\xef\xbb\xbf" + json.dumps(SALE).encode(), "not_json"),
    "repeated key": (json.dumps(SALE).encode()[:-1] + b', "sku": "p-1"}', "repeated_key"),
    "repeated key, nested": (json.dumps(SALE).encode()[:-1] + b', "x": {"a": 1, "a": 2}}', "repeated_key"),
    "depth 100,000": (b"[" * 100_000 + b"]" * 100_000, "not_json"),
    "300 KB": (json.dumps({**SALE, "note": "x" * 300_000}).encode(), "too_large"),
    "NaN": (json.dumps(SALE).encode().replace(b'"quantity": 2', b'"quantity": NaN'), "not_json"),
}


@pytest.mark.parametrize(("raw", "expected"), RAW.values(), ids=RAW.keys())
def test_bytes_that_are_no_event(raw, expected):
    assert reason(raw) == expected


FIELDS = {
    "number as text": ({"quantity": "2"}, "wrong_type"),
    "5.0": ({"quantity": 5.0}, "wrong_type"),
    "5.5": ({"quantity": 5.5}, "wrong_type"),
    "1e3": ({"quantity": 1e3}, "wrong_type"),
    "true as quantity": ({"quantity": True}, "wrong_type"),
    "beyond int64": ({"quantity": 2**64}, "wrong_type"),
    "negative": ({"quantity": -1}, "bad_quantity"),
    "zero": ({"quantity": 0}, "bad_quantity"),
    "a billion units": ({"quantity": 10**9}, "quantity_out_of_range"),
    "unknown product": ({"sku": "p-2"}, "unknown_product"),
    "unknown location": ({"location_id": "s-2"}, "unknown_location"),
    "path in an identifier": ({"sku": "../p-1"}, "bad_identifier"),
    "quotes": ({"sku": "p'\"1"}, "bad_identifier"),
    "backticks": ({"sku": "`p-1`"}, "bad_identifier"),
    "control characters": ({"sku": "p-1\u0000"}, "bad_identifier"),
    "trailing newline": ({"sku": "p-1\n"}, "bad_identifier"),
    "10 KB identifier": ({"sku": "p" * 10_240}, "bad_identifier"),
    "unknown kind": ({"kind": "gift"}, "unknown_kind"),
    "negative price": ({"unit_price": -1}, "wrong_type"),
    "promotion as number": ({"promotion": 1}, "wrong_type"),
    "10 minutes in the future": ({"event_time": "2026-03-01T12:10:00Z"}, "event_time_in_future"),
    "year 1970": ({"event_time": "1970-01-01T00:00:00Z"}, "event_time_too_old"),
    "year 9999": ({"event_time": "9999-12-31T23:59:59Z"}, "event_time_in_future"),
    "seconds as number": ({"event_time": 1772366400}, "bad_time"),
    "milliseconds as number": ({"event_time": 1772366400000}, "bad_time"),
    "microseconds as number": ({"event_time": 1772366400000000}, "bad_time"),
    "time without zone": ({"event_time": "2026-03-01T11:59:00"}, "bad_time"),
    "no such day": ({"event_time": "2026-02-30T11:59:00Z"}, "bad_time"),
    "basic format": ({"event_time": "20260301T115900Z"}, "bad_time"),
}


@pytest.mark.parametrize(("change", "expected"), FIELDS.values(), ids=FIELDS.keys())
def test_fields_outside_the_contract(change, expected):
    assert reason({**SALE, **change}) == expected


ACCEPTED = {
    "unknown extra field": {"shelf": {"aisle": 4, "tags": ["<b>", '="x"']}},
    "optional field null": {"promotion": None},
    "4 minutes in the future": {"event_time": "2026-03-01T12:04:00Z"},
    "30 days late": {"event_time": "2026-01-30T12:00:00Z"},
    "offset +14:00": {"event_time": "2026-03-02T01:59:00+14:00"},
    "repeated DST hour": {"event_time": "2025-10-26T02:30:00+02:00"},
    "missing DST hour": {"event_time": "2025-03-30T02:30:00+01:00"},
    "escaped text": {"extra": 'a "quoted" \\ word'},
}


@pytest.mark.parametrize("change", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_unusual_but_valid_events(change):
    assert check({**SALE, **change})["quantity"] == 2


def test_depth_1000_in_an_unknown_field_is_harmless():
    raw = json.dumps(SALE).encode()[:-1] + b', "x": ' + b"[" * 1000 + b"]" * 1000 + b"}"
    assert check(raw)["sku"] == "p-1"


@pytest.mark.parametrize(
    ("kind", "quantity", "verdict"),
    [
        ("count", 0, None),
        ("count", -1, "bad_quantity"),
        ("adjustment", -5, None),
        ("adjustment", -(10**9), "quantity_out_of_range"),
        ("receipt", 0, "bad_quantity"),
        ("transfer_out", -3, "bad_quantity"),
    ],
)
def test_quantities_by_kind_of_movement(kind, quantity, verdict):
    event = {**MOVEMENT, "kind": kind, "quantity": quantity}
    if verdict is None:
        assert check(event, "inventory.movements")["quantity"] == quantity
    else:
        assert reason(event, "inventory.movements") == verdict


def test_a_key_without_value_is_a_tombstone_and_nothing_at_all_is_not():
    assert check(None) is None
    assert reason(None, key=None) == "empty_record"


def test_without_a_catalog_references_are_not_checked():
    limits = Limits(LIMITS.earliest_event_time, LIMITS.future_tolerance, 10_000_000, 262_144)
    event = {**SALE, "sku": "anything"}
    assert validate("pos.sales", b"k", json.dumps(event).encode(), ARRIVED, limits)["sku"] == "anything"


def test_the_payload_hash_follows_the_content_not_the_spelling():
    spaced = json.dumps(dict(reversed(SALE.items())), indent=3).encode()
    assert payload_hash(check(spaced)) == payload_hash(check(SALE))
    assert payload_hash(check({**SALE, "quantity": 3})) != payload_hash(check(SALE))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ("2026-01-01T10:00:00+14:00", "2025-12-31T20:00:00Z"),
        ("2026-01-01t10:00:00.1234567z", "2026-01-01T10:00:00.123456Z"),
        ("2026-01-01T10:00:00-00:00", "2026-01-01T10:00:00Z"),
    ],
)
def test_times(text, expected):
    assert format_time(parse_time(text)) == expected
