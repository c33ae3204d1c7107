"""The file of a training's series: parameters and scores, any series found without reading the others."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.errors import PublishingError
from pipelines.forecasting.files import sha256
from pipelines.forecasting.series import Integers

ROWS_PER_GROUP = 64
"""Series that are read together. Measured on 100,000 series: one series takes 0.25 ms with groups of 64, 0.6 ms with
256, 1.6 ms with 1,024; the file grows by a fifth from the last to the first."""
_BISECTED = 16
"""Up to so many series are looked up one by one; more of them by one hash join."""


def write_series(batches: Iterable[pa.RecordBatch], schema: pa.Schema, path: Path) -> int:
    """Write the batches as one file of small row groups, in the order they come; returns the number of series.

    Args:
        batches: with the columns `location_id` and `sku`; one batch is held at a time.
    """
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for rows in _of_whole_groups(batches, schema):
            writer.write_table(rows, row_group_size=ROWS_PER_GROUP)
            count += rows.num_rows
    return count


class SeriesFile:
    """A file written by `write_series`, opened by its keys alone.

    Opening reads two columns (100,000 series: 0.2 s and about 10 MB); parameters are read from the memory-mapped
    file when they are asked for and not kept. Several threads may read at once.
    """

    def __init__(self, path: str | Path, expected_sha256: str | None = None) -> None:
        """Open the file.

        Raises:
            PublishingError: its SHA-256 is not the expected one.
        """
        if expected_sha256 is not None and (found := sha256(path)) != expected_sha256:
            raise PublishingError(
                f"the parameters of this model have SHA-256 {found}, expected {expected_sha256}: the file was changed "
                "or damaged; load another version, or train again"
            )
        self._file = pq.ParquetFile(path, memory_map=True)
        self._lock = threading.Lock()
        metadata = self._file.metadata
        groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(groups)]).astype(np.int64)
        keys = self._file.read(columns=["location_id", "sku"])
        self._keys = _keys(keys.column("location_id"), keys.column("sku"))
        self._order = pc.sort_indices(self._keys).to_numpy()

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def columns(self) -> list[str]:
        """Names of the file's columns."""
        return list(self._file.schema_arrow.names)

    def find(self, location_ids: Sequence[str], skus: Sequence[str]) -> Integers:
        """(n,) the row of each series.

        Raises:
            KeyError: a series that is not in the file; names it.
        """
        wanted = [f"{location_id}|{sku}" for location_id, sku in zip(location_ids, skus, strict=True)]
        if len(wanted) <= _BISECTED:
            rows = np.array([self._row(key) for key in wanted], np.int64)
        else:
            found = pc.index_in(pa.array(wanted, pa.string()), value_set=self._keys)
            rows = np.asarray(found.fill_null(-1).to_numpy(), np.int64)
        if len(missing := np.flatnonzero(rows < 0)):
            others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise KeyError(f"{wanted[missing[0]]}{others} is not among the {len(self)} series of this model")
        return rows

    def read(self, rows: Integers, columns: Sequence[str]) -> pa.Table:
        """The columns of the named rows, in their order; each row group that holds one of them is read once."""
        if not len(rows):
            return pa.schema([self._file.schema_arrow.field(name) for name in columns]).empty_table()
        group = np.searchsorted(self._starts, rows, side="right") - 1
        needed, position = np.unique(group, return_inverse=True)
        with self._lock:
            read = self._file.read_row_groups(needed.tolist(), columns=list(columns), use_threads=len(needed) > 1)
        sizes = self._starts[needed + 1] - self._starts[needed]
        firsts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        return read.take(pa.array(firsts[position] + rows - self._starts[group]))

    def parameters(self, location_id: str, sku: str) -> str:
        """The JSON parameters of one series.

        Raises:
            KeyError: it is not in the file.
        """
        return cast("str", self.read(self.find([location_id], [sku]), ["parameters"]).column("parameters")[0].as_py())

    def one_of_each_model(self) -> Iterator[tuple[str, str]]:
        """Name and parameters of the first series of each model that forecast any."""
        models = self._file.read(columns=["model"]).column("model").combine_chunks()
        for name in sorted(pc.unique(models).drop_null().to_pylist()):
            first = np.array([pc.index(models, name).as_py()], np.int64)
            parameters = cast("str", self.read(first, ["parameters"]).column("parameters")[0].as_py())
            if parameters != "{}":
                yield name, parameters

    def _row(self, key: str) -> int:
        place = bisect_left(range(len(self)), key, key=lambda at: self._keys[int(self._order[at])].as_py())
        if place < len(self) and self._keys[row := int(self._order[place])].as_py() == key:
            return row
        return -1


def _keys(location_id: pa.ChunkedArray, sku: pa.ChunkedArray) -> pa.StringArray:
    joined = pc.binary_join_element_wise(location_id, sku, "|")
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def _of_whole_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """The same rows in tables of whole row groups, but for the last."""
    rest = schema.empty_table()
    for batch in batches:
        rows = pa.concat_tables([rest, pa.Table.from_batches([batch]).select(schema.names).cast(schema)])
        whole = rows.num_rows - rows.num_rows % ROWS_PER_GROUP
        if whole:
            yield rows.slice(0, whole).combine_chunks()
        rest = rows.slice(whole)
    if rest.num_rows:
        yield rest.combine_chunks()
