"""Files of a training: written in pieces, named by what is in them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.contracts.tables import Table
from pipelines.io.delta import Tables


def sha256(path: str | Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def export(tables: Tables, table: Table, columns: Sequence[str], path: Path) -> str:
    """Copy columns of a table into one Parquet file, a batch at a time; returns the file's SHA-256."""
    schema = pa.schema([table.schema.field(name) for name in columns])
    dataset = tables.handle(table).to_pyarrow_dataset()
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in dataset.to_batches(columns=list(columns), batch_size=4096):
            writer.write_table(pa.Table.from_batches([batch]).cast(schema))
    return sha256(path)


def copy_package(package: str, folder: Path) -> Path:
    """Copy an importable package below `folder`, out of a wheel on the path too; returns the copy's folder."""
    copy = folder / package
    _copy_tree(files(package), copy)
    return copy


def _copy_tree(source: Traversable, target: Path) -> None:
    target.mkdir(parents=True)
    for entry in source.iterdir():
        if entry.is_file():
            (target / entry.name).write_bytes(entry.read_bytes())
        elif entry.name != "__pycache__":
            _copy_tree(entry, target / entry.name)
