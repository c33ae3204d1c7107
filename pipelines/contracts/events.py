"""What an event on each input topic must look like, as data: validation and producers read it from here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from pipelines.contracts import topics

IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
INT64_MAX = 2**63 - 1


class FieldType(Enum):
    """Types of event fields, each with its own check in `pipelines.ingestion.validation`."""

    IDENTIFIER = "identifier"
    TIME = "RFC 3339 time with zone"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    TEXT = "text"


@dataclass(frozen=True)
class Field:
    """One field of an event; `choices` restricts an identifier or text to an enumeration."""

    name: str
    type: FieldType
    required: bool = True
    choices: frozenset[str] | None = None


@dataclass(frozen=True)
class EventType:
    """The fields of the events on one topic, and the fields that its Kafka key is made of."""

    topic: str
    fields: tuple[Field, ...]
    key_fields: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Field names, in the contract's order."""
        return tuple(field.name for field in self.fields)


def _choices(words: str) -> frozenset[str]:
    return frozenset(words.split())


SALE_KINDS = _choices("sale return")
MOVEMENT_KINDS = _choices("receipt adjustment transfer_in transfer_out write_off count")
SHIPMENT_STATUSES = _choices(
    "created picked_up departed arrived customs out_for_delivery delivered exception cancelled"
)
ORDER_STATUSES = _choices("proposed expired approved rejected sent acknowledged shipped received cancelled")
SUPPLIER_STATUSES = _choices("acknowledged shipped received cancelled")
"""The order statuses that a supplier may report."""

SIGNS: dict[str, int] = {
    "sale": -1,
    "return": 1,
    "receipt": 1,
    "adjustment": 1,
    "transfer_in": 1,
    "transfer_out": -1,
    "write_off": -1,
}
"""Effect of one unit of each ledger kind on the stock on hand; `count` sets the level instead."""

_EVENT = (Field("event_id", FieldType.IDENTIFIER), Field("event_time", FieldType.TIME))
_SERIES = (Field("location_id", FieldType.IDENTIFIER), Field("sku", FieldType.IDENTIFIER))

EVENT_TYPES: dict[str, EventType] = {
    event_type.topic: event_type
    for event_type in (
        EventType(
            topics.POS_SALES,
            (
                *_EVENT,
                *_SERIES,
                Field("kind", FieldType.TEXT, choices=SALE_KINDS),
                Field("quantity", FieldType.INTEGER),
                Field("unit_price", FieldType.NUMBER, required=False),
                Field("promotion", FieldType.BOOLEAN, required=False),
                Field("ticket_id", FieldType.IDENTIFIER, required=False),
            ),
            ("location_id", "sku"),
        ),
        EventType(
            topics.INVENTORY_MOVEMENTS,
            (
                *_EVENT,
                *_SERIES,
                Field("kind", FieldType.TEXT, choices=MOVEMENT_KINDS),
                Field("quantity", FieldType.INTEGER),
                Field("order_id", FieldType.IDENTIFIER, required=False),
                Field("on_hand", FieldType.INTEGER, required=False),
            ),
            ("location_id", "sku"),
        ),
        EventType(
            topics.SHIPMENT_EVENTS,
            (
                *_EVENT,
                Field("shipment_id", FieldType.IDENTIFIER),
                Field("supplier_id", FieldType.IDENTIFIER),
                Field("carrier_id", FieldType.IDENTIFIER),
                Field("origin", FieldType.IDENTIFIER),
                Field("destination", FieldType.IDENTIFIER),
                Field("node", FieldType.IDENTIFIER),
                Field("status", FieldType.TEXT, choices=SHIPMENT_STATUSES),
                Field("order_id", FieldType.IDENTIFIER, required=False),
                Field("sku", FieldType.IDENTIFIER, required=False),
                Field("quantity", FieldType.INTEGER, required=False),
                Field("mode", FieldType.IDENTIFIER, required=False),
                Field("eta", FieldType.TIME, required=False),
            ),
            ("shipment_id",),
        ),
        EventType(
            topics.ORDER_STATUS,
            (
                *_EVENT,
                Field("order_id", FieldType.IDENTIFIER),
                Field("status", FieldType.TEXT, choices=ORDER_STATUSES),
                Field("quantity", FieldType.INTEGER, required=False),
                Field("eta", FieldType.TIME, required=False),
                Field("actor", FieldType.TEXT, required=False),
                Field("reason", FieldType.TEXT, required=False),
                Field("location_id", FieldType.IDENTIFIER, required=False),
                Field("sku", FieldType.IDENTIFIER, required=False),
                Field("supplier_id", FieldType.IDENTIFIER, required=False),
            ),
            ("order_id",),
        ),
    )
}
