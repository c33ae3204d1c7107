"""Who waits for a shipment, and what it costs them to wait until a moment: by the plan's own demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow.compute as pc

from pipelines.contracts.tables import INVENTORY_POLICIES, INVENTORY_POSITIONS, ORDERS
from pipelines.inventory.stockout import demand_between, expected_lost_units
from pipelines.io.delta import Tables
from pipelines.io.published import POLICIES, in_force

DAY = timedelta(days=1)
SIBLINGS = 3

Row = dict[str, Any]


@dataclass(frozen=True)
class Waiting:
    """An order on board, and the series that it is for.

    Attributes:
        policy: the series' row of `gold/inventory_policies`.
        siblings: (location, units above its order-up-to level) of others that have too much of the product.
    """

    order_id: str
    location_id: str
    sku: str
    on_hand: int
    policy: Row
    now: datetime
    siblings: tuple[tuple[str, int], ...] = ()

    @property
    def margin(self) -> float | None:
        """Money that a sold unit leaves; None where price or cost is unknown."""
        price, cost = self.policy["unit_price"], self.policy["unit_cost"]
        return None if price is None or cost is None else float(price - cost)

    def demand(self, until: datetime) -> tuple[float, float]:
        """Mean and standard deviation of the units asked for from now on."""
        policy = self.policy
        begin = datetime.combine(policy["as_of"], datetime.min.time(), self.now.tzinfo) + DAY
        ends = ((self.now - begin) / DAY, (max(until, self.now) - begin) / DAY)
        correlation = {} if policy["correlation"] is None else {"correlation": policy["correlation"]}
        return demand_between(policy["cumulative_mean"], policy["cumulative_std"], *ends, **correlation)

    def lost_units(self, until: datetime, more: int = 0) -> float:
        """Units missed until then, with so many more on hand."""
        return expected_lost_units(self.on_hand + more, *self.demand(until))


@dataclass(frozen=True)
class Stake:
    """What an order's delay costs its series.

    Attributes:
        lost_units: expected to be missed until the late arrival, beyond those missed anyway until the promised one.
        margin: of those units; None where price or cost is unknown.
    """

    waiting: Waiting
    lost_units: float
    margin: float | None

    def tell(self) -> str:
        """For a planner."""
        money = "" if self.margin is None else f" ({self.margin:,.0f} of margin)"
        one = self.waiting
        helped = ", ".join(f"{units} at {name}" for name, units in one.siblings)
        return (
            f"{one.location_id}|{one.sku}: {one.on_hand} on hand, {self.lost_units:.1f} units likely lost{money}; "
            f"{f'could spare: {helped}' if helped else 'nobody has any to spare'}"
        )


def stake(waiting: Waiting, promised: datetime, arrival: datetime) -> Stake:
    """What it costs when an order comes at `arrival` instead of `promised`."""
    units = max(waiting.lost_units(arrival) - waiting.lost_units(promised), 0.0)
    return Stake(waiting, units, None if waiting.margin is None else units * waiting.margin)


def who_waits(tables: Tables, rows: Sequence[Row], now: datetime) -> dict[str, list[Waiting]]:
    """By shipment, for rows of `gold/shipments`; nothing for orders whose series has no policy or no position."""
    shipment_of = {line["order_id"]: row["shipment_id"] for row in rows for line in row["lines"] if line["order_id"]}
    pointer = in_force(tables, POLICIES)
    if not shipment_of or pointer is None:
        return {}
    columns = ("order_id", "location_id", "sku")
    orders = tables.read(ORDERS, columns, pc.field("order_id").isin(list(shipment_of))).to_pylist()
    if not orders:
        # Orders that were placed elsewhere: nobody here waits for them.
        return {}
    policies, positions = _policies_and_positions(tables, {order["sku"] for order in orders}, pointer.version)
    found: dict[str, list[Waiting]] = {}
    for order in sorted(orders, key=lambda one: str(one["order_id"])):
        key = (order["location_id"], order["sku"])
        if key in policies and key in positions:
            siblings = _siblings(key, policies, positions)
            one = Waiting(order["order_id"], *key, positions[key], policies[key], now, siblings)
            found.setdefault(shipment_of[order["order_id"]], []).append(one)
    return found


def spare_units(tables: Tables, location_id: str, sku: str) -> int:
    """Units of a product that a location has above its order-up-to level; 0 where nothing is known of it."""
    pointer = in_force(tables, POLICIES)
    if pointer is None:
        return 0
    policies, positions = _policies_and_positions(tables, {sku}, pointer.version)
    key = (location_id, sku)
    return max(_spare(key, policies, positions), 0) if key in policies and key in positions else 0


Key = tuple[str, str]


def _policies_and_positions(tables: Tables, skus: set[str], version: str) -> tuple[dict[Key, Row], dict[Key, int]]:
    of_product = pc.field("sku").isin(sorted(skus))
    where = of_product & (pc.field("policy_version") == version)
    columns = ("location_id", "sku", "order_up_to", "unit_price", "unit_cost", "as_of")
    curves = ("cumulative_mean", "cumulative_std", "correlation")
    policies = tables.read(INVENTORY_POLICIES, (*columns, *curves), where).to_pylist()
    stocks = tables.read(INVENTORY_POSITIONS, ("location_id", "sku", "on_hand"), of_product).to_pylist()
    return (
        {(row["location_id"], row["sku"]): row for row in policies},
        {(row["location_id"], row["sku"]): row["on_hand"] for row in stocks},
    )


def _spare(key: Key, policies: Mapping[Key, Row], positions: Mapping[Key, int]) -> int:
    return int(positions[key] - policies[key]["order_up_to"])


def _siblings(key: Key, policies: Mapping[Key, Row], positions: Mapping[Key, int]) -> tuple[tuple[str, int], ...]:
    """Who has more of the product than its order-up-to level, the most first."""
    others = [other for other in positions if other[1] == key[1] and other != key and other in policies]
    spare = [(other[0], _spare(other, policies, positions)) for other in others]
    return tuple(sorted((one for one in spare if one[1] > 0), key=lambda one: (-one[1], one[0]))[:SIBLINGS])
