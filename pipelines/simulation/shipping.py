"""The way of one delivery from the supplier's warehouse to the store, as shipment events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.simulation.chain import Chain
from pipelines.simulation.plan import HOUR_MS

_NEAR = (("picked_up", 0.15), ("departed", 0.25), ("arrived", 0.75), ("out_for_delivery", 0.85))
_FAR = (
    ("picked_up", 0.08),
    ("departed", 0.15),
    ("arrived", 0.55),
    ("customs", 0.6),
    ("departed", 0.75),
    ("arrived", 0.88),
    ("out_for_delivery", 0.93),
)
_TROUBLE_AT = 0.65
_CARRIERS = ("carrier-swift", "carrier-steady", "carrier-budget")


@dataclass(frozen=True)
class Delivery:
    """An order on its way: placed, promised for, and really delivered at (milliseconds since 1970)."""

    order_id: str
    shipment_id: str
    series: int
    quantity: int
    placed_ms: int
    promised_ms: int
    delivered_ms: int

    @property
    def is_late(self) -> bool:
        """More than a fifth of the promised time, and 2 hours, behind the promise."""
        slack = max(2 * HOUR_MS, (self.promised_ms - self.placed_ms) / 5)
        return self.delivered_ms > self.promised_ms + slack


@dataclass(frozen=True)
class Step:
    """One shipment event: status, place, time and the arrival expected then."""

    status: str
    node: str
    at_ms: int
    eta_ms: int


def route(chain: Chain, series: int) -> tuple[str, str, str]:
    """Origin, hub and destination of a series' deliveries; the hub is the warehouse of the store's region."""
    store = chain.store(series)
    region = next(
        supplier.region for supplier in chain.suppliers if supplier.supplier_id == chain.sourcing[series].supplier_id
    )
    by_region = {warehouse.region: warehouse.location_id for warehouse in chain.warehouses}
    return by_region[region], by_region[store.region], store.location_id


def itinerary(chain: Chain, delivery: Delivery) -> list[Step]:
    """The delivery's steps in order of time; a late one meets an exception and its eta is put off there."""
    origin, hub, destination = route(chain, delivery.series)
    far = origin != hub
    span = delivery.delivered_ms - delivery.placed_ms
    steps = [Step("created", origin, delivery.placed_ms, delivery.promised_ms)]
    for status, share in _FAR if far else _NEAR:
        node = hub if share >= 0.5 else origin
        steps.append(Step(status, node, delivery.placed_ms + int(share * span), delivery.promised_ms))
    if delivery.is_late:
        trouble = delivery.placed_ms + int(_TROUBLE_AT * span)
        steps.append(Step("exception", hub, trouble, delivery.delivered_ms))
        steps = [
            Step(step.status, step.node, step.at_ms, delivery.delivered_ms) if step.at_ms > trouble else step
            for step in steps
        ]
    steps.append(Step("delivered", destination, delivery.delivered_ms, delivery.delivered_ms))
    return sorted(steps, key=lambda step: step.at_ms)


def carrier(chain: Chain, delivery: Delivery, rng: np.random.Generator) -> tuple[str, str]:
    """Carrier and mode; late deliveries are more often the budget carrier's."""
    weights = (0.2, 0.25, 0.55) if delivery.is_late else (0.4, 0.4, 0.2)
    origin, hub, _ = route(chain, delivery.series)
    mode = "road" if origin == hub else str(rng.choice(["air", "sea"], p=(0.7, 0.3)))
    return str(rng.choice(_CARRIERS, p=weights)), mode
