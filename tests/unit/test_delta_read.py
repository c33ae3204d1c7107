"""Reading tables with a condition, however their rows were written."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import SUPPLIERS
from pipelines.io.delta import Tables


def test_merged_rows_are_found_by_a_condition_on_text(tables: Tables) -> None:
    """Given several rows merged into one file, one is read by a column that is not asked for."""
    rows = [{"supplier_id": name, "name": name.upper(), "region": "north"} for name in ("a", "b", "c")]
    tables.ensure(SUPPLIERS)
    tables.upsert(SUPPLIERS, pa.Table.from_pylist(rows, schema=SUPPLIERS.schema), keys=("supplier_id",))

    found = tables.read(SUPPLIERS, columns=["name"], where=pc.field("supplier_id") == "b")

    assert found.to_pylist() == [{"name": "B"}]
