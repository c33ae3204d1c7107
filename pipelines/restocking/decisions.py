"""What to do about a series: order, flag, both or nothing. Pure: neither clock nor chance takes part.

The time of a decision is the series' own clock, the newest event time that its ledger rows have shown, so a
replay of the same rows decides the same, byte for byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from pipelines.contracts.identifiers import identifier
from pipelines.contracts.tables import FLAG_COLUMNS, ORDER_COLUMNS
from pipelines.ingestion.times import format_time, parse_time
from pipelines.inventory.explanation import explain_order, explain_transfer
from pipelines.inventory.policies import NO_DEMAND
from pipelines.inventory.quantity import MAXIMUM_ORDER, Limit, order_quantity
from pipelines.inventory.stock_health import SEVERITIES, RiskLimits
from pipelines.inventory.stockout import (
    demand_between,
    expected_lost_units,
    projected_stockout_days,
    stockout_probability,
)
from pipelines.operations.settings import RestockSettings
from pipelines.restocking.live_policy import DAY, HOUR, OFFER_DAYS, LivePolicy
from pipelines.restocking.positions import OpenOrder, Position

CHANCES = (None, "low", "high", "critical")
GRAVITY = (None, *SEVERITIES)


@dataclass(frozen=True, slots=True)
class Trigger:
    """What made us look at a series: an event, or a policy coming into force. Times in microseconds."""

    event_id: str
    event_time: int
    arrived_at: int


Record = dict[str, Any]


def decide_orders(position: Position, policy: LivePolicy, trigger: Trigger, now: int) -> list[Record]:
    """The orders that the position calls for, entered into the position as open: what a sibling location can spare
    first, then, where the position is still at or below its reorder point, what is to be bought."""
    orders = (_transfer(position, policy, trigger, now), _purchase(position, policy, trigger, now))
    return [order for order in orders if order is not None]


def _calls_for_stock(position: Position, policy: LivePolicy, now: int) -> bool:
    return (
        position.on_hand + position.on_order <= policy.reorder_point
        and now >= position.hold_until
        and policy.binding_constraint != NO_DEMAND
    )


def _transfer(position: Position, policy: LivePolicy, trigger: Trigger, now: int) -> Record | None:
    """What is asked of a sibling: its offer is used once, however much of it is needed."""
    offer = policy.transfer
    if offer is None or offer.offer == position.offer_taken or not _calls_for_stock(position, policy, now):
        return None
    if now > policy.in_force_from + round(OFFER_DAYS * DAY):
        return None
    quantity = min(offer.quantity, policy.order_up_to - position.on_hand - position.on_order)
    position.offer_taken = offer.offer
    explained = explain_transfer(policy, position.on_hand, position.on_order, quantity, offer.source, offer.reason)
    order_id = identifier("o", position.location_id, position.sku, trigger.event_id, offer.source)
    return _enter(position, policy, trigger, now, _Asked(order_id, offer.source, quantity, offer.days, explained))


def _purchase(position: Position, policy: LivePolicy, trigger: Trigger, now: int) -> Record | None:
    if not _calls_for_stock(position, policy, now):
        return None
    limit, smallest = _limit(position, policy, now)
    quantity, bound = order_quantity(
        position.on_hand + position.on_order,
        policy.reorder_point,
        policy.order_up_to,
        policy.pack_size,
        smallest,
        limit,
    )
    if quantity <= 0:
        return None
    explained = explain_order(policy, position.on_hand, position.on_order, quantity, bound)
    taken = policy.taken_at(now)
    if taken > now:
        explained += f"; the supplier takes it on {format_time(taken)[:10]}"
    order_id = identifier("o", position.location_id, position.sku, trigger.event_id)
    if limit is not None:
        position.bought[order_id] = quantity
    days = policy.lead_time_days + (taken - now) / DAY
    return _enter(position, policy, trigger, now, _Asked(order_id, policy.supplier_id, quantity, days, explained))


def _limit(position: Position, policy: LivePolicy, now: int) -> tuple[Limit | None, int]:
    """What may still be bought today, and the smallest order: where the largest is below it, the largest holds."""
    if policy.allowance is None and not policy.maximum_order:
        return None, policy.minimum_order
    bought = position.bought_on(now // DAY)
    smallest, limits = policy.minimum_order, []
    if policy.maximum_order:
        largest = max(policy.maximum_order // policy.pack_size, 1) * policy.pack_size
        smallest = min(smallest, largest)
        limits.append(Limit(largest - bought, MAXIMUM_ORDER))
    if policy.allowance is not None:
        limits.append(Limit(policy.allowance - bought, policy.allowance_reason))
    return min(limits, key=lambda limit: limit.units), smallest


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked for, of whom, how long it takes, and why."""

    order_id: str
    supplier_id: str | None
    quantity: int
    days: float
    explanation: str


def _enter(position: Position, policy: LivePolicy, trigger: Trigger, now: int, asked: _Asked) -> Record:
    expected = now + round(asked.days * DAY)
    order = {
        "order_id": asked.order_id,
        "location_id": position.location_id,
        "sku": position.sku,
        "supplier_id": asked.supplier_id,
        "quantity": asked.quantity,
        "on_hand": position.on_hand,
        "on_order": position.on_order,
        "reorder_point": policy.reorder_point,
        "order_up_to": policy.order_up_to,
        "trigger_event_id": trigger.event_id,
        "policy_version": policy.policy_version,
        "forecast_version": policy.forecast_version,
        "expected_receipt": expected,
        "created_at": now,
        "explanation": asked.explanation,
    }
    position.open_orders[asked.order_id] = OpenOrder(asked.quantity, expected)
    return order


def decide_flag(
    position: Position, policy: LivePolicy, trigger: Trigger, now: int, settings: RestockSettings
) -> Record | None:
    """The flag to raise when the chance of running out before the next possible receipt, or the money that this would
    lose, has risen a class.

    Its severity is by the margin expected to be lost; by the chance where the product's cost or price is unknown.
    """
    receipt = next_receipt(position, policy, now)
    start, end = (now - policy.in_force_from) / DAY, (receipt - policy.in_force_from) / DAY
    mean, deviation = demand_between(policy.cumulative_mean, policy.cumulative_std, start, end, policy.correlation)
    out_of_stock = position.on_hand <= 0 and mean > 0
    probability = 1.0 if out_of_stock else stockout_probability(position.on_hand, mean, deviation)
    chance = chance_of(probability, settings)
    lost = None if chance is None else expected_lost_units(max(position.on_hand, 0), mean, deviation)
    margin = None if lost is None or policy.margin is None else lost * policy.margin
    severity = chance if margin is None else RiskLimits(*settings.money_at_risk).severity(margin)
    risen = GRAVITY.index(severity) > GRAVITY.index(position.flag_severity) or (
        CHANCES.index(chance) > CHANCES.index(position.flag_chance)
    )
    position.flag_severity, position.flag_chance = severity, chance
    position.lost_units, position.lost_margin = lost, margin
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
    possible = policy.taken_at(now) + round(policy.lead_time_days * DAY)
    due = [
        order.expected_receipt
        for order in position.open_orders.values()
        if order.expected_receipt > now and order.released
    ]
    return min((*due, possible))


def chance_of(probability: float, settings: RestockSettings) -> str | None:
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
