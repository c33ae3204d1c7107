"""An account of a simulated history that shares no code with the simulator: plain json, re and pandas."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

import pandas as pd

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_LEDGER = ("event_id", "event_time", "location_id", "sku", "kind", "quantity")
_SHIPMENT_IDS = ("shipment_id", "supplier_id", "carrier_id", "origin", "destination", "node")
_REQUIRED = {
    "pos.sales": _LEDGER,
    "inventory.movements": _LEDGER,
    "shipments.events": ("event_id", "event_time", *_SHIPMENT_IDS, "status"),
    "restock.order_status": ("event_id", "event_time", "order_id", "status"),
}
_WORDS = {
    "pos.sales": {"sale", "return"},
    "inventory.movements": {"receipt", "adjustment", "transfer_in", "transfer_out", "write_off", "count"},
    "shipments.events": {
        *("created", "picked_up", "departed", "arrived", "customs", "out_for_delivery", "delivered"),
        *("exception", "cancelled"),
    },
    "restock.order_status": {"approved", "rejected", "acknowledged", "shipped", "received", "cancelled"},
}
_IDS = ("event_id", "location_id", "sku", "ticket_id", "order_id", "mode", *_SHIPMENT_IDS)
_NEGATIVE = {"sale", "transfer_out", "write_off"}


def read_event(topic: str, value: bytes | None, skus: set[str], locations: set[str], latest: str) -> dict | None:
    """The event, or None where the record breaks the contract. `latest` is the newest time allowed."""
    try:
        event = json.loads(value.decode("utf-8"))
    except (ValueError, AttributeError):
        return None
    if not isinstance(event, dict) or any(event.get(name) is None for name in _REQUIRED[topic]):
        return None
    ids = [event[name] for name in _IDS if event.get(name) is not None]
    word = event["status"] if "status" in _REQUIRED[topic] else event["kind"]
    times = [event[name] for name in ("event_time", "eta") if name in event]
    sound = (
        all(isinstance(text, str) and _ID.fullmatch(text) for text in ids)
        and all(isinstance(text, str) and _TIME.fullmatch(text) for text in times)
        and event["event_time"] <= latest
        and word in _WORDS[topic]
        and _quantity_is_sound(event)
        and type(event.get("promotion", False)) is bool
        and type(event.get("unit_price", 1.0)) in (int, float)
        and event.get("sku", next(iter(skus))) in skus
        and {event[name] for name in ("location_id", "origin", "destination", "node") if name in event} <= locations
    )
    return event if sound else None


def _quantity_is_sound(event: dict) -> bool:
    quantity, kind = event.get("quantity", 1), event.get("kind")
    if type(quantity) is not int or abs(quantity) > 10_000_000:
        return False
    return kind == "adjustment" or quantity > 0 or (kind == "count" and quantity == 0)


def ledger(events: Iterable[dict]) -> pd.DataFrame:
    """Distinct stock events in order of time, first id wins, with their signed change."""
    frame = pd.DataFrame([event for event in events if "kind" in event]).drop_duplicates("event_id")
    frame["event_time"] = pd.to_datetime(frame["event_time"], format="ISO8601")
    sign = frame["kind"].isin(_NEGATIVE).map({True: -1, False: 1})
    frame["change"] = (frame["quantity"] * sign).where(frame["kind"] != "count")
    return frame.sort_values("event_time", kind="stable").reset_index(drop=True)


def balances(frame: pd.DataFrame) -> pd.Series:
    """On-hand stock after each row: the latest count plus the changes after it."""
    keys = [frame["location_id"], frame["sku"]]
    counted = frame["quantity"].where(frame["kind"] == "count")
    since = frame["change"].fillna(0).groupby(keys).cumsum()
    base = (counted - since).groupby(keys).ffill()
    return base + since


def on_hand(frame: pd.DataFrame) -> dict[str, int]:
    """On-hand stock of every series at the end, by `location_id|sku`."""
    last = frame.assign(level=balances(frame)).groupby(["location_id", "sku"])["level"].last()
    return {f"{location}|{sku}": int(level) for (location, sku), level in last.items()}
