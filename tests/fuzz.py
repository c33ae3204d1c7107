"""A seeded mutator of valid messages, and a check of ledger rows that shares no code with the pipeline.

`messages(seed, count)` yields (topic, key, value): valid events, repeats and contradictions of earlier ones, and
events to which up to three things were done, in the document or in its bytes.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.bad_input import MOVEMENTS, REQUIRED, SALES, SHIPMENTS, STATUSES, message, stamp

TOPICS = (SALES,) * 6 + (MOVEMENTS,) * 4 + (SHIPMENTS, STATUSES)
SKUS = tuple(f"p-{number}" for number in range(1, 30))
PLACES = tuple(f"s-{number}" for number in range(1, 10))
OPTIONAL = {
    SALES: {"unit_price": 2.5, "promotion": True, "ticket_id": "t-1"},
    MOVEMENTS: {"order_id": "o-1", "on_hand": 4},
    SHIPMENTS: {"order_id": "o-1", "sku": "p-1", "quantity": 3, "mode": "road"},
    STATUSES: {"quantity": 4, "actor": "anna", "reason": "since"},
}
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 5.0, 5.5, -0.0, 1e3, 1e300, 10**7, 10**7 + 1, 10**9, 2**53, 2**63 - 1, 2**63),
    *(-(2**63), 2**64, "", " ", "2", "p-1", "p-1\n", "../etc", "a" * 64, "a" * 65, "\x00", "\x1b[31m", "é", "\u202e"),
    *(
        "=1+1",
        "<b>",
        "`x`",
        "'; --",
        "NaN",
        "null",
        "[red]",
        "😀",
        "x" * 2000,
        [],
        {},
        [1],
        {"a": 1},
        [[]],
        "p-unknown",
    ),
    *("1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"),
    *("2026-02-30T00:00:00Z", "2016-12-31T23:59:60Z", "2025-03-30T02:30:00+01:00", "2026-01-01T00:00:00+14:00"),
    *("2026-01-01", "2026-01-01T00:00:00", "2026-01-01t00:00:00.123456789z", 1772366400, 1772366400000, "24:00:00Z"),
)
PIECES = (b"\x00", b"\xff", b"\xef\xbb\xbf", b'"', b"\\", b"\\u0000", b"\\ud800", b"{", b"}", b"[", b"]", b",", b":",
          b"NaN", b"-", b"1e999", b"null", b"\xe2\x82", b"\r\n", b'{"a":' * 1200, b"[" * 1200, b"9" * 400)  # fmt: skip
KINDS = {
    SALES: ("sale", "return"),
    MOVEMENTS: ("receipt", "adjustment", "transfer_in", "transfer_out", "write_off", "count"),
}


@dataclass
class Mutator:
    """Messages of a seed. `untouched` collects the event ids of those that nothing was done to."""

    seed: int
    arrived: datetime
    untouched: set[tuple[str, str]] = field(default_factory=set)

    def messages(self, count: int) -> Iterator[tuple[str, bytes | None, bytes | None]]:
        """The next messages."""
        chance = random.Random(self.seed)
        earlier: list[tuple[str, dict[str, Any]]] = []
        for number in range(count):
            roll = chance.random()
            if roll < 0.1 and earlier:
                topic, event = chance.choice(earlier)
                event = dict(event)
                if roll < 0.03:
                    _change_content(topic, event, chance)
                yield topic, _key(event), json.dumps(event, separators=(",", ": ")).encode()
                continue
            topic = chance.choice(TOPICS)
            event = self._event(topic, number, chance)
            if roll < 0.4:
                earlier.append((topic, event))
                self.untouched.add((topic, event["event_id"]))
                yield topic, _key(event), json.dumps(event).encode()
            elif roll < 0.43:
                yield topic, chance.choice((None, b"k", b"", b"\xff")), chance.choice((None, b""))
            else:
                yield topic, _key(event), _spoil(event, chance)
            if len(earlier) > 5000:
                del earlier[:2500]

    def _event(self, topic: str, number: int, chance: random.Random) -> dict[str, Any]:
        at = self.arrived - timedelta(seconds=chance.randrange(40 * 86_400))
        event = message(topic, f"z{self.seed}-{number}", at)
        if topic in KINDS:
            event |= {"location_id": chance.choice(PLACES), "sku": chance.choice(SKUS)}
            event |= {"kind": chance.choice(KINDS[topic]), "quantity": chance.randrange(1, 40)}
        for name, value in OPTIONAL[topic].items():
            if chance.random() < 0.3:
                event[name] = value
        return event


def _key(event: dict[str, Any]) -> bytes:
    return f"{event.get('location_id', event.get('order_id', ''))}|{event.get('sku', '')}".encode("utf-8", "replace")


def _change_content(topic: str, event: dict[str, Any], chance: random.Random) -> None:
    if topic in KINDS:
        event["quantity"] += chance.randrange(1, 4)
    else:
        event["event_time"] = stamp(datetime.fromisoformat(event["event_time"]) - timedelta(seconds=1))


def _spoil(event: dict[str, Any], chance: random.Random) -> bytes:
    for _ in range(chance.choice((0, 1, 1, 1, 2))):
        name = chance.choice([*event, "unit_price", "eta", "on_hand", "extra"])
        if name in event and chance.random() < 0.2:
            del event[name]
        else:
            event[name] = chance.choice(VALUES)
    raw = json.dumps(event, ensure_ascii=chance.random() < 0.5, indent=chance.choice((None, None, 1))).encode()
    for _ in range(chance.choice((0, 0, 1, 1, 3))):
        raw = chance.choice(BYTES)(raw, chance)
    return raw


def _cut(raw: bytes, chance: random.Random) -> bytes:
    return raw[: chance.randrange(len(raw) + 1)]


def _insert(raw: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(raw) + 1)
    return raw[:place] + chance.choice(PIECES) + raw[place:]


def _flip(raw: bytes, chance: random.Random) -> bytes:
    if not raw:
        return raw
    place = chance.randrange(len(raw))
    return raw[:place] + bytes((raw[place] ^ (1 << chance.randrange(8)),)) + raw[place + 1 :]


def _delete(raw: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(raw) + 1)
    return raw[:place] + raw[place + chance.randrange(1, 6) :]


def _repeat(raw: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(raw) + 1)
    end = min(len(raw), place + chance.randrange(1, 30))
    return raw[:end] + raw[place:end] + raw[end:]


def _repeat_key(raw: bytes, chance: random.Random) -> bytes:
    return raw[:-1] + chance.choice((b',"sku":"p-1"}', b',"x":{"y":1,"y":1}}', b',"\\u006bind":"sale"}'))


BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (_cut, _insert, _flip, _delete, _repeat, _repeat_key)

# The independent check. -----------------------------------------------------------------------------------

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
SIGNS = {"sale": -1, "return": 1, "receipt": 1, "adjustment": 1, "transfer_in": 1, "transfer_out": -1, "write_off": -1}
COMPARED = ("event_id", "location_id", "sku", "kind", "quantity", "order_id", "unit_price", "promotion", "ticket_id")


def violation(topic: str, row: dict[str, Any], value: bytes, arrived: datetime) -> str | None:
    """What is wrong with a ledger row, given the bytes that it came from; None for nothing."""
    document = json.loads(value.decode("utf-8", "strict"), object_pairs_hook=_unique)
    if any(document.get(name) is None for name in REQUIRED[topic]):
        return "a required field is missing"
    for name in COMPARED:
        said = document.get(name)
        if topic == SALES and name == "order_id":
            said = None
        if topic == MOVEMENTS and name in {"unit_price", "promotion", "ticket_id"}:
            said = None
        if name == "unit_price" and said is not None:
            said = float(said)
        if said != row[name] or (name == "quantity" and type(said) is not int):
            return f"{name} is {row[name]!r}, sent was {said!r}"
    for name in ("event_id", "location_id", "sku", "order_id", "ticket_id"):
        if row[name] is not None and NAME.fullmatch(row[name]) is None:
            return f"{name} is no identifier"
    if row["sku"] not in SKUS or row["location_id"] not in PLACES:
        return "it names what the catalog does not know"
    if row["kind"] not in KINDS[topic]:
        return "no such kind"
    least = {"adjustment": -(10**7), "count": 0}.get(row["kind"], 1)
    if not least <= row["quantity"] <= 10**7:
        return "the quantity is out of range"
    change = None if row["kind"] == "count" else SIGNS[row["kind"]] * row["quantity"]
    if row["change"] != change:
        return f"the change is {row['change']}"
    if row["unit_price"] is not None and not 0 <= row["unit_price"] < float("inf"):
        return "no price"
    if not datetime(2000, 1, 1, tzinfo=UTC) <= row["event_time"] <= arrived + timedelta(minutes=5, seconds=1):
        return "the time is out of range"
    if abs(_instant(document["event_time"]) - row["event_time"]) >= timedelta(microseconds=1):
        return "the time is another"
    return None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key occurs twice")
    return document


def _instant(text: str) -> datetime:
    text = re.sub(r"(\.\d{6})\d+", r"\1", text.upper())
    if ":60" in text[16:20]:
        return _instant(text.replace(":60", ":59", 1)) + timedelta(seconds=1)
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("no zone")
    return found.astimezone(UTC)
