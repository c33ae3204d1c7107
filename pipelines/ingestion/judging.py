"""A batch of records against the contract, column by column: the same verdicts as `validate`, in bulk.

A record that passes every column's check is a valid event. Each of the others is judged by `validate` alone,
which accepts what the checks here were too narrow for and gives the rest their reasons. So a check here may be
narrower than the contract, never wider.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.events import EVENT_TYPES, IDENTIFIER, INT64_MAX, EventType, Field, FieldType
from pipelines.contracts.tables import TIME
from pipelines.ingestion.times import parse_time
from pipelines.ingestion.validation import Event, Limits, Rejected, payload_hash, validate

Longs = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Events:
    """Valid events of one topic, in the batch's order.

    Attributes:
        rows: the events' places in the batch.
        columns: the contract's fields, in its order.
        ids: the event ids.
        payloads: what `payload_hash` gives of each.
    """

    rows: Longs
    columns: dict[str, pa.Array]
    ids: list[str]
    payloads: Longs


@dataclass(frozen=True)
class Judged:
    """The verdicts on a batch: events by topic, rejections by place in the batch. All others are tombstones."""

    events: dict[str, Events]
    rejected: dict[int, Rejected]


class _Column(NamedTuple):
    """One field of many events, as Python values and as Arrow, and which of them pass."""

    values: Sequence[Any]
    array: pa.Array
    passed: Mask


def judge_table(raw: pa.Table, limits: Limits) -> Judged:
    """Judge records in the columns of bronze."""
    judged = Judged({}, {})
    topic_of = raw.column("topic").combine_chunks().dictionary_encode()
    codes = topic_of.indices.to_numpy()
    for code, topic in enumerate(topic_of.dictionary.to_pylist()):
        rows = np.flatnonzero(codes == code)
        records = raw.select(["key", "value", "kafka_timestamp"])
        _judge_topic(topic, rows, records if len(rows) == raw.num_rows else records.take(rows), limits, judged)
    return judged


def judged_before(raw: pa.Table, set_aside: pa.Table, limits: Limits) -> Judged:
    """The verdicts that a batch was given before, when part of it was written already.

    Args:
        raw: its records.
        set_aside: what it wrote to quarantine. All else was accepted, or had been taken in before.
        limits: without a catalog: what was known then is not known now.
    """
    judged = judge_table(raw, limits)
    place_of = {place: row for row, place in enumerate(_places(raw))}
    for place, row in zip(_places(set_aside), set_aside.select(["reason", "detail"]).to_pylist(), strict=True):
        if place in place_of:
            judged.rejected[place_of[place]] = Rejected(row["reason"], row["detail"])
    rejected = np.array(sorted(judged.rejected), np.int64)
    return Judged({topic: _without(events, rejected) for topic, events in judged.events.items()}, judged.rejected)


def _places(records: pa.Table) -> list[tuple[str, int, int]]:
    columns = (records.column(name).to_pylist() for name in ("topic", "partition", "offset"))
    return list(zip(*columns, strict=True))


def _without(events: Events, rejected: Longs) -> Events:
    kept = ~np.isin(events.rows, rejected)
    columns = {name: column.filter(pa.array(kept)) for name, column in events.columns.items()}
    return Events(events.rows[kept], columns, list(compress(events.ids, kept)), events.payloads[kept])


def _judge_topic(topic: str, rows: Longs, records: pa.Table, limits: Limits, judged: Judged) -> None:
    values = records.column("value").to_pylist()
    stamps = records.column("kafka_timestamp").cast(pa.int64()).to_numpy()
    event_type = EVENT_TYPES.get(topic)
    columns: dict[str, _Column] = {}
    passed: Mask = np.zeros(len(rows), bool)
    if event_type is not None:
        columns, passed = _check_columns(event_type, values, stamps, limits)
    singly: list[tuple[int, Event]] = []
    for place in np.flatnonzero(~passed).tolist():
        key = records.column("key")[place].as_py()
        try:
            event = validate(topic, key, values[place], int(stamps[place]), limits)
        except Rejected as rejected:
            judged.rejected[int(rows[place])] = rejected
            continue
        if event is not None:
            singly.append((place, event))
    if event_type is not None and (singly or passed.any()):
        judged.events[topic] = _assemble(event_type, rows, columns, passed, singly)


def _assemble(
    event_type: EventType,
    rows: Longs,
    columns: dict[str, _Column],
    passed: Mask,
    singly: list[tuple[int, Event]],
) -> Events:
    """The events that passed as columns and those accepted one by one, together, in order."""
    everything = bool(passed.all())
    lists = [column.values if everything else list(compress(column.values, passed)) for column in columns.values()]
    payloads = _payload_hashes(lists)
    places = np.flatnonzero(passed)
    arrays = {
        name: column.array if everything else column.array.filter(pa.array(passed)) for name, column in columns.items()
    }
    ids = list(lists[0])
    if singly:
        events = [event for _, event in singly]
        places = np.concatenate([places, [place for place, _ in singly]])
        order = np.argsort(places, kind="stable")
        places = places[order]
        arrays = {
            field.name: pa.concat_arrays([arrays[field.name], _one_by_one(field, events)]).take(pa.array(order))
            for field in event_type.fields
        }
        payloads = np.concatenate([payloads, [payload_hash(event) for event in events]])[order]
        ids = arrays["event_id"].to_pylist()
    return Events(rows[places], arrays, ids, payloads)


def _one_by_one(field: Field, events: list[Event]) -> pa.Array:
    type_ = ARROW_TYPES[field.type]
    values = [event[field.name] for event in events]
    return pa.array(values, pa.int64()).cast(type_) if type_ == TIME else pa.array(values, type_)


def _payload_hashes(lists: list[Sequence[Any]]) -> Longs:
    """`payload_hash` of many events, given by field."""
    digests = [blake2b(orjson.dumps(event), digest_size=8).digest() for event in zip(*lists, strict=True)]
    return np.frombuffer(b"".join(digests), "<i8").astype(np.int64)


def _check_columns(
    event_type: EventType, values: list[bytes | None], stamps: Longs, limits: Limits
) -> tuple[dict[str, _Column], Mask]:
    documents = [_document(value, limits.largest_value_bytes) for value in values]
    columns = {
        field.name: _CHECKS[field.type](field, [document.get(field.name) for document in documents])
        for field in event_type.fields
    }
    passed = np.array([document is not _NO_DOCUMENT for document in documents], bool)
    for column in columns.values():
        passed &= column.passed
    passed &= _right_time(columns["event_time"].array, stamps, limits)
    if "quantity" in columns:
        kind = columns.get("kind")
        passed &= _right_quantity(columns["quantity"].array, None if kind is None else kind.array, limits)
    for name, known in (("sku", limits.skus), ("location_id", limits.locations)):
        if name in columns and known is not None:
            passed &= _is_known(columns[name].values, known)
    return columns, passed


_NO_DOCUMENT: dict[str, Any] = {}


def _document(value: bytes | None, largest: int) -> dict[str, Any]:
    """The JSON object in a value where no doubt is possible: within the size, and without a repeated key."""
    if not value or len(value) > largest:
        return _NO_DOCUMENT
    try:
        document = orjson.loads(value)
    except (orjson.JSONDecodeError, RecursionError):
        return _NO_DOCUMENT
    if type(document) is not dict:
        return _NO_DOCUMENT
    # As in `validate`: each key and each text takes two quotes; anything else needs a closer look.
    texts = list(map(type, document.values())).count(str)
    return document if value.count(b'"') == 2 * (len(document) + texts) else _NO_DOCUMENT


def _of_types(values: list[Any], *types: type) -> tuple[list[Any], Mask]:
    """The values, with None in place of those of other types, and where no such replacement took place."""
    allowed = {*types, type(None)}
    found = list(map(type, values))
    if set(found) <= allowed:
        return values, np.ones(len(values), bool)
    fits = [kind in allowed for kind in found]
    return [value if fit else None for value, fit in zip(values, fits, strict=True)], np.array(fits, bool)


def _where(condition: pa.Array, absent: bool) -> Mask:
    """A condition as a mask; `absent` stands where there was no value to check."""
    return np.asarray(condition.fill_null(absent).to_numpy(zero_copy_only=False), bool)


_IDENTIFIER = rf"\A(?:{IDENTIFIER.pattern})\z"


def _identifiers(field: Field, values: list[Any]) -> _Column:
    values, passed = _of_types(values, str)
    array = pa.array(values, pa.string())
    return _Column(
        values, array, passed & _where(pc.match_substring_regex(array, _IDENTIFIER), absent=not field.required)
    )


def _texts(field: Field, values: list[Any]) -> _Column:
    values, passed = _of_types(values, str)
    array = pa.array(values, pa.string())
    if field.choices is None:
        return _Column(values, array, passed & (_where(array.is_valid(), absent=False) | (not field.required)))
    chosen = _where(pc.is_in(array, pa.array(sorted(field.choices))), absent=False)
    return _Column(values, array, passed & (chosen | ((not field.required) & _where(array.is_null(), absent=False))))


def _integers(field: Field, values: list[Any]) -> _Column:
    values, passed = _of_types(values, int)
    try:
        array = pa.array(values, pa.int64())
    except (OverflowError, pa.ArrowInvalid):
        fits = np.array([value is None or abs(value) <= INT64_MAX for value in values], bool)
        values, passed = [value if fit else None for value, fit in zip(values, fits, strict=True)], passed & fits
        array = pa.array(values, pa.int64())
    return _Column(values, array, passed & _where(pc.greater_equal(array, -INT64_MAX), absent=not field.required))


def _numbers(field: Field, values: list[Any]) -> _Column:
    values, passed = _of_types(values, int, float)
    values = [None if value is None else float(value) for value in values]
    array = pa.array(values, pa.float64())
    right = pc.and_(pc.is_finite(array), pc.greater_equal(array, 0.0))
    return _Column(values, array, passed & _where(right, absent=not field.required))


def _booleans(field: Field, values: list[Any]) -> _Column:
    values, passed = _of_types(values, bool)
    array = pa.array(values, pa.bool_())
    return _Column(values, array, passed & (_where(array.is_valid(), absent=False) | (not field.required)))


_PLAIN_TIME = (
    r"\A(?:19|20)\d\d-"
    r"(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    r"T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?Z\z"
)
"""The usual form of a time: in UTC, to the microsecond, on a day that every year has. Arrow parses these."""


def _times(field: Field, values: list[Any]) -> _Column:
    texts, passed = _of_types(values, str)
    array = pa.array(texts, pa.string())
    plain = pc.match_substring_regex(array, _PLAIN_TIME)
    instants = pc.if_else(plain, array, pa.scalar(None, pa.string())).cast(TIME).cast(pa.int64())
    others = np.flatnonzero(~_where(plain, absent=True))
    if len(others):
        parsed = instants.to_pylist()
        for place in others.tolist():
            parsed[place] = _time_or_none(texts[place])
        instants = pa.array(parsed, pa.int64())
    missing_allowed = np.array([value is None for value in values], bool) & (not field.required)
    right = _where(instants.is_valid(), absent=False) | missing_allowed
    return _Column(instants.to_pylist(), instants.cast(TIME), passed & right)


def _time_or_none(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_time(text)
    except ValueError:
        return None


_CHECKS: dict[FieldType, Callable[[Field, list[Any]], _Column]] = {
    FieldType.IDENTIFIER: _identifiers,
    FieldType.TEXT: _texts,
    FieldType.INTEGER: _integers,
    FieldType.NUMBER: _numbers,
    FieldType.BOOLEAN: _booleans,
    FieldType.TIME: _times,
}

ARROW_TYPES: dict[FieldType, pa.DataType] = {
    FieldType.IDENTIFIER: pa.string(),
    FieldType.TEXT: pa.string(),
    FieldType.INTEGER: pa.int64(),
    FieldType.NUMBER: pa.float64(),
    FieldType.BOOLEAN: pa.bool_(),
    FieldType.TIME: TIME,
}


def _right_time(event_time: pa.Array, stamps: Longs, limits: Limits) -> Mask:
    times: Longs = event_time.cast(pa.int64()).fill_null(0).to_numpy()
    return (times <= stamps + limits.future_tolerance) & (times >= limits.earliest_event_time)


def _right_quantity(quantity: pa.Array, kind: pa.Array | None, limits: Limits) -> Mask:
    units: Longs = quantity.fill_null(1).to_numpy()
    right: Mask = np.abs(units) <= limits.largest_quantity
    if kind is None:
        return right & (units >= 1)
    counts, adjustments = (_where(pc.equal(kind, name), absent=False) for name in ("count", "adjustment"))
    return right & (adjustments | (units >= np.where(counts, 0, 1)))


def _is_known(names: Sequence[Any], known: Collection[str]) -> Mask:
    return np.array([name is None or name in known for name in names], bool)
