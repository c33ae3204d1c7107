"""Which event ids were already taken in, and what they said: 24 bytes an id, in sorted runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import chain

import numpy as np
import numpy.typing as npt

Longs = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_Run = tuple[Longs, Longs, Longs]


def id_keys(scope: str, event_ids: Iterable[str]) -> Longs:
    """128 bits of hash of each event id within its scope: one row of two signed halves per id."""
    digests = [blake2b(f"{scope}|{event_id}".encode(), digest_size=16).digest() for event_id in event_ids]
    return np.frombuffer(b"".join(digests), "<i8").astype(np.int64).reshape(-1, 2)


def id_key(scope: str, event_id: str) -> tuple[int, int]:
    """`id_keys` of one id."""
    first, second = id_keys(scope, (event_id,))[0].tolist()
    return first, second


def first_of_each(keys: Longs) -> Longs:
    """For each row of `keys`, the place of the first row that equals it."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: equal keys stay in order
    ordered = keys[order]
    starts = np.ones(len(keys), bool)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    leaders = order[np.flatnonzero(starts)]
    firsts = np.empty(len(keys), np.int64)
    firsts[order] = leaders[np.cumsum(starts) - 1]
    return firsts


class SeenIds:
    """Event ids with the hash of their payload, by the day on which they were taken in.

    What is added becomes a sorted run; a day's runs of similar size are merged, so that a look-up searches a
    handful of arrays a day however many ids there are. Days are forgotten as a whole.
    """

    def __init__(self) -> None:
        self._days: dict[int, list[_Run]] = {}

    def __len__(self) -> int:
        return sum(len(run[0]) for runs in self._days.values() for run in runs)

    def look_up(self, keys: Longs) -> tuple[Mask, Longs]:
        """Which of the keys (rows of `id_keys`) were seen, and with which payload hash (0 for the others)."""
        seen, payloads = np.zeros(len(keys), bool), np.zeros(len(keys), np.int64)
        for first, second, known in chain.from_iterable(self._days.values()):
            places = np.searchsorted(first, keys[:, 0])
            places[places == len(first)] = 0
            hits = (first[places] == keys[:, 0]) & (second[places] == keys[:, 1])
            seen |= hits
            payloads[hits] = known[places[hits]]
        return seen, payloads

    def find(self, keys: Sequence[tuple[int, int]]) -> list[int | None]:
        """The payload hash of each key; None for those never seen."""
        seen, payloads = self.look_up(np.array(keys, np.int64).reshape(-1, 2))
        return [payload if hit else None for hit, payload in zip(seen.tolist(), payloads.tolist(), strict=True)]

    def add(self, keys: Longs | Sequence[tuple[int, int]], payloads: Longs | Sequence[int], day: int = 0) -> None:
        """Remember ids; the caller has made sure that they are new.

        Args:
            day: on which they were taken in, in days since 1970.
        """
        pairs = np.asarray(keys, np.int64).reshape(-1, 2)
        if not len(pairs):
            return
        runs = self._days.setdefault(day, [])
        run = _sorted_run(pairs[:, 0], pairs[:, 1], np.asarray(payloads, np.int64))
        while runs and len(runs[-1][0]) <= 2 * len(run[0]):
            older = runs.pop()
            run = _sorted_run(*(np.concatenate(parts) for parts in zip(older, run, strict=True)))
        runs.append(run)

    def forget(self, before: int) -> None:
        """Forget what was taken in before a day."""
        for day in [day for day in self._days if day < before]:
            del self._days[day]


def _sorted_run(first: Longs, second: Longs, payloads: Longs) -> _Run:
    order = np.argsort(first, kind="stable")
    return first[order], second[order], payloads[order]
