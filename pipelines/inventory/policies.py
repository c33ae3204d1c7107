"""Policies behind one interface: the distribution of lead-time demand in, levels out.

A policy is one file in `pipelines.inventory.methods` with a class that `register`s itself; `planning.method`
chooses it by name. `tests/unit/test_inventory_policies.py` runs every registered policy through one contract:
levels whole and finite, reorder point at least 0, order-up-to level above it, safety stock = reorder point less
expected demand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from pipelines.errors import UsageError
from pipelines.inventory.economics import DAYS_PER_YEAR, QuantityBreaks, order_quantity_with_breaks, round_up
from pipelines.inventory.forecast_distribution import FloatArray
from pipelines.inventory.lead_time_demand import LeadTimeDemand, expected_demand
from pipelines.plugins import import_all

SERVICE_LEVEL = "service_level"
ECONOMIC_ORDER_QUANTITY = "economic_order_quantity"
MINIMUM_ORDER = "minimum_order"
PACK_SIZE = "pack_size"
QUANTITY_BREAK = "quantity_break"
SHELF_LIFE = "shelf_life"
CRITICAL_RATIO = "critical_ratio"
FILL_RATE = "fill_rate"
LEAST_COST = "least_cost"
NO_DEMAND = "no_demand"
BINDING_CONSTRAINTS = (
    SERVICE_LEVEL,
    ECONOMIC_ORDER_QUANTITY,
    MINIMUM_ORDER,
    PACK_SIZE,
    QUANTITY_BREAK,
    SHELF_LIFE,
    CRITICAL_RATIO,
    FILL_RATE,
    LEAST_COST,
    NO_DEMAND,
)
"""What decided an order's size. `no_demand`: the forecast expects none at all, so nothing need be ordered."""

TextArray = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Terms:
    """What n series are bought and kept on; arrays of shape (n,), nan where unknown.

    Attributes:
        service_level: wanted probability of no stockout in a protection interval, in (0, 1).
        pack_size: units per pack, at least 1.
        minimum_order: units, 0 for none.
        order_cost: money per order.
        holding_cost: money per unit and year.
        unit_cost, unit_price: money per unit.
        shelf_life_days: nan for what keeps.
        review_days: days between reviews.
        breaks: what a unit costs in larger orders; None where no series has any.
    """

    service_level: FloatArray
    pack_size: FloatArray
    minimum_order: FloatArray
    order_cost: FloatArray
    holding_cost: FloatArray
    unit_cost: FloatArray
    unit_price: FloatArray
    shelf_life_days: FloatArray
    review_days: FloatArray
    breaks: QuantityBreaks | None = None


@dataclass(frozen=True)
class SeriesBatch:
    """n series to plan: their demand over the protection interval, and their terms."""

    demand: LeadTimeDemand
    terms: Terms

    @property
    def yearly_demand(self) -> FloatArray:
        """Units per year at the forecast's average rate, shape (n,)."""
        return np.asarray(self.demand.daily_mean.mean(axis=1) * DAYS_PER_YEAR, dtype=np.float64)

    @property
    def quantity_at_breaks(self) -> FloatArray:
        """The order size of least yearly cost where a larger order makes units cheaper, else 0; shape (n,)."""
        terms = self.terms
        if terms.breaks is None:
            return np.zeros(len(terms.pack_size))
        has = np.isfinite(terms.breaks.unit_cost[:, 1:]).any(axis=1) & np.isfinite(terms.breaks.unit_cost[:, 0])
        rate = np.divide(
            terms.holding_cost, terms.unit_cost, out=np.zeros_like(terms.unit_cost), where=terms.unit_cost > 0
        )
        usable = has & (rate > 0)
        quantity, region = order_quantity_with_breaks(
            terms.order_cost, np.where(usable, rate, 1.0), self.yearly_demand, terms.breaks
        )
        return np.where(usable & (region > 0), np.minimum(quantity, self.yearly_demand), 0.0)

    @property
    def shelf_life_demand(self) -> FloatArray:
        """Units expected to sell before today's delivery spoils; infinite for what keeps, shape (n,)."""
        keeps = np.isnan(self.terms.shelf_life_days)
        days = np.where(keeps, 0.0, self.terms.shelf_life_days)
        return np.where(keeps, np.inf, expected_demand(self.demand.daily_mean, days))


@dataclass(frozen=True)
class Levels:
    """A policy's answer for n series; arrays of shape (n,).

    Attributes:
        reorder_point: order when the inventory position is at or below it; whole units.
        order_up_to: the position to reach by ordering; whole units, above `reorder_point`.
        safety_stock: reorder point less expected demand over the protection interval.
        service_level: the probability that the levels were set for.
        binding_constraint: what decided the size of an order, of `BINDING_CONSTRAINTS`.
    """

    reorder_point: FloatArray
    order_up_to: FloatArray
    safety_stock: FloatArray
    service_level: FloatArray
    binding_constraint: TextArray


class Policy(Protocol):
    """A rule that turns demand and terms into levels; pure and deterministic."""

    name: str

    def levels(self, batch: SeriesBatch) -> Levels:
        """Reorder point and order-up-to level of each series of the batch."""
        ...


_REGISTERED: dict[str, type[Policy]] = {}
PolicyType = TypeVar("PolicyType", bound=type[Policy])


def register(policy: PolicyType) -> PolicyType:
    """Class decorator: make a policy known under its `name`."""
    _REGISTERED[policy.name] = policy
    return policy


@cache
def _load_methods() -> None:
    from pipelines.inventory import methods

    import_all(methods)


def policy_names() -> list[str]:
    """The registered policies."""
    _load_methods()
    return sorted(_REGISTERED)


def get_policy(name: str) -> Policy:
    """The policy of that name.

    Raises:
        UsageError: there is none; names those there are.
    """
    _load_methods()
    if name not in _REGISTERED:
        raise UsageError(f"planning.method: no policy is called {name!r}; expected one of: {', '.join(policy_names())}")
    return _REGISTERED[name]()


def finish(
    batch: SeriesBatch,
    reorder_point: FloatArray,
    order_up_to: FloatArray,
    service_level: FloatArray,
    binding: TextArray,
) -> Levels:
    """The last steps that all policies share: shelf life, demand that is not there, safety stock.

    Nothing is stocked beyond what is expected to sell before it spoils: the order-up-to level is capped by it,
    the order's size reduced in whole packs, and when not even one pack fits on top of the reorder point, the
    reorder point lowered (the service level cannot be had without waste).
    """
    size = order_up_to - reorder_point
    step = np.minimum(batch.terms.pack_size, size)
    cap = np.floor(np.minimum(batch.shelf_life_demand, order_up_to))
    spoils = cap < order_up_to
    fitting = np.maximum(np.floor((cap - reorder_point) / step) * step, step)
    lowered = np.clip(cap - step, 0.0, reorder_point)
    reorder_point = np.where(spoils, np.minimum(reorder_point, lowered), reorder_point)
    order_up_to = reorder_point + np.where(spoils, fitting, size)
    binding = np.where(spoils, SHELF_LIFE, binding)
    binding = np.where(batch.demand.cumulative_mean[:, -1] > 1e-9, binding, NO_DEMAND)
    return Levels(
        reorder_point=reorder_point,
        order_up_to=order_up_to,
        safety_stock=reorder_point - batch.demand.mean,
        service_level=service_level,
        binding_constraint=binding,
    )


def base_stock(batch: SeriesBatch, probability: FloatArray, binding: str) -> Levels:
    """Base-stock levels S = F⁻¹(probability): whenever the position is below S, order up to it again.

    In whole packs this brings the position to S or at most a pack less one unit above it.
    """
    order_up_to = np.maximum(round_up(batch.demand.quantile(probability)), 1.0)
    text = np.full(order_up_to.shape, binding, dtype=f"<U{max(map(len, BINDING_CONSTRAINTS))}")
    return finish(batch, order_up_to - 1.0, order_up_to, probability, text)
