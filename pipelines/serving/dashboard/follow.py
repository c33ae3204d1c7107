"""Following Delta tables by their versions: what is new in an append-only table, and whether another has moved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import Table
from pipelines.io.delta import Tables


def any_of(column: str, values: Iterable[str]) -> pc.Expression:
    """Rows whose text is one of the values; none of them for no values."""
    return pc.field(column).isin(pa.array(sorted(values), pa.string()))


class Moved:
    """Whether a table has a newer version than at the last look."""

    def __init__(self, tables: Tables, table: Table) -> None:
        self._tables = tables
        self._table = table
        self._version = -2

    def look(self) -> bool:
        """True where there is a version that was not seen yet (at the first look always)."""
        version = self._tables.version(self._table)
        moved, self._version = version != self._version, version
        return moved


class Tail:
    """The rows that an append-only table gained since the last look, by a column that only grows.

    Args:
        column: `sequence`, or another one that grows with every commit.
        after: rows up to this value are not new.
    """

    def __init__(
        self, tables: Tables, table: Table, column: str, columns: Sequence[str], after: pa.Scalar | None = None
    ) -> None:
        self._tables = tables
        self._table = table
        self._column = column
        self._columns = tuple(columns)
        self._after = after
        self._moved = Moved(tables, table)

    def look(self) -> pa.Table | None:
        """New rows; None where there are none."""
        if not self._moved.look():
            return None
        where = None if self._after is None else pc.field(self._column) > self._after
        rows = self._tables.read(self._table, (*dict.fromkeys((self._column, *self._columns)),), where)
        if rows.num_rows == 0:
            return None
        self._after = pc.max(rows.column(self._column))
        return rows
