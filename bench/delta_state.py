"""Live state in a Delta table, as a prototype: read the touched positions, fold, append the outbox, merge back.

The same fold and the same decisions as the engine's, behind the same ledger, and the outbox comes before the
merge, so that an order waits for the merges of earlier batches only. Exactly-once would hold as it stands: a
repeated batch decides the same and its appends are recognised by their transactions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.contracts.tables import INVENTORY_POSITIONS, ORDER_OUTBOX, ORDER_STATUS, STOCK_MOVEMENTS, Table
from pipelines.ingestion.batches import last_sequence
from pipelines.io import published
from pipelines.io.delta import Tables
from pipelines.operations.settings import Settings
from pipelines.restocking import snapshots
from pipelines.restocking.decisions import encode_flag, encode_order
from pipelines.restocking.fold import Fold, Outcome
from pipelines.restocking.policy_book import PolicyBook
from pipelines.restocking.positions import Position

KEYS = ("location_id", "sku")
NO_STATUSES = ORDER_STATUS.schema.empty_table()

SendFlags = Callable[[Iterable[tuple[str, bytes]]], None]


class Held:
    """Rows in memory where the snapshot functions expect tables."""

    def __init__(self, rows: pa.Table | None = None) -> None:
        self.rows = rows

    def read(self, _: Table) -> pa.Table:
        """The rows."""
        return self.rows

    def overwrite(self, _: Table, rows: pa.Table) -> None:
        """Keep the rows."""
        self.rows = rows


TUNING = {
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.adaptive.enabled": "false",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.databricks.delta.stats.collect": "false",
    "spark.databricks.delta.merge.materializeSource": "none",
}
"""What a small table's MERGE does not need, left out."""


class SparkPositions:
    """The positions table through Spark: a join on the touched keys, and MERGE."""

    def __init__(self, spark: SparkSession, tables: Tables) -> None:
        for name, value in TUNING.items():
            spark.conf.set(name, value)
        self._spark, self._uri = spark, tables.uri(INVENTORY_POSITIONS)

    def touched(self, keys: pa.Table) -> pa.Table:
        """Stored positions of these series."""
        frame = self._spark.read.format("delta").load(self._uri)
        found = frame.join(F.broadcast(self._spark.createDataFrame(keys)), on=list(KEYS), how="inner")
        return found.select(*INVENTORY_POSITIONS.schema.names).toArrow().cast(INVENTORY_POSITIONS.schema)

    def merge(self, rows: pa.Table) -> None:
        """Replace or insert these positions."""
        source = self._spark.createDataFrame(rows).alias("source")
        target = DeltaTable.forPath(self._spark, self._uri).alias("target")
        condition = " AND ".join(f"target.{key} = source.{key}" for key in KEYS)
        target.merge(source, condition).whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()


class LightPositions:
    """The positions table through the deltalake package, without Spark."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def touched(self, keys: pa.Table) -> pa.Table:
        """Stored positions of these series."""
        rows = self._tables.read(INVENTORY_POSITIONS)
        return rows.filter(pc.is_in(_series(rows), value_set=_series(keys).combine_chunks()))

    def merge(self, rows: pa.Table) -> None:
        """Replace or insert these positions."""
        self._tables.upsert(INVENTORY_POSITIONS, rows, KEYS)


class DeltaStateRestock:
    """Follows the ledger with positions in Delta."""

    def __init__(
        self, tables: Tables, settings: Settings, positions: SparkPositions | LightPositions, send_flags: SendFlags
    ) -> None:
        tables.ensure(INVENTORY_POSITIONS, ORDER_OUTBOX)
        self._tables, self._settings, self._positions, self._send = tables, settings, positions, send_flags
        pointer = published.in_force(tables, published.POLICIES)
        if pointer is None:
            raise ValueError("no policies were planted")
        self._book = PolicyBook.load(tables, pointer.version)
        self._outbox = itertools.count(1)
        self.sequence = 0

    def follow(self, _: DataFrame, batch_id: int) -> None:
        """Bring positions and outbox up to the ledger's finished end."""
        target = last_sequence(self._tables)
        if target <= self.sequence:
            return
        where = (pc.field("sequence") > self.sequence) & (pc.field("sequence") <= target)
        ledger = self._tables.read(STOCK_MOVEMENTS, where=where)
        keys = ledger.select(list(KEYS)).group_by(list(KEYS)).aggregate([])
        found, _place = snapshots.load_positions(Held(self._positions.touched(keys)))
        fold = Fold(self._settings.restock)
        fold.policies = self._book
        fold.restore(found)
        outcome = fold.advance(ledger, NO_STATUSES, no_history)
        append_outcome(self._tables, outcome, self._outbox, "restock", batch_id, self._send)
        self._positions.merge(as_rows(fold.positions.values(), target))
        self.sequence = target


def _series(rows: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(rows.column("location_id"), rows.column("sku"), "|")


def as_rows(positions: Iterable[Position], sequence: int) -> pa.Table:
    """Positions as rows of their table."""
    held = Held()
    snapshots.save_positions(held, positions, sequence)
    return held.rows


def append_outcome(
    tables: Tables,
    outcome: Outcome,
    places: itertools.count[int],
    application: str,
    version: int,
    send_flags: SendFlags,
) -> None:
    """Append the orders to the outbox and send the flags."""
    now = datetime.now(UTC)
    rows: list[dict[str, Any]] = [
        {
            "sequence": next(places),
            "order_id": order["order_id"],
            "payload": encode_order(order).decode(),
            "decided_at": now,
            "ledger_sequence": sequence,
        }
        for sequence, order in outcome.orders
    ]
    if rows:
        tables.append(ORDER_OUTBOX, pa.Table.from_pylist(rows, schema=ORDER_OUTBOX.schema), application, version)
    if outcome.flags:
        send_flags((f"{flag['location_id']}|{flag['sku']}", encode_flag(flag)) for flag in outcome.flags)


def no_history(_: tuple[str, str], __: int) -> list[tuple[int, int]]:
    """The workload has no late counts."""
    raise AssertionError("a count reached behind the remembered changes")
