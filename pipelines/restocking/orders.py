"""The state of orders, driven by `restock.order_status` events and receipts."""

from __future__ import annotations

from dataclasses import dataclass

TERMINAL = frozenset({"received", "rejected", "cancelled", "expired"})

_RANK = {
    "proposed": 0,
    "approved": 1,
    "acknowledged": 2,
    "shipped": 3,
    "partly_received": 4,
    "received": 5,
    "rejected": 5,
    "cancelled": 5,
    "expired": 5,
}


@dataclass(frozen=True)
class OrderChange:
    """Something that happened to an order; `at` in microseconds since 1970, `received` in units so far."""

    order_id: str
    status: str
    at: int
    received: int | None = None


def next_state(state: str, status: str) -> str:
    """The state after a status. A late or repeated status does no harm; an ended order stays ended."""
    if state in TERMINAL:
        return state
    return status if _RANK[status] > _RANK[state] else state
