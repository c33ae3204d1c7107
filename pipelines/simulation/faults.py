"""What goes wrong between a till and the broker: repeated, late, contradicting and malformed messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import orjson

from pipelines.contracts import topics
from pipelines.simulation.messages import CONFLICT, DUPLICATE, MALFORMED, TOMBSTONE, Message
from pipelines.simulation.plan import HOUR_MS, Faults

_LATENESS = ((0.75, 60_000, HOUR_MS), (0.95, HOUR_MS, 6 * HOUR_MS), (1.0, 6 * HOUR_MS, 48 * HOUR_MS))
"""(up to this cumulative share, least, most milliseconds late)."""

_DUPLICATE_WITHIN_MS = 10 * 60_000
_LEDGER_TOPICS = (topics.POS_SALES, topics.INVENTORY_MOVEMENTS)

Payload = dict[str, Any]


def _without(name: str) -> Callable[[Payload], Payload]:
    return lambda payload: {key: value for key, value in payload.items() if key != name}


def _with(**changes: Any) -> Callable[[Payload], Payload]:
    return lambda payload: {**payload, **changes}


_BAD_BYTES: dict[str, Callable[[bytes], bytes | None]] = {
    "broken_json": lambda value: value[: len(value) // 2],
    "not_json": lambda _: b"<sale>not JSON</sale>",
    "not_an_object": lambda value: b"[" + value + b"]",
    "invalid_utf8": lambda value: value.replace(b'"event_id":"', b'"event_id":"\xff\xfe', 1),
    "empty_value": lambda _: b"",
    TOMBSTONE: lambda _: None,
}
_BAD_FIELDS: dict[str, Callable[[Payload], Payload]] = {
    "missing_event_id": _without("event_id"),
    "missing_event_time": _without("event_time"),
    "time_without_zone": lambda payload: {**payload, "event_time": payload["event_time"].rstrip("Z")},
    "not_a_time": _with(event_time="yesterday noon"),
    "far_future": _with(event_time="9999-01-01T00:00:00Z"),
    "bad_identifier": lambda payload: {**payload, "event_id": f"../{payload['event_id']}"},
}
_BAD_LEDGER_FIELDS: dict[str, Callable[[Payload], Payload]] = {
    "missing_sku": _without("sku"),
    "missing_quantity": _without("quantity"),
    "null_quantity": _with(quantity=None),
    "quantity_as_text": lambda payload: {**payload, "quantity": str(payload["quantity"])},
    "fractional_quantity": _with(quantity=5.5),
    "huge_quantity": _with(quantity=10**15),
    "unknown_product": _with(sku="no-such-product"),
    "unknown_location": _with(location_id="no-such-store"),
    "unknown_kind": _with(kind="giveaway"),
}
_BAD_SALE_FIELDS: dict[str, Callable[[Payload], Payload]] = {
    "negative_quantity": _with(quantity=-3),
    "zero_quantity": _with(quantity=0),
    "promotion_as_text": _with(promotion="yes"),
}
_BAD_STATUS_FIELDS: dict[str, Callable[[Payload], Payload]] = {"unknown_status": _with(status="lost at sea")}


def field_faults(topic: str) -> dict[str, Callable[[Payload], Payload]]:
    """The ways in which an event on the topic can be malformed although it is a JSON object."""
    if topic == topics.POS_SALES:
        return {**_BAD_FIELDS, **_BAD_LEDGER_FIELDS, **_BAD_SALE_FIELDS}
    if topic == topics.INVENTORY_MOVEMENTS:
        return {**_BAD_FIELDS, **_BAD_LEDGER_FIELDS}
    return {**_BAD_FIELDS, **_BAD_STATUS_FIELDS}


def spoil(
    messages: Sequence[Message],
    faults: Faults,
    rng: np.random.Generator,
    new_id: Callable[[], str],
) -> list[Message]:
    """The messages, some of them late, with duplicates, contradictions and malformed ones added.

    No valid event is lost or changed: malformed messages are further ones with ids of their own, and a
    contradiction leaves after the event whose id it repeats.

    Args:
        messages: valid messages.
        rng: random numbers of this batch alone.
        new_id: gives an event id that no valid event has.
    """
    size = len(messages)
    late, repeat, contradict, malform = rng.random((4, size))
    lags, gaps = _lags(rng, size), rng.integers(1, _DUPLICATE_WITHIN_MS, (3, size))
    result: list[Message] = []
    for number, original in enumerate(messages):
        message = original
        if late[number] < faults.late:
            message = replace(original, send_at=original.send_at + int(lags[number]), late=True)
        result.append(message)
        if repeat[number] < faults.duplicates:
            after = message.send_at + int(gaps[0, number])
            result.append(replace(message, send_at=after, label=DUPLICATE, late=False))
        if contradict[number] < faults.conflicts and message.topic in _LEDGER_TOPICS:
            result.append(_contradiction(message, message.send_at + int(gaps[1, number])))
        if malform[number] < faults.malformed:
            result.append(_malformed(original, original.send_at + int(gaps[2, number]), rng, new_id()))
    return result


def _lags(rng: np.random.Generator, size: int) -> np.ndarray:
    share, within = rng.random((2, size))
    lags = np.zeros(size)
    lower = 0.0
    for upper, least, most in _LATENESS:
        lags = np.where((share >= lower) & (share < upper), least + within * (most - least), lags)
        lower = upper
    return lags


def _contradiction(message: Message, send_at: int) -> Message:
    payload = orjson.loads(message.value or b"{}")
    payload["quantity"] += 1
    return replace(message, send_at=send_at, value=orjson.dumps(payload), label=CONFLICT, late=False)


def _malformed(message: Message, send_at: int, rng: np.random.Generator, event_id: str) -> Message:
    payload = {**orjson.loads(message.value or b"{}"), "event_id": event_id}
    fields = field_faults(message.topic)
    kinds = [*_BAD_BYTES, *fields]
    kind = kinds[int(rng.integers(len(kinds)))]
    value = _BAD_BYTES[kind](orjson.dumps(payload)) if kind in _BAD_BYTES else orjson.dumps(fields[kind](payload))
    label = TOMBSTONE if kind == TOMBSTONE else f"{MALFORMED}:{kind}"
    return replace(message, send_at=send_at, value=value, label=label, late=False)
