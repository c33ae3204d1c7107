"""Finding series among hundreds of thousands: text search, order and pages on the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import INVENTORY_POSITIONS, LOCATIONS, PRODUCTS, SERIES_STATUS
from pipelines.inventory.stock_health import SEVERITIES
from pipelines.io import published
from pipelines.io.delta import Tables

PAGE = 25
KEYS = ["location_id", "sku"]
ORDERS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "risk": (
        ("severity", "descending"),
        ("lost_margin", "descending"),
        ("location_id", "ascending"),
        ("sku", "ascending"),
    ),
    "error": (("WAPE", "descending"), ("location_id", "ascending"), ("sku", "ascending")),
    "stock": (("on_hand", "ascending"), ("location_id", "ascending"), ("sku", "ascending")),
    "name": (("name", "ascending"), ("location_id", "ascending"), ("sku", "ascending")),
}


@dataclass(frozen=True)
class FoundPage:
    """A page of series. `matching`: of all pages; `total`: of all series."""

    rows: list[dict[str, Any]]
    matching: int
    total: int


class SeriesFinder:
    """One Arrow table of all series, made again when positions, forecasts or names changed."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._versions: tuple[Any, ...] = ()
        self._rows = _empty()

    def search(self, text: str = "", order: str = "risk", page: int = 0, category: str | None = None) -> FoundPage:
        """Series whose location, product, name and category together hold every word of the text."""
        self._refresh()
        rows = self._rows
        for word in text.lower().split()[:8]:
            rows = rows.filter(pc.match_substring(rows.column("text"), word[:64]))
        if category is not None:
            rows = rows.filter(pc.equal(rows.column("category"), category))
        keys = ORDERS.get(order, ORDERS["risk"])
        matching = rows.num_rows
        start = max(page, 0) * PAGE
        if start >= matching:
            return FoundPage([], matching, self._rows.num_rows)
        wanted = pc.select_k_unstable(rows, min(matching, start + PAGE), list(keys))
        shown = rows.take(wanted.slice(start, PAGE)).drop_columns(["text"])
        return FoundPage(shown.to_pylist(), matching, self._rows.num_rows)

    def categories(self) -> list[str]:
        """All that there are."""
        self._refresh()
        return sorted(name for name in pc.unique(self._rows.column("category")).to_pylist() if name)

    def _refresh(self) -> None:
        pointer = published.in_force(self._tables, published.FORECASTS)
        forecast = None if pointer is None else pointer.version
        versions = (
            forecast,
            *(self._tables.version(table) for table in (INVENTORY_POSITIONS, PRODUCTS, LOCATIONS)),
        )
        if versions == self._versions:
            return
        positions = self._tables.read(
            INVENTORY_POSITIONS, (*KEYS, "on_hand", "on_order", "flag_severity", "lost_margin")
        )
        where = pc.field("forecast_version") == (forecast or "")
        status = self._tables.read(SERIES_STATUS, (*KEYS, "status", "model", "WAPE"), where)
        products = self._tables.read(PRODUCTS, ("sku", "name", "category"))
        self._rows, self._versions = _joined(positions, status, products), versions


def _joined(positions: pa.Table, status: pa.Table, products: pa.Table) -> pa.Table:
    rows = positions.join(status, KEYS, join_type="full outer").join(products, ["sku"], join_type="left outer")
    names = pc.coalesce(rows.column("name"), rows.column("sku"))
    categories = pc.fill_null(rows.column("category"), "")
    severity = pc.fill_null(pc.index_in(rows.column("flag_severity"), pa.array(SEVERITIES)), -1)
    text = pc.utf8_lower(
        pc.binary_join_element_wise(rows.column("location_id"), rows.column("sku"), names, categories, " ")
    )
    error = pc.if_else(pc.is_nan(pc.fill_null(rows.column("WAPE"), np.nan)), None, rows.column("WAPE"))
    rows = rows.drop_columns(["name", "category", "WAPE"])
    return (
        rows.append_column("name", names)
        .append_column("category", categories)
        .append_column("severity", severity)
        .append_column("WAPE", error)
        .append_column("text", text)
        .combine_chunks()
    )


def _empty() -> pa.Table:
    none = pa.table({name: pa.array([], pa.string()) for name in (*KEYS, "flag_severity")})
    numbers = {"on_hand": pa.int64(), "on_order": pa.int64(), "lost_margin": pa.float64()}
    positions = none
    for column, type_ in numbers.items():
        positions = positions.append_column(column, pa.array([], type_))
    status = pa.table({name: pa.array([], pa.string()) for name in (*KEYS, "status", "model")})
    status = status.append_column("WAPE", pa.array([], pa.float64()))
    return _joined(
        positions, status, pa.table({name: pa.array([], pa.string()) for name in ("sku", "name", "category")})
    )
