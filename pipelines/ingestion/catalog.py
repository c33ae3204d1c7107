"""The catalog: products, locations, suppliers and who supplies what. Read, judged as a whole, put in force.

A catalog is taken or refused as one: any problem in any of the four tables leaves the catalog in force as it
was, and all problems are listed at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from pipelines.contracts.events import IDENTIFIER
from pipelines.contracts.tables import CATALOG, CATALOG_TABLES, LOCATIONS, PRODUCTS, SOURCING, SUPPLIERS, Table
from pipelines.errors import CatalogError, UsageError
from pipelines.inventory.supplier_terms import read_closed_days, read_cut_off, read_quantity_breaks, read_weekdays
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.operations.settings import Settings

log = logging.getLogger("stockcast.catalog")

LISTED_PROBLEMS = 100
LARGEST_INTEGER = 2**53
GLOBAL_SCOPE = "global"

Check = Callable[["pd.Series[Any]"], "pd.Series[Any]"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a catalog. `row` counts from 1, the header not included."""

    table: str
    message: str
    row: int | None = None
    column: str | None = None
    value: object = None

    def __str__(self) -> str:
        place = self.table if self.row is None else f"{self.table} row {self.row}"
        if self.column is None:
            return f"{place}: {self.message}"
        return f"{place}: {self.column} is {_shown(self.value)}; {self.message}"


@dataclass(frozen=True)
class Catalog:
    """The catalog in force, as Arrow tables in the contract's schemas."""

    products: pa.Table
    locations: pa.Table
    suppliers: pa.Table
    sourcing: pa.Table

    @cached_property
    def skus(self) -> frozenset[str]:
        """Every known product."""
        return frozenset(self.products["sku"].to_pylist())

    @cached_property
    def location_ids(self) -> frozenset[str]:
        """Every known store and warehouse."""
        return frozenset(self.locations["location_id"].to_pylist())

    @property
    def empty(self) -> bool:
        """Whether no catalog was ever loaded."""
        return not self.skus and not self.location_ids


@dataclass(frozen=True)
class _Column:
    """A column's rule. `check` tells the acceptable values; `default` stands for an absent or empty one."""

    name: str
    read: Callable[[pd.Series[Any]], tuple[pd.Series[Any], pd.Series[Any]]]
    expected: str
    check: Check | None = None
    optional: bool = False
    default: object = None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


# How values are read: a column of raw values gives (values, whether each is acceptable). ------------------


def _texts(raw: pd.Series[Any]) -> tuple[pd.Series[Any], pd.Series[Any]]:
    """Text as it stands; whole numbers (a Parquet file of numbered items) by their digits."""
    whole = raw.map(lambda value: isinstance(value, (int, np.integer)) and not isinstance(value, bool))
    values = raw.where(~whole, raw.map(str))
    fine = values.map(lambda value: isinstance(value, str) and value.strip() == value and value.isprintable())
    return values, fine.astype(bool)


def _identifiers(raw: pd.Series[Any]) -> tuple[pd.Series[Any], pd.Series[Any]]:
    values, fine = _texts(raw)
    return values, fine & values.map(lambda value: IDENTIFIER.fullmatch(str(value)) is not None).astype(bool)


def _numbers(raw: pd.Series[Any]) -> tuple[pd.Series[Any], pd.Series[Any]]:
    flags = raw.map(lambda value: isinstance(value, (bool, np.bool_)))
    values = pd.to_numeric(raw.where(~flags.astype(bool)), errors="coerce").astype("float64")
    return values, pd.Series(np.isfinite(values), index=raw.index)


def _integers(raw: pd.Series[Any]) -> tuple[pd.Series[Any], pd.Series[Any]]:
    values, fine = _numbers(raw)
    return values, fine & (values % 1 == 0) & (values.abs() <= LARGEST_INTEGER)


# The rules. -----------------------------------------------------------------------------------------------


def _within(low: float, high: float) -> Check:
    return lambda values: values.between(low, high)


def _positive(values: pd.Series[Any]) -> pd.Series[Any]:
    return values > 0


def _not_negative(values: pd.Series[Any]) -> pd.Series[Any]:
    return values >= 0


def _identifier(name: str) -> _Column:
    return _Column(name, _identifiers, f"expected an identifier matching {IDENTIFIER.pattern}")


def _text(name: str, **rule: Any) -> _Column:
    return _Column(name, _texts, rule.pop("expected", "expected text without surrounding space"), **rule)


def _cost(name: str, **rule: Any) -> _Column:
    return _Column(name, _numbers, "expected a number of at least 0", _not_negative, **rule)


def _terms(name: str, example: str, read: Callable[[str], object]) -> _Column:
    """Text in a small notation of its own, which `read` understands."""

    def readable(value: str) -> bool:
        try:
            read(value)
        except UsageError:
            return False
        return True

    return _text(
        name,
        expected=f"expected {example}",
        check=lambda values: values.map(readable),
        optional=True,
    )


def _rules(default_service_level: float) -> dict[str, tuple[_Column, ...]]:
    zones = available_timezones()
    return {
        PRODUCTS.name: (
            _identifier("sku"),
            _text("name"),
            _text("category"),
            _cost("unit_cost"),
            _cost("unit_price"),
            _Column("shelf_life_days", _integers, "expected a whole number above 0", _positive, optional=True),
            _text("substitute_group", optional=True),
        ),
        LOCATIONS.name: (
            _identifier("location_id"),
            _text(
                "kind",
                expected="expected store or warehouse",
                check=lambda kinds: kinds.isin(["store", "warehouse"]),
            ),
            _text(
                "region",
                expected=f"expected a region's name, and not {GLOBAL_SCOPE!r}, which names the whole chain",
                check=lambda regions: regions != GLOBAL_SCOPE,
            ),
            _text(
                "timezone",
                expected="expected an IANA time zone such as Europe/Madrid",
                check=lambda names: names.isin(zones),
            ),
            _Column("latitude", _numbers, "expected degrees from -90 to 90", _within(-90, 90)),
            _Column("longitude", _numbers, "expected degrees from -180 to 180", _within(-180, 180)),
        ),
        SUPPLIERS.name: (
            _identifier("supplier_id"),
            _text("name"),
            _text("region"),
            _terms("order_weekdays", "days such as Mon Wed Fri", read_weekdays),
            _terms("order_cut_off", "a time of day such as 14:00", read_cut_off),
            _terms("closed_days", "dates such as 2026-12-25 2026-12-26", read_closed_days),
            _text(
                "timezone",
                expected="expected an IANA time zone such as Europe/Madrid",
                check=lambda names: names.isin(zones),
                optional=True,
            ),
        ),
        SOURCING.name: (
            _identifier("location_id"),
            _identifier("sku"),
            _identifier("supplier_id"),
            _Column("lead_time_days", _numbers, "expected days above 0", _positive),
            _cost("lead_time_std_days", optional=True, default=0.0),
            _Column("pack_size", _integers, "expected a whole number above 0", _positive),
            _Column(
                "minimum_order",
                _integers,
                "expected a whole number of at least 0",
                _not_negative,
                optional=True,
                default=1,
            ),
            _cost("order_cost", optional=True, default=0.0),
            _cost("holding_cost_rate", optional=True, default=0.25),
            _Column(
                "service_level",
                _numbers,
                "expected a probability between 0 and 1, both excluded",
                lambda levels: (levels > 0) & (levels < 1),
                optional=True,
                default=default_service_level,
            ),
            _cost("review_days", optional=True, default=1.0),
            _Column("maximum_order", _integers, "expected a whole number above 0", _positive, optional=True),
            _terms("quantity_breaks", "units:price pairs such as 100:9.50 500:9.00", read_quantity_breaks),
        ),
    }


_KEYS: dict[str, tuple[str, ...]] = {
    PRODUCTS.name: ("sku",),
    LOCATIONS.name: ("location_id",),
    SUPPLIERS.name: ("supplier_id",),
    SOURCING.name: ("location_id", "sku"),
}
"""What may occur once only; a product has one supplier per location."""

_REFERENCES = {"sku": PRODUCTS.name, "location_id": LOCATIONS.name, "supplier_id": SUPPLIERS.name}
_MUST_HAVE_ROWS = (PRODUCTS.name, LOCATIONS.name)


def _short(table: str) -> str:
    return table.rpartition("/")[2]


# Validation. ----------------------------------------------------------------------------------------------


def validate_catalog(
    frames: Mapping[str, pd.DataFrame], default_service_level: float
) -> tuple[dict[str, pa.Table], list[Problem]]:
    """Judge a whole catalog.

    Args:
        frames: by short table name (`products`, `locations`, `suppliers`, `sourcing`), with values as they
            were read: CSV gives text, Parquet its own types. Empty text and nulls are absent values.
        default_service_level: for sourcing rows that give none; a probability.

    Returns:
        The four Arrow tables by short name in the contract's schemas, and the problems found; the tables
        are complete only where there are no problems.
    """
    found: dict[str, pa.Table] = {}
    problems: list[Problem] = []
    rules = _rules(default_service_level)
    for table in CATALOG_TABLES:
        name = _short(table.name)
        frame = frames.get(name)
        if frame is None:
            problems.append(Problem(name, f"missing; expected a file {name}.csv or {name}.parquet"))
            continue
        values, bad = _validate_table(name, frame, rules[table.name])
        bad += _duplicates(name, frame, _KEYS[table.name])
        if table.name == SOURCING.name:
            bad += _unknown_references(name, frame, frames)
        problems += bad
        if not bad:
            found[name] = _arrow(table, values)
    return found, problems


def _validate_table(
    name: str, frame: pd.DataFrame, rules: Sequence[_Column]
) -> tuple[dict[str, pd.Series[Any]], list[Problem]]:
    problems: list[Problem] = []
    known = [rule.name for rule in rules]
    columns = [str(column) for column in frame.columns]
    for column in dict.fromkeys(columns):
        if column not in known:
            problems.append(Problem(name, f"unknown column {_shown(column)}; expected only {', '.join(known)}"))
        elif columns.count(column) > 1:
            problems.append(Problem(name, f"column {column} occurs {columns.count(column)} times"))
    if problems and len(set(columns)) < len(columns):
        return {}, problems
    if f"catalog/{name}" in _MUST_HAVE_ROWS and frame.empty:
        problems.append(Problem(name, "has no rows; expected at least one"))
    values: dict[str, pd.Series[Any]] = {}
    for rule in rules:
        if rule.name in columns:
            values[rule.name], bad = _validate_column(name, frame[rule.name], rule)
            problems += bad
        elif rule.optional:
            values[rule.name] = pd.Series([rule.default] * len(frame), dtype=object)
        else:
            problems.append(Problem(name, f"column {rule.name} is missing; found {', '.join(columns) or 'none'}"))
    return values, problems


def _absent(raw: pd.Series[Any]) -> pd.Series[Any]:
    return raw.isna() | raw.map(lambda value: isinstance(value, str) and not value.strip()).astype(bool)


def _validate_column(table: str, column: pd.Series[Any], rule: _Column) -> tuple[pd.Series[Any], list[Problem]]:
    raw = column.astype(object).reset_index(drop=True)
    absent = _absent(raw)
    given = raw[~absent]
    values, fine = rule.read(given)
    if rule.check is not None and len(values):
        fine = fine & rule.check(values.where(fine)).fillna(False).astype(bool)
    problems = [
        Problem(table, rule.expected, int(str(row)) + 1, rule.name, value) for row, value in given[~fine].items()
    ]
    if not rule.optional:
        problems += [
            Problem(table, f"empty; {rule.expected}", int(str(row)) + 1, rule.name, value)
            for row, value in raw[absent].items()
        ]
    filled = pd.Series([rule.default] * len(raw), dtype=object)
    filled[given.index] = values
    return filled, sorted(problems, key=lambda problem: problem.row or 0)


def _duplicates(table: str, frame: pd.DataFrame, keys: Sequence[str]) -> list[Problem]:
    if any(list(frame.columns).count(key) != 1 for key in keys):
        return []
    rows = frame[list(keys)].astype(object).reset_index(drop=True)
    rows = rows[~rows.apply(_absent).any(axis=1)].map(str)
    repeated = rows.duplicated(keep="first")
    first = {key: int(str(row)) + 1 for row, key in rows[~repeated].apply(tuple, axis=1).items()}
    return [
        Problem(table, f"duplicate of row {first[tuple(values)]}", int(str(row)) + 1, "|".join(keys), "|".join(values))
        for row, values in zip(rows.index[repeated], rows[repeated].to_numpy(), strict=True)
    ]


def _unknown_references(table: str, frame: pd.DataFrame, frames: Mapping[str, pd.DataFrame]) -> list[Problem]:
    problems: list[Problem] = []
    for column, referred in _REFERENCES.items():
        target = frames.get(_short(referred))
        sides = (frame, target)
        if target is None or any(side is None or list(side.columns).count(column) != 1 for side in sides):
            continue
        known = set(target[column].dropna().map(str))
        raw = frame[column].astype(object).reset_index(drop=True)
        unknown = raw[~_absent(raw) & ~raw.map(str).isin(known)]
        problems += [
            Problem(table, f"unknown; no such row in {_short(referred)}", int(str(row)) + 1, column, value)
            for row, value in unknown.items()
        ]
    return problems


def _arrow(table: Table, values: Mapping[str, pd.Series[Any]]) -> pa.Table:
    columns = []
    for field in table.schema:
        cells = [None if pd.isna(value) else value for value in values[field.name]]
        if pa.types.is_integer(field.type):
            cells = [None if value is None else int(value) for value in cells]
        columns.append(pa.array(cells, type=field.type))
    return pa.table(columns, schema=table.schema)


# Files and tables. ----------------------------------------------------------------------------------------


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
        name = _short(table.name)
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
                _short(table.name),
                f"expected {row.expected_columns} values, found {row.actual_columns}: {_shown(row.text)}",
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
            tables.overwrite(table, found[_short(table.name)])
    return {name: rows.num_rows for name, rows in found.items()}


def _listing(folder: Path, problems: Sequence[Problem]) -> str:
    lines = [f"the catalog in {folder} has {len(problems)} problem(s); the catalog in force stays as it is"]
    lines += [f"  {problem}" for problem in problems[:LISTED_PROBLEMS]]
    if len(problems) > LISTED_PROBLEMS:
        lines.append(f"  ... and {len(problems) - LISTED_PROBLEMS} more")
    return "\n".join(lines)


def read_catalog(tables: Tables) -> Catalog:
    """The catalog in force; `Catalog.empty` where none was loaded."""
    return Catalog(*(tables.read(table) for table in CATALOG_TABLES))
