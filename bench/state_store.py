"""Live state in Spark's state store (RocksDB), as a prototype: a stateful operator per series, in Python.

The same fold and the same decisions as the engine's, per series; what they decide leaves the operator as rows
and is appended to the outbox by the same writer. The state of a series is its position without the changes
remembered for late counts.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.stateful_processor import StatefulProcessor, StatefulProcessorHandle

from bench.delta_state import NO_STATUSES, SendFlags, no_history
from pipelines.contracts.tables import ORDER_OUTBOX, STOCK_MOVEMENTS
from pipelines.io import published
from pipelines.io.delta import Tables
from pipelines.operations.settings import RestockSettings, Settings
from pipelines.restocking.decisions import encode_flag, encode_order
from pipelines.restocking.fold import Fold
from pipelines.restocking.policy_book import PolicyBook

OUTPUT = "key string, ledger_sequence bigint, order_id string, payload binary"
STATE = "position binary"
LEDGER = pa.schema(
    [
        ("sequence", pa.int64()),
        ("event_id", pa.string()),
        ("event_time", pa.int64()),
        ("kafka_timestamp", pa.int64()),
        ("location_id", pa.string()),
        ("sku", pa.string()),
        ("kind", pa.string()),
        ("quantity", pa.int64()),
        ("change", pa.int64()),
        ("order_id", pa.string()),
    ]
)
ROCKSDB = {
    "spark.sql.streaming.stateStore.providerClass": (
        "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
    ),
    "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
    "spark.sql.shuffle.partitions": "2",
}


def advance(
    state: bytes | None, rows: pa.Table, settings: RestockSettings, book: PolicyBook
) -> tuple[bytes, list[tuple[str, int, str | None, bytes]]]:
    """Move one series on; returns its new state and the rows (orders, and flags without an order id)."""
    fold = Fold(settings)
    fold.policies = book
    if state is not None:
        fold.restore([pickle.loads(state)])
    outcome = fold.advance(rows, NO_STATUSES, no_history)
    (position,) = fold.positions.values()
    position.recent = []
    key = f"{position.location_id}|{position.sku}"
    decided = [(key, sequence, order["order_id"], encode_order(order)) for sequence, order in outcome.orders]
    flagged = [(key, 0, None, encode_flag(flag)) for flag in outcome.flags]
    return pickle.dumps(position, protocol=5), decided + flagged


class RestockProcessor(StatefulProcessor):
    """`transformWithState`: one value state per series, fetched and stored over a socket."""

    def __init__(self, settings: RestockSettings, book: PolicyBook) -> None:
        self._settings, self._book = settings, book

    def init(self, handle: StatefulProcessorHandle) -> None:
        """Open the state."""
        self._position = handle.getValueState("position", STATE)

    def handleInputRows(self, key: Any, rows: Iterator[Row], timerValues: Any) -> Iterator[Row]:
        """A series' new ledger rows."""
        columns = zip(*rows, strict=True)
        table = pa.Table.from_arrays(
            [pa.array(column, type_) for column, type_ in zip(columns, LEDGER.types, strict=True)], schema=LEDGER
        )
        known = self._position.get()
        state, decided = advance(None if known is None else bytes(known[0]), table, self._settings, self._book)
        self._position.update((state,))
        for row in decided:
            yield Row(key=row[0], ledger_sequence=row[1], order_id=row[2], payload=row[3])

    def close(self) -> None:
        """Nothing to close."""


def start(spark: SparkSession, settings: Settings, tables: Tables, send_flags: SendFlags, api: str) -> Any:
    """Start the query; `api` is `transformWithState` or `applyInPandasWithState`."""
    for name, value in ROCKSDB.items():
        spark.conf.set(name, value)
    tables.ensure(ORDER_OUTBOX)
    pointer = published.in_force(tables, published.POLICIES)
    if pointer is None:
        raise ValueError("no policies were planted")
    book, restock = PolicyBook.load(tables, pointer.version), settings.restock
    ledger = tables.stream(spark, STOCK_MOVEMENTS, maxFilesPerTrigger="1000").select(
        *(
            F.unix_micros(name).alias(name) if name in {"event_time", "kafka_timestamp"} else F.col(name)
            for name in LEDGER.names
        )
    )
    series = ledger.groupBy("location_id", "sku")
    if api == "transformWithState":
        decided = series.transformWithState(RestockProcessor(restock, book), OUTPUT, "append", "none")
    else:

        def step(_: Any, frames: Iterable[pd.DataFrame], state: Any) -> Iterator[pd.DataFrame]:
            rows = pa.concat_tables([pa.Table.from_pandas(frame, LEDGER, preserve_index=False) for frame in frames])
            known = bytes(state.get[0]) if state.exists else None
            new, found = advance(known, rows, restock, book)
            state.update((new,))
            if found:
                yield pd.DataFrame(found, columns=["key", "ledger_sequence", "order_id", "payload"])

        decided = series.applyInPandasWithState(step, OUTPUT, STATE, "append", "NoTimeout")
    places = itertools.count(1)

    def store(frame: DataFrame, batch_id: int) -> None:
        found = frame.toArrow().sort_by("ledger_sequence").to_pylist()
        now = datetime.now(UTC)
        rows = [
            {
                "sequence": next(places),
                "order_id": row["order_id"],
                "payload": row["payload"].decode(),
                "decided_at": now,
                "ledger_sequence": row["ledger_sequence"],
            }
            for row in found
            if row["order_id"] is not None
        ]
        if rows:
            tables.append(ORDER_OUTBOX, pa.Table.from_pylist(rows, schema=ORDER_OUTBOX.schema), "restock", batch_id)
        flags = [(row["key"], row["payload"]) for row in found if row["order_id"] is None]
        if flags:
            send_flags(flags)

    return (
        decided.writeStream.queryName("restock")
        .option("checkpointLocation", settings.under_home("checkpoints", "restock"))
        .outputMode("append")
        .foreachBatch(store)
        .start()
    )
