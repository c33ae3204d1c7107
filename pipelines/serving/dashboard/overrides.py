"""What people decided, and whether it helped where they decided otherwise than proposed.

An order that was made smaller, or rejected, is judged by whether the shelf ran out after it would have come; one that
was made larger by whether the units beyond the proposal were needed. Judged over the week from the expected receipt
on, with the stock as it was: fewer units hurt where it ran out, more helped where without them it would have.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import ORDER_AUDIT, ORDER_PROPOSALS, STOCK_MOVEMENTS, TIME
from pipelines.ingestion.times import as_datetime
from pipelines.io.delta import Tables
from pipelines.restocking.decisions import decode_order
from pipelines.restocking.desk import CHANGE, CREATE, REJECT
from pipelines.serving.dashboard.detail import levels
from pipelines.serving.dashboard.follow import any_of
from pipelines.serving.dashboard.stock import SeriesKey, chain_time, positions_of
from pipelines.shipments.routing.approving import REROUTE

JUDGED = timedelta(days=7)
MOST_DECISIONS = 200

HELPED, HURT, EARLY, AS_PROPOSED = "helped", "did not help", "too early", "as proposed"


@dataclass(frozen=True)
class DecisionLine:
    """A decision of a person. `decided`: units, 0 for a rejection; `why`: of the verdict, in a few words."""

    sequence: int
    at: datetime
    actor: str
    action: str
    order_id: str
    location_id: str
    sku: str
    proposed: int | None
    decided: int
    reason: str | None
    verdict: str
    why: str


def decision_lines(tables: Tables, wall: datetime) -> list[DecisionLine]:
    """The newest decisions, each judged as far as it can be."""
    audit = tables.read(ORDER_AUDIT, where=pc.field("actor") != "supplier").sort_by([("sequence", "descending")])
    rows = audit.slice(0, MOST_DECISIONS).to_pylist()
    if not rows:
        return []
    ids = {row["order_id"] for row in rows}
    payloads = tables.read(ORDER_PROPOSALS, ("payload",), any_of("order_id", ids)).column("payload").to_pylist()
    proposals = {order["order_id"]: order for order in map(decode_order, payloads)}
    now = chain_time(tables, wall)
    keys = {(order["location_id"], order["sku"]) for order in proposals.values()}
    stock = _stock(tables, keys, proposals, now)
    return [_line(row, proposals.get(row["order_id"]), stock, now) for row in rows]


def judge(
    proposed: int, decided: int, receipt: datetime, stock: Sequence[tuple[datetime, int]], now: datetime
) -> tuple[str, str]:
    """Whether deciding otherwise helped, and why.

    Args:
        receipt: when the proposal would have come.
        stock: of the series after each change, in order of time.
        now: the chain's time.
    """
    if decided == proposed:
        return AS_PROPOSED, ""
    if now < receipt + JUDGED:
        left = receipt + JUDGED - now
        return EARLY, f"in {max(1, round(left.total_seconds() / 86_400))} days"
    lowest = _lowest(stock, receipt, receipt + JUDGED)
    if lowest is None:
        return EARLY, "no stock known"
    return _fewer(proposed - decided, lowest) if decided < proposed else _more(decided - proposed, lowest)


def _fewer(units: int, lowest: int) -> tuple[str, str]:
    if lowest <= 0:
        return HURT, "ran out within a week"
    return HELPED, f"{units:,} fewer units, and {lowest:,} were left"


def _more(units: int, lowest: int) -> tuple[str, str]:
    if lowest < units:
        return HELPED, f"{min(units, units - lowest):,} of {units:,} more units were needed"
    return HURT, f"{units:,} more units, and {lowest:,} were left"


def _lowest(stock: Sequence[tuple[datetime, int]], since: datetime, until: datetime) -> int | None:
    """The lowest stock between two times, the one before the first change included."""
    inside = [level for time, level in stock if since <= time <= until]
    before = [level for time, level in stock if time < since]
    if before:
        inside.append(before[-1])
    return min(inside, default=None)


def _stock(
    tables: Tables, keys: set[SeriesKey], proposals: dict[str, Any], now: datetime
) -> dict[SeriesKey, list[tuple[datetime, int]]]:
    """Of these series, from the first receipt that is judged on."""
    due = [as_datetime(order["expected_receipt"]) for order in proposals.values()]
    judged = [time for time in due if time + JUDGED <= now]
    if not judged:
        return {}
    where = any_of("location_id", {key[0] for key in keys}) & any_of("sku", {key[1] for key in keys})
    where &= pc.field("event_time") >= pa.scalar(min(judged) - JUDGED, TIME)
    columns = ("location_id", "sku", "event_time", "event_id", "kind", "quantity", "change")
    changes: dict[SeriesKey, list[dict[str, Any]]] = defaultdict(list)
    for row in tables.read(STOCK_MOVEMENTS, columns, where).sort_by("event_time").to_pylist():
        changes[row["location_id"], row["sku"]].append(row)
    positions = positions_of(tables, keys)
    return {
        key: levels(found, positions[key]["on_hand"] if key in positions else 0)
        for key, found in changes.items()
        if key in keys
    }


def _line(
    row: dict[str, Any],
    proposal: dict[str, Any] | None,
    stock: dict[SeriesKey, list[tuple[datetime, int]]],
    now: datetime,
) -> DecisionLine:
    after = orjson.loads(row["after"] or "{}")
    key = (str(after.get("location_id", "–")), str(after.get("sku", "–")))
    decided = 0 if row["action"] == REJECT else int(after.get("quantity") or 0)
    proposed = None if proposal is None else int(proposal["quantity"])
    if proposal is None or proposed is None or row["action"] in {CHANGE, REROUTE}:
        # An order by hand has no proposal to be better than, another way no other quantity; a change is judged by the
        # approval that follows.
        verdict, why = ("", "by hand") if row["action"] == CREATE else ("", "")
    else:
        receipt = as_datetime(proposal["expected_receipt"])
        verdict, why = judge(proposed, decided, receipt, stock.get(key, []), now)
    return DecisionLine(
        row["sequence"], row["recorded_at"], row["actor"], row["action"], row["order_id"], *key,
        proposed, decided, row["reason"], verdict, why,
    )  # fmt: skip
