"""Events that came again after their id was forgotten: found in the ledger every night, and put right in the open.

The live stream remembers event ids for `ingest.deduplication_days`. A repetition that comes later enters the ledger
a second time. The ledger is append-only, so what the second row did to the stock is taken back by a row of its own:
an adjustment by the opposite amount, at the same time, under an id that follows from the row that it corrects. It
goes the way of every event, through `inventory.movements`, so that positions, orders and replays see it.
Demand counts first rows only (`first_rows`), totals those that no correction takes back (`standing` in
`pipelines.demand.windows`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from pipelines.contracts.alerts import HIGH, Alert
from pipelines.contracts.identifiers import identifier
from pipelines.contracts.tables import STOCK_MOVEMENTS
from pipelines.contracts.topics import series_key
from pipelines.ingestion.times import as_microseconds, format_time
from pipelines.io.delta import Tables

log = logging.getLogger("stockcast.ingestion")

PREFIX = "late-duplicate"
EXAMPLES = 5

Messages = Iterable[tuple[str, bytes]]


@dataclass(frozen=True)
class Corrected:
    """What a night found: rows that repeat an earlier event, corrections sent, and rows that contradict the first."""

    repeated: int
    sent: int
    contradicting: int


def later_rows(ledger: DataFrame) -> DataFrame:
    """The ledger's rows whose event id an earlier row has, with `contradicts`: whether they say something else."""
    same_id = Window.partitionBy("event_id").orderBy("sequence")
    first = F.first("payload_hash").over(same_id)
    return (
        ledger.withColumn("place", F.row_number().over(same_id))
        .withColumn("contradicts", first != F.col("payload_hash"))
        .where(F.col("place") > 1)
        .drop("place")
    )


def first_rows(ledger: DataFrame) -> DataFrame:
    """The ledger without rows whose event id an earlier row has."""
    repeated = later_rows(ledger).select("sequence")
    return ledger.join(F.broadcast(repeated), on="sequence", how="left_anti")


def correct_late_duplicates(
    spark: SparkSession,
    tables: Tables,
    now: datetime,
    send: Callable[[Messages], None],
    tell: Callable[[list[Alert]], None],
) -> Corrected:
    """Send the corrections that the ledger does not have yet. Running it again sends nothing new: a correction's id
    follows from the row that it corrects.

    Args:
        send: sends (key, value) pairs to `inventory.movements`.
        tell: publishes alerts.
    """
    if not tables.exists(STOCK_MOVEMENTS):
        return Corrected(0, 0, 0)
    rows = [row.asDict() for row in later_rows(tables.frame(spark, STOCK_MOVEMENTS)).collect()]
    if not rows:
        return Corrected(0, 0, 0)
    wanted = {correction_id(row): row for row in rows if row["change"]}
    where = pc.field("event_id").isin(list(wanted))
    known = set(tables.read(STOCK_MOVEMENTS, ("event_id",), where).column("event_id").to_pylist())
    missing = {event_id: row for event_id, row in wanted.items() if event_id not in known}
    if missing:
        send((series_key(row["location_id"], row["sku"]), _correction(name, row)) for name, row in missing.items())
        log.warning("%d events came again after their ids were forgotten; the stock is corrected", len(missing))
    contradicting = [row for row in rows if row["contradicts"]]
    fresh = [row for row in contradicting if not row["change"] or correction_id(row) in missing]
    if fresh:
        tell([_alert(fresh, now)])
    return Corrected(len(rows), len(missing), len(contradicting))


def correction_id(row: dict[str, Any]) -> str:
    """The id of the adjustment that takes a ledger row back."""
    return identifier(PREFIX, row["event_id"], str(row["sequence"]))


def is_correction() -> Column:
    """Whether a row of the ledger takes an earlier one back."""
    return (F.col("kind") == "adjustment") & F.col("event_id").startswith(f"{PREFIX}-")


def correction_ids() -> Column:
    """`correction_id` of each row of the ledger."""
    hashed = F.sha2(F.concat_ws("|", "event_id", F.col("sequence").cast("string")), 256)
    return F.concat(F.lit(f"{PREFIX}-"), F.substring(hashed, 1, 24))


def _correction(event_id: str, row: dict[str, Any]) -> bytes:
    return orjson.dumps(
        {
            "event_id": event_id,
            "event_time": format_time(as_microseconds(row["event_time"].astimezone())),
            "location_id": row["location_id"],
            "sku": row["sku"],
            "kind": "adjustment",
            "quantity": -row["change"],
            "corrects": row["event_id"],
            "why": "this event had been taken in before",
        }
    )


def _alert(rows: list[dict[str, Any]], now: datetime) -> Alert:
    places = [f"{row['topic']}/{row['partition']}/{row['offset']}" for row in rows]
    said = (
        f"{len(rows)} events repeat an event id of long ago with another content, such as {places[0]}; the first "
        "content stands, and what the others did to the stock is taken back, but for counts: look at those"
    )
    facts = {"events": len(rows), "places": places[:EXAMPLES]}
    return Alert("conflicting_event", HIGH, rows[0]["topic"], said, now, now, places[0], facts)
