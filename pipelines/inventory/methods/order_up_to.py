"""(s, S): wait until the position is at or below s, then order up to S."""

from __future__ import annotations

import numpy as np

from pipelines.inventory.economics import economic_order_quantity, round_up
from pipelines.inventory.policies import (
    ECONOMIC_ORDER_QUANTITY,
    MINIMUM_ORDER,
    PACK_SIZE,
    QUANTITY_BREAK,
    SERVICE_LEVEL,
    Levels,
    SeriesBatch,
    TextArray,
    finish,
    register,
)


@register
class OrderUpTo:
    """The sequential (s, S) rule (Silver, Pyke and Thomas, chapters 6 and 7; Snyder and Shen, chapter 4).

    s is the service-level quantile of demand over lead time plus review period (cycle service level);
    S - s the larger of economic order quantity (where larger orders make units cheaper: the size of least cost) and
    minimum order, rounded up to whole packs.
    """

    name = "order_up_to"

    def levels(self, batch: SeriesBatch) -> Levels:
        """See the class."""
        terms = batch.terms
        economic = economic_order_quantity(terms.order_cost, terms.holding_cost, batch.yearly_demand)
        at_breaks = batch.quantity_at_breaks
        economic = np.maximum(economic, at_breaks)
        wanted = np.maximum(economic, terms.minimum_order)
        size = np.maximum(round_up(wanted, terms.pack_size), terms.pack_size)
        binding: TextArray = np.select(
            [(wanted >= terms.pack_size) & (wanted > 1.0), terms.pack_size > 1.0],
            [
                np.select(
                    [terms.minimum_order >= economic, at_breaks >= economic],
                    [MINIMUM_ORDER, QUANTITY_BREAK],
                    ECONOMIC_ORDER_QUANTITY,
                ),
                np.full(size.shape, PACK_SIZE),
            ],
            default=SERVICE_LEVEL,
        )
        reorder_point = round_up(batch.demand.quantile(terms.service_level))
        return finish(batch, reorder_point, reorder_point + size, terms.service_level, binding)
