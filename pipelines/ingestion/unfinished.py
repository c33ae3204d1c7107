"""Finishing a batch that no checkpoint offers again, from bronze.

A process died after bronze and before the end of a batch, and then its checkpoint was lost or set aside. The
records are in bronze already, so they must not be read from Kafka once more: what is missing of the batch in the
other tables is made from bronze.
"""

from __future__ import annotations

import logging
from datetime import UTC, timedelta
from functools import reduce
from operator import and_

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
)
from pipelines.ingestion.batches import batch_rows, places_of
from pipelines.ingestion.judging import judge_table, judged_before
from pipelines.ingestion.limits import CatalogLimits
from pipelines.ingestion.seen import SeenIds
from pipelines.ingestion.sorting import in_arrival_order, sort_batch
from pipelines.ingestion.sources import next_offsets, sources
from pipelines.io.delta import Tables

log = logging.getLogger("stockcast.ingestion")

WRITTEN = (
    (QUARANTINE, "quarantined_at"),
    (SHIPMENT_EVENTS, "ingested_at"),
    (ORDER_STATUS, "ingested_at"),
    (STOCK_MOVEMENTS, "ingested_at"),
)
"""What a batch is written to after bronze, and the column with its time."""

CLOCK_ERROR = timedelta(days=1)
"""Bronze is looked through from so long before the last finished batch on; offsets decide."""


def finish_from_bronze(tables: Tables, limits: CatalogLimits, seen: SeenIds, last_sequence: int) -> int:
    """Finish what bronze holds beyond the finished batches; returns the number of records.

    Dying on the way does no harm: the next call goes on.

    Args:
        seen: ids of finished batches.
        last_sequence: place of their newest event.
    """
    records = unfinished_records(tables)
    if records.num_rows == 0:
        return 0
    records = in_arrival_order(records)
    then = pc.max(records.column("ingested_at")).as_py()
    here = places_of(records)
    # A table holds all of a batch or nothing: each is written in one commit.
    there = {
        table.name: tables.read(table, where=here & (pc.field(time) == pa.scalar(then, TIME)))
        for table, time in WRITTEN
    }
    known, coordinates = limits.current()
    if any(rows.num_rows for rows in there.values()):
        judged = judged_before(records, there[QUARANTINE.name], limits.without_catalog())
    else:
        judged = judge_table(records, known)
    batch = sort_batch(records, judged, seen, last_sequence, coordinates)
    for table, _ in WRITTEN:
        rows = batch.quarantine if table is QUARANTINE else batch.silver.get(table.name)
        if rows is not None and rows.num_rows and there[table.name].num_rows == 0:
            tables.append(table, rows)
    number = tables.largest(INGEST_BATCHES, "batch_id")
    tables.append(INGEST_BATCHES, batch_rows(0 if number is None else number + 1, batch, records, then))
    log.warning("finished a batch of %d records from bronze that no checkpoint offers again", records.num_rows)
    return int(records.num_rows)


def unfinished_records(tables: Tables) -> pa.Table:
    """Records of bronze that no finished batch has taken in."""
    where: list[pc.Expression] = []
    finished = tables.largest(INGEST_BATCHES, "finished_at")
    if finished is not None:
        finished = finished if finished.tzinfo else finished.replace(tzinfo=UTC)
        where.append(pc.field("ingested_at") >= pa.scalar(finished - CLOCK_ERROR, TIME))
    for topic, places in next_offsets(tables).items():
        for partition, offset in places.items():
            here = (pc.field("topic") == topic) & (pc.field("partition") == partition)
            where.append(~here | (pc.field("offset") >= offset))
    for source in sources(tables).values():
        # What was read of a topic before it was created anew has offsets of its own.
        where.append((pc.field("topic") != source.topic) | (pc.field("ingested_at") > pa.scalar(source.since, TIME)))
    return tables.read(BRONZE_EVENTS, where=reduce(and_, where) if where else None)
