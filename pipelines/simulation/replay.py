"""Replay of real sales: rows of a CSV or Parquet file become `pos.sales` events, each with a repeatable id."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import orjson
import pandas as pd

from pipelines.contracts import topics
from pipelines.contracts.events import IDENTIFIER
from pipelines.errors import UsageError
from pipelines.operations.settings import Settings
from pipelines.simulation.messages import Message, time_text
from pipelines.simulation.plan import moment
from pipelines.simulation.sending import Advance, Pace, Progress, no_progress, open_sender

_COLUMNS = {
    "time": ("timestamp", "date"),
    "location_id": ("location_id", "store"),
    "sku": ("sku", "item"),
    "quantity": ("quantity", "sales"),
}
_NOON = pd.Timedelta(hours=12)
_ROWS_SHOWN = 20
_REPORT_EVERY = 2000


@dataclass(frozen=True)
class ReplayOptions:
    """Which part of the file to send, and how.

    Attributes:
        first, last: UTC days, both inclusive; None: no bound.
        locations, skus: only these; empty: all.
        rate: events a second; None: as fast as possible.
        opening_stock: send one count of this level per series, a second before its first event.
    """

    first: date | None = None
    last: date | None = None
    locations: tuple[str, ...] = ()
    skus: tuple[str, ...] = ()
    rate: float | None = None
    opening_stock: int | None = None

    def __post_init__(self) -> None:
        if self.first is not None and self.last is not None and self.first > self.last:
            raise UsageError(f"from {self.first} is after to {self.last}; swap them")
        if self.rate is not None and self.rate <= 0:
            raise UsageError(f"rate is {self.rate}; expected events per second above 0")
        if self.opening_stock is not None and self.opening_stock < 0:
            raise UsageError(f"opening stock is {self.opening_stock}; expected 0 or more units")


@dataclass(frozen=True)
class ReplaySummary:
    """What a replay sent: rows chosen from the file, events by kind, series, and the span of their times."""

    rows: int
    sales: int
    returns: int
    counts: int
    series: int
    first: datetime | None
    last: datetime | None

    @property
    def events(self) -> int:
        """All events sent."""
        return self.sales + self.returns + self.counts

    def __str__(self) -> str:
        span = f", {self.first:%Y-%m-%d} to {self.last:%Y-%m-%d}" if self.first and self.last else ""
        return (
            f"{self.events:,} events from {self.rows:,} rows of {self.series:,} series{span}: {self.sales:,} "
            f"sales, {self.returns:,} returns, {self.counts:,} opening counts"
        )


def replay_file(
    settings: Settings,
    path: Path,
    options: ReplayOptions | None = None,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> ReplaySummary:
    """Send a file's sales to Kafka in order of time. Replaying twice sends the same event ids.

    Raises:
        UsageError: the file cannot be read, lacks columns or has bad rows; nothing was sent.
        BrokerError: the broker cannot be reached or did not take everything.
    """
    options = options or ReplayOptions()
    sales = select(read_sales(path), options)
    sent = dict.fromkeys(("sale", "return", "count"), 0)
    total = int((sales["quantity"] != 0).sum())
    pace = Pace(options.rate)
    with open_sender(settings) as sender:
        for kind, message in events(sales, options.opening_stock):
            if stop is not None and stop.is_set():
                raise KeyboardInterrupt
            pace.wait()
            sender.send(message.topic, message.key, message.value)
            sent[kind] += 1
            if kind != "count" and (done := sent["sale"] + sent["return"]) % _REPORT_EVERY == 0:
                progress(Advance("replay", done, moment(message.event_at), done / total))
        sender.flush()
    times = sales["time_ms"]
    return ReplaySummary(
        rows=len(sales),
        sales=sent["sale"],
        returns=sent["return"],
        counts=sent["count"],
        series=sales[["location_id", "sku"]].drop_duplicates().shape[0],
        first=moment(int(times.min())) if len(times) else None,
        last=moment(int(times.max())) if len(times) else None,
    )


def read_sales(path: Path) -> pd.DataFrame:
    """A file's sales: location_id, sku (text), quantity (signed), time_ms (milliseconds since 1970).

    Accepted columns: `date` (a day: 12:00 UTC) or `timestamp` (without a zone: UTC), `store`/`location_id`,
    `item`/`sku`, `sales`/`quantity`.

    Raises:
        UsageError: the file cannot be read, lacks columns or has bad rows, which are listed.
    """
    raw = _read(path)
    names = _find_columns(raw, path)
    text = {name: _as_text(raw[names[name]]) for name in ("location_id", "sku")}
    quantity = pd.to_numeric(raw[names["quantity"]], errors="coerce")
    time = _times(raw[names["time"]], is_day=names["time"] == "date")
    problems: list[tuple[int, str]] = []

    def complain(wrong: pd.Series, column: str, expected: str) -> None:
        found = raw.loc[wrong, names[column]]
        problems.extend((int(row), f"{names[column]} {value!r}: {expected}") for row, value in found.items())

    for name, values in text.items():
        complain(~values.map(_is_identifier, na_action=None), name, "expected an identifier")
    complain(~quantity.map(_is_whole), "quantity", "expected a whole number")
    complain(time.isna(), "time", "expected a date or a time")
    sales = pd.DataFrame({**text, "quantity": quantity, "time": time})
    repeated = sales.duplicated(["location_id", "sku", "time"]) & sales.notna().all(axis=1)
    complain(repeated, "time", "a second row of this series and time; add them up first")
    complain(time > pd.Timestamp.now("UTC"), "time", "is still to come")
    if problems:
        raise UsageError(_listing(path, problems, first_row=2 if _is_csv(path) else 0))
    milliseconds = sales.pop("time").dt.as_unit("ms").astype(np.int64)
    return sales.assign(quantity=quantity.astype(np.int64), time_ms=milliseconds)


def select(sales: pd.DataFrame, options: ReplayOptions) -> pd.DataFrame:
    """The rows that the options ask for, in order of time."""
    chosen = pd.Series(True, index=sales.index)
    if options.locations:
        chosen &= sales["location_id"].isin(options.locations)
    if options.skus:
        chosen &= sales["sku"].isin(options.skus)
    if options.first is not None:
        chosen &= sales["time_ms"] >= _midnight_ms(options.first)
    if options.last is not None:
        chosen &= sales["time_ms"] < _midnight_ms(options.last) + 86_400_000
    return sales[chosen].sort_values(["time_ms", "location_id", "sku"], kind="stable")


def events(sales: pd.DataFrame, opening_stock: int | None = None) -> Iterator[tuple[str, Message]]:
    """Sorted sales as (kind, message): a sale per positive row, a return per negative one, none for zero."""
    opened: set[tuple[str, str]] = set()
    rows = sales[sales["quantity"] != 0]
    columns = (rows[name].tolist() for name in ("location_id", "sku", "quantity", "time_ms"))
    for location_id, sku, quantity, at_ms in zip(*columns, strict=True):
        if opening_stock is not None and (location_id, sku) not in opened:
            opened.add((location_id, sku))
            yield "count", _event("count", location_id, sku, opening_stock, at_ms - 1000)
        kind = "sale" if quantity > 0 else "return"
        yield kind, _event(kind, location_id, sku, abs(quantity), at_ms)


def _event(kind: str, location_id: str, sku: str, quantity: int, at_ms: int) -> Message:
    time = time_text(at_ms)
    what = "count" if kind == "count" else "sale"
    digest = hashlib.blake2b(f"{what}|{location_id}|{sku}|{time}".encode(), digest_size=12).hexdigest()
    payload = {
        "event_id": f"replay-{digest}",
        "event_time": time,
        "location_id": location_id,
        "sku": sku,
        "kind": kind,
        "quantity": quantity,
    }
    topic = topics.INVENTORY_MOVEMENTS if kind == "count" else topics.POS_SALES
    key = topics.series_key(location_id, sku).encode()
    return Message(at_ms, at_ms, topic, key, orjson.dumps(payload))


def _read(path: Path) -> pd.DataFrame:
    if not _is_csv(path) and not path.name.lower().endswith((".parquet", ".pq")):
        raise UsageError(f"{path}: expected a name that ends in .csv, .csv.gz, .parquet or .pq")
    try:
        if _is_csv(path):
            return pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
        return pd.read_parquet(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, pd.errors.ParserError) as error:
        raise UsageError(f"{path}: cannot be read as a table ({error})") from None


def _is_csv(path: Path) -> bool:
    return path.name.lower().endswith((".csv", ".csv.gz"))


def _find_columns(raw: pd.DataFrame, path: Path) -> dict[str, str]:
    found = {
        name: next((choice for choice in choices if choice in raw.columns), None) for name, choices in _COLUMNS.items()
    }
    missing = [" or ".join(_COLUMNS[name]) for name, column in found.items() if column is None]
    if missing:
        present = ", ".join(map(str, raw.columns)) or "none"
        raise UsageError(f"{path}: missing columns: {'; '.join(missing)}; found: {present}")
    return {name: column for name, column in found.items() if column is not None}


def _as_text(values: pd.Series) -> pd.Series:
    return values.map(str, na_action="ignore").astype(object)


def _is_identifier(value: object) -> bool:
    return isinstance(value, str) and IDENTIFIER.fullmatch(value) is not None


def _is_whole(value: float) -> bool:
    return bool(np.isfinite(value)) and float(value).is_integer() and abs(value) < 2**53


def _times(values: pd.Series, is_day: bool) -> pd.Series:
    if pd.api.types.is_numeric_dtype(values):
        return pd.Series(pd.NaT, index=values.index, dtype="datetime64[ns, UTC]")
    time = pd.to_datetime(values, errors="coerce", utc=True, format="ISO8601")
    at_midnight = time == time.dt.normalize()
    return time.where(~(at_midnight & is_day), time + _NOON)


def _midnight_ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


def _listing(path: Path, problems: Sequence[tuple[int, str]], first_row: int) -> str:
    lines = [f"  row {row + first_row}: {problem}" for row, problem in sorted(problems)[:_ROWS_SHOWN]]
    more = len(problems) - len(lines)
    tail = [f"  and {more} more"] if more > 0 else []
    numbered = "line 1 being the header" if first_row else "counted from 0"
    head = f"{path}: {len(problems)} bad values ({numbered}); nothing was sent"
    return "\n".join([head, *lines, *tail])
