"""Windows kept in memory equal those computed from the whole ledger, however the sales arrive."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.demand.open_windows import Fill, OpenWindows
from pipelines.demand.sliding import totals_of
from pipelines.demand.windows import MEASURES, Facts, Shape, scope_sums_of_few, windows_of

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


Totals = dict[tuple[str, int, int], tuple[int, int, int]]


def whole(lines: list[Line], lengths: tuple[int, ...] = (1,)) -> Totals:
    """(location, first tumbling window, length) -> orders, units, cents."""
    groups = defaultdict(list)
    for row in lines:
        for length in lengths:
            for start in range(row["period"] - length + 1, row["period"] + 1):
                groups[(row["location_id"], start, length)].append(row)
    return {
        key: (
            len({row["ticket_id"] or row["sequence"] for row in rows}),
            sum(row["units"] for row in rows),
            sum(row["cents"] for row in rows),
        )
        for key, rows in groups.items()
    }


class Kept:
    """The totals that a cache tells of, batch by batch: what is in the table."""

    def __init__(self, fill: Fill, lengths: tuple[int, ...] = (1,), **limits: int) -> None:
        self.shape = Shape(windows_of(60), lengths, locations=True)
        self.cache = OpenWindows(fill, self.shape.reach, **limits)
        self.totals: Totals = {}

    def add(self, lines: list[Line], stale: tuple[int, ...] = ()) -> Totals:
        numbers = {row["period"] for row in lines} | set(stale)
        facts = self.cache.add(table(lines), self.shape.needed(numbers), stale)
        scopes = Facts(
            scope_sums_of_few(facts.totals, {}, MEASURES, self.shape),
            scope_sums_of_few(facts.repeats, {}, ("tickets",), self.shape),
        )
        told = self._by_key(totals_of(scopes, numbers, self.shape))
        for number in numbers:
            for key in [key for key in self.totals if key[1] <= number < key[1] + key[2]]:
                del self.totals[key]
        self.totals.update(told)
        return told

    @staticmethod
    def _by_key(rows: pa.Table) -> Totals:
        hour, epoch = timedelta(hours=1), datetime(1970, 1, 1, tzinfo=UTC)
        return {
            (
                row["scope"].removeprefix("location:"),
                (row["window_start"] - epoch) // hour,
                (row["window_end"] - row["window_start"]) // hour,
            ): (row["orders"], row["units"], int(100 * row["revenue"]))
            for row in rows.to_pylist()
            if row["scope"].startswith("location:")
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
    st.tuples(
        st.integers(1, 7), st.sampled_from(["s1", "s2"]), st.sampled_from([None, "t1", "t2", "t3"]), st.integers(1, 4)
    ),
    min_size=1,
    max_size=40,
)


@settings(deadline=None, max_examples=100)
@given(
    arrivals=ARRIVALS,
    lengths=st.sampled_from([(1,), (1, 2), (1, 3), (1, 2, 5)]),
    most_windows=st.integers(1, 12),
    ahead=st.booleans(),
    repeat=st.booleans(),
    dice=st.randoms(use_true_random=False),
)
def test_any_batching_gives_the_totals_of_the_ledger(
    arrivals: list[tuple[int, str, str | None, int]],
    lengths: tuple[int, ...],
    most_windows: int,
    ahead: bool,
    repeat: bool,
    dice: Random,
) -> None:
    """Given batches of any cut, repeated or not, a ledger that may be ahead of them, little memory, tickets that
    come in several windows, and windows that are forgotten in between."""
    ledger = Ledger()
    kept = Kept(ledger.fill, lengths, most_windows=most_windows)
    lines = [line(number, period, ticket, place) for number, (period, place, ticket, _) in enumerate(arrivals)]
    if ahead:
        ledger.lines = lines
    start = 0
    while start < len(lines):
        batch = lines[start : start + arrivals[start][3]]
        start += len(batch)
        if not ahead:
            ledger.lines = lines[:start]
        for _ in range(1 + repeat):
            kept.add(batch)
        kept.cache.forget(dice.sample(range(8), dice.choice([0, 0, 1, 3])))

    assert kept.totals == whole(lines, lengths)


@settings(deadline=None, max_examples=100)
@given(arrivals=ARRIVALS, most_windows=st.integers(1, 12), dice=st.randoms(use_true_random=False))
def test_sales_that_are_taken_back_leave_every_window(
    arrivals: list[tuple[int, str, str | None, int]], most_windows: int, dice: Random
) -> None:
    """Given sales taken back some batches after they came, together with new ones."""
    ledger = Ledger()
    kept = Kept(ledger.fill, (1, 3), most_windows=most_windows)
    for number, (period, place, ticket, _) in enumerate(arrivals):
        row = line(number, period, ticket, place)
        back = dice.choice(ledger.lines) if ledger.lines and dice.random() < 0.3 else None
        ledger.lines = [other for other in [*ledger.lines, row] if other is not back]
        kept.add([row], stale=() if back is None else (back["period"],))

    assert kept.totals == whole(ledger.lines, (1, 3))


def test_a_ticket_counts_once_in_a_sliding_window_that_has_it_twice() -> None:
    """Given a ticket in the first and the third window: windows of two never have both, windows of three once."""
    ledger = Ledger()
    kept = Kept(ledger.fill, (1, 2, 3))
    ledger.lines = [line(0, 1, "t1"), line(1, 3, "t1")]
    kept.add(ledger.lines)

    orders = {(start, length): numbers[0] for (_, start, length), numbers in kept.totals.items()}
    assert orders == dict.fromkeys([(1, 1), (3, 1), *((n, 2) for n in range(4)), *((n, 3) for n in range(-1, 4))], 1)


@pytest.mark.parametrize("lengths", [(1,), (1, 3)], ids=["tumbling", "sliding"])
def test_a_known_window_is_not_read_again(lengths: tuple[int, ...]) -> None:
    ledger = Ledger()
    kept = Kept(ledger.fill, lengths)
    for number in range(5):
        ledger.lines.append(line(number))
        kept.add([line(number)])

    assert ledger.reads == 1


@pytest.mark.parametrize("limits", [{"most_windows": 1}, {"most_entries": 3}], ids=["windows", "tickets"])
def test_what_was_dropped_is_read_again(limits: dict[str, int]) -> None:
    ledger = Ledger()
    kept = Kept(ledger.fill, **limits)
    lines = [line(0, 1, "a"), line(1, 2, "b"), line(2, 1, "c")]
    for row in lines:
        ledger.lines.append(row)
        told = kept.add([row])

    assert ledger.reads == 3
    assert told == {("s1", 1, 1): whole(lines)["s1", 1, 1]}


def test_a_forgotten_window_is_read_again() -> None:
    """Given sales that went past the cache, their window is forgotten and then right again."""
    ledger = Ledger()
    kept = Kept(ledger.fill)
    ledger.lines.append(line(0))
    kept.add([line(0)])
    ledger.lines.append(line(1))
    kept.cache.forget([1, 99])
    ledger.lines.append(line(2))

    assert kept.add([line(2)]) == whole(ledger.lines)


def test_a_sale_that_its_own_batch_takes_back_is_not_added() -> None:
    """Given the newest sale of all and its correction in one batch, as after a restart."""
    ledger = Ledger()
    kept = Kept(ledger.fill)
    ledger.lines = [line(0)]
    kept.add([line(0)])

    assert kept.add([line(1)], stale=(1,)) == whole(ledger.lines)
