"""Shipments to look at in a notebook: those of a home, or of a simulated chain where there are none. Without Spark."""

from __future__ import annotations

from datetime import date

import orjson
import pandas as pd

from pipelines.contracts import topics
from pipelines.contracts.tables import SHIPMENT_EVENTS
from pipelines.io.delta import Tables
from pipelines.simulation.history import history
from pipelines.simulation.plan import NO_FAULTS, Plan
from pipelines.simulation.world import World

SIMULATED = Plan(date(2025, 6, 1), seed=7, stores=4, products=12, days=150, low_stock=0, faults=NO_FAULTS)
COLUMNS = (
    *("event_id", "event_time", "shipment_id", "supplier_id", "carrier_id", "mode"),
    *("origin", "destination", "node", "status", "eta"),
)


def shipments_at_hand(tables: Tables, plan: Plan = SIMULATED) -> tuple[pd.DataFrame, str]:
    """Events with `COLUMNS`, and where they come from; a simulated chain takes about ten seconds."""
    found: pd.DataFrame = tables.read(SHIPMENT_EVENTS, COLUMNS).to_pandas()
    if len(found):
        return found, tables.uri(SHIPMENT_EVENTS)
    events = [
        orjson.loads(message.value)
        for day in history(World(plan))
        for message in day
        if message.topic == topics.SHIPMENT_EVENTS and message.value
    ]
    frame = pd.DataFrame(events).reindex(columns=list(COLUMNS)).drop_duplicates("event_id")
    for name in ("event_time", "eta"):
        frame[name] = pd.to_datetime(frame[name], utc=True, format="ISO8601")
    about = f"a simulated chain (seed {plan.seed}, {plan.stores} stores, {plan.products} products, {plan.days} days)"
    return frame.reset_index(drop=True), about


def deliveries_of(events: pd.DataFrame) -> pd.DataFrame:
    """One row a shipment: its supplier, carrier, mode, origin, destination, first promise, delivery, and hours late."""
    ordered = events.sort_values("event_time", kind="stable")
    names = ["supplier_id", "carrier_id", "mode", "origin", "destination"]
    rows = ordered.groupby("shipment_id").agg(
        **{name: (name, "last") for name in names}, started=("event_time", "first"), promised=("eta", "first")
    )
    came = ordered[ordered.status == "delivered"].groupby("shipment_id").event_time.max()
    rows["delivered"] = came.reindex(rows.index)
    rows["hours_late"] = (rows.delivered - rows.promised).dt.total_seconds() / 3600
    return rows.reset_index()
