"""Delta tables, read and written without Spark for small batches and through Spark for large ones.

A live micro-batch of a few hundred rows is appended by the `deltalake` package in milliseconds; a catch-up
batch goes through Spark's own writer. Both record the same transaction identifier in the table's log, so a
repeated batch is recognised whichever of the two wrote it first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Field, Schema, Transaction, write_deltalake
from deltalake.exceptions import TableNotFoundError
from pyarrow.fs import FileSystem, LocalFileSystem, SubTreeFileSystem
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from pipelines.contracts.tables import Table
from pipelines.operations.settings import Settings

HANDLE_COMMITS = 32
"""Commits that a handle follows before it is opened anew: each one that it has followed makes the next dearer
(measured: 0.2 ms a commit, for every commit)."""


def spark_schema(table: Table) -> StructType:
    """The table's schema as Spark's."""
    return from_arrow_schema(table.schema)


class Tables:
    """All of Stockcast's tables under one home, as Arrow in and out.

    Handles are cached and brought up to date before each use; reading never takes part in ownership.
    """

    def __init__(self, settings: Settings, storage_options: dict[str, str] | None = None) -> None:
        self._settings = settings
        self._options = storage_options
        self._handles: dict[str, tuple[DeltaTable, int]] = {}
        self._complete: set[str] = set()

    def uri(self, table: Table) -> str:
        """Where the table lives."""
        return self._settings.under_home("tables", *table.name.split("/"))

    def exists(self, table: Table) -> bool:
        """Whether the table has been created."""
        return table.name in self._handles or DeltaTable.is_deltatable(self.uri(table), self._options)

    def ensure(self, *tables: Table) -> None:
        """Create the tables that do not exist yet, empty; add the columns that a newer release has."""
        for table in tables:
            if self.exists(table):
                self._add_columns(table)
            else:
                DeltaTable.create(
                    self.uri(table),
                    Schema([Field.from_arrow(field) for field in table.schema]),
                    mode="ignore",
                    partition_by=list(table.partition_by) or None,
                    storage_options=self._options,
                )

    def _add_columns(self, table: Table) -> None:
        if table.name in self._complete:
            return
        there = {field.name for field in self.handle(table).schema().fields}
        if missing := [Field.from_arrow(field) for field in table.schema if field.name not in there]:
            self.handle(table).alter.add_columns(missing)
            self._handles.pop(table.name)
        self._complete.add(table.name)

    def handle(self, table: Table) -> DeltaTable:
        """The table at its newest version.

        Raises:
            TableNotFoundError: it was never created.
        """
        handle, opened_at = self._handles.get(table.name, (None, 0))
        if handle is not None:
            handle.update_incremental()
        if handle is None or handle.version() >= opened_at + HANDLE_COMMITS:
            handle = DeltaTable(self.uri(table), storage_options=self._options)
            self._handles[table.name] = (handle, handle.version())
        return handle

    def version(self, table: Table) -> int:
        """The newest version; -1 where the table does not exist."""
        try:
            return self.handle(table).version()
        except TableNotFoundError:
            return -1

    def read(
        self,
        table: Table,
        columns: Sequence[str] | None = None,
        where: pc.Expression | None = None,
        partition: str | None = None,
    ) -> pa.Table:
        """Rows of the table (empty where it does not exist), in the contract's types and column order.

        A column that a newer release added and nobody has written yet is null.

        Args:
            partition: read this value of the table's partition column alone. `where` on that column finds the same
                rows, but first looks at the statistics of every file there is: 8 times as long for 40 versions.
        """
        schema = table.schema
        if columns is not None:
            schema = pa.schema([schema.field(name) for name in columns])
        try:
            dataset = self.handle(table).to_pyarrow_dataset(
                filesystem=self._filesystem(table),
                file_pruning_predicate=None if partition is None else [(table.partition_by[0], "=", partition)],
            )
        except TableNotFoundError:
            return schema.empty_table()
        there = [name for name in schema.names if name in dataset.schema.names]
        try:
            return _completed(dataset.to_table(columns=there, filter=where), schema)
        except pa.ArrowNotImplementedError:
            # A merge stores text as `string_view`, for which Arrow's scanner has no comparisons. Merged
            # tables are small: their rows are filtered after they have been read.
            return _completed(dataset.to_table(), table.schema).filter(where).select(schema.names)

    def _filesystem(self, table: Table) -> FileSystem | None:
        """Arrow's own reader for a local table; None: the one that `deltalake` brings.

        That one is Python called from Arrow's threads. A thread still busy with it when the interpreter ends
        aborts the process: 17 of 70 short programs that read a table ended with SIGABRT, with this one none.
        """
        path = local_path(self.uri(table))
        return None if path is None else SubTreeFileSystem(str(path), LocalFileSystem())

    def largest(self, table: Table, column: str) -> Any:
        """The largest value of a column by the files' statistics, without reading a file; None for no rows."""
        try:
            actions = pa.table(self.handle(table).get_add_actions(flatten=True))
        except TableNotFoundError:
            return None
        name = f"max.{column}"
        return pc.max(actions.column(name)).as_py() if name in actions.column_names else None

    def last_transaction(self, table: Table, application: str) -> int:
        """The newest transaction version that `application` committed to the table; -1 for none."""
        try:
            version = self.handle(table).transaction_version(application)
        except TableNotFoundError:
            return -1
        return -1 if version is None else version

    def append(self, table: Table, rows: pa.Table, application: str | None = None, version: int = 0) -> bool:
        """Append rows once.

        Args:
            application, version: the transaction; skipped where the table already holds this version or a
                newer one of the application.

        Returns:
            Whether the rows were written by this call.
        """
        properties = None
        if application is not None:
            if self.last_transaction(table, application) >= version:
                return False
            properties = CommitProperties(
                app_transactions=[Transaction(app_id=application, version=version)], max_commit_retries=0
            )
        self._write(table, rows, "append", properties)
        return True

    def overwrite(self, table: Table, rows: pa.Table, predicate: str | None = None) -> None:
        """Replace the table's rows, or those that match `predicate` (SQL on constants of our own)."""
        self._write(table, rows, "overwrite", None, predicate)

    def upsert(self, table: Table, rows: pa.Table, keys: Sequence[str]) -> None:
        """Insert the rows, replacing those with equal keys."""
        if rows.num_rows == 0:
            return
        condition = " AND ".join(f"target.{key} = source.{key}" for key in keys)
        (
            self.handle(table)
            .merge(
                rows.cast(table.schema),
                predicate=condition,
                source_alias="source",
                target_alias="target",
            )
            .when_matched_update_all()
            .when_not_matched_insert_all()
            .execute()
        )

    def update_matching(self, table: Table, rows: pa.Table, keys: Sequence[str], columns: Sequence[str]) -> None:
        """Set `columns` to the given rows' values where the keys are equal; other rows stay."""
        condition = " AND ".join(f"target.{key} = source.{key}" for key in keys)
        (
            self.handle(table)
            .merge(rows, predicate=condition, source_alias="source", target_alias="target")
            .when_matched_update({column: f"source.{column}" for column in columns})
            .execute()
        )

    def delete(self, table: Table, predicate: str) -> None:
        """Delete the rows that match `predicate` (SQL on constants of our own)."""
        self.handle(table).delete(predicate)

    def _write(
        self,
        table: Table,
        rows: pa.Table,
        mode: Any,
        properties: CommitProperties | None,
        predicate: str | None = None,
    ) -> None:
        self.ensure(table)
        arguments: dict[str, Any] = {"predicate": predicate} if predicate is not None else {}
        write_deltalake(
            self.handle(table),
            rows.select(table.schema.names).cast(table.schema),
            mode=mode,
            commit_properties=properties,
            **arguments,
        )

    # Spark -----------------------------------------------------------------------------------------

    def frame(self, spark: SparkSession, table: Table) -> DataFrame:
        """The table as a batch DataFrame (empty where it does not exist)."""
        if not self.exists(table):
            return spark.createDataFrame([], spark_schema(table))
        return spark.read.format("delta").load(self.uri(table))

    def stream(self, spark: SparkSession, table: Table, **options: str) -> DataFrame:
        """The table's appended rows as a streaming DataFrame."""
        self.ensure(table)
        return spark.readStream.format("delta").options(**options).load(self.uri(table))

    def append_frame(self, table: Table, frame: DataFrame, application: str, version: int) -> None:
        """Append a DataFrame once, through Spark's writer; the transaction is looked up by Delta itself."""
        self.ensure(table)
        if self.last_transaction(table, application) >= version:
            return
        (
            frame.select(*table.schema.names)
            .write.format("delta")
            .mode("append")
            .option("txnAppId", application)
            .option("txnVersion", str(version))
            .save(self.uri(table))
        )

    def overwrite_frame(self, table: Table, frame: DataFrame, predicate: str | None = None) -> None:
        """Replace the table's rows, or those that match `predicate` (SQL on constants of our own), by a
        DataFrame's."""
        self.ensure(table)
        writer = frame.select(*table.schema.names).write.format("delta").mode("overwrite")
        if predicate is not None:
            writer = writer.option("replaceWhere", predicate)
        else:
            # A table that is replaced whole may have got other columns with a newer release.
            writer = writer.option("overwriteSchema", "true")
        writer.save(self.uri(table))


def _completed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows in a schema, null in the columns that they lack."""
    for field in schema:
        if field.name not in rows.column_names:
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    return rows.select(schema.names).cast(schema)


def concat(tables: Iterable[pa.Table], schema: pa.Schema) -> pa.Table:
    """The tables' rows one after the other; an empty table of the schema for none."""
    parts = [part for part in tables if part.num_rows]
    return pa.concat_tables(parts) if parts else schema.empty_table()


def local_path(uri: str) -> Path | None:
    """The path of a local URI; None for a remote one."""
    if uri.startswith("file://"):
        return Path(uri.removeprefix("file://"))
    return None if "://" in uri else Path(uri)
