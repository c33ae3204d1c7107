"""Orders that a person has a say in: proposals above a value, and orders by hand. Pure, as all decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.restocking.decisions import Record
from pipelines.restocking.live_policy import DAY, LivePolicy
from pipelines.restocking.orders import APPROVED
from pipelines.restocking.positions import OpenOrder, Position

LEAD_TIME_DAYS = 7.0
"""When an order by hand is expected where neither a promise nor a policy says so."""


@dataclass(frozen=True)
class Approval:
    """Which orders wait for a person: those worth more than `value_limit` (None: none), in the catalog's currency.

    Attributes:
        before: whether an order waited when it was first decided, by its id. A replay goes by this, so that a limit
            changed meanwhile changes nothing that was decided.
    """

    value_limit: float | None = None
    before: Mapping[str, bool] = field(default_factory=dict)

    def is_needed(self, order: Record, unit_cost: float | None) -> bool:
        """Whether the order waits. One whose product has no cost waits wherever there is a limit."""
        known = self.before.get(order["order_id"])
        if known is not None:
            return known
        if self.value_limit is None:
            return False
        return unit_cost is None or order["quantity"] * unit_cost > self.value_limit


@dataclass(frozen=True)
class HandOrder:
    """What a person ordered; `expected_receipt` in microseconds, None where nothing was promised; `supplier_id`: who
    delivers, None for the policy's supplier."""

    order_id: str
    quantity: int
    expected_receipt: int | None
    event_id: str
    actor: str | None
    reason: str | None
    supplier_id: str | None = None


def order_by_hand(status: str, quantity: int | None, location_id: str | None, sku: str | None) -> bool:
    """Whether a status about an order that nobody knows places it."""
    return status == APPROVED and None not in (quantity, location_id, sku)


def approved_order(
    proposal: Record, quantity: int, expected_receipt: int, actor: str | None, reason: str | None
) -> Record:
    """The order that goes out for a proposal: what was approved, and by whom, is in its explanation."""
    said = f"approved by {one_line(actor) or 'unknown'}"
    if quantity != proposal["quantity"]:
        said = f"{proposal['quantity']} proposed, {quantity} {said}"
    return {
        **proposal,
        "quantity": quantity,
        "expected_receipt": expected_receipt,
        "explanation": f"{proposal['explanation']}; {said}{_because(reason)}",
    }


def place_order(position: Position, policy: LivePolicy | None, hand: HandOrder) -> Record:
    """The order by hand, entered into the position as open; the position's clock is its time."""
    on_order, now = position.on_order, position.clock
    lead_time = LEAD_TIME_DAYS if policy is None else policy.lead_time_days
    expected = now + round(lead_time * DAY) if hand.expected_receipt is None else hand.expected_receipt
    order: dict[str, Any] = {
        "order_id": hand.order_id,
        "location_id": position.location_id,
        "sku": position.sku,
        "supplier_id": hand.supplier_id or (policy and policy.supplier_id),
        "quantity": hand.quantity,
        "on_hand": position.on_hand,
        "on_order": on_order,
        "reorder_point": policy and policy.reorder_point,
        "order_up_to": policy and policy.order_up_to,
        "trigger_event_id": hand.event_id,
        "policy_version": policy and policy.policy_version,
        "forecast_version": policy and policy.forecast_version,
        "expected_receipt": expected,
        "created_at": now,
        "explanation": (
            f"Ordered by hand by {one_line(hand.actor) or 'unknown'}: {hand.quantity} units at position "
            f"{position.on_hand + on_order} (on hand {position.on_hand} + on order {on_order}){_because(hand.reason)}"
        ),
    }
    position.open_orders[hand.order_id] = OpenOrder(hand.quantity, expected)
    return order


def one_line(text: str | None) -> str:
    """A person's text as part of a line."""
    return " ".join((text or "").split())


def _because(reason: str | None) -> str:
    said = one_line(reason)
    return f" ({said})" if said else ""
