"""The states of an order, driven by `restock.order_status` events and receipts.

| state | what it says |
|---|---|
| proposed | decided, worth more than what is released by itself: waits for a person |
| expired | nobody decided in time |
| approved | released: by a person, or by itself below the value limit |
| sent | the supplier has it and will confirm later |
| acknowledged | the supplier takes it |
| shipped | under way |
| partly_received | some of it is booked in |
| cancelled | called off |
| rejected | refused by a person |
| received | booked in as a whole, or reported so |

A state and a status meet in the later of the two, in this order. So what an order comes to depends on the set of
its statuses alone: a late or a repeated one does no harm. A person's approval that crosses an expiry on its way
stands, for it comes after `expired`.
"""

from __future__ import annotations

from dataclasses import dataclass

PROPOSED = "proposed"
EXPIRED = "expired"
APPROVED = "approved"
SENT = "sent"
ACKNOWLEDGED = "acknowledged"
SHIPPED = "shipped"
PARTLY_RECEIVED = "partly_received"
CANCELLED = "cancelled"
REJECTED = "rejected"
RECEIVED = "received"

STATES = (
    PROPOSED,
    EXPIRED,
    APPROVED,
    SENT,
    ACKNOWLEDGED,
    SHIPPED,
    PARTLY_RECEIVED,
    CANCELLED,
    REJECTED,
    RECEIVED,
)
"""In the order in which they outrank each other."""

TERMINAL = frozenset({EXPIRED, CANCELLED, REJECTED, RECEIVED})
"""Nobody can decide on the order any more."""

FREED = frozenset({EXPIRED, CANCELLED, REJECTED})
"""Nothing is on order by it any more."""

_RANK = {state: rank for rank, state in enumerate(STATES)}


@dataclass(frozen=True)
class OrderChange:
    """Something that happened to an order; `at` in microseconds since 1970, `received` in units so far, `quantity`
    where a proposal was changed."""

    order_id: str
    status: str
    at: int
    received: int | None = None
    quantity: int | None = None


def next_state(state: str, status: str) -> str:
    """The state after a status: the later of the two."""
    return status if _RANK[status] > _RANK[state] else state
