"""The windows that live sales fall into, kept in memory: each refresh then costs as much as the new sales.

This is a cache and nothing else. It is filled from the ledger and may be dropped at any time; what makes adding
to it safe is the ledger's `sequence`, the one order in which events were taken in. A window remembers the last
one that it contains, so that a repeated batch adds nothing.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

import pyarrow as pa

Fill = Callable[[list[int]], pa.Table]

_PER_LOCATION = pa.schema(
    [
        pa.field("location_id", pa.string()),
        *(pa.field(name, pa.int64()) for name in ("period", "orders", "units", "cents")),
    ]
)


@dataclass
class _Window:
    sequence: int = -1
    alone: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    tickets: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    units: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    cents: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def size(self) -> int:
        return sum(map(len, self.tickets.values()))


class OpenWindows:
    """Per location: orders, units and cents of the windows touched last.

    Args:
        fill: gives the `sale_lines` of windows from the whole ledger, as it is now.
        most_windows, most_tickets: beyond either, the windows touched longest ago are dropped.
    """

    def __init__(self, fill: Fill, most_windows: int = 24, most_tickets: int = 3_000_000) -> None:
        self._fill = fill
        self._most_windows = most_windows
        self._most_tickets = most_tickets
        self._windows: OrderedDict[int, _Window] = OrderedDict()

    def add(self, lines: pa.Table) -> pa.Table:
        """Take new sales in.

        Args:
            lines: `sale_lines` of a batch of ledger rows: all rows of its windows that were appended to the
                ledger after those of the batch before.

        Returns:
            location_id, `period`, `orders`, `units` and `cents` of every window that they touch.
        """
        touched = sorted(set(lines["period"].to_pylist()))
        unknown = [number for number in touched if number not in self._windows]
        if unknown:
            self._windows.update((number, _Window()) for number in unknown)
            self._take(self._fill(unknown))
        self._take(lines)
        rows = self._rows(touched)
        self._trim(touched)
        return rows

    def forget(self, numbers: Collection[int]) -> None:
        """Drop windows whose new sales are not going to be added."""
        for number in numbers:
            self._windows.pop(number, None)

    def _take(self, lines: pa.Table) -> None:
        included = {number: window.sequence for number, window in self._windows.items()}
        names = ("location_id", "period", "sequence", "ticket_id", "units", "cents")
        for location, number, sequence, ticket, units, cents in zip(
            *(lines[name].to_pylist() for name in names), strict=True
        ):
            if sequence <= included[number]:
                continue
            window = self._windows[number]
            window.sequence = max(window.sequence, sequence)
            window.units[location] += units
            window.cents[location] += cents
            if ticket is None:
                window.alone[location] += 1
            else:
                window.tickets[location].add(ticket)

    def _rows(self, numbers: Iterable[int]) -> pa.Table:
        rows = [
            {
                "location_id": location,
                "period": number,
                "orders": window.alone.get(location, 0) + len(window.tickets.get(location, ())),
                "units": units,
                "cents": window.cents[location],
            }
            for number in numbers
            for window in (self._windows[number],)
            for location, units in window.units.items()
        ]
        return pa.Table.from_pylist(rows, schema=_PER_LOCATION)

    def _trim(self, touched: Iterable[int]) -> None:
        for number in touched:
            self._windows.move_to_end(number)
        tickets = sum(window.size for window in self._windows.values())
        while self._windows and (len(self._windows) > self._most_windows or tickets > self._most_tickets):
            tickets -= self._windows.popitem(last=False)[1].size
