"""Delta tables under `$STOCKCAST_HOME/tables/`: name, schema, partitioning. Arrow schemas are the one form;
Spark's are derived from them in `pipelines.io`."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa

TIME = pa.timestamp("us", tz="UTC")
MONEY = pa.decimal128(18, 2)
HEADERS = pa.list_(pa.struct([pa.field("key", pa.string()), pa.field("value", pa.binary())]))

QUANTILES = (0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95)
QUANTILE_COLUMNS = tuple(f"q{round(100 * p):02d}" for p in QUANTILES)


_NAME = re.compile("[a-z][a-z_]{0,62}/[a-z][a-z_]{0,62}")


@dataclass(frozen=True)
class Table:
    """A Delta table: `name` is its path below the tables folder, `owner` the job that writes it."""

    name: str
    schema: pa.Schema
    owner: str
    partition_by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """The name becomes a path: whatever could lead elsewhere is refused."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no table's name; expected folder/table in lower case")


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, type_) for name, type_ in columns.items()])


def _text(names: str) -> dict[str, pa.DataType]:
    return {name: pa.string() for name in names.split()}


_ORIGIN: dict[str, pa.DataType] = {
    "topic": pa.string(),
    "partition": pa.int32(),
    "offset": pa.int64(),
}
_RECORDED: dict[str, pa.DataType] = {
    **_ORIGIN,
    "kafka_timestamp": TIME,
    "ingested_at": TIME,
    "sequence": pa.int64(),
    "payload_hash": pa.int64(),
}
"""Columns of every validated event: where it came from, its place in the one order in which Stockcast
took events in (`sequence`, shared by the three silver event tables), and a hash of what it says."""

INGEST, DEMAND, TRAINING, PLANNING, RESTOCK, CATALOG = (
    "ingest_events",
    "aggregate_demand",
    "train_forecasts",
    "plan_inventory",
    "restock",
    "load_catalog",
)

BRONZE_EVENTS = Table(
    "bronze/events",
    _schema(
        **_ORIGIN,
        kafka_timestamp=TIME,
        key=pa.binary(),
        value=pa.binary(),
        headers=HEADERS,
        ingested_at=TIME,
    ),
    INGEST,
)

STOCK_MOVEMENTS = Table(
    "silver/stock_movements",
    _schema(
        event_id=pa.string(),
        event_time=TIME,
        location_id=pa.string(),
        sku=pa.string(),
        kind=pa.string(),
        quantity=pa.int64(),
        change=pa.int64(),
        order_id=pa.string(),
        unit_price=pa.float64(),
        promotion=pa.bool_(),
        ticket_id=pa.string(),
        reported_on_hand=pa.int64(),
        **_RECORDED,
    ),
    INGEST,
)

SHIPMENT_EVENTS = Table(
    "silver/shipment_events",
    _schema(
        event_id=pa.string(),
        event_time=TIME,
        **_text("shipment_id supplier_id carrier_id origin destination node status order_id sku"),
        quantity=pa.int64(),
        mode=pa.string(),
        eta=TIME,
        latitude=pa.float64(),
        longitude=pa.float64(),
        **_RECORDED,
    ),
    INGEST,
)

ORDER_STATUS = Table(
    "silver/order_status",
    _schema(
        event_id=pa.string(),
        event_time=TIME,
        order_id=pa.string(),
        status=pa.string(),
        quantity=pa.int64(),
        eta=TIME,
        **_text("actor reason location_id sku"),
        **_RECORDED,
    ),
    INGEST,
)
"""`location_id` and `sku` only where a person ordered by hand."""

QUARANTINE = Table(
    "silver/quarantine",
    _schema(
        **_ORIGIN,
        key=pa.binary(),
        value=pa.binary(),
        headers=HEADERS,
        reason=pa.string(),
        detail=pa.string(),
        quarantined_at=TIME,
        replayed_at=TIME,
    ),
    INGEST,
)

INGEST_BATCHES = Table(
    "silver/ingest_batches",
    _schema(
        batch_id=pa.int64(),
        topic=pa.string(),
        consumed=pa.int64(),
        good=pa.int64(),
        quarantined=pa.int64(),
        duplicates=pa.int64(),
        tombstones=pa.int64(),
        end_offsets=pa.string(),
        last_sequence=pa.int64(),
        finished_at=TIME,
    ),
    INGEST,
)
"""One row per batch and topic, the last commit of a batch: everything up to `last_sequence` is complete.
`end_offsets`: JSON, partition to the offset after the last record taken in."""

INGEST_SOURCES = Table(
    "silver/ingest_sources",
    _schema(topic=pa.string(), topic_id=pa.string(), first_offsets=pa.string(), since=TIME, recorded_at=TIME),
    INGEST,
)
"""Which topic, by Kafka's own id, is being read under a name, the newest row of a name stands. `first_offsets`: JSON,
partition to where reading it begins; `since`: batches that were finished after this read it."""

INGEST_GAPS = Table(
    "silver/ingest_gaps",
    _schema(
        **_text("topic kind"),
        partition=pa.int32(),
        from_offset=pa.int64(),
        to_offset=pa.int64(),
        **_text("topic_id_before topic_id_after"),
        acknowledged_at=TIME,
        acknowledged_by=pa.string(),
    ),
    INGEST,
)
"""Records that Kafka lost before they were read, as a person acknowledged it (append-only). Offsets from
`from_offset` on, up to before `to_offset`; kind: retention, recreated or truncated."""

INGEST_ALERTS = Table(
    "silver/ingest_alerts",
    _schema(
        **_text("alert_id kind severity subject message"),
        event_time=TIME,
        raised_at=TIME,
        **_text("occasion details"),
    ),
    INGEST,
)
"""What ingestion told on `alerts`, append-only: a row is here before it is there. `details`: JSON."""

PRODUCTS = Table(
    "catalog/products",
    _schema(
        sku=pa.string(),
        name=pa.string(),
        category=pa.string(),
        unit_cost=pa.float64(),
        unit_price=pa.float64(),
        shelf_life_days=pa.int64(),
        substitute_group=pa.string(),
    ),
    CATALOG,
)
LOCATIONS = Table(
    "catalog/locations",
    _schema(
        location_id=pa.string(),
        kind=pa.string(),
        region=pa.string(),
        timezone=pa.string(),
        latitude=pa.float64(),
        longitude=pa.float64(),
    ),
    CATALOG,
)
SUPPLIERS = Table(
    "catalog/suppliers",
    _schema(supplier_id=pa.string(), name=pa.string(), region=pa.string()),
    CATALOG,
)
SOURCING = Table(
    "catalog/sourcing",
    _schema(
        location_id=pa.string(),
        sku=pa.string(),
        supplier_id=pa.string(),
        lead_time_days=pa.float64(),
        lead_time_std_days=pa.float64(),
        pack_size=pa.int64(),
        minimum_order=pa.int64(),
        order_cost=pa.float64(),
        holding_cost_rate=pa.float64(),
        service_level=pa.float64(),
        review_days=pa.float64(),
    ),
    CATALOG,
)
CATALOG_TABLES = (PRODUCTS, LOCATIONS, SUPPLIERS, SOURCING)


def _demand(period: str, type_: pa.DataType) -> pa.Schema:
    return _schema(
        location_id=pa.string(),
        sku=pa.string(),
        **{period: type_},
        demand=pa.int64(),
        returned=pa.int64(),
        promotion_share=pa.float64(),
        revenue=MONEY,
        in_stock_fraction=pa.float64(),
    )


HOURLY_DEMAND = Table("gold/hourly_demand", _demand("hour", TIME), DEMAND)
DAILY_DEMAND = Table("gold/daily_demand", _demand("date", pa.date32()), DEMAND)

DEMAND_TOTALS = Table(
    "gold/demand_totals",
    _schema(
        scope=pa.string(),
        window_start=TIME,
        window_end=TIME,
        orders=pa.int64(),
        units=pa.int64(),
        revenue=MONEY,
    ),
    "aggregate_totals",
)

FORECASTS = Table(
    "gold/forecasts",
    _schema(
        location_id=pa.string(),
        sku=pa.string(),
        grain=pa.string(),
        target_time=TIME,
        forecast_version=pa.string(),
        yhat=pa.float64(),
        **{column: pa.float64() for column in QUANTILE_COLUMNS},
        model=pa.string(),
        created_at=TIME,
    ),
    TRAINING,
    partition_by=("forecast_version",),
)

FORECAST_TOTALS = Table(
    "gold/forecast_totals",
    _schema(
        **_text("scope_kind scope grain"),
        target_time=TIME,
        forecast_version=pa.string(),
        series=pa.int64(),
        yhat=pa.float64(),
        **{column: pa.float64() for column in QUANTILE_COLUMNS},
        correlation=pa.float64(),
        created_at=TIME,
    ),
    TRAINING,
    partition_by=("forecast_version",),
)
"""What a forecast version's series add up to. `scope_kind`: global, region, category or region_category (`scope`
is then `region|category`); `correlation`: the one between its series that the quantiles assume."""

SERIES_STATUS = Table(
    "gold/series_status",
    _schema(
        **_text("location_id sku training_run status model reason"),
        WAPE=pa.float64(),
        MASE=pa.float64(),
        bias=pa.float64(),
        coverage=pa.float64(),
        baseline_WAPE=pa.float64(),
        observations=pa.int64(),
        forecast_version=pa.string(),
        as_of=pa.date32(),
    ),
    TRAINING,
)

PUBLISHED = Table(
    "gold/published",
    _schema(
        artefact=pa.string(),
        version=pa.string(),
        as_of=pa.date32(),
        training_run=pa.string(),
        published_at=TIME,
    ),
    "publishing",
)
"""The pointer rows: which forecast version and which policy version are in force (one row an artefact)."""

PUBLICATIONS = Table("gold/publications", PUBLISHED.schema, "publishing")
"""Every switch of a pointer row, oldest first: what was in force when (append-only)."""

BACKTESTS = Table(
    "gold/backtests",
    _schema(
        **_text("location_id sku model"),
        forecast_version=pa.string(),
        first_day=pa.date32(),
        **{name: pa.list_(pa.float32()) for name in ("actual", "yhat", "low", "high")},
    ),
    TRAINING,
    partition_by=("forecast_version",),
)
"""The last backtest of each series of each stored version, a number a day from `first_day` on: what champion and
challenger are compared by, on the days that both forecast. `low`, `high`: the 80 % interval."""

FORECAST_DRIFT = Table(
    "gold/forecast_drift",
    _schema(
        as_of=pa.date32(),
        scope=pa.string(),
        forecast_version=pa.string(),
        series=pa.int64(),
        scored_days=pa.int64(),
        WAPE=pa.float64(),
        bias=pa.float64(),
        coverage=pa.float64(),
        tracking_signal=pa.float64(),
        signalling_share=pa.float64(),
        level_change=pa.float64(),
        stability_index=pa.float64(),
        warning=pa.string(),
    ),
    TRAINING,
)
"""A row a night and scope (`all` or a category): the published forecasts against what came since, and how the
demand itself has shifted. `warning` says which limits were crossed, null for none."""

INVENTORY_POLICIES = Table(
    "gold/inventory_policies",
    _schema(
        **_text("location_id sku policy_version forecast_version"),
        reorder_point=pa.int64(),
        order_up_to=pa.int64(),
        safety_stock=pa.float64(),
        lead_time_days=pa.float64(),
        lead_time_std_days=pa.float64(),
        review_days=pa.float64(),
        service_level=pa.float64(),
        method=pa.string(),
        binding_constraint=pa.string(),
        supplier_id=pa.string(),
        pack_size=pa.int64(),
        minimum_order=pa.int64(),
        unit_cost=pa.float64(),
        unit_price=pa.float64(),
        as_of=pa.date32(),
        cumulative_mean=pa.list_(pa.float64()),
        cumulative_std=pa.list_(pa.float64()),
        correlation=pa.float64(),
        created_at=TIME,
    ),
    PLANNING,
    partition_by=("policy_version",),
)
"""`cumulative_mean[k]` and `cumulative_std[k]`: units demanded over the first k+1 days after `as_of`; `correlation`:
between any two days' deviations."""

OPEN_ORDERS = pa.list_(
    pa.struct(
        [
            pa.field("order_id", pa.string()),
            pa.field("outstanding", pa.int64()),
            pa.field("received", pa.int64()),
            pa.field("expected_receipt", TIME),
            pa.field("reported_received", TIME),
            pa.field("state", pa.string()),
            pa.field("released", pa.bool_()),
            pa.field("quantity", pa.int64()),
            pa.field("quantity_time", TIME),
            pa.field("promised_time", TIME),
        ]
    )
)

INVENTORY_POSITIONS = Table(
    "gold/inventory_positions",
    _schema(
        location_id=pa.string(),
        sku=pa.string(),
        on_hand=pa.int64(),
        on_order=pa.int64(),
        last_event_time=TIME,
        count_time=TIME,
        count_event_id=pa.string(),
        counted=pa.int64(),
        open_orders=OPEN_ORDERS,
        flag_severity=pa.string(),
        hold_until=TIME,
        sequence=pa.int64(),
    ),
    RESTOCK,
)
"""Also the restock stage's own state: a row set complete up to the ledger's `sequence`."""

ORDER_COLUMNS: dict[str, pa.DataType] = {
    **_text("order_id location_id sku supplier_id"),
    "quantity": pa.int64(),
    "on_hand": pa.int64(),
    "on_order": pa.int64(),
    "reorder_point": pa.int64(),
    "order_up_to": pa.int64(),
    **_text("trigger_event_id policy_version forecast_version"),
    "expected_receipt": TIME,
    "created_at": TIME,
    "explanation": pa.string(),
}
"""Fields of a message on `restock.orders`, in the contract's order."""

FLAG_COLUMNS: dict[str, pa.DataType] = {
    **_text("flag_id location_id sku"),
    "event_time": TIME,
    "flagged_at": TIME,
    "on_hand": pa.int64(),
    "on_order": pa.int64(),
    "expected_demand": pa.float64(),
    "stockout_probability": pa.float64(),
    "projected_stockout_at": TIME,
    "severity": pa.string(),
    "forecast_version": pa.string(),
    "forecast_age_hours": pa.float64(),
    "source_event_id": pa.string(),
}
"""Fields of a message on `stockout.flags`, in the contract's order."""

ORDER_OUTBOX = Table(
    "gold/order_outbox",
    _schema(
        sequence=pa.int64(),
        order_id=pa.string(),
        payload=pa.string(),
        decided_at=TIME,
        ledger_sequence=pa.int64(),
    ),
    RESTOCK,
)
"""Released orders, append-only; `payload` is the message, byte for byte; `ledger_sequence` the place of the event
that released it: what triggered it, or its approval."""

ORDER_PROPOSALS = Table("gold/order_proposals", ORDER_OUTBOX.schema, RESTOCK)
"""Decided orders that a person must approve, append-only: they enter the outbox when that has happened."""

ORDERS = Table(
    "gold/orders",
    _schema(
        order_id=pa.string(),
        state=pa.string(),
        state_time=TIME,
        received=pa.int64(),
        **{name: type_ for name, type_ in ORDER_COLUMNS.items() if name != "order_id"},
    ),
    RESTOCK,
)

ORDER_AUDIT = Table(
    "gold/order_audit",
    _schema(
        sequence=pa.int64(),
        recorded_at=TIME,
        **_text("actor action order_id"),
        before=pa.string(),
        after=pa.string(),
        **_text("reason idempotency_key request_hash"),
        response_status=pa.int32(),
        **_text("response event_id event"),
    ),
    "order_api",
)
"""Every decision that the order API took, append-only: who, what, the order before and after (JSON), why, the key
that makes it unique, the answer given, and the `restock.order_status` event that carries it (its bytes)."""

ALERT_ACTIONS = Table(
    "gold/alert_actions",
    _schema(**_text("alert_id action actor reason"), until=TIME, at=TIME),
    "dashboard",
)
"""What people said of alerts, append-only, the newest row of an alert stands: acknowledged, snoozed (`until` then)
or reopened."""

SUPPLIER_CALLS = Table(
    "gold/supplier_calls",
    _schema(
        order_id=pa.string(),
        outcome=pa.string(),
        status_code=pa.int32(),
        answer=pa.string(),
        reason=pa.string(),
        attempts=pa.int32(),
        quantity=pa.int64(),
        eta=TIME,
        answered_at=TIME,
    ),
    "send_orders",
)
"""How each order fared at the supplier's API, append-only, the newest row of an order stands: acknowledged, sent,
parked (with the reason), withdrawn (called off before it was sent) or retry (a parked one to be sent again)."""

POLICY_ACTIVATIONS = Table(
    "gold/policy_activations",
    _schema(
        policy_version=pa.string(),
        forecast_version=pa.string(),
        from_sequence=pa.int64(),
        activated_at=TIME,
    ),
    RESTOCK,
)
"""From which place in the ledger each policy version decided: what makes a replay exact."""

SHIPMENT_LINES = pa.list_(
    pa.struct([pa.field("order_id", pa.string()), pa.field("sku", pa.string()), pa.field("quantity", pa.int64())])
)

SHIPMENTS = Table(
    "gold/shipments",
    _schema(
        **_text("shipment_id state interrupted supplier_id carrier_id mode origin destination node"),
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
        sequence=pa.int64(),
        tracked_at=TIME,
    ),
    "track_shipments",
)
"""One row a shipment: what its events come to. `since`: at `node` from then on; `lines`: the orders and products on
board; `set_aside`: events that its state did not allow; the arrival as forecast when last looked at, with its 80 %
interval; `sequence`: place of its newest event in the order of ingestion."""

LEAD_TIMES = Table(
    "gold/lead_times",
    _schema(
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
    _schema(
        **_text("kind member region"),
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

ALL_TABLES: tuple[Table, ...] = (
    BRONZE_EVENTS,
    STOCK_MOVEMENTS,
    SHIPMENT_EVENTS,
    ORDER_STATUS,
    QUARANTINE,
    INGEST_BATCHES,
    INGEST_SOURCES,
    INGEST_GAPS,
    INGEST_ALERTS,
    *CATALOG_TABLES,
    HOURLY_DEMAND,
    DAILY_DEMAND,
    DEMAND_TOTALS,
    FORECASTS,
    FORECAST_TOTALS,
    SERIES_STATUS,
    PUBLISHED,
    PUBLICATIONS,
    BACKTESTS,
    FORECAST_DRIFT,
    INVENTORY_POLICIES,
    INVENTORY_POSITIONS,
    ORDER_OUTBOX,
    ORDER_PROPOSALS,
    ORDERS,
    ORDER_AUDIT,
    ALERT_ACTIONS,
    SUPPLIER_CALLS,
    POLICY_ACTIVATIONS,
    SHIPMENTS,
    LEAD_TIMES,
    NETWORK_CLUSTERS,
)
