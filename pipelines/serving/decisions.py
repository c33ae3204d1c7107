"""From requests to decisions that the journal records once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import orjson

from pipelines.contracts import topics
from pipelines.contracts.events import SUPPLIER_STATUSES
from pipelines.contracts.identifiers import identifier
from pipelines.ingestion.times import as_microseconds, format_time, parse_time
from pipelines.ingestion.validation import Event, Limits, Rejected, validate
from pipelines.operations.settings import IngestSettings
from pipelines.restocking.desk import CREATE, STATUS_OF, Decision, check_decision
from pipelines.restocking.webhooks import Signer
from pipelines.serving.book import OrderBook, as_decided
from pipelines.serving.journal import Answer, Draft, Journal
from pipelines.serving.problems import Problem
from pipelines.shipments.routing.approving import REROUTE

WEBHOOK = "webhook:"
"""Before the ids of suppliers' messages, so that they never meet a client's idempotency key."""

_AUDITED = ("state", "quantity", "location_id", "sku", "explanation")


@dataclass(frozen=True)
class Desk:
    """Takes decisions for the order API.

    Attributes:
        signer: verifies suppliers' reports; None: none are taken.
    """

    book: OrderBook
    journal: Journal
    clock: Callable[[], datetime]
    ingest: IngestSettings
    signer: Signer | None

    def decide(self, key: str, actor: str, action: str, order_id: str, body: dict[str, Any]) -> Answer:
        """Approve, change or reject an order, once for each key.

        Raises:
            UnknownOrderError, OrderConflictError, KeyReusedError: nothing was done.
        """

        def draft() -> Draft:
            before = as_decided(self.book.find(order_id))
            quantity = body.get("quantity")
            check_decision(before, action, quantity)
            decision = Decision(action, order_id, actor, self._now(), quantity, body.get("reason"))
            return _draft(decision, decision.event(identifier("d", key)), before)

        return self.journal.once(key, _fingerprint(actor, action, order_id, body), draft)

    def create(self, key: str, actor: str, body: dict[str, Any]) -> Answer:
        """Order by hand, once for each key; the order's id follows from the key.

        Raises:
            Problem: an unknown product or location. KeyReusedError: nothing was done.
        """

        def draft() -> Draft:
            self.book.check_series(body["location_id"], body["sku"])
            decision = Decision(
                CREATE, identifier("m", key), actor, self._now(), body["quantity"], f"by hand: {body['reason']}"
            )
            event = decision.event(identifier("d", key), location_id=body["location_id"], sku=body["sku"])
            return _draft(decision, event, None)

        return self.journal.once(key, _fingerprint(actor, CREATE, "", body), draft)

    def reroute(self, key: str, actor: str, shipment_id: str, body: dict[str, Any]) -> Answer:
        """Approve another way for a shipment, once for each key.

        Raises:
            UnknownShipmentError, RerouteConflictError, KeyReusedError: nothing was done.
        """

        def draft() -> Draft:
            said = (actor, body["reason"])
            approval = self.book.prepare_reroute(shipment_id, body["option"], said, self.clock())
            what = (approval.order_id, approval.event, 202, approval.response, approval.before, approval.after)
            return Draft(actor, REROUTE, *what, body["reason"])

        return self.journal.once(key, _fingerprint(actor, REROUTE, shipment_id, body), draft)

    def report(self, headers: dict[str, str], body: bytes) -> Answer:
        """Take a supplier's signed report on an order, once for each message id.

        Raises:
            SignatureError: it is not the supplier's, or not of now. Problem: it is not as it should be.
        """
        if self.signer is None:
            raise Problem(404, "no status reports are taken here; api.webhook_secret is not set")
        message_id = self.signer.verify(headers, body)
        event = self._reported_event(message_id, headers["webhook-timestamp"], body)

        def draft() -> Draft:
            before = self.book.find(event["order_id"])
            response = {"order_id": event["order_id"], "status": event["status"], "event_id": event["event_id"]}
            return Draft("supplier", event["status"], event["order_id"], event, 202, response, _audited(before))

        return self.journal.once(WEBHOOK + message_id, sha256(body).hexdigest(), draft)

    def _reported_event(self, message_id: str, timestamp: str, body: bytes) -> dict[str, Any]:
        """The report as a status event, after the checks that ingestion makes too."""
        now = self._now()
        limits = Limits(
            parse_time(self.ingest.earliest_event_time),
            round(self.ingest.future_tolerance_seconds * 1_000_000),
            self.ingest.largest_quantity,
            self.ingest.largest_value_bytes,
        )
        try:
            said = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise Problem(400, "the report is not JSON; send one JSON object") from None
        if not isinstance(said, dict):
            raise Problem(422, "the report is no JSON object")
        ours = {"event_id": identifier("w", message_id), "actor": "supplier"}
        said = {"event_time": format_time(int(float(timestamp)) * 1_000_000), **said, **ours}
        try:
            event: Event | None = validate(topics.ORDER_STATUS, b"", orjson.dumps(said), now, limits)
        except Rejected as rejected:
            raise Problem(422, f"{rejected.reason}: {rejected.detail}") from None
        assert event is not None  # noqa: S101  (only a tombstone has none)
        if event["status"] not in SUPPLIER_STATUSES:
            expected = ", ".join(sorted(SUPPLIER_STATUSES))
            raise Problem(422, f"status: a supplier reports one of {expected}, found {event['status']}")
        event["event_time"] = format_time(event["event_time"])
        event["eta"] = None if event["eta"] is None else format_time(event["eta"])
        # A report is about an order that is there; what would place one is left out.
        return {
            name: value for name, value in event.items() if value is not None and name not in {"location_id", "sku"}
        }

    def _now(self) -> int:
        return as_microseconds(self.clock())


def _draft(decision: Decision, event: dict[str, Any], before: dict[str, Any] | None) -> Draft:
    status = STATUS_OF[decision.action]
    after = {**(before or {}), "state": status, "quantity": decision.quantity or (before or {}).get("quantity")}
    after |= {name: event[name] for name in ("location_id", "sku") if name in event}
    response = {
        "order_id": decision.order_id,
        "status": status,
        "quantity": after["quantity"],
        "event_id": event["event_id"],
        "decided_at": event["event_time"],
        "decided_by": decision.actor,
    }
    answer = 201 if decision.action == CREATE else 202
    return Draft(
        decision.actor,
        decision.action,
        decision.order_id,
        event,
        answer,
        response,
        _audited(before),
        _audited(after),
        decision.reason,
    )


def _audited(order: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if order is None else {name: order[name] for name in _AUDITED if name in order}


def _fingerprint(actor: str, action: str, order_id: str, body: dict[str, Any]) -> str:
    return sha256(orjson.dumps([actor, action, order_id, body], option=orjson.OPT_SORT_KEYS)).hexdigest()
