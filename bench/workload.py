"""The bench's chain: series, policies, opening stock, and events that keep a few orders a second coming.

Every event takes stock off or puts it back at random, 1.8 units less on average, and nothing is ever received;
so each series orders once in about 55 of its events. On hand stays far above zero.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import orjson
import pyarrow as pa

from pipelines.contracts import topics
from pipelines.contracts.tables import INVENTORY_POLICIES, LOCATIONS, PRODUCTS
from pipelines.ingestion.times import format_time
from pipelines.io import published
from pipelines.io.delta import Tables

SKUS_PER_LOCATION = 50
REORDER_POINT, ORDER_UP_TO, PACK = 1000, 1100, 10
PEER_POLICIES = "bench.policies"
OPENING_MINUTES = 10


@dataclass(frozen=True)
class Workload:
    """`series` products at locations; the same seed gives the same events but for their times."""

    series: int = 1000
    seed: int = 7

    def key(self, number: int) -> tuple[str, str]:
        """Location and SKU of a series."""
        location, sku = divmod(number, SKUS_PER_LOCATION)
        return f"store-{location:04d}", f"sku-{sku:04d}"

    def all_keys(self) -> list[tuple[str, str]]:
        """All series."""
        return [self.key(number) for number in range(self.series)]

    def opening_levels(self) -> list[int]:
        """What is on hand at first: between the two levels, so that orders come evenly from the start."""
        chance = random.Random(self.seed)
        return [chance.randint(REORDER_POINT + 1, ORDER_UP_TO) for _ in range(self.series)]

    def changes(self) -> Iterator[tuple[int, str, str, int, int]]:
        """Endless events: series, topic, kind, quantity, signed change."""
        chance = random.Random(self.seed + 1)
        while True:
            number = chance.randrange(self.series)
            if chance.random() < 0.9:
                quantity = chance.randint(1, 3)
                yield number, topics.POS_SALES, "sale", quantity, -quantity
            elif chance.random() < 0.5:
                yield number, topics.INVENTORY_MOVEMENTS, "transfer_in", 1, 1
            else:
                yield number, topics.INVENTORY_MOVEMENTS, "write_off", 1, -1


def event_id(number: int) -> str:
    """Id of the producer's event of this number."""
    return f"b-{number:09d}"


def event_number(identifier: str) -> int:
    """The number in an event id."""
    return int(identifier.removeprefix("b-"))


def message(workload: Workload, identifier: str, at: int, number: int, kind: str, quantity: int) -> tuple[bytes, bytes]:
    """Kafka key and value of an event at a time in microseconds."""
    location, sku = workload.key(number)
    value = {
        "event_id": identifier,
        "event_time": format_time(at),
        "location_id": location,
        "sku": sku,
        "kind": kind,
        "quantity": quantity,
    }
    if kind == "sale":
        value |= {"unit_price": 3.5, "promotion": False, "ticket_id": f"t-{identifier}"}
    return topics.series_key(location, sku).encode(), orjson.dumps(value)


def opening_messages(workload: Workload, now: int) -> Iterator[tuple[bytes, bytes]]:
    """A count for each series, some minutes ago."""
    at = now - OPENING_MINUTES * 60_000_000
    for number, level in enumerate(workload.opening_levels()):
        yield message(workload, f"opening-{number:07d}", at, number, "count", level)


def plant(tables: Tables, workload: Workload) -> None:
    """Catalog and policies for every series, published, in force since this morning."""
    today = datetime.now(UTC).date()
    keys = workload.all_keys()
    products = sorted({sku for _, sku in keys})
    places = sorted({location for location, _ in keys})
    tables.append(
        PRODUCTS,
        pa.Table.from_pylist([{"sku": sku, "name": sku, "category": "bench"} for sku in products], PRODUCTS.schema),
    )
    tables.append(
        LOCATIONS,
        pa.Table.from_pylist(
            [
                {"location_id": place, "kind": "store", "region": "bench", "timezone": "UTC"}
                for place in places
            ],
            LOCATIONS.schema,
        ),
    )  # fmt: skip
    policy = {
        "policy_version": "bench-1",
        "forecast_version": "bench-f1",
        "reorder_point": REORDER_POINT,
        "order_up_to": ORDER_UP_TO,
        "safety_stock": 100.0,
        "lead_time_days": 3.0,
        "lead_time_std_days": 0.5,
        "review_days": 0.0,
        "service_level": 0.95,
        "method": "bench",
        "binding_constraint": "service_level",
        "supplier_id": "supplier-1",
        "pack_size": PACK,
        "minimum_order": 1,
        "unit_cost": 2.0,
        "unit_price": 3.5,
        "as_of": today - timedelta(days=1),
        # About 950 +- 50 units over the lead time: flags arise when a series falls through its reorder point.
        "cumulative_mean": [316.0 * day for day in range(1, 29)],
        "cumulative_std": [29.0 * day**0.5 for day in range(1, 29)],
        "created_at": datetime.now(UTC),
    }
    rows = [{**policy, "location_id": location, "sku": sku} for location, sku in keys]
    tables.append(INVENTORY_POLICIES, pa.Table.from_pylist(rows, schema=INVENTORY_POLICIES.schema))
    pointer = published.Published(published.POLICIES, "bench-1", today - timedelta(days=1), "bench", datetime.now(UTC))
    published.publish(tables, pointer)
