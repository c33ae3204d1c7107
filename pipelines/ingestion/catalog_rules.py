"""Judging a catalog as a whole: every value by its column's rule, keys, references; all problems at once. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import available_timezones

import numpy as np
import pandas as pd
import pyarrow as pa

from pipelines.contracts.events import IDENTIFIER
from pipelines.contracts.tables import CATALOG_TABLES, LOCATION_SCOPE, LOCATIONS, PRODUCTS, SOURCING, SUPPLIERS, Table
from pipelines.errors import UsageError
from pipelines.inventory.supplier_terms import read_closed_days, read_cut_off, read_quantity_breaks, read_weekdays

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
        return f"{place}: {self.column} is {shown(self.value)}; {self.message}"


@dataclass(frozen=True)
class _Column:
    """A column's rule. `check` tells the acceptable values; `default` stands for an absent or empty one."""

    name: str
    read: Callable[[pd.Series[Any]], tuple[pd.Series[Any], pd.Series[Any]]]
    expected: str
    check: Check | None = None
    optional: bool = False
    default: object = None


def shown(value: object) -> str:
    """A value as a problem quotes it."""
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
                expected=f"expected a region's name, and not {GLOBAL_SCOPE!r}, which names the whole chain, nor one "
                f"that begins with {LOCATION_SCOPE!r}, as a location's scope does",
                check=lambda regions: (
                    regions.map(lambda name: not str(name).startswith(LOCATION_SCOPE)) & (regions != GLOBAL_SCOPE)
                ),
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


def short_name(table: str) -> str:
    """A table's name without its layer."""
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
        name = short_name(table.name)
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
            problems.append(Problem(name, f"unknown column {shown(column)}; expected only {', '.join(known)}"))
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
        target = frames.get(short_name(referred))
        sides = (frame, target)
        if target is None or any(side is None or list(side.columns).count(column) != 1 for side in sides):
            continue
        known = set(target[column].dropna().map(str))
        raw = frame[column].astype(object).reset_index(drop=True)
        unknown = raw[~_absent(raw) & ~raw.map(str).isin(known)]
        problems += [
            Problem(table, f"unknown; no such row in {short_name(referred)}", int(str(row)) + 1, column, value)
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
