"""Deciding on orders: what a person may do with an order in its state, and the event that carries the decision.

The command line and the order API decide alike: neither writes orders, both send `restock.order_status` events,
which the restock stage folds in by their place in the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow.compute as pc

from pipelines.contracts.tables import ORDER_OUTBOX, ORDER_PROPOSALS, ORDERS
from pipelines.errors import OrderConflictError, UnknownOrderError
from pipelines.ingestion.times import format_time
from pipelines.io.delta import Tables
from pipelines.restocking.orders import APPROVED, PARTLY_RECEIVED, PROPOSED, REJECTED, SHIPPED, TERMINAL

APPROVE, CHANGE, REJECT, CREATE = "approve", "change", "reject", "create"

STATUS_OF = {APPROVE: APPROVED, CHANGE: PROPOSED, REJECT: REJECTED, CREATE: APPROVED}
"""The status that carries each decision."""


@dataclass(frozen=True)
class Decision:
    """What a person decided about an order; `at` in microseconds since 1970."""

    action: str
    order_id: str
    actor: str
    at: int
    quantity: int | None = None
    reason: str | None = None

    def event(self, event_id: str, **more: Any) -> dict[str, Any]:
        """The `restock.order_status` event, without what is not said."""
        said = {"quantity": self.quantity, "actor": self.actor, "reason": self.reason, **more}
        return {
            "event_id": event_id,
            "event_time": format_time(self.at),
            "order_id": self.order_id,
            "status": STATUS_OF[self.action],
            **{name: value for name, value in said.items() if value is not None},
        }


def find_order(tables: Tables, order_id: str) -> dict[str, Any]:
    """An order with its state; one decided a moment ago comes from the outbox or the proposals.

    Raises:
        UnknownOrderError: there is none.
    """
    wanted = pc.field("order_id") == order_id
    for row in tables.read(ORDERS, where=wanted).to_pylist():
        return dict(row)
    for table, state in ((ORDER_OUTBOX, APPROVED), (ORDER_PROPOSALS, PROPOSED)):
        for row in tables.read(table, ("payload",), wanted).to_pylist():
            return {"state": state, **orjson.loads(row["payload"])}
    raise UnknownOrderError(f"there is no order {order_id}; `stockcast orders list` shows the newest")


def check_decision(order: Mapping[str, Any], action: str, quantity: int | None) -> None:
    """Whether an order's state lets a person decide so.

    Raises:
        OrderConflictError: says what the state is, and what can be done instead.
    """
    order_id, state = order["order_id"], order["state"]
    if state in TERMINAL:
        raise OrderConflictError(f"order {order_id} is {state}: nothing can be decided on it any more")
    if action == REJECT and state in {SHIPPED, PARTLY_RECEIVED}:
        raise OrderConflictError(f"order {order_id} is {state}: call it off at the supplier, who then reports it")
    changed = quantity is not None and quantity != order["quantity"]
    if state != PROPOSED and (action == CHANGE or changed):
        raise OrderConflictError(
            f"order {order_id} is {state}: it went out with {order['quantity']} units, and only a proposal can be "
            "changed; reject it while it is not shipped, and order anew"
        )
