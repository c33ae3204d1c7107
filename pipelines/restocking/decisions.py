"""What to do about a series: order, flag, both or nothing. Pure: neither clock nor chance takes part.

The time of a decision is the series' own clock, the newest event time that its ledger rows have shown, so a
replay of the same rows decides the same, byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from pipelines.contracts.identifiers import identifier
from pipelines.contracts.tables import FLAG_COLUMNS, ORDER_COLUMNS
from pipelines.ingestion.times import format_time, parse_time
from pipelines.inventory.explanation import explain_order
from pipelines.inventory.policies import NO_DEMAND
from pipelines.inventory.quantity import order_quantity
from pipelines.inventory.scenarios import LEVEL_CORRELATION
from pipelines.inventory.stockout import demand_between, projected_stockout_days, stockout_probability
from pipelines.operations.settings import RestockSettings
from pipelines.restocking.positions import OpenOrder, Position

DAY = 86_400_000_000
HOUR = 3_600_000_000

SEVERITIES = (None, "low", "high", "critical")


@dataclass(frozen=True, slots=True)
class LivePolicy:
    """A row of `gold/inventory_policies`, as the live stage needs it; `in_force_from` in microseconds."""

    policy_version: str
    forecast_version: str
    supplier_id: str | None
    reorder_point: int
    order_up_to: int
    safety_stock: float
    lead_time_days: float
    review_days: float
    service_level: float
    binding_constraint: str
    pack_size: int
    minimum_order: int
    in_force_from: int
    cumulative_mean: Sequence[float]
    cumulative_std: Sequence[float]
    unit_cost: float | None = None
    correlation: float = LEVEL_CORRELATION


@dataclass(frozen=True, slots=True)
class Trigger:
    """What made us look at a series: an event, or a policy coming into force. Times in microseconds."""

    event_id: str
    event_time: int
    arrived_at: int


Record = dict[str, Any]


def decide_order(position: Position, policy: LivePolicy, trigger: Trigger, now: int) -> Record | None:
    """The order that the position calls for, entered into the position as open; None when it calls for none."""
    on_order = position.on_order
    inventory_position = position.on_hand + on_order
    if inventory_position > policy.reorder_point or now < position.hold_until:
        return None
    if policy.binding_constraint == NO_DEMAND:
        return None
    quantity, _ = order_quantity(
        inventory_position, policy.reorder_point, policy.order_up_to, policy.pack_size, policy.minimum_order
    )
    if quantity <= 0:
        return None
    order_id = identifier("o", position.location_id, position.sku, trigger.event_id)
    expected = now + round(policy.lead_time_days * DAY)
    order = {
        "order_id": order_id,
        "location_id": position.location_id,
        "sku": position.sku,
        "supplier_id": policy.supplier_id,
        "quantity": quantity,
        "on_hand": position.on_hand,
        "on_order": on_order,
        "reorder_point": policy.reorder_point,
        "order_up_to": policy.order_up_to,
        "trigger_event_id": trigger.event_id,
        "policy_version": policy.policy_version,
        "forecast_version": policy.forecast_version,
        "expected_receipt": expected,
        "created_at": now,
        "explanation": explain_order(policy, position.on_hand, on_order, quantity),
    }
    position.open_orders[order_id] = OpenOrder(quantity, expected)
    return order


def decide_flag(
    position: Position, policy: LivePolicy, trigger: Trigger, now: int, settings: RestockSettings
) -> Record | None:
    """The flag to raise when the risk of running out before the next possible receipt has risen a class."""
    receipt = next_receipt(position, policy, now)
    start, end = (now - policy.in_force_from) / DAY, (receipt - policy.in_force_from) / DAY
    mean, deviation = demand_between(policy.cumulative_mean, policy.cumulative_std, start, end, policy.correlation)
    out_of_stock = position.on_hand <= 0 and mean > 0
    probability = 1.0 if out_of_stock else stockout_probability(position.on_hand, mean, deviation)
    severity = severity_of(probability, settings)
    risen = SEVERITIES.index(severity) > SEVERITIES.index(position.flag_severity)
    position.flag_severity = severity
    if not risen:
        return None
    days = projected_stockout_days(max(position.on_hand, 0), policy.cumulative_mean, start)
    return {
        "flag_id": identifier("f", position.location_id, position.sku, trigger.event_id),
        "location_id": position.location_id,
        "sku": position.sku,
        "event_time": trigger.event_time,
        "flagged_at": trigger.arrived_at,
        "on_hand": position.on_hand,
        "on_order": position.on_order,
        "expected_demand": round(mean, 3),
        "stockout_probability": round(probability, 4),
        "projected_stockout_at": None if days is None else now + round(days * DAY),
        "severity": severity,
        "forecast_version": policy.forecast_version,
        "forecast_age_hours": round((now - policy.in_force_from) / HOUR, 2),
        "source_event_id": trigger.event_id,
    }


def next_receipt(position: Position, policy: LivePolicy, now: int) -> int:
    """When the shelf can be filled next: the earliest open order not overdue, else an order placed now."""
    possible = now + round(policy.lead_time_days * DAY)
    due = [
        order.expected_receipt
        for order in position.open_orders.values()
        if order.expected_receipt > now and order.released
    ]
    return min((*due, possible))


def severity_of(probability: float, settings: RestockSettings) -> str | None:
    """The class of a stockout probability; None below the threshold of a flag."""
    if probability >= settings.critical_probability:
        return "critical"
    if probability >= settings.high_probability:
        return "high"
    return "low" if probability >= settings.flag_probability else None


def encode_order(order: Record) -> bytes:
    """The message on `restock.orders`: the contract's fields in its order."""
    return _encode(order, ORDER_COLUMNS)


def encode_flag(flag: Record) -> bytes:
    """The message on `stockout.flags`."""
    return _encode(flag, FLAG_COLUMNS)


def decode_order(payload: str) -> Record:
    """The order that `encode_order` wrote."""
    order: Record = orjson.loads(payload)
    for name in ("expected_receipt", "created_at"):
        order[name] = parse_time(order[name])
    return order


_TIMES = frozenset({"expected_receipt", "created_at", "event_time", "flagged_at", "projected_stockout_at"})


def _encode(record: Record, columns: dict[str, Any]) -> bytes:
    return orjson.dumps(
        {
            name: format_time(record[name]) if name in _TIMES and record[name] is not None else record[name]
            for name in columns
        }
    )
