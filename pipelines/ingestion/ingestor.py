"""Taking a batch of Kafka records in: bronze, quarantine and the silver tables, each exactly once.

Commits of a batch, in this order: bronze, quarantine, shipment events, order statuses, ledger, and last the
batch's own row in `silver/ingest_batches`. A batch that died in between is taken in again with the ids and the
sequence as they were after the last finished batch, so it comes out the same; what was already written is
recognised by its transaction and skipped.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import (
    BRONZE_EVENTS,
    INGEST_BATCHES,
    LOCATIONS,
    ORDER_STATUS,
    PRODUCTS,
    QUARANTINE,
    SHIPMENT_EVENTS,
    STOCK_MOVEMENTS,
    Table,
)
from pipelines.ingestion.judging import judge_table
from pipelines.ingestion.replay import replayed_origins
from pipelines.ingestion.seen import SeenIds, id_keys
from pipelines.ingestion.sorting import Coordinates, SortedBatch, in_arrival_order, sort_batch
from pipelines.ingestion.times import as_microseconds, parse_time
from pipelines.ingestion.validation import Limits
from pipelines.io.delta import Tables
from pipelines.operations.failpoints import failpoint
from pipelines.operations.settings import IngestSettings

log = logging.getLogger("stockcast.ingestion")

DAY = 86_400_000_000
SILVER = (SHIPMENT_EVENTS, ORDER_STATUS, STOCK_MOVEMENTS)
OWNED = (BRONZE_EVENTS, QUARANTINE, *SILVER, INGEST_BATCHES)


@dataclass(frozen=True)
class TakenIn:
    """What a finished batch added, for the stage that follows: rows of the silver schemas, complete up to
    `last_sequence` and starting right after `previous_sequence`."""

    batch_id: int
    previous_sequence: int
    last_sequence: int
    ledger: pa.Table
    statuses: pa.Table


class Ingestor:
    """The one writer of bronze, silver and quarantine.

    Args:
        tables: the tables.
        settings: limits and horizons.
        application: names this stream in the tables' transactions; the query's own id from its checkpoint.
        clock: the time of ingestion.
    """

    def __init__(
        self, tables: Tables, settings: IngestSettings, application: str, clock: Callable[[], datetime]
    ) -> None:
        self._tables = tables
        self._settings = settings
        self._application = application
        self._clock = clock
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="bronze")
        self._seen = SeenIds()
        self._sequence = 0
        self._catalog_versions: tuple[int, int] | None = None
        self._limits = self._base_limits()
        self._coordinates: Coordinates = {}

    def resume(self, new_stream: bool) -> None:
        """Bring the known ids and the sequence to where the last finished batch left them.

        Args:
            new_stream: no checkpoint: rows of an unfinished batch of an earlier stream then count as taken in.
        """
        self._tables.ensure(*OWNED)
        finished = last_sequence(self._tables)
        since = self._clock() - timedelta(days=self._settings.deduplication_days)
        self._sequence = finished
        for table in SILVER:
            where = pc.field("ingested_at") >= pa.scalar(since, pa.timestamp("us", tz="UTC"))
            if not new_stream:
                where &= pc.field("sequence") <= finished
            rows = self._tables.read(table, ("event_id", "payload_hash", "sequence", "ingested_at"), where)
            if rows.num_rows == 0:
                continue
            keys, payloads = id_keys(table.name, rows.column("event_id").to_pylist()), rows.column("payload_hash")
            days = pc.divide(rows.column("ingested_at").cast(pa.int64()), DAY).to_numpy()
            for day in np.unique(days).tolist():
                self._seen.add(keys[days == day], payloads.to_numpy()[days == day], day)
            self._sequence = max(self._sequence, pc.max(rows.column("sequence")).as_py())
        log.info("remembering %d event ids; the ledger stands at %d", len(self._seen), self._sequence)

    @property
    def sequence(self) -> int:
        """Place of the newest event taken in."""
        return self._sequence

    def limits(self) -> Limits:
        """Validation limits with the catalog in force."""
        versions = (self._tables.version(PRODUCTS), self._tables.version(LOCATIONS))
        if versions != self._catalog_versions:
            self._load_catalog()
            self._catalog_versions = versions
        return self._limits

    def take_in(self, batch_id: int, raw: pa.Table) -> TakenIn:
        """Take in one batch.

        Args:
            batch_id: rises by one from batch to batch; the same for a repeated batch.
            raw: records in the columns of bronze, without `ingested_at`, in any order.
        """
        now = self._clock()
        today = as_microseconds(now) // DAY
        self._seen.forget(before=today - math.ceil(self._settings.deduplication_days))
        limits = self.limits()
        raw = in_arrival_order(raw)
        stamp = pa.array([now] * raw.num_rows, pa.timestamp("us", tz="UTC"))
        raw = raw.append_column("ingested_at", stamp).select(BRONZE_EVENTS.schema.names).cast(BRONZE_EVENTS.schema)
        # Written while the records are judged, and committed before anything that follows from them.
        bronze = self._writer.submit(self._append, BRONZE_EVENTS, raw, batch_id)
        try:
            batch = sort_batch(raw, judge_table(raw, limits), self._seen, self._sequence, self._coordinates)
        finally:
            bronze.result()
        failpoint("ingest.after_bronze")
        self._append(QUARANTINE, batch.quarantine, batch_id)
        for table in SILVER:
            self._append(table, batch.silver.get(table.name), batch_id)
        failpoint("ingest.after_ledger")
        self._mark_replayed(raw, now)
        self._append(INGEST_BATCHES, self._batch_rows(batch_id, batch, raw, now), batch_id)
        if batch.reasons:
            log.warning("batch %d: set aside %s", batch_id, dict(batch.reasons))
        taken = TakenIn(
            batch_id=batch_id,
            previous_sequence=self._sequence,
            last_sequence=batch.last_sequence,
            ledger=batch.silver.get(STOCK_MOVEMENTS.name, STOCK_MOVEMENTS.schema.empty_table()),
            statuses=batch.silver.get(ORDER_STATUS.name, ORDER_STATUS.schema.empty_table()),
        )
        self._seen.add(batch.keys, batch.payloads, today)
        self._sequence = batch.last_sequence
        return taken

    def _append(self, table: Table, rows: pa.Table | None, batch_id: int) -> None:
        if rows is not None and rows.num_rows:
            self._tables.append(table, rows, self._application, batch_id)

    def _mark_replayed(self, raw: pa.Table, now: datetime) -> None:
        """Note in quarantine which of its records came again."""
        headers = raw.column("headers")
        if headers.null_count == len(headers):
            return
        origins = replayed_origins(headers.to_pylist())
        if origins:
            rows = [
                {"topic": topic, "partition": partition, "offset": offset, "replayed_at": now}
                for topic, partition, offset in dict.fromkeys(origins)
            ]
            schema = pa.schema([QUARANTINE.schema.field(name) for name in rows[0]])
            keys = ("topic", "partition", "offset")
            self._tables.update_matching(QUARANTINE, pa.Table.from_pylist(rows, schema=schema), keys, ("replayed_at",))

    def _batch_rows(self, batch_id: int, batch: SortedBatch, raw: pa.Table, now: datetime) -> pa.Table:
        ends = raw.group_by(["topic", "partition"]).aggregate([("offset", "max")]).to_pylist()
        rows = [
            {
                "batch_id": batch_id,
                "topic": topic,
                **vars(count),
                "end_offsets": json.dumps(
                    {str(end["partition"]): end["offset_max"] + 1 for end in ends if end["topic"] == topic}
                ),
                "last_sequence": batch.last_sequence,
                "finished_at": now,
            }
            for topic, count in batch.counts.items()
        ]
        return pa.Table.from_pylist(rows, schema=INGEST_BATCHES.schema)

    def _base_limits(self) -> Limits:
        return Limits(
            earliest_event_time=parse_time(self._settings.earliest_event_time),
            future_tolerance=round(self._settings.future_tolerance_seconds * 1_000_000),
            largest_quantity=self._settings.largest_quantity,
            largest_value_bytes=self._settings.largest_value_bytes,
        )

    def _load_catalog(self) -> None:
        skus = self._tables.read(PRODUCTS, ("sku",)).column("sku").to_pylist()
        places = self._tables.read(LOCATIONS, ("location_id", "latitude", "longitude")).to_pylist()
        base = self._base_limits()
        if not skus or not places:
            log.warning("no catalog is loaded: products and locations are not checked (jobs/load_catalog.py)")
            self._limits, self._coordinates = base, {}
            return
        self._coordinates = {place["location_id"]: (place["latitude"], place["longitude"]) for place in places}
        self._limits = Limits(
            base.earliest_event_time,
            base.future_tolerance,
            base.largest_quantity,
            base.largest_value_bytes,
            frozenset(skus),
            frozenset(self._coordinates),
        )


def last_sequence(tables: Tables) -> int:
    """Place of the newest event of the last finished batch; 0 before the first. Read from file statistics."""
    largest = tables.largest(INGEST_BATCHES, "last_sequence")
    return 0 if largest is None else largest


def end_offsets(tables: Tables) -> dict[str, dict[str, int]]:
    """By topic and partition, the offset after the last record that was taken in."""
    ends: dict[str, dict[str, int]] = {}
    rows = tables.read(INGEST_BATCHES, ("topic", "end_offsets"))
    for topic, offsets in zip(rows.column("topic").to_pylist(), rows.column("end_offsets").to_pylist(), strict=True):
        known = ends.setdefault(topic, {})
        for partition, offset in json.loads(offsets).items():
            known[partition] = max(offset, known.get(partition, 0))
    return ends
