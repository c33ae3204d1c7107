"""Shipments, lanes, and kinds of suppliers and locations."""

from __future__ import annotations

import pyarrow as pa

from pipelines.contracts.tables.base import TIME, Table, schema_of, text

SHIPMENT_LINES = pa.list_(
    pa.struct([pa.field("order_id", pa.string()), pa.field("sku", pa.string()), pa.field("quantity", pa.int64())])
)

SHIPMENTS = Table(
    "gold/shipments",
    schema_of(
        **text("shipment_id state interrupted supplier_id carrier_id mode origin destination node"),
        latitude=pa.float64(),
        longitude=pa.float64(),
        started=TIME,
        state_time=TIME,
        since=TIME,
        promised=TIME,
        eta=TIME,
        delivered=TIME,
        lines=SHIPMENT_LINES,
        events=pa.int64(),
        set_aside=pa.list_(pa.struct([pa.field("event_id", pa.string()), pa.field("reason", pa.string())])),
        late_probability=pa.float64(),
        expected_arrival=TIME,
        earliest_arrival=TIME,
        latest_arrival=TIME,
        reasons=pa.list_(pa.string()),
        announced=TIME,
        sequence=pa.int64(),
        tracked_at=TIME,
    ),
    "track_shipments",
)
"""One row a shipment: what its events come to. `since`: at `node` from then on; `lines`: the orders and products on
board; `set_aside`: events that its state did not allow; the arrival as forecast when last looked at, with its 80 %
interval; `announced`: the arrival that the orders on board were told last; `sequence`: place of its newest event in
the order of ingestion."""

BOTTLENECKS = Table(
    "gold/bottlenecks",
    schema_of(
        node=pa.string(),
        opened_at=TIME,
        closed_at=TIME,
        queue=pa.int64(),
        beyond=pa.int64(),
        usual_hours=pa.float64(),
        limit_hours=pa.float64(),
        implied_hours=pa.float64(),
        message=pa.string(),
    ),
    "track_shipments",
)
"""Nodes where shipments got stuck: from when to when (`closed_at` null: now), and how it looked when it began."""

LEAD_TIMES = Table(
    "gold/lead_times",
    schema_of(
        supplier_id=pa.string(),
        location_id=pa.string(),
        orders=pa.int64(),
        arrived=pa.int64(),
        **{f"{name}_days": pa.float64() for name in ("mean", "std", "q10", "q50", "q90", "stated", "stated_std")},
        as_of=pa.date32(),
        observed_at=TIME,
    ),
    "cluster_network",
)
"""How long a lane takes: its orders of the last year (`arrived`: those of which something came), drawn towards its
supplier's and towards what its sourcing states."""

NETWORK_CLUSTERS = Table(
    "gold/network_clusters",
    schema_of(
        **text("kind member region"),
        cluster=pa.int64(),
        clusters=pa.int64(),
        silhouette=pa.float64(),
        stability=pa.float64(),
        description=pa.string(),
        features=pa.map_(pa.string(), pa.float64()),
        as_of=pa.date32(),
        clustered_at=TIME,
    ),
    "cluster_network",
)
"""Which suppliers and which locations (`kind`) are alike: the cluster of each, what it is like, in words."""
