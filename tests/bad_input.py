"""The catalogue of bad input: a case for every line, with what must become of it.

`catalogue(arrived)` makes the messages for a moment of arrival, each with an event id of its own; the same list
goes through the ingest code alone (`tests/unit/test_bad_input.py`) and through broker and stream
(`tests/e2e/test_bad_input_stream.py`). Nothing here imports `pipelines`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

GOOD, DUPLICATE, TOMBSTONE = "good", "duplicate", "tombstone"
SALES, MOVEMENTS, SHIPMENTS, STATUSES = "pos.sales", "inventory.movements", "shipments.events", "restock.order_status"

REQUIRED = {
    SALES: ("event_id", "event_time", "location_id", "sku", "kind", "quantity"),
    MOVEMENTS: ("event_id", "event_time", "location_id", "sku", "kind", "quantity"),
    SHIPMENTS: (
        *("event_id", "event_time", "shipment_id", "supplier_id", "carrier_id", "origin", "destination", "node"),
        "status",
    ),
    STATUSES: ("event_id", "event_time", "order_id", "status"),
}
IDENTIFIERS = {
    "../ in it": "../p-1",
    "a quote in it": "p'1",
    "a double quote in it": 'p"1',
    "a backtick in it": "p`1",
    "a control character in it": "p\u0001",
    "NUL in it": "p\u0000",
    "a newline at the end": "p-1\n",
    "10 KB long": "p" * 10_240,
    "65 characters long": "p" * 65,
    "empty": "",
    "a bidirectional mark in it": "p\u202e1",
    "a letter beyond ASCII in it": "pé1",
}


@dataclass(frozen=True)
class Case:
    """One message. `outcome`: good, duplicate, tombstone, or the reason for which it is set aside."""

    name: str
    topic: str
    key: bytes | None
    value: bytes | None
    outcome: str


def stamp(at: datetime) -> str:
    """RFC 3339 in UTC."""
    return at.isoformat().replace("+00:00", "Z")


def message(topic: str, event_id: str, at: datetime, **changes: Any) -> dict[str, Any]:
    """A valid event of a topic, with changes; `...` takes a field out."""
    event: dict[str, Any] = {"event_id": event_id, "event_time": stamp(at)}
    if topic in {SALES, MOVEMENTS}:
        kind = "sale" if topic == SALES else "receipt"
        event |= {"location_id": "s-1", "sku": "p-1", "kind": kind, "quantity": 2}
    elif topic == SHIPMENTS:
        event |= {"shipment_id": "sh-1", "supplier_id": "u-1", "carrier_id": "c-1", "origin": "hub-1"}
        event |= {"destination": "s-1", "node": "hub-2", "status": "departed"}
    else:
        event |= {"order_id": "o-1", "status": "acknowledged"}
    return {name: value for name, value in (event | changes).items() if value is not ...}


class _Catalogue:
    def __init__(self, arrived: datetime) -> None:
        self.arrived = arrived
        self.before = arrived - timedelta(minutes=1)
        self.number = 0

    def next_id(self) -> str:
        self.number += 1
        return f"c-{self.number}"

    def case(self, name: str, outcome: str, topic: str = SALES, **changes: Any) -> Case:
        changes.setdefault("event_id", self.next_id())
        event = message(topic, at=self.before, **changes)
        return Case(name, topic, b"s-1|p-1", json.dumps(event, ensure_ascii=False).encode(), outcome)

    def raw(self, name: str, outcome: str, value: bytes | None, key: bytes | None = b"s-1|p-1") -> Case:
        return Case(name, SALES, key, value, outcome)

    def text(self, **changes: Any) -> bytes:
        """A valid sale as bytes, to be spoilt."""
        return json.dumps(message(SALES, self.next_id(), self.before, **changes)).encode()

    def documents(self) -> Iterator[Case]:
        yield self.raw("not JSON", "not_json", b"hello")
        yield self.raw("truncated", "not_json", self.text()[:-7])
        yield self.raw("empty value", "empty_value", b"")
        yield self.raw("null value with key", TOMBSTONE, None)
        yield self.raw("null key and value", "empty_record", None, key=None)
        yield self.raw("null key with a valid value", GOOD, self.text(), key=None)
        yield self.raw("array at the root", "not_an_object", b"[" + self.text() + b"]")
        for scalar in (b"3", b'"text"', b"true", b"null"):
            yield self.raw(f"scalar at the root: {scalar.decode()}", "not_an_object", scalar)
        yield self.raw("invalid UTF-8", "not_json", self.text(ticket_id="t-1").replace(b"t-1", b"\xff\xfe\x80"))
        yield self.raw("truncated UTF-8", "not_json", self.text(ticket_id="t-1").replace(b"t-1", b"\xe2\x82"))
        yield self.raw("lone surrogate", "not_json", self.text(ticket_id="t-1").replace(b"t-1", b"\\ud800"))
        yield self.raw("UTF-16", "not_json", self.text().decode().encode("utf-16"))
        yield self.raw("byte-order mark", "not_json", b"\xef\xbb\xbf" + self.text())
        yield self.raw("duplicate key", "repeated_key", self.text()[:-1] + b', "quantity": 9}')
        yield self.raw("duplicate key with the same value", "repeated_key", self.text()[:-1] + b', "quantity": 2}')
        yield self.raw("duplicate key, escaped", "repeated_key", self.text()[:-1] + b', "\\u0071uantity": 2}')
        yield self.raw("duplicate key, nested", "repeated_key", self.text()[:-1] + b', "x": {"a": 1, "a": 2}}')
        deep = b"[" * 1000 + b"]" * 1000
        yield self.raw("depth 1,000 in an extra field", GOOD, self.text()[:-1] + b', "x": ' + deep + b"}")
        yield self.raw("depth 1,000 at the root", "not_an_object", deep)
        yield self.raw("depth 1,000, never closed", "not_json", b"[" * 1000)
        yield self.raw("depth 30,000", "not_json", b'{"a":' * 30_000 + b"1" + b"}" * 30_000)
        yield self.raw("300 KB value", "too_large", self.text(note="x" * 300_000))
        yield self.raw("two documents", "not_json", self.text() + b"\n" + self.text())
        yield self.raw("only blanks", "not_json", b" \n\t")
        yield self.raw("NUL bytes", "not_json", b"\x00" * 40)

    def required(self) -> Iterator[Case]:
        for topic, names in REQUIRED.items():
            for name in names:
                kept = {} if name == "event_id" else {"event_id": self.next_id()}
                yield self.case(f"{topic} without {name}", "missing_field", topic, **{**kept, name: ...})
                yield self.case(f"{topic} with {name} null", "missing_field", topic, **{**kept, name: None})
                wrong = 7 if name not in {"quantity"} else [7]
                reason = "bad_time" if name == "event_time" else "wrong_type"
                yield self.case(f"{topic} with {name} of another type", reason, topic, **{**kept, name: wrong})

    def quantities(self) -> Iterator[Case]:
        def spelt(number: bytes) -> bytes:
            return self.text(quantity=0).replace(b'"quantity": 0', b'"quantity": ' + number)

        yield self.case("number as string", "wrong_type", quantity="2")
        for number in (b"5.0", b"5.5", b"1e3", b"1E+3", b"-0.0"):
            yield self.raw(f"{number.decode()} as quantity", "wrong_type", spelt(number))
        for number in (b"NaN", b"Infinity", b"-Infinity", b"0x10", b"05", b"+5", b".5", b"1_000", b"5."):
            yield self.raw(f"{number.decode()} as quantity", "not_json", spelt(number))
        yield self.raw("beyond int64", "wrong_type", spelt(b"9223372036854775808"))
        yield self.raw("beyond uint64", "wrong_type", spelt(b"18446744073709551616"))
        yield self.raw("below int64", "wrong_type", spelt(b"-9223372036854775809"))
        yield self.raw("the smallest int64", "wrong_type", spelt(b"-9223372036854775808"))
        yield self.raw("the largest int64", "quantity_out_of_range", spelt(b"9223372036854775807"))
        yield self.case("negative where not allowed", "bad_quantity", quantity=-1)
        yield self.case("zero where not allowed", "bad_quantity", quantity=0)
        yield self.case("true as quantity", "wrong_type", quantity=True)
        yield self.case("1,000,000,000 units", "quantity_out_of_range", quantity=10**9)
        yield self.case("negative count", "bad_quantity", MOVEMENTS, kind="count", quantity=-1)
        yield self.case("a count of zero", GOOD, MOVEMENTS, kind="count", quantity=0, sku="p-2")
        yield self.case("a negative adjustment", GOOD, MOVEMENTS, kind="adjustment", quantity=-3)
        yield self.case("an adjustment of -1,000,000,000", "quantity_out_of_range", MOVEMENTS, kind="adjustment",
                        quantity=-(10**9))  # fmt: skip
        yield self.case("price NaN as text", "wrong_type", unit_price="NaN")
        yield self.case("negative price", "wrong_type", unit_price=-0.01)
        yield self.raw("price beyond a double", "not_json", self.text()[:-1] + b', "unit_price": 1e999}')
        yield self.case("promotion as number", "wrong_type", promotion=1)

    def names(self) -> Iterator[Case]:
        yield self.case("unknown product", "unknown_product", sku="p-new")
        yield self.case("unknown location", "unknown_location", location_id="s-new")
        yield self.case("unknown product and location", "unknown_product", sku="p-new", location_id="s-new")
        yield self.case("unknown product in a shipment", "unknown_product", SHIPMENTS, sku="p-new")
        for what, name in IDENTIFIERS.items():
            yield self.case(f"product with {what}", "bad_identifier", sku=name)
            yield self.case(f"location with {what}", "bad_identifier", location_id=name)
            yield self.case(f"event id with {what}", "bad_identifier", event_id=name)
            yield self.case(f"order id with {what}", "bad_identifier", STATUSES, order_id=name)
        yield self.case("unknown extra field", GOOD, shelf={"aisle": 4, "tags": ["a", None, 1.5]})
        yield self.case("unknown kind", "unknown_kind", kind="gift")
        yield self.case("a kind of another topic", "unknown_kind", kind="receipt")
        yield self.case("unknown status", "unknown_status", SHIPMENTS, status="lost")

    def times(self) -> Iterator[Case]:
        yield self.case("30 days late", GOOD, event_time=stamp(self.arrived - timedelta(days=30)))
        yield self.case("4 minutes in the future", GOOD, event_time=stamp(self.arrived + timedelta(minutes=4)))
        soon = stamp(self.arrived + timedelta(minutes=10))
        yield self.case("10 minutes in the future", "event_time_in_future", event_time=soon)
        yield self.case("year 1970", "event_time_too_old", event_time="1970-01-01T00:00:00Z")
        yield self.case("year 9999", "event_time_in_future", event_time="9999-12-31T23:59:59Z")
        yield self.case("year 9999, zone beyond it", "bad_time", event_time="9999-12-31T23:59:59-14:00")
        yield self.case("year 0000", "bad_time", event_time="0000-01-01T00:00:00Z")
        seconds = int(self.before.timestamp())
        yield self.case("seconds as number", "bad_time", event_time=seconds)
        yield self.case("milliseconds as number", "bad_time", event_time=seconds * 10**3)
        yield self.case("microseconds as number", "bad_time", event_time=seconds * 10**6)
        yield self.case("seconds as text", "bad_time", event_time=str(seconds))
        yield self.case("a time without zone", "bad_time", event_time=stamp(self.before).removesuffix("Z"))
        yield self.case("a date without time", "bad_time", event_time=f"{self.before:%Y-%m-%d}")
        ahead = (self.before + timedelta(hours=14)).replace(tzinfo=None).isoformat() + "+14:00"
        yield self.case("+14:00", GOOD, event_time=ahead)
        yield self.case("leap second", GOOD, event_time="2016-12-31T23:59:60Z")
        yield self.case("61st second", "bad_time", event_time="2016-12-31T23:59:61Z")
        yield self.case("repeated DST hour, first", GOOD, event_time="2025-10-26T02:30:00+02:00")
        yield self.case("repeated DST hour, second", GOOD, event_time="2025-10-26T02:30:00+01:00")
        yield self.case("missing DST hour", GOOD, event_time="2025-03-30T02:30:00+01:00")
        yield self.case("30 February", "bad_time", event_time="2026-02-30T10:00:00Z")
        yield self.case("hour 24", "bad_time", event_time="2026-02-01T24:00:00Z")
        yield self.case("digits that are not ASCII", "bad_time", event_time="２０２６-01-01T00:00:00Z")

    def texts(self) -> Iterator[Case]:
        yield self.case("HTML in text", GOOD, STATUSES, reason="<script>alert(1)</script>")
        yield self.case("a spreadsheet formula in text", GOOD, STATUSES, actor='=HYPERLINK("http://a.example","x")')
        yield self.case("terminal control characters in text", GOOD, STATUSES, reason="\u001b[2J\u0000\u0007")
        yield self.case("markup in text", GOOD, STATUSES, reason="[red]x[/red] `rm -rf` $(id) '; DROP TABLE x; --")
        yield self.case("HTML in an identifier", "bad_identifier", sku="<b>p</b>")

    def repeats(self) -> Iterator[Case]:
        first = self.case("an event", GOOD)
        yield first
        yield Case("repeated event id, same payload", SALES, first.key, first.value, DUPLICATE)
        document = json.loads(first.value or b"")
        spelt = json.dumps(dict(reversed(document.items())), indent=2).encode()
        yield Case("repeated event id, same payload spelt otherwise", SALES, first.key, spelt, DUPLICATE)
        other = json.dumps(document | {"quantity": 9}).encode()
        yield Case("repeated event id, other payload", SALES, first.key, other, "conflicting_event")
        yield Case("the same conflict again", SALES, first.key, other, "conflicting_event")
        late = self.case("an event", GOOD, event_time=stamp(self.before - timedelta(hours=1)))
        yield Case("out of order", SALES, late.key, late.value, GOOD)


def catalogue(arrived: datetime) -> list[Case]:
    """All cases, for messages that arrive at this moment."""
    made = _Catalogue(arrived)
    parts = (made.documents, made.required, made.quantities, made.names, made.times, made.texts, made.repeats)
    return [case for part in parts for case in part()]
