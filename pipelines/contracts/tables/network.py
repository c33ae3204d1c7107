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
        reroute=pa.string(),
        rerouted_at=TIME,
        rerouted_eta=TIME,
        sequence=pa.int64(),
        tracked_at=TIME,
    ),
    "track_shipments",
)
"""One row a shipment: what its events come to. `since`: at `node` from then on; `lines`: the orders and products on
board; `set_aside`: events that its state did not allow; the arrival as forecast when last looked at, with its 80 %
interval; `announced`: the arrival that the orders on board were told last; `reroute`: the option that was approved,
when, and the arrival that it promised, until a later word of the carrier's takes its place; `sequence`: place of its
newest event in the order of ingestion."""

REROUTES = Table(
    "gold/reroutes",
    schema_of(
        **text("shipment_id option_id state kind situation node"),
        via=pa.list_(pa.string()),
        **text("carrier_id mode order_id location_id sku source"),
        units=pa.int64(),
        hours=pa.float64(),
        std_hours=pa.float64(),
        arrival=TIME,
        earliest=TIME,
        latest=TIME,
        on_time_probability=pa.float64(),
        in_stock_probability=pa.float64(),
        cost=pa.float64(),
        avoided_units=pa.float64(),
        avoided_loss=pa.float64(),
        net_benefit=pa.float64(),
        proposed=pa.bool_(),
        **text("description actor reason event_id"),
        promised=TIME,
        at=TIME,
        sequence=pa.int64(),
    ),
    "track_shipments",
)
"""Other ways for shipments at risk, append-only, the newest row of an option stands. `state`: offered, or approved (by
`actor`, by the event at place `sequence` of the ledger of order statuses); `situation`: where the shipment was when
that was thought of; `hours`: from `at` to `arrival`; `earliest` and `latest`: an 80 % interval; `units` from `source`
to `order_id`'s series for a transfer, which never moves the shipment itself; `proposed`: the best of them."""

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
