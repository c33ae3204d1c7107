"""What is common to all batches: their rows in `silver/ingest_batches`, their times, their places in Kafka."""

from __future__ import annotations

import json
from datetime import datetime
from functools import reduce
from operator import or_

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import BRONZE_EVENTS, INGEST_BATCHES, TIME
from pipelines.ingestion.sorting import SortedBatch
from pipelines.io.delta import Tables


def last_sequence(tables: Tables) -> int:
    """Place of the newest event of the last finished batch; 0 before the first. Read from file statistics."""
    largest = tables.largest(INGEST_BATCHES, "last_sequence")
    return 0 if largest is None else largest


def stamped(raw: pa.Table, now: datetime) -> pa.Table:
    """Records in the schema of bronze, taken in now."""
    stamp = pa.array([now] * raw.num_rows, TIME)
    return raw.append_column("ingested_at", stamp).select(BRONZE_EVENTS.schema.names).cast(BRONZE_EVENTS.schema)


def batch_rows(batch_id: int, batch: SortedBatch, records: pa.Table, now: datetime) -> pa.Table:
    """The batch's rows of `silver/ingest_batches`."""
    ends = records.group_by(["topic", "partition"]).aggregate([("offset", "max")]).to_pylist()
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


def places_of(records: pa.Table) -> pc.Expression:
    """A condition that holds for rows from the offsets between the first and the last of these records."""
    ranges = records.group_by(["topic", "partition"]).aggregate([("offset", "min"), ("offset", "max")]).to_pylist()
    parts = [
        (pc.field("topic") == span["topic"])
        & (pc.field("partition") == span["partition"])
        & (pc.field("offset") >= span["offset_min"])
        & (pc.field("offset") <= span["offset_max"])
        for span in ranges
    ]
    return reduce(or_, parts)
