"""The arithmetic of an order in one line that a planner can redo by hand."""

# ruff: noqa: D102 - the properties of the protocol are the table's columns
from __future__ import annotations

from typing import Protocol

from pipelines.inventory.policies import CRITICAL_RATIO, FILL_RATE, LEAST_COST, NO_DEMAND, SHELF_LIFE
from pipelines.inventory.quantity import BUDGET, MAXIMUM_ORDER, WAREHOUSE_SHORTAGE, whole_packs


class PolicyRow(Protocol):
    """What the explanation needs of a row of `gold/inventory_policies`, under the table's names."""

    @property
    def reorder_point(self) -> int: ...
    @property
    def order_up_to(self) -> int: ...
    @property
    def safety_stock(self) -> float: ...
    @property
    def lead_time_days(self) -> float: ...
    @property
    def review_days(self) -> float: ...
    @property
    def service_level(self) -> float: ...
    @property
    def binding_constraint(self) -> str: ...
    @property
    def pack_size(self) -> int: ...
    @property
    def minimum_order(self) -> int: ...
    @property
    def policy_version(self) -> str: ...
    @property
    def forecast_version(self) -> str: ...


def explain_order(policy: PolicyRow, on_hand: int, on_order: int, quantity: int, bound: str = "") -> str:
    """Why `quantity` was ordered: position, reorder point, order-up-to level, rounding, versions.

    Args:
        policy: the policy row that decided.
        on_hand, on_order: units at the moment of the decision.
        quantity: units ordered.
        bound: what decided the number, as `order_quantity` says it.
    """
    position = on_hand + on_order
    return (
        f"{_called_for(policy, on_hand, on_order)}; order up to {policy.order_up_to}"
        f"{_size(policy)}: {_rounding(policy, policy.order_up_to - position, quantity, bound)}; {_versions(policy)}"
    )


def explain_transfer(policy: PolicyRow, on_hand: int, on_order: int, quantity: int, source: str, reason: str) -> str:
    """Why `quantity` is asked of a sibling location before anything is bought.

    Args:
        source: the location that gives. reason: why that is better than buying.
    """
    return (
        f"{_called_for(policy, on_hand, on_order)}; order up to {policy.order_up_to}: transfer of {quantity} from "
        f"{source} ({reason}); {_versions(policy)}"
    )


def _called_for(policy: PolicyRow, on_hand: int, on_order: int) -> str:
    return (
        f"Position {on_hand + on_order} (on hand {on_hand} + on order {on_order}) is at or below the reorder point "
        f"{policy.reorder_point} ({_reorder_point(policy)})"
    )


def _versions(policy: PolicyRow) -> str:
    return f"forecast {policy.forecast_version}, policy {policy.policy_version}"


def _reorder_point(policy: PolicyRow) -> str:
    expected = policy.reorder_point - policy.safety_stock
    span = f"{policy.lead_time_days:.1f} days lead time + {_days(policy.review_days)} review"
    facts = f"expected {expected:.1f}, safety stock {policy.safety_stock:.1f}"
    if policy.binding_constraint == FILL_RATE:
        return f"{_percent(policy.service_level)} of demand met from stock, over {span}, {facts}"
    if policy.binding_constraint == SHELF_LIFE:
        return f"{_percent(policy.service_level)} of demand over {span} as far as shelf life allows, {facts}"
    return f"{_percent(policy.service_level)} of demand over {span}, {facts}"


def _size(policy: PolicyRow) -> str:
    reasons = {
        "economic_order_quantity": f" ({_above(policy)} above it by the economic order quantity)",
        "minimum_order": f" ({_above(policy)} above it by the minimum order of {policy.minimum_order})",
        "quantity_break": f" ({_above(policy)} above it: in orders of that size a unit costs less)",
        "pack_size": f" ({_above(policy)} above it: one pack)",
        SHELF_LIFE: " (what is expected to sell within its shelf life)",
        CRITICAL_RATIO: " (margin against the cost of a unit left over)",
        LEAST_COST: f" ({_above(policy)} above it: least cost of ordering, holding and lost margin)",
        NO_DEMAND: " (no demand is expected)",
    }
    return reasons.get(policy.binding_constraint, "")


def _above(policy: PolicyRow) -> int:
    return policy.order_up_to - policy.reorder_point


_CUT_BY = {
    MAXIMUM_ORDER: "the most that may be ordered in a day",
    BUDGET: "its share of the day's budget",
    WAREHOUSE_SHORTAGE: "its share of what the warehouse has",
}


def _rounding(policy: PolicyRow, needed: int, quantity: int, bound: str) -> str:
    packs = f"in packs of {policy.pack_size}"
    if bound in _CUT_BY:
        return f"{needed} needed, cut to {quantity} by {_CUT_BY[bound]}"
    if quantity == needed:
        return f"{needed} needed and ordered"
    if quantity > whole_packs(needed, policy.pack_size):
        raised = f"{needed} needed, raised to the minimum order of {policy.minimum_order}"
        return raised if quantity == policy.minimum_order else f"{raised}, which is {quantity} {packs}"
    if quantity > needed:
        return f"{needed} needed, rounded up to {quantity} {packs}"
    return f"{needed} needed, {quantity} ordered"


def _percent(probability: float) -> str:
    return f"{round(100 * probability, 2):g} %"


def _days(days: float) -> str:
    return f"{days:g} day" if days == 1 else f"{days:g} days"
