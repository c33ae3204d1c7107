"""Reading tables with a condition, however their rows were written."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import SUPPLIERS
from pipelines.io.delta import Tables
from pipelines.operations.settings import Settings


def test_merged_rows_are_found_by_a_condition_on_text(tables: Tables) -> None:
    """Given several rows merged into one file, one is read by a column that is not asked for."""
    rows = [{"supplier_id": name, "name": name.upper(), "region": "north"} for name in ("a", "b", "c")]
    tables.ensure(SUPPLIERS)
    tables.upsert(SUPPLIERS, pa.Table.from_pylist(rows, schema=SUPPLIERS.schema), keys=("supplier_id",))

    found = tables.read(SUPPLIERS, columns=["name"], where=pc.field("supplier_id") == "b")

    assert found.to_pylist() == [{"name": "B"}]


def test_a_table_gets_the_columns_of_a_newer_release_when_it_is_next_written(settings: Settings) -> None:
    # given a table of an older release, with a row in it
    older, newer = Tables(settings), Tables(settings)
    row = {**dict.fromkeys(SUPPLIERS.schema.names), "supplier_id": "a", "name": "A", "region": "north"}
    older.append(SUPPLIERS, pa.Table.from_pylist([row], schema=SUPPLIERS.schema))
    table = replace(SUPPLIERS, schema=SUPPLIERS.schema.append(pa.field("score", pa.float64())))
    # when a newer one reads it, then the column is null
    assert newer.read(table).to_pylist() == [{**row, "score": None}]
    # when it writes
    newer.append(table, pa.Table.from_pylist([{**row, "supplier_id": "b", "score": 0.5}], schema=table.schema))
    # then both rows are there, and the older release goes on reading
    assert newer.read(table).sort_by("supplier_id").column("score").to_pylist() == [None, 0.5]
    assert sorted(older.read(SUPPLIERS).column("supplier_id").to_pylist()) == ["a", "b"]
