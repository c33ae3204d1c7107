"""Windows kept in memory equal those computed from the whole ledger, however the sales arrive."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.demand.open_windows import OpenWindows

SCHEMA = pa.schema(
    [
        pa.field("location_id", pa.string()),
        pa.field("period", pa.int64()),
        pa.field("sequence", pa.int64()),
        pa.field("ticket_id", pa.string()),
        pa.field("units", pa.int64()),
        pa.field("cents", pa.int64()),
    ]
)

Line = dict[str, Any]


def table(lines: list[Line]) -> pa.Table:
    return pa.Table.from_pylist(lines, schema=SCHEMA)


def line(sequence: int, period: int = 1, ticket: str | None = None, location: str = "s1") -> Line:
    return {
        "location_id": location,
        "period": period,
        "sequence": sequence,
        "ticket_id": ticket,
        "units": sequence % 3 + 1,
        "cents": 10 * sequence,
    }


def whole(lines: list[Line]) -> dict[tuple[str, int], tuple[int, int, int]]:
    groups = defaultdict(list)
    for row in lines:
        groups[(row["location_id"], row["period"])].append(row)
    return {
        key: (
            len({row["ticket_id"] or row["sequence"] for row in rows}),
            sum(row["units"] for row in rows),
            sum(row["cents"] for row in rows),
        )
        for key, rows in groups.items()
    }


def by_key(rows: pa.Table) -> dict[tuple[str, int], tuple[int, int, int]]:
    return {
        (row["location_id"], row["period"]): (row["orders"], row["units"], row["cents"]) for row in rows.to_pylist()
    }


class Ledger:
    """A growing list of lines; reading it anew is counted."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.reads = 0

    def fill(self, numbers: list[int]) -> pa.Table:
        self.reads += 1
        return table([row for row in self.lines if row["period"] in numbers])


ARRIVALS = st.lists(
    st.tuples(st.integers(1, 5), st.sampled_from(["s1", "s2"]), st.sampled_from([None, "t1", "t2"]), st.integers(1, 4)),
    min_size=1,
    max_size=40,
)


@settings(deadline=None)
@given(arrivals=ARRIVALS, most_windows=st.integers(1, 5), ahead=st.booleans(), repeat=st.booleans())
def test_any_batching_gives_the_totals_of_the_ledger(
    arrivals: list[tuple[int, str, str | None, int]], most_windows: int, ahead: bool, repeat: bool
) -> None:
    """Given batches of any cut, repeated or not, a ledger that may be ahead of them, and little memory."""
    ledger = Ledger()
    cache = OpenWindows(ledger.fill, most_windows=most_windows)
    lines = [line(number, period, ticket, place) for number, (period, place, ticket, _) in enumerate(arrivals)]
    latest: dict[tuple[str, int], tuple[int, int, int]] = {}
    if ahead:
        ledger.lines = lines
    start = 0
    while start < len(lines):
        batch = lines[start : start + arrivals[start][3]]
        start += len(batch)
        if not ahead:
            ledger.lines = lines[:start]
        for _ in range(1 + repeat):
            latest.update(by_key(cache.add(table(batch))))

    assert latest == whole(lines)


def test_a_known_window_is_not_read_again() -> None:
    ledger = Ledger()
    cache = OpenWindows(ledger.fill)
    for number in range(5):
        ledger.lines.append(line(number))
        cache.add(table([line(number)]))

    assert ledger.reads == 1


@pytest.mark.parametrize("limits", [{"most_windows": 1}, {"most_tickets": 1}], ids=["windows", "tickets"])
def test_what_was_dropped_is_read_again(limits: dict[str, int]) -> None:
    ledger = Ledger()
    cache = OpenWindows(ledger.fill, **limits)
    lines = [line(0, 1, "a"), line(1, 2, "b"), line(2, 1, "c")]
    for row in lines:
        ledger.lines.append(row)
        rows = cache.add(table([row]))

    assert ledger.reads == 3
    assert by_key(rows) == {("s1", 1): whole(lines)["s1", 1]}


def test_a_forgotten_window_is_read_again() -> None:
    """Given sales that went past the cache, their window is forgotten and then right again."""
    ledger = Ledger()
    cache = OpenWindows(ledger.fill)
    ledger.lines.append(line(0))
    cache.add(table([line(0)]))
    ledger.lines.append(line(1))
    cache.forget([1, 99])
    ledger.lines.append(line(2))

    assert by_key(cache.add(table([line(2)]))) == whole(ledger.lines)
