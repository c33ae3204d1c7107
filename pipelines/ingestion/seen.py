"""Which event ids were already taken in, and what they said: 24 bytes an id, in sorted runs."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

Longs = npt.NDArray[np.int64]

MEMORY_ROWS = 65_536


def id_key(scope: str, event_id: str) -> tuple[int, int]:
    """128 bits of hash of an event id within its scope, as two signed halves."""
    digest = blake2b(f"{scope}|{event_id}".encode(), digest_size=16).digest()
    return (
        int.from_bytes(digest[:8], "little", signed=True),
        int.from_bytes(digest[8:], "little", signed=True),
    )


class SeenIds:
    """Event ids with the hash of their payload.

    New ids go to a dictionary, which is merged into sorted arrays when it is full: runs of similar size are
    merged, so that a look-up searches a handful of arrays however many ids there are.
    """

    def __init__(self) -> None:
        self._recent: dict[tuple[int, int], int] = {}
        self._runs: list[tuple[Longs, Longs, Longs]] = []

    def __len__(self) -> int:
        return len(self._recent) + sum(len(run[0]) for run in self._runs)

    def find(self, keys: Sequence[tuple[int, int]]) -> list[int | None]:
        """The payload hash of each key; None for those never seen."""
        found: list[int | None] = [self._recent.get(key) for key in keys]
        if self._runs and keys:
            wanted = np.array(keys, dtype=np.int64)
            for first, second, payloads in self._runs:
                places = np.searchsorted(first, wanted[:, 0])
                places[places == len(first)] = 0
                hits = (first[places] == wanted[:, 0]) & (second[places] == wanted[:, 1])
                for index in np.flatnonzero(hits):
                    found[index] = int(payloads[places[index]])
        return found

    def add(self, keys: Sequence[tuple[int, int]], payloads: Sequence[int]) -> None:
        """Remember ids; the caller has made sure that they are new."""
        self._recent.update(zip(keys, payloads, strict=True))
        if len(self._recent) >= MEMORY_ROWS:
            self._spill()

    def _spill(self) -> None:
        pairs = np.array(list(self._recent), dtype=np.int64).reshape(-1, 2)
        payloads = np.fromiter(self._recent.values(), dtype=np.int64, count=len(self._recent))
        self._recent.clear()
        run = _sorted_run(pairs[:, 0], pairs[:, 1], payloads)
        while self._runs and len(self._runs[-1][0]) <= 2 * len(run[0]):
            older = self._runs.pop()
            run = _sorted_run(*(np.concatenate(parts) for parts in zip(older, run, strict=True)))
        self._runs.append(run)


def _sorted_run(first: Longs, second: Longs, payloads: Longs) -> tuple[Longs, Longs, Longs]:
    order = np.argsort(first, kind="stable")
    return first[order], second[order], payloads[order]
