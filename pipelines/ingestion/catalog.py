"""The catalog: products, locations, suppliers and who supplies what. Read, judged as a whole, put in force.

A catalog is taken or refused as one: any problem in any of the four tables leaves the catalog in force as it
was, and all problems are listed at once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from pipelines.contracts.tables import CATALOG, CATALOG_TABLES, Table
from pipelines.errors import CatalogError
from pipelines.ingestion.catalog_rules import Problem, short_name, shown, validate_catalog
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.operations.settings import Settings

log = logging.getLogger("stockcast.catalog")

LISTED_PROBLEMS = 100


def read_sources(folder: Path) -> tuple[dict[str, pd.DataFrame], list[Problem]]:
    """The folder's files, one per table, and what could not be read.

    Raises:
        CatalogError: there is no such folder.
    """
    if not folder.is_dir():
        raise CatalogError(f"--source {folder}: expected a folder with products.csv (or .parquet) and so on")
    frames: dict[str, pd.DataFrame] = {}
    problems: list[Problem] = []
    for table in CATALOG_TABLES:
        name = short_name(table.name)
        paths = [path for path in (folder / f"{name}.csv", folder / f"{name}.parquet") if path.exists()]
        if len(paths) > 1:
            problems.append(Problem(name, f"both {paths[0].name} and {paths[1].name} exist; keep one"))
        for path in paths[:1]:
            try:
                frame, bad = _read_csv(path, table) if path.suffix == ".csv" else (_read_parquet(path), [])
            except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
                frame, bad = pd.DataFrame(), [Problem(name, f"{path.name} cannot be read: {error}")]
            frames[name] = frame
            problems += bad
    return frames, problems


def _read_csv(path: Path, table: Table) -> tuple[pd.DataFrame, list[Problem]]:
    problems: list[Problem] = []

    def note(row: Any) -> str:
        number = None if row.number is None else row.number - 1
        problems.append(
            Problem(
                short_name(table.name),
                f"expected {row.expected_columns} values, found {row.actual_columns}: {shown(row.text)}",
                number,
            )
        )
        return "skip"

    content = pa.csv.read_csv(
        path,
        read_options=pa.csv.ReadOptions(use_threads=False),
        parse_options=pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
        convert_options=pa.csv.ConvertOptions(
            column_types={field.name: pa.string() for field in table.schema}, strings_can_be_null=False
        ),
    )
    return _frame(content), problems


def _read_parquet(path: Path) -> pd.DataFrame:
    return _frame(pa.parquet.read_table(path))


def _frame(content: pa.Table) -> pd.DataFrame:
    columns = [pd.Series(column.to_pylist(), dtype=object) for column in content.columns]
    frame = pd.concat(columns, axis=1) if columns else pd.DataFrame()
    frame.columns = pd.Index(content.column_names)
    return frame


def load_catalog(settings: Settings, tables: Tables, folder: Path) -> dict[str, int]:
    """Validate the folder's files and put them in force as the catalog.

    Returns:
        Rows per table.

    Raises:
        CatalogError: lists the problems; the catalog in force stays.
        OwnershipError: another process is loading a catalog.
    """
    frames, unreadable = read_sources(folder)
    found, problems = validate_catalog(frames, settings.planning.default_service_level)
    known_bad = {problem.table for problem in unreadable if problem.row is None}
    problems = unreadable + [problem for problem in problems if problem.table not in known_bad]
    if problems:
        raise CatalogError(_listing(folder, problems))
    with ownership(settings, CATALOG):
        for table in CATALOG_TABLES:
            tables.overwrite(table, found[short_name(table.name)])
    return {name: rows.num_rows for name, rows in found.items()}


def _listing(folder: Path, problems: Sequence[Problem]) -> str:
    lines = [f"the catalog in {folder} has {len(problems)} problem(s); the catalog in force stays as it is"]
    lines += [f"  {problem}" for problem in problems[:LISTED_PROBLEMS]]
    if len(problems) > LISTED_PROBLEMS:
        lines.append(f"  ... and {len(problems) - LISTED_PROBLEMS} more")
    return "\n".join(lines)
