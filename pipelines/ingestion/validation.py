"""One Kafka record's bytes against the contract: a validated event, or the reason why not.

Pure Python on bytes, so that every case of bad input is a unit test. Batches are judged by
`pipelines.ingestion.judging`, which agrees with this module on every record and asks it for every reason.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NoReturn

import orjson

from pipelines.contracts.events import (
    EVENT_TYPES,
    IDENTIFIER,
    INT64_MAX,
    EventType,
    Field,
    FieldType,
)
from pipelines.ingestion.times import format_time, parse_time

Event = dict[str, Any]

SHOWN = 80
"""Characters of a bad value that a detail shows; the whole of it stays in the raw bytes."""


class Rejected(Exception):
    """The record does not meet the contract."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Limits:
    """What validation needs to know beside the contract. Times in microseconds since 1970.

    `skus` and `locations` are None while no catalog is loaded: references are then not checked.
    """

    earliest_event_time: int
    future_tolerance: int
    largest_quantity: int
    largest_value_bytes: int
    skus: Collection[str] | None = None
    locations: Collection[str] | None = None


def validate(topic: str, key: bytes | None, value: bytes | None, kafka_timestamp: int, limits: Limits) -> Event | None:
    """The event in a record.

    Returns:
        Its fields by name (times as microseconds, absent optional fields as None); None for a tombstone
        (a key without a value).

    Raises:
        Rejected: with a reason for counting and a detail for a person.
    """
    if value is None:
        if key is None:
            raise Rejected("empty_record", "neither key nor value")
        return None
    event_type = EVENT_TYPES.get(topic)
    if event_type is None:
        raise Rejected("unknown_topic", f"no contract for topic {topic}")
    document = _parse(value, limits.largest_value_bytes)
    event = {field.name: _CHECKS[field.type](field, document.get(field.name)) for field in event_type.fields}
    _check_time(event["event_time"], kafka_timestamp, limits)
    _check_quantity(event_type, event, limits)
    _check_references(event, limits)
    return event


def payload_hash(event: Event) -> int:
    """A signed 64-bit hash of what a validated event says, independent of how its JSON was written."""
    digest = blake2b(orjson.dumps(tuple(event.values())), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _parse(value: bytes, largest: int) -> dict[str, Any]:
    if not value:
        raise Rejected("empty_value", "the value has no bytes")
    if len(value) > largest:
        raise Rejected("too_large", f"{len(value)} bytes; at most {largest} are accepted")
    try:
        document = orjson.loads(value)
    except (orjson.JSONDecodeError, RecursionError) as error:
        raise Rejected("not_json", str(error)) from None
    if type(document) is not dict:
        raise Rejected("not_an_object", f"expected a JSON object, found {type(document).__name__}")
    # Each key and each text takes two quotes; any other number means nesting, escapes or a repeated key.
    quotes = 2 * (len(document) + sum(type(item) is str for item in document.values()))
    if value.count(b'"') != quotes:
        _refuse_repeated_keys(value)
    return document


def _refuse_repeated_keys(value: bytes) -> None:
    def check(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            repeated = next(name for name in names if names.count(name) > 1)
            raise Rejected("repeated_key", f"the key {_shown(repeated)} occurs more than once")

    try:
        json.loads(value, object_pairs_hook=check)
    except (ValueError, RecursionError) as error:
        raise Rejected("not_json", f"nested too deeply or malformed: {error}") from None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)"


def _missing(field: Field, value: Any) -> bool:
    if value is not None:
        return False
    if field.required:
        raise Rejected("missing_field", f"{field.name} is required")
    return True


def _wrong(field: Field, value: Any) -> NoReturn:
    raise Rejected("wrong_type", f"{field.name}: expected {field.type.value}, found {_shown(value)}")


def _identifier(field: Field, value: Any) -> str | None:
    if _missing(field, value):
        return None
    if type(value) is not str:
        _wrong(field, value)
    if IDENTIFIER.fullmatch(value) is None:
        raise Rejected("bad_identifier", f"{field.name}: expected {IDENTIFIER.pattern}, found {_shown(value)}")
    return value


def _text(field: Field, value: Any) -> str | None:
    if _missing(field, value):
        return None
    if type(value) is not str:
        _wrong(field, value)
    if field.choices is not None and value not in field.choices:
        choices = ", ".join(sorted(field.choices))
        raise Rejected(f"unknown_{field.name}", f"{field.name}: expected one of {choices}, found {_shown(value)}")
    return value


def _integer(field: Field, value: Any) -> int | None:
    if _missing(field, value):
        return None
    if type(value) is not int or abs(value) > INT64_MAX:
        _wrong(field, value)
    return value


def _number(field: Field, value: Any) -> float | None:
    if _missing(field, value):
        return None
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
        raise Rejected("wrong_type", f"{field.name}: expected a number of at least 0, found {_shown(value)}")
    return float(value)


def _boolean(field: Field, value: Any) -> bool | None:
    if _missing(field, value):
        return None
    if type(value) is not bool:
        _wrong(field, value)
    return value


def _time(field: Field, value: Any) -> int | None:
    if _missing(field, value):
        return None
    if type(value) is not str:
        raise Rejected("bad_time", f"{field.name}: expected {field.type.value}, found {_shown(value)}")
    try:
        return parse_time(value)
    except ValueError as error:
        raise Rejected("bad_time", f"{field.name}: {error}; found {_shown(value)}") from None


_CHECKS: dict[FieldType, Callable[[Field, Any], Any]] = {
    FieldType.IDENTIFIER: _identifier,
    FieldType.TEXT: _text,
    FieldType.INTEGER: _integer,
    FieldType.NUMBER: _number,
    FieldType.BOOLEAN: _boolean,
    FieldType.TIME: _time,
}


def _check_time(event_time: int, kafka_timestamp: int, limits: Limits) -> None:
    if event_time > kafka_timestamp + limits.future_tolerance:
        raise Rejected(
            "event_time_in_future",
            f"event_time {format_time(event_time)} lies after its arrival at {format_time(kafka_timestamp)}",
        )
    if event_time < limits.earliest_event_time:
        raise Rejected(
            "event_time_too_old",
            f"event_time {format_time(event_time)} lies before {format_time(limits.earliest_event_time)}",
        )


def _check_quantity(event_type: EventType, event: Event, limits: Limits) -> None:
    quantity = event.get("quantity")
    if quantity is None:
        return
    kind = event.get("kind")
    if kind != "adjustment":
        least = 0 if kind == "count" else 1
        if quantity < least:
            raise Rejected(
                "bad_quantity", f"quantity: at least {least} for {kind or event_type.topic}, found {quantity}"
            )
    if abs(quantity) > limits.largest_quantity:
        raise Rejected(
            "quantity_out_of_range",
            f"quantity: at most {limits.largest_quantity} units, found {_shown(quantity)}",
        )


def _check_references(event: Event, limits: Limits) -> None:
    sku, location = event.get("sku"), event.get("location_id")
    if sku is not None and limits.skus is not None and sku not in limits.skus:
        raise Rejected("unknown_product", f"no product {sku} in the catalog")
    if location is not None and limits.locations is not None and location not in limits.locations:
        raise Rejected("unknown_location", f"no location {location} in the catalog")
