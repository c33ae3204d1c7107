"""Which column of a delivery file is what: a mapping instead of code, for any company's file."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from pipelines.errors import UsageError

KEY, NUMBER, DATE = "key.", "number.", "date."
SCHEDULED, DELIVERED, ORDER, IDENTIFIER, PLACE = "scheduled", "delivered", "order", "identifier", "place"
UNKNOWN = "(unknown)"
_EPOCH = np.datetime64("1970-01-01", "D")


class ColumnMapping(BaseModel):
    """What the columns of a delivery file are.

    Name only what is known before the delivery: what is written down after it (a booking date, a delay code) must not
    appear, and `delivered` itself is never a feature. Roles are free words; reasons are told in them.

    Attributes:
        scheduled: promised day of delivery.
        delivered: actual day; empty where still under way.
        keys: role to column whose lateness histories are kept: supplier, carrier, mode, origin, destination, product.
        lanes: pairs of roles with a history of their own; none given: all pairs with the first two roles.
        numbers: name to column: quantity, value, weight, price. Words in them ("captured separately") become a key.
        milestones: name to column of earlier dates (ordered, quoted); one later than the prediction is not used.
        order: column of the order that several rows may belong to.
        identifier: column that names a row; none: rows are numbered.
        date_formats: tried in this order; none: ISO 8601 or real dates.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheduled: str
    delivered: str
    keys: dict[str, str] = Field(min_length=1)
    lanes: tuple[tuple[str, str], ...] | None = None
    numbers: dict[str, str] = {}
    milestones: dict[str, str] = {}
    order: str | None = None
    identifier: str | None = None
    date_formats: tuple[str, ...] = ()

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The pairs of roles that have a history."""
        if self.lanes is not None:
            return self.lanes
        roles = list(self.keys)
        return tuple(pair for pair in combinations(roles, 2) if pair[0] in roles[:2])

    def columns(self) -> tuple[str, ...]:
        """Every column that the mapping names, the delivered one included."""
        named = [self.scheduled, self.delivered, *self.keys.values(), *self.numbers.values(), *self.milestones.values()]
        return tuple(dict.fromkeys([*named, *(name for name in (self.order, self.identifier) if name is not None)]))


def canonical(frame: pd.DataFrame, mapping: ColumnMapping) -> pd.DataFrame:
    """The file's rows in one form: days as numbers since 1970 (NaN unknown), keys as text, numbers as floats.

    Raises:
        UsageError: a column is missing, the outcome is named as a feature, or a row has no scheduled day.
    """
    _refuse_bad_mapping(frame, mapping)
    columns: dict[str, object] = {
        SCHEDULED: _days(frame[mapping.scheduled], mapping),
        DELIVERED: _days(frame[mapping.delivered], mapping)
        if mapping.delivered in frame
        else np.full(len(frame), np.nan),
        ORDER: _orders(frame, mapping.order or mapping.identifier),
        IDENTIFIER: _text(frame[mapping.identifier]) if mapping.identifier else np.arange(len(frame)).astype(str),
    }
    for role, column in mapping.keys.items():
        columns[KEY + role] = _text(frame[column])
    for first, second in mapping.pairs:
        joined = columns[KEY + first], columns[KEY + second]
        columns[f"{KEY}{first} × {second}"] = np.char.add(np.char.add(joined[0], "|"), joined[1])  # type: ignore[call-overload]  # text arrays of the mapping's own roles
    for name, column in mapping.numbers.items():
        numbers = pd.to_numeric(frame[column], errors="coerce").to_numpy(float)
        columns[NUMBER + name] = numbers
        if not pd.api.types.is_numeric_dtype(frame[column]):
            words = frame[column].astype("string").str.extract(r"^\s*([A-Za-z ]+)")[0].str.strip()
            columns[f"{KEY}{name} note"] = _text(words.where(np.isnan(numbers)))
    for name, column in mapping.milestones.items():
        columns[DATE + name] = _days(frame[column], mapping)
    columns[PLACE] = _places(columns[ORDER])
    rows = pd.DataFrame(columns).reset_index(drop=True)
    if missing := int(rows[SCHEDULED].isna().sum()):
        raise UsageError(
            f"{missing} of {len(rows)} rows have no readable day in {mapping.scheduled!r}; set date_formats"
        )
    return rows


def _refuse_bad_mapping(frame: pd.DataFrame, mapping: ColumnMapping) -> None:
    features = {*mapping.keys.values(), *mapping.numbers.values(), *mapping.milestones.values()}
    if mapping.delivered in features:
        raise UsageError(f"{mapping.delivered!r} is the outcome and known only after delivery; it cannot be a feature")
    missing = [name for name in mapping.columns() if name not in frame and name != mapping.delivered]
    if missing:
        raise UsageError(f"the file has no column {', '.join(map(repr, missing))}; it has {', '.join(frame.columns)}")
    if unknown := {role for pair in mapping.pairs for role in pair} - set(mapping.keys):
        raise UsageError(f"lanes name {', '.join(sorted(unknown))}; the keys are {', '.join(mapping.keys)}")


def _days(column: pd.Series, mapping: ColumnMapping) -> np.ndarray:
    if pd.api.types.is_datetime64_any_dtype(column) or not mapping.date_formats:
        times = pd.to_datetime(column, errors="coerce", utc=True, format=None if column.dtype != object else "ISO8601")
    else:
        times = pd.Series(pd.NaT, index=column.index, dtype="datetime64[ns, UTC]")
        for form in mapping.date_formats:
            times = times.fillna(pd.to_datetime(column, errors="coerce", utc=True, format=form))
    days = (times.dt.tz_convert(None).to_numpy().astype("datetime64[D]") - _EPOCH).astype("timedelta64[D]")
    return np.where(np.isnat(days), np.nan, days.astype(float))


def _orders(frame: pd.DataFrame, column: str | None) -> np.ndarray:
    """The order of each row; a row without one is an order of its own."""
    alone = np.char.add("row ", np.arange(len(frame)).astype(str))
    return alone if column is None else np.where(frame[column].isna(), alone, _text(frame[column]))


def _places(orders: object) -> np.ndarray:
    """The number that an order's name ends with, if nothing but a number follows what is not one; else NaN."""
    digits = pd.Series(orders, dtype="string").str.extract(r"^\D*(\d{1,11})$")[0]
    return pd.to_numeric(digits).to_numpy(float, na_value=np.nan)


def _text(column: pd.Series) -> np.ndarray:
    return column.astype("string").fillna(UNKNOWN).to_numpy(dtype=str)
