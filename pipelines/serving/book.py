"""Reading orders for the order API: pages of them, one of them, and what the catalog knows."""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import LOCATIONS, ORDER_STATUS, ORDERS, PRODUCTS, SUPPLIER_CALLS, TIME
from pipelines.errors import UnknownOrderError
from pipelines.io.delta import Tables
from pipelines.restocking.desk import find_order
from pipelines.restocking.orders import PROPOSED, next_state
from pipelines.serving.problems import Problem
from pipelines.shipments.routing.approving import Reroute, find_shipment, options_of, prepare

EventsOf = Callable[[str], list[dict[str, Any]]]


@dataclass(frozen=True)
class Page:
    """Some orders, newest first; `next_cursor` leads to those after them."""

    orders: list[dict[str, Any]]
    matching: int
    next_cursor: str | None


class OrderBook:
    """The orders as the restock stage has saved them, and the decisions that are on their way to it.

    Args:
        events_of: the events of the decisions that the API took on an order.
    """

    def __init__(self, tables: Tables, events_of: EventsOf) -> None:
        self._tables = tables
        self._events_of = events_of
        self._lock = threading.Lock()
        self._version = -2
        self._orders = ORDERS.schema.empty_table()
        self._catalog_versions = (-2, -2)
        self._skus: frozenset[str] = frozenset()
        self._locations: frozenset[str] = frozenset()

    def page(self, wanted: dict[str, str], limit: int, cursor: str | None) -> Page:
        """Orders whose columns have the wanted values.

        Raises:
            Problem: the cursor is none of ours.
        """
        rows = self._newest_first()
        for column, value in wanted.items():
            rows = rows.filter(pc.equal(rows.column(column), value))
        matching = rows.num_rows
        if cursor is not None:
            created, order_id = _decode_cursor(cursor)
            at = pa.scalar(created, pa.int64()).cast(TIME)
            after = pc.or_(
                pc.less(rows.column("created_at"), at),
                pc.and_(pc.equal(rows.column("created_at"), at), pc.greater(rows.column("order_id"), order_id)),
            )
            rows = rows.filter(after)
        shown = rows.slice(0, limit)
        more = rows.num_rows > limit
        return Page(
            [self._with_pending(row) for row in shown.to_pylist()],
            matching,
            _encode_cursor(shown.slice(limit - 1)) if more else None,
        )

    def find(self, order_id: str) -> dict[str, Any]:
        """An order in its saved state; `pending` is what was decided and is on its way.

        Raises:
            UnknownOrderError: there is none.
        """
        try:
            with self._lock:
                order = find_order(self._tables, order_id)
        except UnknownOrderError:
            placed = next((event for event in self._events_of(order_id) if "sku" in event), None)
            if placed is None:
                raise
            order = {
                "order_id": order_id,
                "state": PROPOSED,
                **{name: placed[name] for name in ("location_id", "sku", "quantity")},
                "explanation": f"Ordered by hand by {placed['actor']}: on its way to the restock stage",
            }
        return self._with_pending(order)

    def history(self, order_id: str) -> dict[str, Any]:
        """What was reported of an order, and how it fared at the supplier's API."""
        with self._lock:
            wanted = pc.field("order_id") == order_id
            columns = ("event_id", "event_time", "status", "quantity", "eta", "actor", "reason", "sequence")
            statuses = self._tables.read(ORDER_STATUS, columns, wanted).sort_by("sequence").to_pylist()
            calls = self._tables.read(SUPPLIER_CALLS, where=wanted).to_pylist()
        return {"statuses": statuses, "supplier_calls": calls}

    def shipment(self, shipment_id: str) -> dict[str, Any]:
        """A shipment as it was saved, with the `options` for it.

        Raises:
            UnknownShipmentError: there is none.
        """
        with self._lock:
            return {**find_shipment(self._tables, shipment_id), "options": options_of(self._tables, shipment_id)}

    def prepare_reroute(self, shipment_id: str, option_id: str, said: tuple[str, str | None], now: datetime) -> Reroute:
        """An approval of another way, checked against what was decided before; `said`: by whom, and why.

        Raises:
            UnknownShipmentError, RerouteConflictError: it cannot be approved.
        """
        with self._lock:
            return prepare(self._tables, shipment_id, option_id, said, now, self._events_of)

    def check_series(self, location_id: str, sku: str) -> None:
        """Whether the catalog knows both; without a catalog nothing is checked, as at ingestion.

        Raises:
            Problem: names what is unknown.
        """
        with self._lock:
            versions = (self._tables.version(PRODUCTS), self._tables.version(LOCATIONS))
            if versions != self._catalog_versions:
                self._skus = frozenset(self._tables.read(PRODUCTS, ("sku",)).column("sku").to_pylist())
                places = self._tables.read(LOCATIONS, ("location_id",)).column("location_id").to_pylist()
                self._locations, self._catalog_versions = frozenset(places), versions
        if not self._skus or not self._locations:
            return
        for known, name, what in ((self._skus, sku, "product"), (self._locations, location_id, "location")):
            if name not in known:
                raise Problem(404, f"the catalog has no {what} {name}; jobs/load_catalog.py loads it")

    def _newest_first(self) -> pa.Table:
        with self._lock:
            version = self._tables.version(ORDERS)
            if version != self._version:
                rows = self._tables.read(ORDERS)
                self._orders = rows.sort_by([("created_at", "descending"), ("order_id", "ascending")])
                self._version = version
            return self._orders

    def _with_pending(self, order: dict[str, Any]) -> dict[str, Any]:
        state, quantity = order["state"], order["quantity"]
        for event in self._events_of(order["order_id"]):
            if state == PROPOSED:
                quantity = event.get("quantity", quantity)
            state = next_state(state, event["status"])
        pending = {"state": state, "quantity": quantity}
        same = (state, quantity) == (order["state"], order["quantity"])
        return {**order, "pending": None if same else pending}


def as_decided(order: dict[str, Any]) -> dict[str, Any]:
    """An order as it will be once all pending decisions have been entered."""
    return {**order, **(order.get("pending") or {})}


def _encode_cursor(last: pa.Table) -> str:
    created = last.column("created_at").cast(pa.int64())[0].as_py()
    return base64.urlsafe_b64encode(f"{created}|{last.column('order_id')[0].as_py()}".encode()).decode()


def _decode_cursor(cursor: str) -> tuple[int, str]:
    try:
        created, _, order_id = base64.urlsafe_b64decode(cursor.encode()).decode().partition("|")
        return int(created), order_id
    except (binascii.Error, ValueError):
        raise Problem(422, "cursor: expected the next_cursor of an earlier page") from None
