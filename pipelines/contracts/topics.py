"""Kafka topics: the chain's events in, Stockcast's decisions out."""

from __future__ import annotations

POS_SALES = "pos.sales"
INVENTORY_MOVEMENTS = "inventory.movements"
SHIPMENT_EVENTS = "shipments.events"
ORDER_STATUS = "restock.order_status"

STOCKOUT_FLAGS = "stockout.flags"
RESTOCK_ORDERS = "restock.orders"
ALERTS = "alerts"
DEMAND_TOTALS = "demand.totals"

INPUT_TOPICS = (POS_SALES, INVENTORY_MOVEMENTS, SHIPMENT_EVENTS, ORDER_STATUS)
OUTPUT_TOPICS = (STOCKOUT_FLAGS, RESTOCK_ORDERS, ALERTS, DEMAND_TOTALS)


def series_key(location_id: str, sku: str) -> str:
    """Kafka key of everything that concerns one product at one location."""
    return f"{location_id}|{sku}"
