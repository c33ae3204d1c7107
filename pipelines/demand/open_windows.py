"""The windows that live sales fall into, kept in memory: each refresh then costs as much as the new sales.

This is a cache and nothing else. It is filled from the ledger and may be dropped at any time; what makes adding
to it safe is the ledger's `sequence`, the one order in which events were taken in. A window remembers the last
one that it contains, so that a repeated batch adds nothing.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

import pyarrow as pa

from pipelines.demand.windows import Facts

Fill = Callable[[list[int]], pa.Table]

_TOTALS = pa.schema(
    [
        pa.field("location_id", pa.string()),
        *(pa.field(name, pa.int64()) for name in ("period", "orders", "units", "cents")),
    ]
)
_REPEATS = pa.schema(
    [
        pa.field("location_id", pa.string()),
        *(pa.field(name, pa.int64()) for name in ("period", "distance", "tickets")),
    ]
)


@dataclass
class _Window:
    """Per location. `repeats`: tickets by (location, how many windows before this one they sold last)."""

    sequence: int = -1
    alone: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    tickets: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    units: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    cents: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    repeats: Counter[tuple[str, int]] = field(default_factory=Counter)
    totals: pa.Table | None = None

    @property
    def size(self) -> int:
        return len(self.units) + sum(map(len, self.tickets.values()))


class OpenWindows:
    """Per location: orders, units and cents of the tumbling windows touched last, and of their neighbours.

    Args:
        fill: gives the `sale_lines` of windows from the whole ledger, as it is now.
        reach: how many windows before and after a touched one are needed with it: `Shape.reach`.
        most_windows, most_entries: beyond either, the windows needed longest ago are dropped. An entry is a ticket
            or a location of a window.
    """

    def __init__(self, fill: Fill, reach: int = 0, most_windows: int = 24, most_entries: int = 3_000_000) -> None:
        self._fill = fill
        self._reach = reach
        self._most_windows = most_windows
        self._most_entries = most_entries
        self._windows: OrderedDict[int, _Window] = OrderedDict()

    def add(self, lines: pa.Table, needed: Collection[int], stale: Collection[int] = ()) -> Facts:
        """Take new sales in.

        Args:
            lines: `sale_lines` of a batch of ledger rows: all rows of its windows that were appended to the
                ledger after those of the batch before.
            needed: the windows of the sales and all that are to be told with them.
            stale: windows in which the batch takes earlier sales back: they are read anew from the ledger, which
                has the batch's own sales as well.

        Returns:
            The facts of the needed windows, per location.
        """
        self.forget(stale)
        unknown = [number for number in needed if number not in self._windows]
        if unknown:
            self._windows.update((number, _Window()) for number in unknown)
            self._take(self._fill(unknown))
        self._take(lines, without=frozenset(stale))
        facts = self._facts(needed)
        self._trim(needed)
        return facts

    def forget(self, numbers: Iterable[int]) -> None:
        """Drop windows whose new sales are not going to be added."""
        for number in numbers:
            if number in self._windows:
                self._drop(number)

    def _drop(self, number: int) -> int:
        """Its size."""
        window = self._windows.pop(number)
        for location, tickets in window.tickets.items():
            self._link(location, number, tickets, -1)
        return window.size

    def _take(self, lines: pa.Table, without: Collection[int] = ()) -> None:
        included = {number: window.sequence for number, window in self._windows.items()}
        found: dict[tuple[str, int], set[str]] = defaultdict(set)
        names = ("location_id", "period", "sequence", "ticket_id", "units", "cents")
        for location, number, sequence, ticket, units, cents in zip(
            *(lines[name].to_pylist() for name in names), strict=True
        ):
            if number in without or sequence <= included[number]:
                continue
            window = self._windows[number]
            window.sequence = max(window.sequence, sequence)
            window.units[location] += units
            window.cents[location] += cents
            window.totals = None
            if ticket is None:
                window.alone[location] += 1
            else:
                found[location, number].add(ticket)
        for (location, number), tickets in found.items():
            window = self._windows[number]
            known = window.tickets[location]
            window.repeats.update(self._link(location, number, tickets - known, 1))
            known |= tickets

    def _link(self, location: str, number: int, tickets: set[str], sign: int) -> Counter[tuple[str, int]]:
        """Tell later windows that these tickets have come (1) to this window or gone (-1) from it.

        Returns:
            The window's own `repeats` of these tickets.
        """
        own: Counter[tuple[str, int]] = Counter()
        if not self._reach:
            return own
        before = self._nearest(location, number, tickets, -1)
        own.update((location, distance) for distance in before.values())
        for ticket, distance in self._nearest(location, number, tickets, 1).items():
            later = self._windows[number + distance].repeats
            later[location, distance] += sign
            # The later window's latest earlier sale was this one's, where that is near enough.
            across = before.get(ticket, self._reach) + distance
            if across <= self._reach:
                later[location, across] -= sign
        return own

    def _nearest(self, location: str, number: int, tickets: set[str], step: int) -> dict[str, int]:
        """How many windows away those tickets are that the windows before (-1) or after (1) have."""
        rest, found = set(tickets), dict[str, int]()
        for distance in range(1, self._reach + 1):
            window = self._windows.get(number + step * distance)
            if rest and window is not None and (there := window.tickets.get(location)):
                common = rest & there
                found.update(dict.fromkeys(common, distance))
                rest -= common
        return found

    def _facts(self, numbers: Collection[int]) -> Facts:
        repeats = [
            (location, number, distance, tickets)
            for number in numbers
            for (location, distance), tickets in self._windows[number].repeats.items()
            if tickets
        ]
        columns = zip(*repeats, strict=True) if repeats else ((),) * len(_REPEATS)
        return Facts(
            pa.concat_tables([self._totals(number) for number in numbers]),
            pa.table(
                [pa.array(column, type_) for column, type_ in zip(columns, _REPEATS.types, strict=True)], _REPEATS
            ),
        )

    def _totals(self, number: int) -> pa.Table:
        window = self._windows[number]
        if window.totals is None:
            rows = [
                {
                    "location_id": location,
                    "period": number,
                    "orders": window.alone.get(location, 0) + len(window.tickets.get(location, ())),
                    "units": units,
                    "cents": window.cents[location],
                }
                for location, units in window.units.items()
            ]
            window.totals = pa.Table.from_pylist(rows, schema=_TOTALS)
        return window.totals

    def _trim(self, needed: Iterable[int]) -> None:
        for number in needed:
            self._windows.move_to_end(number)
        entries = sum(window.size for window in self._windows.values())
        while self._windows and (len(self._windows) > self._most_windows or entries > self._most_entries):
            entries -= self._drop(next(iter(self._windows)))
