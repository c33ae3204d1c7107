"""Newsvendor: the stock whose last unit is as likely to earn its margin as to cost its keep."""

from __future__ import annotations

import numpy as np

from pipelines.inventory.economics import DAYS_PER_YEAR, critical_ratio
from pipelines.inventory.policies import CRITICAL_RATIO, Levels, SeriesBatch, base_stock, register

_LOWEST, _HIGHEST = 0.01, 0.999


@register
class Newsvendor:
    """A base stock at the critical ratio c_u / (c_u + c_o) (Snyder and Shen, chapter 4).

    A missing unit costs its margin. One left over costs what was paid for it where it spoils (a shelf life is
    stated), else its holding cost until the next review. Without a positive margin
    or a known cost there is no ratio, and the service level stands in for it.
    """

    name = "newsvendor"

    def levels(self, batch: SeriesBatch) -> Levels:
        """See the class."""
        terms = batch.terms
        margin = terms.unit_price - terms.unit_cost
        held = terms.holding_cost * np.maximum(terms.review_days, 1.0) / DAYS_PER_YEAR
        overage = np.where(np.isnan(terms.shelf_life_days), held, terms.unit_cost)
        ratio = critical_ratio(np.maximum(margin, 0.0), overage)
        usable = np.isfinite(ratio) & (ratio > 0)
        probability = np.where(usable, np.clip(ratio, _LOWEST, _HIGHEST), terms.service_level)
        return base_stock(batch, probability, CRITICAL_RATIO)
