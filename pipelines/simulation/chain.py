"""The chain itself: stores, warehouses, products, suppliers, sourcing; and its catalog as four CSV files."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.contracts import tables
from pipelines.simulation.plan import CHAIN, Plan, random_stream

_CITIES: dict[str, tuple[tuple[str, str, float, float, str], ...]] = {
    "europe": (
        ("berlin", "Europe/Berlin", 52.52, 13.40, "DE"),
        ("london", "Europe/London", 51.51, -0.13, "GB"),
        ("madrid", "Europe/Madrid", 40.42, -3.70, "ES"),
        ("warsaw", "Europe/Warsaw", 52.23, 21.01, "PL"),
    ),
    "americas": (
        ("newyork", "America/New_York", 40.71, -74.01, "US"),
        ("chicago", "America/Chicago", 41.88, -87.63, "US"),
        ("denver", "America/Denver", 39.74, -104.99, "US"),
        ("seattle", "America/Los_Angeles", 47.61, -122.33, "US"),
    ),
    "asia-pacific": (
        ("singapore", "Asia/Singapore", 1.35, 103.82, "SG"),
        ("sydney", "Australia/Sydney", -33.87, 151.21, "AU"),
        ("tokyo", "Asia/Tokyo", 35.68, 139.69, "JP"),
        ("mumbai", "Asia/Kolkata", 19.08, 72.88, "IN"),
    ),
}
_CATEGORIES: dict[str, tuple[int, int] | None] = {
    "dairy": (10, 21),
    "bakery": (4, 7),
    "produce": (6, 12),
    "beverages": None,
    "snacks": None,
    "household": None,
}
"""Category to the range of its shelf lives in days; None keeps."""

CATEGORIES = tuple(_CATEGORIES)
_PACKS = (6, 12, 24)
_SLOW_EVERY = 7


@dataclass(frozen=True)
class Product:
    """A row of `products`, with the mean daily demand in an average store (`level`, hidden from the catalog)."""

    sku: str
    name: str
    category: str
    unit_cost: float
    unit_price: float
    shelf_life_days: int | None
    substitute_group: str | None
    level: float


@dataclass(frozen=True)
class Location:
    """A row of `locations`; `country` says whose holidays it keeps."""

    location_id: str
    kind: str
    region: str
    timezone: str
    latitude: float
    longitude: float
    country: str


@dataclass(frozen=True)
class Supplier:
    """A row of `suppliers`."""

    supplier_id: str
    name: str
    region: str


@dataclass(frozen=True)
class Sourcing:
    """A row of `sourcing`: how one store gets one product. Times in days, quantities in units."""

    location_id: str
    sku: str
    supplier_id: str
    lead_time_days: float
    lead_time_std_days: float
    pack_size: int
    minimum_order: int
    order_cost: float
    holding_cost_rate: float
    service_level: float
    review_days: float


@dataclass(frozen=True)
class Chain:
    """The whole chain. Series i is store i // len(products), product i % len(products)."""

    plan: Plan
    stores: tuple[Location, ...]
    warehouses: tuple[Location, ...]
    products: tuple[Product, ...]
    suppliers: tuple[Supplier, ...]
    sourcing: tuple[Sourcing, ...]

    @property
    def size(self) -> int:
        """Number of series."""
        return len(self.stores) * len(self.products)

    def store(self, series: int) -> Location:
        """The store of a series."""
        return self.stores[series // len(self.products)]

    def product(self, series: int) -> Product:
        """The product of a series."""
        return self.products[series % len(self.products)]

    @property
    def store_of(self) -> np.ndarray:
        """Each series' store, as an index."""
        return np.arange(self.size) // len(self.products)

    @property
    def product_of(self) -> np.ndarray:
        """Each series' product, as an index."""
        return np.arange(self.size) % len(self.products)


def build_chain(plan: Plan) -> Chain:
    """The plan's chain; the same plan gives the same chain."""
    rng = random_stream(plan, CHAIN)
    stores = tuple(_stores(plan))
    regions = list(dict.fromkeys(store.region for store in stores))
    warehouses = tuple(_warehouse(region) for region in regions)
    suppliers = tuple(
        Supplier(f"sup-{region}-{k}", f"{region.title()} Wholesale {k}", region) for region in regions for k in (1, 2)
    )
    products = tuple(_product(rng, number) for number in range(plan.products))
    sourcing = tuple(_sourcing(rng, store, product, suppliers) for store in stores for product in products)
    return Chain(plan, stores, warehouses, products, suppliers, sourcing)


def _stores(plan: Plan) -> Iterable[Location]:
    regions = list(_CITIES)
    for number in range(plan.stores):
        region = regions[number % len(regions)]
        turn = number // len(regions)
        city, zone, latitude, longitude, country = _CITIES[region][turn % len(_CITIES[region])]
        again = turn // len(_CITIES[region])
        yield Location(
            f"{city}-{again + 1}",
            "store",
            region,
            zone,
            round(latitude + 0.03 * again, 4),
            round(longitude + 0.02 * again, 4),
            country,
        )


def _warehouse(region: str) -> Location:
    city, zone, latitude, longitude, country = _CITIES[region][0]
    return Location(f"wh-{city}", "warehouse", region, zone, latitude - 0.2, longitude + 0.2, country)


def _product(rng: np.random.Generator, number: int) -> Product:
    category = CATEGORIES[number % len(CATEGORIES)]
    shelf_life = _CATEGORIES[category]
    slow = number % _SLOW_EVERY == _SLOW_EVERY - 1
    level = rng.uniform(0.15, 0.5) if slow else 9.5 * rng.lognormal(-0.18, 0.6)
    cost = round(float(rng.lognormal(1.0, 0.7)), 2) + 0.2
    in_category = number // len(CATEGORIES)
    return Product(
        sku=f"{category[:3]}-{in_category + 1:03d}",
        name=f"{category.title()} no. {in_category + 1}",
        category=category,
        unit_cost=round(cost, 2),
        unit_price=round(cost * rng.uniform(1.3, 1.9), 2),
        shelf_life_days=None if shelf_life is None else int(rng.integers(shelf_life[0], shelf_life[1] + 1)),
        substitute_group=f"{category}-{in_category // 2 + 1}" if category in ("beverages", "snacks") else None,
        level=float(level),
    )


def _sourcing(rng: np.random.Generator, store: Location, product: Product, suppliers: tuple[Supplier, ...]) -> Sourcing:
    perishable = product.shelf_life_days is not None
    near = [supplier for supplier in suppliers if supplier.region == store.region]
    far = [supplier for supplier in suppliers if supplier.region != store.region]
    abroad = bool(far) and not perishable and rng.random() < 0.3
    supplier = (far if abroad else near)[int(rng.integers(len(far if abroad else near)))]
    lead_time = rng.uniform(4.0, 8.0) if abroad else rng.uniform(0.8, 1.6 if perishable else 3.0)
    pack = 1 if product.level < 1 else min(_PACKS, key=lambda size: abs(size - 1.5 * product.level))
    return Sourcing(
        location_id=store.location_id,
        sku=product.sku,
        supplier_id=supplier.supplier_id,
        lead_time_days=round(float(lead_time), 2),
        lead_time_std_days=round(float(lead_time * rng.uniform(0.15, 0.35)), 2),
        pack_size=pack,
        minimum_order=pack * int(rng.integers(1, 3)),
        # Of a line on an order that many products share: with a whole order's cost, each would be bought for months.
        order_cost=round(float(rng.uniform(4, 25)) / 20, 2),
        holding_cost_rate=round(float(rng.uniform(0.15, 0.3)), 2),
        service_level=float(rng.choice([0.9, 0.95, 0.98])),
        review_days=1.0,
    )


def write_catalog(folder: Path, plan: Plan) -> None:
    """Write the chain's reference data as `products.csv`, `locations.csv`, `suppliers.csv`, `sourcing.csv`."""
    chain = build_chain(plan)
    folder.mkdir(parents=True, exist_ok=True)
    for table, rows in (
        (tables.PRODUCTS, chain.products),
        (tables.LOCATIONS, (*chain.stores, *chain.warehouses)),
        (tables.SUPPLIERS, chain.suppliers),
        (tables.SOURCING, chain.sourcing),
    ):
        _write_csv(folder / f"{table.name.rsplit('/', 1)[1]}.csv", table.schema.names, rows)


def _write_csv(path: Path, columns: list[str], rows: Iterable[Any]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer, known = csv.writer(file), list(rows)
        given = [name for name in columns if hasattr(known[0], name)]  # the rest is optional
        writer.writerow(given)
        for row in known:
            writer.writerow(["" if (value := getattr(row, name)) is None else value for name in given])
