"""(R, S): at each review, order up to S; for what is cheap to order."""

from __future__ import annotations

from pipelines.inventory.policies import SERVICE_LEVEL, Levels, SeriesBatch, base_stock, register


@register
class PeriodicBaseStock:
    """S is the service-level quantile of demand over lead time plus review period.

    Silver, Pyke and Thomas, chapter 6; Snyder and Shen, chapter 4.
    """

    name = "periodic_base_stock"

    def levels(self, batch: SeriesBatch) -> Levels:
        """See the class."""
        return base_stock(batch, batch.terms.service_level, SERVICE_LEVEL)
