"""Messages under way, and how far a consumer has done with them."""

from __future__ import annotations

Place = tuple[int, int]
"""Partition and offset."""


class Places:
    """Places in the partitions that orders are under way from, and how far each partition is done."""

    def __init__(self) -> None:
        self._open: dict[int, set[int]] = {}
        self._next: dict[int, int] = {}
        self._saved: dict[int, int] = {}

    def begin(self, place: Place) -> None:
        """An order was read here."""
        partition, offset = place
        self._open.setdefault(partition, set()).add(offset)
        self._next[partition] = max(offset + 1, self._next.get(partition, 0))

    def end(self, place: Place) -> None:
        """It is done."""
        self._open[place[0]].discard(place[1])

    def moved(self) -> list[Place]:
        """(partition, next place) where everything before the place is done, if it was not so before."""
        done = self.done()
        moved = [place for place in done if self._saved.get(place[0]) != place[1]]
        self._saved = dict(done)
        return moved

    def done(self) -> list[Place]:
        """(partition, next place) where everything before the place is done."""
        return [(partition, min(self._open[partition], default=end)) for partition, end in self._next.items()]
