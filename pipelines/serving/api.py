"""The order API: list, show, explain, approve, change, reject and create orders; send shipments another way; take
suppliers' reports."""

# Annotations are evaluated here, for FastAPI reads them and some are made inside functions.
import re
from collections.abc import Callable
from typing import Annotated, Any

import orjson
from fastapi import Depends, FastAPI, Header, Path, Query, Request, Response

from pipelines.contracts.events import IDENTIFIER
from pipelines.restocking.desk import APPROVE as APPROVE_ORDER
from pipelines.restocking.desk import CHANGE, REJECT
from pipelines.serving.access import APPROVE, LOCAL, LOCAL_NAMES, READ, Access, Caller
from pipelines.serving.decisions import WEBHOOK, Desk
from pipelines.serving.journal import Answer
from pipelines.serving.limits import BodyLimit
from pipelines.serving.problems import Problem, answer_with_problems
from pipelines.serving.requests import Approval, Change, Listing, NewOrder, Rejection, Rerouting

_KEY = re.compile(r"[\x21-\x7e]{1,255}")

OrderId = Annotated[str, Path(pattern=f"^{IDENTIFIER.pattern}$")]
ShipmentId = OrderId


def create_app(desk: Desk, access: Access, largest_body_bytes: int) -> FastAPI:
    """The application. Every answer is JSON; every error a problem document that says what to do."""
    app = FastAPI(title="Stockcast orders", version="1", docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit, largest=largest_body_bytes)
    answer_with_problems(app)
    _add_reading(app, desk, access)
    _add_deciding(app, desk, access)
    _add_shipments(app, desk, access)
    _add_unauthenticated(app, desk)
    return app


def _add_reading(app: FastAPI, desk: Desk, access: Access) -> None:
    reader = Depends(_requires(READ, access))

    @app.get("/v1/orders", dependencies=[reader])
    def list_orders(listing: Annotated[Listing, Query()]) -> Response:
        """Orders, newest first; `next_cursor` leads to the next page."""
        page = desk.book.page(listing.wanted, listing.limit, listing.cursor)
        return _json({"orders": page.orders, "matching": page.matching, "next_cursor": page.next_cursor})

    @app.get("/v1/orders/{order_id}", dependencies=[reader])
    def show_order(order_id: OrderId) -> Response:
        """All that is known of an order: its row, what is pending, what was reported, how it was sent."""
        return _json({**desk.book.find(order_id), **desk.book.history(order_id)})

    @app.get("/v1/orders/{order_id}/explanation", dependencies=[reader])
    def explain_order(order_id: OrderId) -> Response:
        """Why it was ordered: the arithmetic in one line."""
        return _json({"order_id": order_id, "explanation": desk.book.find(order_id)["explanation"]})


def _add_deciding(app: FastAPI, desk: Desk, access: Access) -> None:
    approver = Annotated[Caller, Depends(_requires(APPROVE, access))]
    key_of = Annotated[str, Depends(_idempotency_key)]

    @app.post("/v1/orders")
    def create_order(body: NewOrder, caller: approver, key: key_of) -> Response:
        """Order by hand; it is released at once."""
        return _answer(desk.create(key, caller.name, body.model_dump()))

    @app.post("/v1/orders/{order_id}/approve")
    def approve_order(order_id: OrderId, caller: approver, key: key_of, body: Approval | None = None) -> Response:
        """Approve a proposal, possibly with another quantity: it is released."""
        said = (body or Approval()).model_dump()
        return _answer(desk.decide(key, caller.name, APPROVE_ORDER, order_id, said))

    @app.post("/v1/orders/{order_id}/change")
    def change_order(order_id: OrderId, body: Change, caller: approver, key: key_of) -> Response:
        """Give a proposal another quantity; it goes on waiting."""
        return _answer(desk.decide(key, caller.name, CHANGE, order_id, body.model_dump()))

    @app.post("/v1/orders/{order_id}/reject")
    def reject_order(order_id: OrderId, body: Rejection, caller: approver, key: key_of) -> Response:
        """Reject an order: it no longer counts as on order."""
        return _answer(desk.decide(key, caller.name, REJECT, order_id, body.model_dump()))


def _add_shipments(app: FastAPI, desk: Desk, access: Access) -> None:
    approver = Annotated[Caller, Depends(_requires(APPROVE, access))]
    key_of = Annotated[str, Depends(_idempotency_key)]

    @app.get("/v1/shipments/{shipment_id}", dependencies=[Depends(_requires(READ, access))])
    def show_shipment(shipment_id: ShipmentId) -> Response:
        """Where a shipment is, and what can be done about it."""
        return _json(desk.book.shipment(shipment_id))

    @app.post("/v1/shipments/{shipment_id}/reroute")
    def reroute_shipment(shipment_id: ShipmentId, body: Rerouting, caller: approver, key: key_of) -> Response:
        """Approve another way: its orders move, or a transfer is ordered."""
        return _answer(desk.reroute(key, caller.name, shipment_id, body.model_dump()))


def _add_unauthenticated(app: FastAPI, desk: Desk) -> None:
    @app.get("/health")
    def health() -> Response:
        """Whether decisions are recorded and reach Kafka."""
        unsent = desk.journal.unsent
        return _json({"status": "degraded" if unsent else "ok", "unsent_decisions": unsent})

    # Not `async`: recording waits for a commit, and must not hold up the event loop.
    @app.post("/v1/order-status")
    def report_status(request: Request, body: Annotated[bytes, Depends(_raw_body)]) -> Response:
        """A supplier's report on an order, signed in the Standard Webhooks form."""
        return _answer(desk.report(dict(request.headers), body))


def _requires(role: str, access: Access) -> Callable[..., Caller]:
    def check(request: Request, authorization: Annotated[str | None, Header()] = None) -> Caller:
        if access.is_open:
            # A page in this machine's browser must not reach us under a name of its own.
            if (request.url.hostname or "") not in LOCAL_NAMES:
                raise Problem(403, "without tokens only requests to localhost or 127.0.0.1 are answered")
            return LOCAL
        scheme, _, token = (authorization or "").partition(" ")
        caller = access.caller(token.strip()) if scheme.lower() == "bearer" else None
        if caller is None:
            raise Problem(401, "expected a known token: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})
        if not caller.may(role):
            raise Problem(403, f"the token of {caller.name} has the role {caller.role}; this needs {role}")
        return caller

    return check


def _idempotency_key(idempotency_key: Annotated[str | None, Header()] = None) -> str:
    if idempotency_key is None or not _KEY.fullmatch(idempotency_key) or idempotency_key.startswith(WEBHOOK):
        raise Problem(
            400,
            "expected a header Idempotency-Key of 1 to 255 visible characters, a new one for each new request and the "
            "same one for its repetitions; a UUID will do",
        )
    return idempotency_key


async def _raw_body(request: Request) -> bytes:
    return await request.body()


def _answer(answer: Answer) -> Response:
    headers = {"Idempotency-Replayed": "true"} if answer.replayed else None
    return Response(answer.body, answer.status, headers=headers, media_type="application/json")


def _json(document: dict[str, Any]) -> Response:
    return Response(orjson.dumps(document, option=orjson.OPT_UTC_Z), media_type="application/json")
