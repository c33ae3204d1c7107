"""Levels for a fill rate: the share of the demand that is met at once, not the chance of a cycle without a stockout.

Here `service_level` is that share. A cycle may lose (1 - β) / β of what it sells (sales that are missed are lost,
Silver, Pyke and Thomas, chapter 6): large orders come seldom, so they may each lose more, and need less safety stock.
"""

from __future__ import annotations

import numpy as np

from pipelines.inventory.economics import economic_order_quantity, round_up
from pipelines.inventory.forecast_distribution import FloatArray
from pipelines.inventory.policies import BINDING_CONSTRAINTS, FILL_RATE, Levels, SeriesBatch, finish, register

_WIDTH = max(map(len, BINDING_CONSTRAINTS))


@register
class OrderUpToFillRate:
    """(s, S) as `order_up_to`, its reorder point set by the units that a cycle of size S - s may lose."""

    name = "order_up_to_fill_rate"

    def levels(self, batch: SeriesBatch) -> Levels:
        """See the class."""
        terms = batch.terms
        economic = economic_order_quantity(terms.order_cost, terms.holding_cost, batch.yearly_demand)
        size = np.maximum(round_up(np.maximum(economic, terms.minimum_order), terms.pack_size), terms.pack_size)
        reorder_point = np.maximum(round_up(_level(batch, np.maximum(size, _review_demand(batch)))), 0.0)
        return finish(batch, reorder_point, reorder_point + size, terms.service_level, _binding(reorder_point))


@register
class BaseStockFillRate:
    """(R, S) as `periodic_base_stock`, S set by the units that a review period may lose."""

    name = "periodic_base_stock_fill_rate"

    def levels(self, batch: SeriesBatch) -> Levels:
        """See the class."""
        order_up_to = np.maximum(round_up(_level(batch, _review_demand(batch))), 1.0)
        return finish(batch, order_up_to - 1.0, order_up_to, batch.terms.service_level, _binding(order_up_to))


def _review_demand(batch: SeriesBatch) -> FloatArray:
    return np.asarray(batch.yearly_demand / 365.0 * np.maximum(batch.terms.review_days, 1.0))


def _level(batch: SeriesBatch, cycle_demand: FloatArray) -> FloatArray:
    wanted = batch.terms.service_level
    return batch.demand.level_for_shortage((1.0 - wanted) / wanted * cycle_demand)


def _binding(like: FloatArray) -> np.ndarray[tuple[int], np.dtype[np.str_]]:
    return np.full(like.size, FILL_RATE, dtype=f"<U{_WIDTH}")
