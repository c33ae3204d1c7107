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
import pyarrow.compute as pc

from pipelines.contracts.alerts import CRITICAL, HIGH, LOW, Alert
from pipelines.contracts.identifiers import identifier
from pipelines.contracts.tables import SHIPMENTS
from pipelines.ingestion.times import as_microseconds, format_time
from pipelines.io.delta import Tables
from pipelines.operations.settings import ShipmentsSettings
from pipelines.shipments.routing.offering import Router, command, shown
from pipelines.shipments.routing.owed import Owed
from pipelines.shipments.stakes import SIBLINGS, Row, Stake, Waiting, stake, who_waits
from pipelines.shipments.tracking import CREATED, TERMINAL

ACTOR = "shipments"

NO_LOSS = 0.05
"""Units: a delay that costs less is told of as low."""

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
        self._known_debts: Owed | None = None
        self._has_looked = False

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
        self._has_looked = True

    def owing(self, now: datetime) -> int:
        """Shipments whose other ways are still to be thought of."""
        return len(self._owed(now))

    def go_on(self, now: datetime) -> None:
        """Think of the next other ways that are owed, unless a save has just done so: to be called between saves."""
        if not self._has_looked:
            _, alerts = self._think([], {}, now)
            self._send_alerts(alerts)
        self._has_looked = False

    def alerts(self, rows: Sequence[Row], now: datetime) -> list[Alert]:
        """An alert for each shipment that will be late and that somebody waits for: one a shipment and promise. What
        could be done is thought of again where one that is told of already has moved on. Where so many are late that
        it has to wait, the alert says so, and another one follows."""
        late = {row["shipment_id"]: row for row in rows if self._is_late(row)}
        owed = self._owed(now)
        for row in rows:
            if row["shipment_id"] not in late:
                owed.settle(row["shipment_id"])
        fresh = [row for name, row in late.items() if self._alerted.get(name) != _occasion(row)]
        due = [] if self._router is None else [row for row in late.values() if self._router.is_due(row, now)]
        concerned = list({row["shipment_id"]: row for row in (*fresh, *due)}.values())
        waiting = who_waits(self._tables, concerned, now) if concerned else {}
        stakes = {row["shipment_id"]: _stakes(row, waiting) for row in concerned}
        for row in due:
            if waiting.get(row["shipment_id"]):
                owed.put(row, stakes[row["shipment_id"]])
        # Where nobody waits there is nothing to think of, and what was thought of before is known.
        offers, more = self._think([row for row in concerned if row["shipment_id"] not in owed], waiting, now)
        told = []
        for row in fresh:
            name = row["shipment_id"]
            told.append(_alert(row, stakes[name], offers.get(name, []), now, to_come=name in owed))
            self._alerted[name] = _occasion(row)
            if name in owed:
                owed.note_told(name)
        return [*told, *more]

    def _think(
        self, rows: Sequence[Row], waiting: Mapping[str, list[Waiting]], now: datetime
    ) -> tuple[dict[str, list[Row]], list[Alert]]:
        """The offers of these rows and of as many of those owed as are thought of at once; and the alerts of those who
        had to wait for theirs."""
        if self._router is None:
            return {}, []
        owed = self._owed(now)
        chosen = owed.most(self._router.at_once)
        wanted = {row["shipment_id"]: row for row in (*rows, *(debt.row for debt in chosen))}
        if not wanted:
            return {}, []
        unknown = [debt.row for debt in chosen if debt.row["shipment_id"] not in waiting]
        waits = {**who_waits(self._tables, unknown, now), **waiting} if unknown else waiting
        arrivals = {name: arrival_of(row) or row["promised"] for name, row in wanted.items()}
        offers = self._router.offers([(row, waits.get(name, [])) for name, row in wanted.items()], arrivals, now)
        alerts = []
        for debt in chosen:
            name = debt.row["shipment_id"]
            if debt.told and offers[name]:
                alerts.append(_ways(debt.row, _stakes(debt.row, waits), offers[name], now))
            owed.settle(name)
        return offers, alerts

    def _owed(self, now: datetime) -> Owed:
        """At first, what an earlier process owed: shipments at risk that nobody has thought of, and those whose offers
        came after their row was saved, for nobody knows whether people were told of them."""
        if self._known_debts is None:
            self._known_debts = Owed()
            if self._router is not None:
                rows = [row for row in self._at_risk() if self._is_late(row) and self._is_owed(row, self._router, now)]
                waiting = who_waits(self._tables, rows, now)
                for row in rows:
                    if waiting.get(row["shipment_id"]):
                        self._known_debts.put(row, _stakes(row, waiting))
                        self._known_debts.note_told(row["shipment_id"])
        return self._known_debts

    def _at_risk(self) -> list[Row]:
        """Rows of `gold/shipments` that may be late."""
        promised, late = pc.field("promised"), pc.field("late_probability") >= self._settings.late_probability
        for arrival in ("expected_arrival", "eta", "rerouted_eta"):
            late |= pc.field(arrival) > promised
        rows: list[Row] = self._tables.read(
            SHIPMENTS, where=~pc.field("state").isin(sorted(TERMINAL)) & late
        ).to_pylist()
        return rows

    @staticmethod
    def _is_owed(row: Row, router: Router, now: datetime) -> bool:
        return router.is_due(row, now) or router.has_offered_since(row, row["tracked_at"], now)

    def _forget(self, shipment_id: str) -> None:
        self._alerted.pop(shipment_id, None)
        if self._known_debts is not None:
            self._known_debts.settle(shipment_id)
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


def _stakes(row: Row, waiting: Mapping[str, list[Waiting]]) -> list[Stake]:
    arrival = arrival_of(row) or row["promised"]
    return [stake(one, row["promised"], arrival) for one in waiting.get(row["shipment_id"], [])]


def _alert(row: Row, stakes: list[Stake], offers: list[Row], now: datetime, *, to_come: bool) -> Alert:
    arrival = arrival_of(row) or row["promised"]
    lost = sum(one.lost_units for one in stakes)
    likely = row.get("late_probability")
    chance = "" if likely is None else f", late with {likely:.0%}"
    told = "; ".join(one.tell() for one in sorted(stakes, key=lambda one: -(one.margin or 0.0))[:SIBLINGS])
    best = _proposed(offers)
    proposed = "" if best is None else f". Proposed: {best['description']}"
    if to_come:
        proposed = f". Other ways are being looked for: stockcast shipments show {row['shipment_id']}"
    message = (
        f"shipment {row['shipment_id']} from {row['supplier_id']} is at {row['node']} and expected "
        f"{arrival:%Y-%m-%d %H:%M} instead of {row['promised']:%Y-%m-%d %H:%M}{chance}"
        f"{f'. {told}' if told else ''}{proposed}"
    )
    return Alert(
        kind="late_shipment",
        severity=CRITICAL if lost >= 1 else LOW if stakes and lost < NO_LOSS else HIGH,
        subject=row["shipment_id"],
        message=message,
        event_time=row["state_time"],
        raised_at=now,
        occasion=_occasion(row),
        details=_details(row, stakes, offers, to_come),
    )


def _ways(row: Row, stakes: list[Stake], offers: list[Row], now: datetime) -> Alert:
    """The other ways of a shipment whose alert went out before there was time to think of them."""
    best = _proposed(offers)
    said = f"{len(offers)} found, none worth its cost" if best is None else f"proposed: {best['description']}"
    return Alert(
        kind="late_shipment_ways",
        severity=HIGH,
        subject=row["shipment_id"],
        message=f"other ways for late shipment {row['shipment_id']} at {row['node']}: {said}",
        event_time=row["state_time"],
        raised_at=now,
        occasion=f"{_occasion(row)} {offers[0]['situation']}",
        details=_details(row, stakes, offers, to_come=False),
    )


def _proposed(offers: list[Row]) -> Row | None:
    return next((offer for offer in offers if offer["proposed"]), None)


def _details(row: Row, stakes: list[Stake], offers: list[Row], to_come: bool) -> dict[str, Any]:
    best = _proposed(offers)
    return {
        "expected_arrival": arrival_of(row) or row["promised"],
        "promised": row["promised"],
        "late_probability": row.get("late_probability"),
        "reasons": row.get("reasons") or [],
        "lost_units": round(sum(one.lost_units for one in stakes), 2),
        "margin_at_risk": round(sum(one.margin or 0.0 for one in stakes), 2),
        "orders": [_order(row, one) for one in stakes],
        "alternatives": [shown(offer) for offer in offers],
        "alternatives_to_come": to_come,
        "proposal": None if best is None else best["option_id"],
        "command": None if best is None else command(best),
    }


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
