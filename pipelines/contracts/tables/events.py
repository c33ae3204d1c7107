"""What was taken in: bronze, the silver event tables, and the books of the ingest."""

from __future__ import annotations

import pyarrow as pa

from pipelines.contracts.tables.base import HEADERS, INGEST, ORIGIN, RECORDED, TIME, Table, schema_of, text

BRONZE_EVENTS = Table(
    "bronze/events",
    schema_of(
        **ORIGIN,
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
    schema_of(
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
        **RECORDED,
    ),
    INGEST,
)

SHIPMENT_EVENTS = Table(
    "silver/shipment_events",
    schema_of(
        event_id=pa.string(),
        event_time=TIME,
        **text("shipment_id supplier_id carrier_id origin destination node status order_id sku"),
        quantity=pa.int64(),
        mode=pa.string(),
        eta=TIME,
        latitude=pa.float64(),
        longitude=pa.float64(),
        **RECORDED,
    ),
    INGEST,
)

ORDER_STATUS = Table(
    "silver/order_status",
    schema_of(
        event_id=pa.string(),
        event_time=TIME,
        order_id=pa.string(),
        status=pa.string(),
        quantity=pa.int64(),
        eta=TIME,
        **text("actor reason location_id sku"),
        **RECORDED,
        supplier_id=pa.string(),
    ),
    INGEST,
)
"""`location_id` and `sku` only where a person ordered by hand; `supplier_id` there where another than the policy's
delivers: for a transfer, the location that the goods come from."""

QUARANTINE = Table(
    "silver/quarantine",
    schema_of(
        **ORIGIN,
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
    schema_of(
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
    schema_of(topic=pa.string(), topic_id=pa.string(), first_offsets=pa.string(), since=TIME, recorded_at=TIME),
    INGEST,
)
"""Which topic, by Kafka's own id, is being read under a name, the newest row of a name stands. `first_offsets`: JSON,
partition to where reading it begins; `since`: batches that were finished after this read it."""

INGEST_GAPS = Table(
    "silver/ingest_gaps",
    schema_of(
        **text("topic kind"),
        partition=pa.int32(),
        from_offset=pa.int64(),
        to_offset=pa.int64(),
        **text("topic_id_before topic_id_after"),
        acknowledged_at=TIME,
        acknowledged_by=pa.string(),
    ),
    INGEST,
)
"""Records that Kafka lost before they were read, as a person acknowledged it (append-only). Offsets from
`from_offset` on, up to before `to_offset`; kind: retention, recreated or truncated."""

INGEST_ALERTS = Table(
    "silver/ingest_alerts",
    schema_of(
        **text("alert_id kind severity subject message"),
        event_time=TIME,
        raised_at=TIME,
        **text("occasion details"),
    ),
    INGEST,
)
"""What ingestion told on `alerts`, append-only: a row is here before it is there. `details`: JSON."""
