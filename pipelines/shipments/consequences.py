"""What a shipment's arrival means for those who wait: orders are told of it, people where it will cost money.

An order learns of its arrival by an event on `restock.order_status`, like from any other source, so that the plan
moves by the ledger's own order and a replay decides the same. Events and alerts have ids that follow from what they
say: told again after a crash, they are recognised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson

from pipelines.contracts.alerts import CRITICAL, HIGH, Alert
from pipelines.contracts.identifiers import identifier
from pipelines.ingestion.times import as_microseconds, format_time
from pipelines.io.delta import Tables
from pipelines.operations.settings import ShipmentsSettings
from pipelines.shipments.routing.offering import Router, command, shown
from pipelines.shipments.stakes import SIBLINGS, Row, Stake, Waiting, stake, who_waits
from pipelines.shipments.tracking import CREATED, TERMINAL

ACTOR = "shipments"

_SETTLED = TERMINAL | {None}

Messages = Iterable[tuple[str, bytes]]


def arrival_of(row: Mapping[str, Any]) -> datetime | None:
    """When a shipment is expected: as a person sent it, by the model of lateness, by its carrier, or as promised;
    whichever is later of the middle two, for a carrier that owns up to a delay knows more."""
    if row.get("rerouted_eta") is not None:
        rerouted: datetime = row["rerouted_eta"]
        return rerouted
    promised: datetime | None = row["promised"]
    return max((moment for moment in (row.get("expected_arrival"), row["eta"]) if moment is not None), default=promised)


def is_news(row: Mapping[str, Any], told: datetime | None, hours: float) -> bool:
    """Whether the orders on board should hear of the arrival: for the first time, or when it has moved by so much."""
    arrival = arrival_of(row)
    if arrival is None or row["state"] in _SETTLED or not any(line["order_id"] for line in row["lines"]):
        return False
    return told is None or abs(arrival - told) >= timedelta(hours=hours)


def arrival_events(row: Mapping[str, Any]) -> list[tuple[str, bytes]]:
    """The (key, message) of each order on board. What a person decided is dated then: it is newer than the news of
    the delay, and older than what the carrier says afterwards."""
    arrival, status = arrival_of(row), "acknowledged" if row["state"] == CREATED else "shipped"
    if arrival is None:
        return []
    decided = [] if row.get("reroute") is None else [row["reroute"]]
    eta, reason, at = format_time(as_microseconds(arrival)), f"shipment {row['shipment_id']}", row["state_time"]
    if row.get("rerouted_eta") is not None:
        at, reason = max(at, row["rerouted_at"]), f"{reason} was rerouted ({row['reroute']})"
    return [
        (
            order_id,
            orjson.dumps(
                {
                    "event_id": identifier("h", row["shipment_id"], order_id, status, eta, *decided),
                    "event_time": format_time(as_microseconds(at)),
                    "order_id": order_id,
                    "status": status,
                    "eta": eta,
                    "actor": ACTOR,
                    "reason": reason,
                }
            ),
        )
        for order_id in sorted({line["order_id"] for line in row["lines"] if line["order_id"]})
    ]


class Consequences:
    """Tells orders and people of arrivals.

    Args:
        send_statuses, send_alerts: publish and return when the broker has them.
        router: thinks of what else could be done; None: nobody does.
    """

    def __init__(
        self,
        tables: Tables,
        settings: ShipmentsSettings,
        send_statuses: Callable[[Messages], None],
        send_alerts: Callable[[Sequence[Alert]], None],
        router: Router | None = None,
    ) -> None:
        self._tables, self._settings, self._router = tables, settings, router
        self._send_statuses, self._send_alerts = send_statuses, send_alerts
        self._alerted: dict[str, str] = {}

    def __call__(self, rows: Sequence[Row], now: datetime) -> None:
        """Tell of these rows of `gold/shipments`, and note in them (`announced`) what was told."""
        news = [row for row in rows if is_news(row, row["announced"], self._settings.announce_hours)]
        messages = [message for row in news for message in arrival_events(row)]
        if messages:
            self._send_statuses(messages)
        for row in news:
            row["announced"] = arrival_of(row)
        overtaken = [_overtaken(row, now) for row in news if row.get("reroute") and row["rerouted_eta"] is None]
        self._send_alerts([*overtaken, *self.alerts(rows, now)])
        for row in rows:
            if row["state"] in TERMINAL:
                self._forget(row["shipment_id"])

    def alerts(self, rows: Sequence[Row], now: datetime) -> list[Alert]:
        """An alert for each shipment that will be late and that somebody waits for: one a shipment and promise. What
        could be done is thought of again where one that is told of already has moved on."""
        late = {row["shipment_id"]: row for row in rows if self._is_late(row)}
        fresh = [row for name, row in late.items() if self._alerted.get(name) != _occasion(row)]
        due = fresh if self._router is None else [row for row in late.values() if self._router.is_due(row, now)]
        concerned = {row["shipment_id"]: row for row in (*fresh, *due)}
        if not concerned:
            return []
        waiting = who_waits(self._tables, list(concerned.values()), now)
        offers = self._offers(concerned, waiting, now)
        told = []
        for row in fresh:
            name = row["shipment_id"]
            arrival = arrival_of(row) or row["promised"]
            stakes = [stake(one, row["promised"], arrival) for one in waiting.get(name, [])]
            told.append(_alert(row, stakes, offers.get(name, []), now))
            self._alerted[name] = _occasion(row)
        return told

    def _offers(
        self, rows: Mapping[str, Row], waiting: Mapping[str, list[Waiting]], now: datetime
    ) -> dict[str, list[Row]]:
        if self._router is None:
            return {}
        arrivals = {name: arrival_of(row) or row["promised"] for name, row in rows.items()}
        return self._router.offers([(row, waiting.get(name, [])) for name, row in rows.items()], arrivals, now)

    def _forget(self, shipment_id: str) -> None:
        self._alerted.pop(shipment_id, None)
        if self._router is not None:
            self._router.forget(shipment_id)

    def _is_late(self, row: Row) -> bool:
        arrival, promised = arrival_of(row), row["promised"]
        if row["state"] in _SETTLED or arrival is None or promised is None or not row["lines"]:
            return False
        likely = row.get("late_probability")
        behind = (arrival - promised) >= timedelta(hours=self._settings.late_hours)
        return behind or (likely is not None and likely >= self._settings.late_probability)


def _occasion(row: Row) -> str:
    return f"{row['shipment_id']} {row['promised'].isoformat()}"


def _alert(row: Row, stakes: list[Stake], offers: list[Row], now: datetime) -> Alert:
    arrival = arrival_of(row) or row["promised"]
    margin = sum(one.margin or 0.0 for one in stakes)
    lost = sum(one.lost_units for one in stakes)
    likely = row.get("late_probability")
    chance = "" if likely is None else f", late with {likely:.0%}"
    told = "; ".join(one.tell() for one in sorted(stakes, key=lambda one: -(one.margin or 0.0))[:SIBLINGS])
    best = next((offer for offer in offers if offer["proposed"]), None)
    proposed = "" if best is None else f". Proposed: {best['description']}"
    message = (
        f"shipment {row['shipment_id']} from {row['supplier_id']} is at {row['node']} and expected "
        f"{arrival:%Y-%m-%d %H:%M} instead of {row['promised']:%Y-%m-%d %H:%M}{chance}"
        f"{f'. {told}' if told else ''}{proposed}"
    )
    return Alert(
        kind="late_shipment",
        severity=CRITICAL if lost >= 1 else HIGH,
        subject=row["shipment_id"],
        message=message,
        event_time=row["state_time"],
        raised_at=now,
        occasion=_occasion(row),
        details={
            "expected_arrival": arrival,
            "promised": row["promised"],
            "late_probability": likely,
            "reasons": row.get("reasons") or [],
            "lost_units": round(lost, 2),
            "margin_at_risk": round(margin, 2),
            "orders": [_order(row, one) for one in stakes],
            "alternatives": [shown(offer) for offer in offers],
            "proposal": None if best is None else best["option_id"],
            "command": None if best is None else command(best),
        },
    )


def _order(row: Row, one: Stake) -> dict[str, Any]:
    series = one.waiting
    return {
        "order_id": series.order_id,
        "location_id": series.location_id,
        "sku": series.sku,
        "lost_units": round(one.lost_units, 2),
        "spare": dict(series.siblings),
        "command": f"stockcast orders create --location {series.location_id} --sku {series.sku} --quantity "
        f"{max(round(one.lost_units), 1)} --reason 'shipment {row['shipment_id']} is late'",
    }


def _overtaken(row: Row, now: datetime) -> Alert:
    """A rerouted shipment comes at another time than it was sent for: the orders hear of that, and so do people."""
    arrival = arrival_of(row) or row["promised"]
    return Alert(
        kind="reroute_overtaken",
        severity=HIGH,
        subject=row["shipment_id"],
        message=(
            f"shipment {row['shipment_id']}, which was rerouted on {row['rerouted_at']:%Y-%m-%d %H:%M}, is now "
            f"expected {arrival:%Y-%m-%d %H:%M}: its orders go by that"
        ),
        event_time=row["state_time"],
        raised_at=now,
        occasion=f"{row['reroute']} {arrival.isoformat()}",
        details={"expected_arrival": arrival, "reroute": row["reroute"], "rerouted_at": row["rerouted_at"]},
    )
