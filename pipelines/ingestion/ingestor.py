"""Taking a batch of Kafka records in: bronze, quarantine and the silver tables, each exactly once.

Commits of a batch, in this order: bronze, quarantine, shipment events, order statuses, ledger, and last the
batch's own row in `silver/ingest_batches`. A batch that died in between is taken in again with the ids and the
sequence as they were after the last finished batch, at the same time, and with the verdicts that were written
before it died, so it comes out the same whatever the catalog says by then; what was already written is recognised
by its transaction and skipped.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import (
    BRONZE_EVENTS,
    INGEST_BATCHES,
    ORDER_STATUS,
    QUARANTINE,
    SHIPMENT_EVENTS,
    STOCK_MOVEMENTS,
    TIME,
    Table,
)
from pipelines.ingestion.batches import batch_rows, last_sequence, places_of, stamped
from pipelines.ingestion.judging import judge_table, judged_before
from pipelines.ingestion.limits import CatalogLimits
from pipelines.ingestion.replay import replayed_origins
from pipelines.ingestion.seen import SeenIds, id_keys
from pipelines.ingestion.sorting import SortedBatch, in_arrival_order, sort_batch
from pipelines.ingestion.times import as_datetime, as_microseconds
from pipelines.ingestion.unfinished import finish_from_bronze
from pipelines.io.delta import Tables
from pipelines.operations.failpoints import failpoint
from pipelines.operations.settings import IngestSettings

log = logging.getLogger("stockcast.ingestion")

DAY = 86_400_000_000
LEARNT_AT_ONCE = 100_000
"""Ids that are text in memory at a time at a start: as text they take several times what is kept of them."""
SILVER = (SHIPMENT_EVENTS, ORDER_STATUS, STOCK_MOVEMENTS)
OWNED = (BRONZE_EVENTS, QUARANTINE, *SILVER, INGEST_BATCHES)


@dataclass(frozen=True)
class TakenIn:
    """What a finished batch added, for the stages that follow: rows of the silver schemas, complete up to
    `last_sequence` and starting right after `previous_sequence`; its quarantine; its rows of
    `silver/ingest_batches`. All are empty for a batch that was finished before."""

    batch_id: int
    previous_sequence: int
    last_sequence: int
    ledger: pa.Table
    statuses: pa.Table
    quarantine: pa.Table
    batches: pa.Table


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
        self._finished = -1
        self._limits = CatalogLimits(tables, settings)

    def resume(self, new_stream: bool) -> None:
        """Bring the known ids and the sequence to where the last finished batch left them.

        Args:
            new_stream: no checkpoint offers an unfinished batch again: it is finished from bronze.
        """
        self._tables.ensure(*OWNED)
        self._sequence = last_sequence(self._tables)
        self._finished = self._tables.last_transaction(INGEST_BATCHES, self._application)
        self._remember()
        if new_stream:
            finish_from_bronze(self._tables, self._limits, self._seen, self._sequence)
            self._sequence = last_sequence(self._tables)
            self._seen = SeenIds()
            self._remember()
        log.info("remembering %d event ids; the ledger stands at %d", len(self._seen), self._sequence)

    def _remember(self) -> None:
        """Learn the ids of finished batches, as far back as a process that kept running would know them."""
        since = as_datetime((as_microseconds(self._clock()) // DAY - self._days_remembered) * DAY)
        for table in SILVER:
            where = (pc.field("ingested_at") >= pa.scalar(since, TIME)) & (pc.field("sequence") <= self._sequence)
            rows = self._tables.read(table, ("event_id", "payload_hash", "ingested_at"), where)
            for part in rows.to_batches(max_chunksize=LEARNT_AT_ONCE):
                keys, payloads = id_keys(table.name, part.column("event_id").to_pylist()), part.column("payload_hash")
                days = pc.divide(part.column("ingested_at").cast(pa.int64()), DAY).to_numpy()
                for day in np.unique(days).tolist():
                    self._seen.add(keys[days == day], payloads.to_numpy()[days == day], day)

    @property
    def _days_remembered(self) -> int:
        return math.ceil(self._settings.deduplication_days)

    @property
    def sequence(self) -> int:
        """Place of the newest event taken in."""
        return self._sequence

    @property
    def finished(self) -> int:
        """The last batch of this stream that was finished; -1 before the first."""
        return self._finished

    @property
    def remembered(self) -> int:
        """How many event ids are known."""
        return len(self._seen)

    def take_in(self, batch_id: int, raw: pa.Table) -> TakenIn:
        """Take in one batch.

        Args:
            batch_id: rises by one from batch to batch; the same for a repeated batch.
            raw: records in the columns of bronze, without `ingested_at`, in any order.
        """
        if batch_id <= self._finished:
            log.info("batch %d was finished before", batch_id)
            return self._taken(batch_id, self._sequence, {}, _none(QUARANTINE), _none(INGEST_BATCHES))
        now = self._clock()
        raw = in_arrival_order(raw)
        records = stamped(raw, now)
        limits, coordinates = self._limits.current()
        self._forget(now)
        # Written while the records are judged, and committed before anything that follows from them.
        bronze = self._writer.submit(self._append, BRONZE_EVENTS, records, batch_id)
        try:
            batch = sort_batch(records, judge_table(records, limits), self._seen, self._sequence, coordinates)
        finally:
            is_new = bronze.result()
        failpoint("ingest.after_bronze")
        if not is_new and raw.num_rows:
            now, records, batch = self._sort_again(batch_id, raw, batch, now)
        self._append(QUARANTINE, batch.quarantine, batch_id)
        for table in SILVER:
            self._append(table, batch.silver.get(table.name), batch_id)
        failpoint("ingest.after_ledger")
        self._mark_replayed(records, now)
        batches = batch_rows(batch_id, batch, records, now)
        self._append(INGEST_BATCHES, batches, batch_id)
        if batch.reasons:
            log.warning("batch %d: set aside %s", batch_id, dict(batch.reasons))
        taken = self._taken(batch_id, batch.last_sequence, batch.silver, batch.quarantine, batches)
        self._seen.add(batch.keys, batch.payloads, as_microseconds(now) // DAY)
        self._sequence, self._finished = batch.last_sequence, batch_id
        return taken

    def _taken(
        self, batch_id: int, last: int, silver: dict[str, pa.Table], quarantine: pa.Table, batches: pa.Table
    ) -> TakenIn:
        return TakenIn(
            batch_id=batch_id,
            previous_sequence=self._sequence,
            last_sequence=last,
            ledger=silver.get(STOCK_MOVEMENTS.name, _none(STOCK_MOVEMENTS)),
            statuses=silver.get(ORDER_STATUS.name, _none(ORDER_STATUS)),
            quarantine=quarantine,
            batches=batches,
        )

    def _forget(self, now: datetime) -> None:
        self._seen.forget(before=as_microseconds(now) // DAY - self._days_remembered)

    def _append(self, table: Table, rows: pa.Table | None, batch_id: int) -> bool:
        if rows is None or rows.num_rows == 0:
            return False
        return self._tables.append(table, rows, self._application, batch_id)

    def _sort_again(
        self, batch_id: int, raw: pa.Table, batch: SortedBatch, now: datetime
    ) -> tuple[datetime, pa.Table, SortedBatch]:
        """A batch that died after bronze: at its time of then, and with the verdicts that were written then."""
        began = self._tables.read(BRONZE_EVENTS, ("ingested_at",), places_of(raw))
        then: datetime = pc.max(began.column(0)).as_py() if began.num_rows else now
        records = stamped(raw, then)
        limits, coordinates = self._limits.current()
        written = (QUARANTINE, *SILVER)
        if any(self._tables.last_transaction(table, self._application) >= batch_id for table in written):
            set_aside = self._tables.read(
                QUARANTINE, where=places_of(raw) & (pc.field("quarantined_at") == pa.scalar(then, TIME))
            )
            judged = judged_before(records, set_aside, self._limits.without_catalog())
        else:
            judged = judge_table(records, limits)
        return then, records, sort_batch(records, judged, self._seen, self._sequence, coordinates)

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


def _none(table: Table) -> pa.Table:
    return table.schema.empty_table()
