"""Stock as it is when the night plans: what is on hand and on order, what is promised to others, what was spent."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import INVENTORY_POLICIES, INVENTORY_POSITIONS, LOCATIONS, ORDERS, PRODUCTS, TIME
from pipelines.io.delta import Tables
from pipelines.io.published import POLICIES, in_force

Key = tuple[str, str]
"""location_id, sku."""
_NOTHING = frozenset({"expired", "cancelled", "rejected"})


@dataclass(frozen=True)
class Offer:
    """A transfer that the policies in force offer and that nobody has taken yet."""

    offer: str
    source: str
    quantity: int


@dataclass(frozen=True)
class LiveStock:
    """What the live stage has saved, by series.

    Attributes:
        on_hand, on_order: units.
        promised: units of a location's stock that open orders of other locations count on.
        offers: untaken offers by the series that may take them.
        spent: money that was ordered for on the day that is planned for; without transfers.
    """

    on_hand: Mapping[Key, int] = field(default_factory=dict)
    on_order: Mapping[Key, int] = field(default_factory=dict)
    promised: Mapping[Key, int] = field(default_factory=dict)
    offers: Mapping[Key, Offer] = field(default_factory=dict)
    spent: float = 0.0

    @property
    def digest(self) -> str:
        """The same for the same stock."""
        facts = [
            *(sorted((*key, value) for key, value in part.items()) for part in (self.on_hand, self.on_order)),
            sorted((*key, value) for key, value in self.promised.items()),
            sorted((*key, offer.offer, offer.source, offer.quantity) for key, offer in self.offers.items()),
            round(self.spent, 2),
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def live_stock(tables: Tables, as_of: date) -> LiveStock:
    """As the live stage has saved it, seconds ago at most.

    What was decided since counts as follows: an offer that was taken meanwhile is still kept for whoever took it; money
    that was spent meanwhile is not known, so a day on which is planned twice may overrun its budget by that much.

    Args:
        as_of: the last day whose data is used; what was spent is of the day after.
    """
    columns = ("location_id", "sku", "on_hand", "on_order", "open_orders", "offer_taken")
    positions = tables.read(INVENTORY_POSITIONS, columns).to_pylist()
    places = set(tables.read(LOCATIONS, ("location_id",))["location_id"].to_pylist())
    internal = {
        row["order_id"]: row["supplier_id"]
        for row in tables.read(ORDERS, ("order_id", "supplier_id")).to_pylist()
        if row["supplier_id"] in places
    }
    promised: dict[Key, int] = defaultdict(int)
    for row in positions:
        for order in row["open_orders"] or ():
            source = internal.get(order["order_id"])
            if source is not None:
                promised[source, row["sku"]] += order["outstanding"]
    taken = {(row["location_id"], row["sku"]): row["offer_taken"] for row in positions}
    return LiveStock(
        on_hand={(row["location_id"], row["sku"]): row["on_hand"] for row in positions},
        on_order={(row["location_id"], row["sku"]): row["on_order"] for row in positions},
        promised=dict(promised),
        offers={key: offer for key, offer in _offers_in_force(tables).items() if taken.get(key) != offer.offer},
        spent=_spent(tables, places, as_of + timedelta(days=1)),
    )


def _offers_in_force(tables: Tables) -> dict[Key, Offer]:
    pointer = in_force(tables, POLICIES)
    if pointer is None:
        return {}
    columns = ("location_id", "sku", "transfer_offer", "transfer_source", "transfer_quantity")
    offered = pc.field("transfer_offer").is_valid()
    if "transfer_offer" not in {field.name for field in tables.handle(INVENTORY_POLICIES).schema().fields}:
        return {}  # written by an older release
    return {
        (row["location_id"], row["sku"]): Offer(row["transfer_offer"], row["transfer_source"], row["transfer_quantity"])
        for row in tables.read(INVENTORY_POLICIES, columns, offered, pointer.version).to_pylist()
    }


def _spent(tables: Tables, places: set[str], day: date) -> float:
    begin = datetime.combine(day, datetime.min.time(), UTC)
    moments = [pa.scalar(moment, TIME) for moment in (begin, begin + timedelta(days=1))]
    where = (pc.field("created_at") >= moments[0]) & (pc.field("created_at") < moments[1])
    orders = tables.read(ORDERS, ("sku", "supplier_id", "quantity", "state", "created_at"), where)
    products = tables.read(PRODUCTS, ("sku", "unit_cost")).to_pylist()
    cost = {row["sku"]: row["unit_cost"] or 0.0 for row in products}
    return float(
        sum(
            cost.get(row["sku"], 0.0) * row["quantity"]
            for row in orders.to_pylist()
            if row["state"] not in _NOTHING and row["supplier_id"] not in places
        )
    )
