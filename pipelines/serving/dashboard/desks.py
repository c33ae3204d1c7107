"""Deciding on orders from the dashboard: by the order API's own desk, or through an order API that already runs.

Both record the same row of `gold/order_audit` and send the same event, once for each idempotency key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import httpx
import orjson

from pipelines.contracts.events import IDENTIFIER
from pipelines.errors import OrderConflictError, StockcastError, UsageError
from pipelines.restocking.desk import APPROVE, CHANGE, REJECT
from pipelines.serving import access
from pipelines.serving.dashboard.sessions import Session
from pipelines.serving.decisions import Desk
from pipelines.serving.problems import Problem
from pipelines.serving.requests import Approval, Change, Rejection, Rerouting

FORMS: dict[str, type[Approval | Change | Rejection]] = {APPROVE: Approval, CHANGE: Change, REJECT: Rejection}


class NotAllowedError(StockcastError):
    """Somebody who may only look tried to decide."""


class OrderDesk(Protocol):
    """Where decisions go. Each may be repeated with its key: it has one effect."""

    def decide(self, session: Session, key: str, action: str, order_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Approve, change or reject; what was recorded.

        Raises:
            StockcastError: nothing was done; the message says why.
        """

    def reroute(self, session: Session, key: str, shipment_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Approve another way for a shipment; what was recorded.

        Raises:
            StockcastError: nothing was done; the message says why.
        """

    def unsent(self) -> int:
        """Decisions that are recorded and have not reached Kafka."""


@dataclass(frozen=True)
class LocalDesk:
    """The desk of the order API in this process."""

    desk: Desk

    def decide(self, session: Session, key: str, action: str, order_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """As `OrderDesk`."""
        said = checked(session, action, order_id, body)
        try:
            answer = self.desk.decide(key, session.caller.name, action, order_id, said)
        except Problem as problem:
            raise OrderConflictError(problem.detail) from None
        return dict(orjson.loads(answer.body))

    def reroute(self, session: Session, key: str, shipment_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """As `OrderDesk`."""
        said = checked_reroute(session, shipment_id, body)
        return dict(orjson.loads(self.desk.reroute(key, session.caller.name, shipment_id, said).body))

    def unsent(self) -> int:
        """As `OrderDesk`."""
        return self.desk.journal.unsent


@dataclass(frozen=True)
class RemoteDesk:
    """An order API that serves this home in another process; callers keep their tokens, and so their names."""

    client: httpx.Client

    def decide(self, session: Session, key: str, action: str, order_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """As `OrderDesk`."""
        return self._post(session, key, f"/v1/orders/{order_id}/{action}", checked(session, action, order_id, body))

    def reroute(self, session: Session, key: str, shipment_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """As `OrderDesk`."""
        said = checked_reroute(session, shipment_id, body)
        return self._post(session, key, f"/v1/shipments/{shipment_id}/reroute", said)

    def _post(self, session: Session, key: str, path: str, said: dict[str, Any]) -> dict[str, Any]:
        headers = {"Idempotency-Key": key}
        if session.token is not None:
            headers["Authorization"] = f"Bearer {session.token}"
        try:
            answer = self.client.post(path, json=said, headers=headers)
        except httpx.TransportError as error:
            raise StockcastError(
                f"the order API at {self.client.base_url} does not answer ({type(error).__name__}); the decision may "
                "be repeated: it has one effect"
            ) from None
        document = _document(answer)
        if answer.status_code >= 400:
            raise OrderConflictError(str(document.get("detail") or f"the order API answered {answer.status_code}"))
        return document

    def unsent(self) -> int:
        """As `OrderDesk`; 0 where the API does not answer."""
        try:
            return int(_document(self.client.get("/health")).get("unsent_decisions", 0))
        except (httpx.TransportError, TypeError, ValueError):
            return 0


def reach(address: str) -> RemoteDesk:
    """The order API at an address.

    Raises:
        UsageError: none answers there.
    """
    client = httpx.Client(base_url=address, timeout=10.0, trust_env=False, follow_redirects=False)
    try:
        answers = client.get("/health").status_code == 200
    except httpx.TransportError:
        answers = False
    if not answers:
        client.close()
        raise UsageError(
            f"another process owns this home's gold/order_audit, and no order API answers at {address}; set api.host "
            "and api.port to where it listens, or stop it: the dashboard then serves the order API itself"
        )
    return RemoteDesk(client)


def checked(session: Session, action: str, order_id: str, body: dict[str, Any]) -> dict[str, Any]:
    """The request as the order API takes it, from somebody who may make it.

    Raises:
        NotAllowedError: the session's role is to look only. UsageError: the request is not as it should be.
    """
    _check_role(session)
    if action not in FORMS or not IDENTIFIER.fullmatch(order_id):
        raise UsageError("expected an order's id, and approve, change or reject")
    try:
        return FORMS[action].model_validate(body).model_dump()
    except ValueError:
        what = {
            APPROVE: "a whole quantity above 0",
            CHANGE: "a whole quantity above 0 and a reason",
            REJECT: "a reason",
        }
        raise UsageError(f"expected {what[action]} (at most 1,000 characters)") from None


def checked_reroute(session: Session, shipment_id: str, body: dict[str, Any]) -> dict[str, Any]:
    """The approval of another way as the order API takes it, from somebody who may give it.

    Raises:
        NotAllowedError: the session's role is to look only. UsageError: the request is not as it should be.
    """
    _check_role(session)
    if not IDENTIFIER.fullmatch(shipment_id):
        raise UsageError("expected a shipment's id")
    try:
        return Rerouting.model_validate(body).model_dump()
    except ValueError:
        raise UsageError("expected an option and a reason (at most 1,000 characters)") from None


def _check_role(session: Session) -> None:
    if not session.caller.may(access.APPROVE):
        raise NotAllowedError(f"{session.caller.name} has the role {session.caller.role}; deciding needs approve")


def _document(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
