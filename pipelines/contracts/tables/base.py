"""What tables are made of."""

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


def schema_of(**columns: pa.DataType) -> pa.Schema:
    """Columns in this order."""
    return pa.schema([pa.field(name, type_) for name, type_ in columns.items()])


def text(names: str) -> dict[str, pa.DataType]:
    """Columns of text, their names separated by spaces."""
    return {name: pa.string() for name in names.split()}


ORIGIN: dict[str, pa.DataType] = {
    "topic": pa.string(),
    "partition": pa.int32(),
    "offset": pa.int64(),
}
RECORDED: dict[str, pa.DataType] = {
    **ORIGIN,
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
