"""A policy as the live stage needs it: levels, caps, an offer of a transfer, the supplier's order days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.inventory.scenarios import LEVEL_CORRELATION

DAY = 86_400_000_000
HOUR = 3_600_000_000
OFFER_DAYS = 2.0
"""An offer is of stock seen at planning: so long after the policy's first moment it is no longer taken."""


@dataclass(frozen=True, slots=True)
class TransferOffer:
    """Units that a sibling location can spare, until used or out of date.

    Attributes:
        offer: tells it from the offers before and after it.
        source: the location that gives. quantity: at most so many units.
        days: how long they take. reason: why moving them is better than buying, in words.
    """

    offer: str
    source: str
    quantity: int
    days: float
    reason: str


@dataclass(frozen=True, slots=True)
class LivePolicy:
    """A row of `gold/inventory_policies`, as the live stage needs it; `in_force_from` in microseconds.

    Attributes:
        maximum_order: units that may be bought in a day; 0 for no limit.
        allowance: units that may be bought in a day, for `allowance_reason`; None for no limit.
        order_windows: microseconds, from when until when the supplier takes orders, in turn; empty: always.
    """

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
    unit_price: float | None = None
    correlation: float = LEVEL_CORRELATION
    maximum_order: int = 0
    allowance: int | None = None
    allowance_reason: str = ""
    transfer: TransferOffer | None = None
    order_windows: Sequence[int] = ()

    @property
    def margin(self) -> float | None:
        """What a lost unit costs: price less cost, at least nothing; None where either is unknown."""
        if self.unit_price is None or self.unit_cost is None:
            return None
        return max(self.unit_price - self.unit_cost, 0.0)

    def taken_at(self, now: int) -> int:
        """When the supplier takes an order placed now: at once, or as its next order day begins. Microseconds."""
        for begin, end in zip(self.order_windows[::2], self.order_windows[1::2], strict=True):
            if now < end:
                return max(now, begin)
        return now
