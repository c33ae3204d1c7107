"""Orders, flags and what became of them."""

from __future__ import annotations

import pyarrow as pa

from pipelines.contracts.tables.base import RESTOCK, TIME, Table, schema_of, text

ORDER_COLUMNS: dict[str, pa.DataType] = {
    **text("order_id location_id sku supplier_id"),
    "quantity": pa.int64(),
    "on_hand": pa.int64(),
    "on_order": pa.int64(),
    "reorder_point": pa.int64(),
    "order_up_to": pa.int64(),
    **text("trigger_event_id policy_version forecast_version"),
    "expected_receipt": TIME,
    "created_at": TIME,
    "explanation": pa.string(),
}
"""Fields of a message on `restock.orders`, in the contract's order."""

FLAG_COLUMNS: dict[str, pa.DataType] = {
    **text("flag_id location_id sku"),
    "event_time": TIME,
    "flagged_at": TIME,
    "on_hand": pa.int64(),
    "on_order": pa.int64(),
    "expected_demand": pa.float64(),
    "stockout_probability": pa.float64(),
    "projected_stockout_at": TIME,
    "severity": pa.string(),
    "forecast_version": pa.string(),
    "forecast_age_hours": pa.float64(),
    "source_event_id": pa.string(),
}
"""Fields of a message on `stockout.flags`, in the contract's order."""

ORDER_OUTBOX = Table(
    "gold/order_outbox",
    schema_of(
        sequence=pa.int64(),
        order_id=pa.string(),
        payload=pa.string(),
        decided_at=TIME,
        ledger_sequence=pa.int64(),
    ),
    RESTOCK,
)
"""Released orders, append-only; `payload` is the message, byte for byte; `ledger_sequence` the place of the event
that released it: what triggered it, or its approval."""

ORDER_PROPOSALS = Table("gold/order_proposals", ORDER_OUTBOX.schema, RESTOCK)
"""Decided orders that a person must approve, append-only: they enter the outbox when that has happened."""

ORDERS = Table(
    "gold/orders",
    schema_of(
        order_id=pa.string(),
        state=pa.string(),
        state_time=TIME,
        received=pa.int64(),
        **{name: type_ for name, type_ in ORDER_COLUMNS.items() if name != "order_id"},
    ),
    RESTOCK,
)

ORDER_AUDIT = Table(
    "gold/order_audit",
    schema_of(
        sequence=pa.int64(),
        recorded_at=TIME,
        **text("actor action order_id"),
        before=pa.string(),
        after=pa.string(),
        **text("reason idempotency_key request_hash"),
        response_status=pa.int32(),
        **text("response event_id event"),
    ),
    "order_api",
)
"""Every decision that the order API took, append-only: who, what, the order before and after (JSON), why, the key
that makes it unique, the answer given, and the `restock.order_status` event that carries it (its bytes)."""

ALERT_ACTIONS = Table(
    "gold/alert_actions",
    schema_of(**text("alert_id action actor reason"), until=TIME, at=TIME),
    "dashboard",
)
"""What people said of alerts, append-only, the newest row of an alert stands: acknowledged, snoozed (`until` then)
or reopened."""

SUPPLIER_CALLS = Table(
    "gold/supplier_calls",
    schema_of(
        order_id=pa.string(),
        outcome=pa.string(),
        status_code=pa.int32(),
        answer=pa.string(),
        reason=pa.string(),
        attempts=pa.int32(),
        quantity=pa.int64(),
        eta=TIME,
        answered_at=TIME,
    ),
    "send_orders",
)
"""How each order fared at the supplier's API, append-only, the newest row of an order stands: acknowledged, sent,
parked (with the reason), withdrawn (called off before it was sent), internal (a transfer, which no supplier is called
for) or retry (a parked one to be sent again)."""

POLICY_ACTIVATIONS = Table(
    "gold/policy_activations",
    schema_of(
        policy_version=pa.string(),
        forecast_version=pa.string(),
        from_sequence=pa.int64(),
        activated_at=TIME,
    ),
    RESTOCK,
)
"""From which place in the ledger each policy version decided: what makes a replay exact."""
