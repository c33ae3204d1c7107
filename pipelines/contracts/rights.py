"""What each job may do in Kafka: the least that it needs, for a user of its own. Stated once, granted from here."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.contracts.topics import (
    ALERTS,
    DEMAND_TOTALS,
    INPUT_TOPICS,
    INVENTORY_MOVEMENTS,
    ORDER_STATUS,
    POS_SALES,
    RESTOCK_ORDERS,
    SHIPMENT_EVENTS,
    STOCKOUT_FLAGS,
)


@dataclass(frozen=True)
class Rights:
    """Topics that a job reads and writes (it may look at all of Stockcast's), its groups and transactional ids."""

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    transactional_ids: tuple[str, ...] = ()


_RELAY = "stockcast-relay"

RIGHTS: dict[str, Rights] = {
    # It writes what it reads: records whose product or place has become known come again.
    "ingest_events": Rights(read=INPUT_TOPICS, write=(ALERTS, *INPUT_TOPICS)),
    "restock": Rights(write=(STOCKOUT_FLAGS, ALERTS)),
    # Its place lies in the group as an offset of restock.orders, which only a reader of that topic may commit.
    "relay_orders": Rights((RESTOCK_ORDERS,), (RESTOCK_ORDERS, ORDER_STATUS), (_RELAY,), (_RELAY,)),
    "send_orders": Rights((RESTOCK_ORDERS,), (ORDER_STATUS, ALERTS), ("stockcast-suppliers",)),
    "aggregate_totals": Rights(write=(DEMAND_TOTALS,)),
    "track_shipments": Rights(write=(ORDER_STATUS, ALERTS)),
    "watch_anomalies": Rights(write=(ALERTS,)),
    # Corrections of what came twice, and the totals where no live process keeps them.
    "nightly": Rights(write=(INVENTORY_MOVEMENTS, ALERTS, DEMAND_TOTALS)),
    "order_api": Rights(write=(ORDER_STATUS,)),
    # It serves the order API, shows alerts, and sends what was set aside again.
    "dashboard": Rights((ALERTS,), INPUT_TOPICS, ("stockcast-dashboard",)),
    "alert_webhook": Rights(read=(ALERTS,), groups=("stockcast-alert-webhook",)),
    "simulate": Rights((RESTOCK_ORDERS,), (POS_SALES, INVENTORY_MOVEMENTS, SHIPMENT_EVENTS, ORDER_STATUS)),
}
"""By job. Whoever only sends events of a chain needs what `simulate` writes, or a part of it."""


def _union(*jobs: str) -> Rights:
    return Rights(
        *(
            tuple(dict.fromkeys(name for job in jobs for name in getattr(RIGHTS[job], part)))
            for part in ("read", "write", "groups", "transactional_ids")
        )
    )


RIGHTS["live"] = _union(
    *("ingest_events", "restock", "relay_orders", "send_orders", "aggregate_totals", "track_shipments"),
    *("watch_anomalies", "alert_webhook"),
)
