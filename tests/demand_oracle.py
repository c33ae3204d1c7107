"""Small ledgers for the tests of demand, and plain-Python oracles that share no code with the pipeline."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from itertools import count, pairwise
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from pipelines.contracts.tables import STOCK_MOVEMENTS

Event = dict[str, Any]

SIGN = {
    "sale": -1,
    "return": 1,
    "receipt": 1,
    "adjustment": 1,
    "transfer_in": 1,
    "transfer_out": -1,
    "write_off": -1,
    "count": None,
}

_sequences = count(1)


def at(text: str) -> datetime:
    """A UTC instant from `2024-03-01 10:30`."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def event(time: datetime | str, kind: str, quantity: int, **fields: Any) -> Event:
    """A ledger row; its id is made from its content unless given."""
    time = at(time) if isinstance(time, str) else time
    sign = SIGN[kind]
    row = {
        "location_id": "s1",
        "sku": "milk",
        "event_time": time,
        "kind": kind,
        "quantity": quantity,
        "change": None if sign is None else sign * quantity,
        **fields,
    }
    row.setdefault("event_id", f"{row['location_id']}-{row['sku']}-{time:%m%dT%H%M%S.%f}-{kind}-{quantity}")
    return row


def ledger(events: Iterable[Event]) -> pa.Table:
    """The events as rows of `silver/stock_movements` taken in in this order, missing columns null."""
    names = STOCK_MOVEMENTS.schema.names
    rows = [{name: row.get(name) for name in names} | {"sequence": next(_sequences)} for row in events]
    return pa.Table.from_pylist(rows, schema=STOCK_MOVEMENTS.schema)


def random_ledger(seed: int, count: int, locations: int = 3, skus: int = 2, days: int = 4) -> list[Event]:
    """A shuffled ledger with every kind of event, shared tickets, odd prices and repeated instants."""
    dice = random.Random(seed)
    kinds = ["sale"] * 8 + ["return", "receipt", "receipt", "adjustment", "transfer_in", "transfer_out"]
    kinds += ["write_off", "count"]
    events = []
    for number in range(count):
        kind = dice.choice(kinds)
        low, high = {"adjustment": (-6, 6), "count": (0, 12), "receipt": (5, 20)}.get(kind, (1, 4))
        time = at("2024-02-28") + timedelta(seconds=60 * dice.randrange(days * 1440))
        sale = {
            "unit_price": dice.choice([None, round(dice.uniform(0, 20), 3)]),
            "promotion": dice.choice([None, False, True]),
            "ticket_id": dice.choice([None, f"t{dice.randrange(count // 3 + 1)}"]),
        }
        events.append(
            event(
                time,
                kind,
                dice.randint(low, high),
                event_id=f"e{number}",
                location_id=f"s{dice.randrange(locations)}",
                sku=f"item{dice.randrange(skus)}",
                **(sale if kind in ("sale", "return") else {}),
            )
        )
    dice.shuffle(events)
    return events


def cents(row: Event) -> Decimal:
    price = Decimal(str(row.get("unit_price") or 0))
    return (price * row["quantity"]).quantize(Decimal("0.01"), ROUND_HALF_UP)


def on_hand(events: list[Event], time: datetime) -> int | None:
    """Stock at an instant as the promise words it; None while nothing is known of it."""
    known = sorted(
        (row for row in events if row["event_time"] <= time), key=lambda row: (row["event_time"], row["event_id"])
    )
    if not any(row["kind"] in ("count", "receipt", "transfer_in") for row in known):
        return None
    counts = [place for place, row in enumerate(known) if row["kind"] == "count"]
    base, after = (known[counts[-1]]["quantity"], known[counts[-1] + 1 :]) if counts else (0, known)
    return base + sum(row["change"] for row in after if row["kind"] != "count")


def in_stock_fraction(events: list[Event], start: datetime, end: datetime) -> float:
    """Share of [start, end) in which on-hand is above zero or unknown."""
    edges = sorted({start, end, *(row["event_time"] for row in events if start < row["event_time"] < end)})
    inside = timedelta()
    for left, right in pairwise(edges):
        level = on_hand(events, left)
        if level is None or level > 0:
            inside += right - left
    return inside / (end - start)


def demand(events: list[Event], step: timedelta) -> Iterator[dict[str, Any]]:
    """Demand rows per series and period, as the definitions word them."""
    by_series = defaultdict(list)
    for row in events:
        by_series[(row["location_id"], row["sku"])].append(row)
    epoch = at("1970-01-01")
    for (location_id, sku), rows in sorted(by_series.items()):
        sales = [row for row in rows if row["kind"] == "sale"]
        if not sales:
            continue
        times = [row["event_time"] for row in sales]
        start = epoch + (min(times) - epoch) // step * step
        while start <= max(times):
            inside = [row for row in rows if start <= row["event_time"] < start + step]
            sold = [row for row in inside if row["kind"] == "sale"]
            units = sum(row["quantity"] for row in sold)
            promoted = sum(row["quantity"] for row in sold if row.get("promotion"))
            yield {
                "location_id": location_id,
                "sku": sku,
                "start": start,
                "demand": units,
                "returned": sum(row["quantity"] for row in inside if row["kind"] == "return"),
                "promotion_share": round(promoted / units, 9) if units else 0.0,
                "revenue": sum(map(cents, sold), Decimal("0.00")),
                "in_stock_fraction": round(in_stock_fraction(rows, start, start + step), 9),
            }
            start += step


def _measured(groups: dict[Any, list[Event]]) -> dict[Any, tuple[int, int, Decimal]]:
    """Orders, units, revenue of the sales of each group."""
    return {
        key: (
            len({(row["location_id"], row.get("ticket_id") or ("alone", row["event_id"])) for row in rows}),
            sum(row["quantity"] for row in rows),
            sum(map(cents, rows), Decimal("0.00")),
        )
        for key, rows in groups.items()
    }


def totals(events: list[Event], regions: dict[str, str], step: timedelta) -> dict[Any, tuple[int, int, Decimal]]:
    """(scope, window start) -> orders, units, revenue."""
    epoch = at("1970-01-01")
    groups = defaultdict(list)
    for row in events:
        if row["kind"] == "sale":
            start = epoch + (row["event_time"] - epoch) // step * step
            for scope in (regions.get(row["location_id"], "unknown"), "global"):
                groups[(scope, start)].append(row)
    return _measured(groups)


def window_totals(
    events: list[Event], regions: dict[str, str], step: timedelta, lengths: tuple[timedelta, ...]
) -> dict[Any, tuple[int, int, Decimal]]:
    """(scope, window start, window end) -> orders, units, revenue, for every window with a sale that starts at a
    multiple of `step` and is as long as one of `lengths`; locations are scopes as well."""
    sales = [row for row in events if row["kind"] == "sale"]
    groups = defaultdict(list)
    for row in sales:
        hop = at("1970-01-01") + (row["event_time"] - at("1970-01-01")) // step * step
        for length in lengths:
            for start in (hop - number * step for number in range(length // step)):
                assert start <= row["event_time"] < start + length
                for scope in (f"location:{row['location_id']}", regions.get(row["location_id"], "unknown"), "global"):
                    groups[(scope, start, start + length)].append(row)
    return _measured(groups)


_KINDS = st.sampled_from(["sale", "receipt", "count", "adjustment", "return", "write_off"])
_HISTORY = st.lists(st.tuples(st.integers(0, 9), _KINDS, st.integers(0, 6)), min_size=1, max_size=12)


@st.composite
def stock_histories(draw: st.DrawFn) -> list[Event]:
    """Series of few events on a coarse time grid around an hour's edge, so that instants and edges coincide."""
    series = draw(st.lists(_HISTORY, min_size=4, max_size=12))
    events = []
    for number, history in enumerate(series):
        first = event("2024-03-01 09:00", "sale", 1, sku=f"i{number}", event_id="a0")
        last = event("2024-03-01 11:59", "sale", 1, sku=f"i{number}", event_id="z0")
        events += [first, last]
        for place, (step, kind, units) in enumerate(history):
            quantity = {"adjustment": units - 3, "count": units}.get(kind, units + 1)
            identifier = f"{draw(st.sampled_from('bcxy'))}{place}"
            time = at("2024-03-01 09:00") + timedelta(minutes=20 * step)
            events.append(event(time, kind, quantity, sku=f"i{number}", event_id=identifier))
    return draw(st.permutations(events))
