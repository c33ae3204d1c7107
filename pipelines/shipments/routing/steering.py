"""Approved reroutes, as the tracker hears of them: by the ledger of order statuses, like every decision.

A person's approval is an event about an order on board (or about a new one, for a transfer) whose id begins with
`rr-` and names the option. So who approves needs no table of the tracker's, and a replay decides the same.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import ORDER_STATUS, REROUTES
from pipelines.io.delta import Tables
from pipelines.shipments.routing.alternatives import APPROVED, TRANSFER
from pipelines.shipments.routing.durations import Duration
from pipelines.shipments.stakes import Row

PREFIX = "rr-"
_OPTION = len(PREFIX), len(PREFIX) + 24
HOUR = timedelta(hours=1)

_COLUMNS = ("sequence", "event_id", "event_time", "eta", "actor", "reason")


def approval_id(option_id: str, key: str) -> str:
    """The id of the event that approves an option; `key` tells repeated ones apart."""
    return f"{PREFIX}{option_id.removeprefix('r-')}-{key[:16]}"


def option_of(event_id: str) -> str:
    """The option that such an event approves."""
    return f"r-{event_id[slice(*_OPTION)]}"


class Reroutes:
    """What was approved; enters it into `gold/reroutes`. In the process that owns that table."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._approved: dict[str, Row] = {}
        self._version, self._place = -2, 0

    def resume(self) -> None:
        """Go on from what is entered."""
        self._tables.ensure(REROUTES)
        rows = self._tables.read(REROUTES, where=pc.field("state") == APPROVED)
        self._take(rows.sort_by("sequence").to_pylist())
        self._place = pc.max(rows["sequence"]).as_py() or 0

    def news(self) -> set[str]:
        """Shipments that were sent another way since the last time."""
        version = self._tables.version(ORDER_STATUS)
        if version == self._version:
            return set()
        newest = self._tables.largest(ORDER_STATUS, "sequence") or 0
        where = (pc.field("sequence") > self._place) & (pc.field("sequence") <= newest)
        rows = self._tables.read(ORDER_STATUS, _COLUMNS, where & pc.starts_with(pc.field("event_id"), PREFIX))
        entered = self._enter(rows.sort_by("sequence").to_pylist())
        self._version, self._place = version, newest
        return {row["shipment_id"] for row in entered if row["kind"] != TRANSFER}

    def _enter(self, events: list[Row]) -> list[Row]:
        if not events:
            return []
        options = {option_of(event["event_id"]) for event in events}
        offers = self._tables.read(REROUTES, where=pc.field("option_id").isin(sorted(options))).sort_by("at")
        offer_of = {row["option_id"]: row for row in offers.to_pylist()}
        rows = [
            _approved(offer_of[option], event)
            for event in events
            if (option := option_of(event["event_id"])) in offer_of
        ]
        if rows:
            self._tables.append(REROUTES, pa.Table.from_pylist(rows, schema=REROUTES.schema))
            self._take(rows)
        return rows

    def _take(self, rows: list[Row]) -> None:
        self._approved.update({row["shipment_id"]: row for row in rows if row["kind"] != TRANSFER})

    def option(self, shipment_id: str) -> str | None:
        """How a shipment was sent, if it was sent another way."""
        approved = self._approved.get(shipment_id)
        return None if approved is None else str(approved["option_id"])

    def amend(self, row: Row, eta_time: datetime | None, now: datetime) -> None:
        """Put an approved way's arrival into a row of `gold/shipments`, unless its carrier has said another since.

        Args:
            eta_time: when the carrier's latest estimate was made.
        """
        approved = self._approved.get(row["shipment_id"])
        if approved is None:
            return
        row |= {"reroute": approved["option_id"], "rerouted_at": approved["at"], "rerouted_eta": None}
        overtaken = eta_time is not None and eta_time > approved["at"]
        if overtaken:
            # What the model thinks of the old way no longer counts; the carrier knows the new one.
            row |= {"expected_arrival": row["eta"], "earliest_arrival": None, "latest_arrival": None}
        elif approved["arrival"] > now:
            row |= {
                "rerouted_eta": approved["arrival"],
                "expected_arrival": approved["arrival"],
                "earliest_arrival": approved["earliest"],
                "latest_arrival": approved["latest"],
                "late_probability": 1.0 - _chance_by(approved, row["promised"]),
                "reasons": [f"rerouted by {approved['actor'] or 'unknown'}: {approved['description']}"],
            }

    def forget(self, shipment_id: str) -> None:
        """It has ended."""
        self._approved.pop(shipment_id, None)


def _approved(offer: Row, event: Row) -> Row:
    """An offer as it was approved: its way begins then."""
    at: datetime = event["event_time"]
    moved = at - offer["at"]
    row: dict[str, Any] = {
        **offer,
        "state": APPROVED,
        "at": at,
        "arrival": event["eta"] or offer["arrival"] + moved,
        "earliest": offer["earliest"] + moved,
        "latest": offer["latest"] + moved,
        **{name: event[name] for name in ("actor", "reason", "event_id", "sequence")},
    }
    return row


def _chance_by(approved: Row, promised: datetime | None) -> float:
    if promised is None:
        return 1.0
    takes = Duration(approved["hours"], approved["std_hours"] ** 2)
    return takes.chance_within((promised - approved["at"]) / HOUR)
