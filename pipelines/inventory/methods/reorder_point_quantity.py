"""(R, Q) at the least cost of ordering, holding and lost margin."""

from __future__ import annotations

import numpy as np

from pipelines.inventory.economics import economic_order_quantity, round_up
from pipelines.inventory.policies import BINDING_CONSTRAINTS, LEAST_COST, Levels, SeriesBatch, finish, register

ROUNDS = 30
_LOWEST, _HIGHEST = 0.01, 0.9999


@register
class ReorderPointQuantity:
    """Hadley and Whitin's iteration (Snyder and Shen, section 5.3.2) on the sampled distribution.

    In turn R = F⁻¹(1 - Q h / (p λ)) and Q = √(2 λ (K + p n(R)) / h), n(R) being the units short in a cycle, p the
    margin of a unit. Q is at most a year's demand, and is then rounded up to whole packs. Where there is no margin,
    no holding cost or no order cost, the service level sets R, as in `order_up_to`. Ordering up to R + Q at R is what
    is stored: where the position falls to R exactly it is the same as ordering Q, below it the difference is ordered
    as well.
    """

    name = "reorder_point_quantity"

    def levels(self, batch: SeriesBatch) -> Levels:
        """See the class."""
        terms, yearly = batch.terms, batch.yearly_demand
        margin = np.nan_to_num(terms.unit_price - terms.unit_cost)
        usable = (margin > 0) & (terms.holding_cost > 0) & (terms.order_cost > 0) & (yearly > 0)
        held = np.where(usable, terms.holding_cost, 1.0)
        worth = np.where(usable, margin * yearly, 1.0)
        quantity = economic_order_quantity(terms.order_cost, terms.holding_cost, yearly)
        probability = terms.service_level
        for _ in range(ROUNDS):
            probability = np.clip(1.0 - quantity * held / worth, _LOWEST, _HIGHEST)
            short = batch.demand.expected_shortage(batch.demand.quantile(probability))
            with np.errstate(over="ignore"):
                cost = 2 * yearly * (terms.order_cost + np.maximum(margin, 0.0) * short) / held
            quantity = np.where(usable, np.minimum(np.sqrt(cost), yearly), quantity)
        probability = np.where(usable, probability, terms.service_level)
        wanted = np.maximum(quantity, terms.minimum_order)
        size = np.maximum(round_up(wanted, terms.pack_size), terms.pack_size)
        reorder_point = round_up(batch.demand.quantile(probability))
        binding = np.full(size.shape, LEAST_COST, dtype=f"<U{max(map(len, BINDING_CONSTRAINTS))}")
        return finish(batch, reorder_point, reorder_point + size, probability, binding)
