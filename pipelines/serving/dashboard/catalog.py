"""Names of products and places, as the catalog has them now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.contracts.tables import LOCATIONS, PRODUCTS
from pipelines.io.delta import Tables
from pipelines.serving.dashboard.follow import Moved


@dataclass(frozen=True)
class Catalog:
    """Rows by their ids. Empty without a catalog: ids then stand for names."""

    products: dict[str, dict[str, Any]]
    locations: dict[str, dict[str, Any]]

    def product(self, sku: str) -> str:
        """The product's name."""
        return str(self.products.get(sku, {}).get("name") or sku)

    def category(self, sku: str) -> str:
        """The product's category; a dash where there is none."""
        return str(self.products.get(sku, {}).get("category") or "–")


class CatalogSource:
    """Follows the catalog's tables."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._moved = (Moved(tables, PRODUCTS), Moved(tables, LOCATIONS))
        self.current = Catalog({}, {})

    def poll(self) -> bool:
        """Whether there is a new catalog."""
        looked = [moved.look() for moved in self._moved]
        if not any(looked):
            return False
        products = self._tables.read(PRODUCTS).to_pylist()
        locations = self._tables.read(LOCATIONS).to_pylist()
        self.current = Catalog({row["sku"]: row for row in products}, {row["location_id"]: row for row in locations})
        return True
