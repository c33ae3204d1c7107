"""What is planned over all series together, after each by itself: learnt levels, substitutes, what is competed for."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import INVENTORY_POLICIES, LOCATIONS, POLICY_CANDIDATES, PRODUCTS
from pipelines.inventory.live_stock import Key, LiveStock, live_stock
from pipelines.inventory.pooled_risk import pool_substitutes
from pipelines.inventory.shared_limits import Chain, with_limits
from pipelines.inventory.warehouse_demand import served_series, store_correlation
from pipelines.io.delta import Tables
from pipelines.operations.settings import PlanningSettings


@dataclass(frozen=True)
class Together:
    """What the rows of a version still need.

    Attributes:
        chain, stock: where series compete for something; None where they do not.
        learnt: (reorder point, order-up-to level, method) of series whose champion is a learnt method.
        substitutes: the group of each sku; empty where nothing is pooled.
        served: the warehouse of series that one serves; `between_stores`: correlation of such series' errors.
    """

    planning: PlanningSettings
    chain: Chain | None
    stock: LiveStock | None
    learnt: dict[Key, tuple[int, int, str]]
    substitutes: dict[str, str]
    served: dict[Key, str] = field(default_factory=dict)
    between_stores: float = 0.0

    @property
    def is_needed(self) -> bool:
        """Whether anything is to be done."""
        return self.chain is not None or bool(self.learnt) or bool(self.substitutes)

    @property
    def digest(self) -> str | None:
        """The same for the same facts: they decide the policies too."""
        if not self.is_needed:
            return None
        facts = [
            None if self.chain is None else sorted((name, str(region)) for name, region in self.chain.region.items()),
            None if self.stock is None else self.stock.digest,
            sorted((*key, *levels) for key, levels in self.learnt.items()),
            sorted(self.substitutes.items()),
            [sorted((*key, warehouse) for key, warehouse in self.served.items()), self.between_stores],
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def finish(self, policies: pa.Table, version: str) -> pa.Table:
        """The rows of a version, complete."""
        if self.learnt:
            policies = _with_learnt(policies, self.learnt)
        if self.substitutes:
            policies = pool_substitutes(policies, self.substitutes, self.planning.substitution_share)
        if self.chain is not None and self.stock is not None:
            policies = with_limits(policies, self.chain, self.stock, self.planning, version)
        return policies


def together(
    tables: Tables, planning: PlanningSettings, terms: pa.Table, as_of: date, forecast_version: str = ""
) -> Together:
    """Read what is needed.

    Args:
        terms: of all sourced series, with `order_cost` and `holding_cost_rate`.
    """
    locations = tables.read(LOCATIONS, ("location_id", "kind", "region")).to_pylist()
    warehouses = frozenset(row["location_id"] for row in locations if row["kind"] == "warehouse")
    suppliers = terms["supplier_id"].to_pylist()
    chain = stock = None
    if planning.transfer_cost is not None or planning.daily_budget is not None or not warehouses.isdisjoint(suppliers):
        keys = list(zip(terms["location_id"].to_pylist(), terms["sku"].to_pylist(), strict=True))
        chain = Chain(
            region={row["location_id"]: row["region"] for row in locations},
            warehouses=warehouses,
            order_cost=dict(zip(keys, terms["order_cost"].to_pylist(), strict=True)),
            holding_rate=dict(zip(keys, terms["holding_cost_rate"].to_pylist(), strict=True)),
        )
        stock = live_stock(tables, as_of)
    names = zip(terms["location_id"].to_pylist(), terms["sku"].to_pylist(), strict=True)
    served = served_series(dict(zip(names, suppliers, strict=True)), warehouses)
    between = store_correlation(tables, forecast_version) if served else 0.0
    learnt, substitutes = _learnt(tables, planning, as_of), _substitutes(tables, planning)
    return Together(planning, chain, stock, learnt, substitutes, served, between)


def _learnt(tables: Tables, planning: PlanningSettings, as_of: date) -> dict[Key, tuple[int, int, str]]:
    if not planning.use_learned:
        return {}
    where = pc.field("champion") & (pc.field("as_of") == pa.scalar(as_of)) & (pc.field("method") != planning.method)
    columns = ("location_id", "sku", "method", "as_of", "champion", "reorder_point", "order_up_to")
    return {
        (row["location_id"], row["sku"]): (row["reorder_point"], row["order_up_to"], row["method"])
        for row in tables.read(POLICY_CANDIDATES, columns, where).to_pylist()
    }


def _substitutes(tables: Tables, planning: PlanningSettings) -> dict[str, str]:
    if planning.substitution_share == 0:
        return {}
    rows = tables.read(PRODUCTS, ("sku", "substitute_group")).to_pylist()
    return {row["sku"]: row["substitute_group"] for row in rows if row["substitute_group"] is not None}


def _with_learnt(policies: pa.Table, learnt: dict[Key, tuple[int, int, str]]) -> pa.Table:
    rows = policies.select(("location_id", "sku", "reorder_point", "order_up_to", "safety_stock", "method")).to_pylist()
    for row in rows:
        found = learnt.get((row["location_id"], row["sku"]))
        if found is not None:
            row["safety_stock"] += found[0] - row["reorder_point"]
            row["reorder_point"], row["order_up_to"], row["method"] = found
    schema = INVENTORY_POLICIES.schema
    for name in ("reorder_point", "order_up_to", "safety_stock", "method"):
        values = pa.array([row[name] for row in rows], schema.field(name).type)
        policies = policies.set_column(schema.get_field_index(name), schema.field(name), values)
    return policies
