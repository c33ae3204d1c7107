"""Whether a soak passed: pure functions of what was measured.

- *Batch time*: at a steady rate the next batch begins when the last one ends, so the time from one finished batch to
  the next is the time that a batch takes. Its median in the last minutes of the run is compared with that in the first
  ones, both after the warm-up of the process that worked then.
- *Memory* of the live job's Python and of its JVM is compared at the same ages of two lives: that of the first window
  and that of the last one. A heap is filled up to its limit before it is cleaned for good, which takes minutes. Both
  lives have begun with a restart on tables that hold events: reading them takes memory once
  (some 110 MiB) that a start on an empty home does not. An event id that is remembered takes 24 bytes by design (twice
  that while runs are merged), and what the run itself adds of them is allowed. The broker lives through all of it: its
  last third against its second.
- *Disk*: tables and broker hold every event, so what is bounded is the bytes for each event sent: those of the last
  third against those of the second. The logs and checkpoints hold no events: their bytes are compared as they are.
- *Files* of each table, and entries of its log: the largest number in the last third against that in the second.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.soak.samples import MEMORY, Sample

BATCH_FACTOR = 1.2
MEMORY_FACTOR = 1.2
DISK_FACTOR = 1.2
FILES_FACTOR = 1.3
FILES_MORE = 50
REMEMBERED_BYTES = 48
MEMORY_MORE = 32 * 2**20
DISK_MORE = 2 * 2**20


@dataclass(frozen=True)
class Plan:
    """The run's times, in seconds from its start.

    Attributes:
        total: the end.
        warm_up: of a process; what it does meanwhile does not count.
        begin: of the first measured stretch.
        window: length of the first and of the last measured stretch.
        restarts: when the live job is ended, and how: "TERM" or "KILL".
    """

    total: float
    warm_up: float
    begin: float
    window: float
    restarts: tuple[tuple[float, str], ...]

    @property
    def first(self) -> tuple[float, float]:
        """The first measured stretch."""
        return self.begin, self.begin + self.window

    @property
    def last(self) -> tuple[float, float]:
        """The last one."""
        return self.total - self.window, self.total

    @property
    def early_life(self) -> tuple[float, float]:
        """When the process that worked in the first stretch was as old as the one of the last stretch is there; the
        first stretch, where it did not live long enough for half of that."""
        starts = [0.0, *(at for at, _ in self.restarts)]
        life, last_life = (max(start for start in starts if start <= stretch[0]) for stretch in (self.first, self.last))
        end = min((start for start in starts if start > life), default=self.total)
        begin = life + self.last[0] - last_life
        stretch = begin, min(begin + self.window, end)
        return stretch if stretch[1] - stretch[0] >= self.window / 2 else self.first


@dataclass(frozen=True)
class Batch:
    """A finished batch: when, how long after the one before, and with how many records."""

    at: float
    seconds: float
    records: int


@dataclass(frozen=True)
class Row:
    """A figure early and late, its limit, and whether the late one keeps to it."""

    name: str
    early: float
    late: float
    limit: float
    unit: str

    @property
    def passed(self) -> bool:
        """Whether it is bounded."""
        return self.late <= self.limit


def batches(finished: Sequence[tuple[float, int]], starts: Sequence[float], warm_up: float) -> list[Batch]:
    """Batches by their end, without those of a process that is warming up.

    Args:
        finished: (end, records) of each batch in order.
        starts: when a process began to work.
    """
    found = []
    for (before, _), (at, records) in pairwise(finished):
        if not any(start < at and before < start + warm_up for start in starts):
            found.append(Batch(at, at - before, records))
    return found


def judge(plan: Plan, samples: Sequence[Sample], done: Sequence[Batch], rate: float) -> list[Row]:
    """The figures that must stay bounded.

    Args:
        rate: events sent a second, as measured.
    """
    return [
        _batch_time(plan, done),
        *_memory(plan, samples, rate),
        *_disk(plan, samples, rate),
        *_files(plan, samples),
    ]


def _batch_time(plan: Plan, done: Sequence[Batch]) -> Row:
    early, late = (
        statistics.median([batch.seconds for batch in done if start <= batch.at < end] or [float("inf")])
        for start, end in (plan.first, plan.last)
    )
    return Row("batch time, median", early, late, BATCH_FACTOR * early if early < float("inf") else 0.0, "s")


def _memory(plan: Plan, samples: Sequence[Sample], rate: float) -> Iterator[Row]:
    early_life = plan.early_life
    remembered = REMEMBERED_BYTES * rate * (plan.last[0] - early_life[0])
    for role in MEMORY:
        windows = thirds(plan)[1:] if role == "broker" else (early_life, plan.last)
        early, late = (_median(samples, window, _memory_of(role)) for window in windows)
        more = MEMORY_MORE + (remembered if role == "python" else 0)
        yield Row(f"memory, {role}", early / 2**20, late / 2**20, (MEMORY_FACTOR * early + more) / 2**20, "MiB")


def _disk(plan: Plan, samples: Sequence[Sample], rate: float) -> Iterator[Row]:
    middle, last = thirds(plan)[1:]
    for part in ("data", "broker"):
        early, late = (_median(samples, window, _disk_for_event(part, rate)) for window in (middle, last))
        yield Row(f"disk, {part}, for each event", early, late, DISK_FACTOR * early, "bytes")
    for part in ("logs", "checkpoints"):
        early, late = (_most(samples, window, _disk_of(part)) for window in (middle, last))
        yield Row(f"disk, {part}", early / 2**20, late / 2**20, (DISK_FACTOR * early + DISK_MORE) / 2**20, "MiB")


def _files(plan: Plan, samples: Sequence[Sample]) -> Iterator[Row]:
    middle, last = thirds(plan)[1:]
    for table in sorted({table for sample in samples for table in sample.files}):
        for place, what in enumerate(("files", "log entries")):
            early, late = (_most(samples, window, _files_of(table, place)) for window in (middle, last))
            yield Row(f"{what}, {table}", early, late, FILES_FACTOR * early + FILES_MORE, "")


Figure = Callable[[Sample], float | None]


def _memory_of(role: str) -> Figure:
    return lambda sample: sample.memory.get(role)


def _disk_of(part: str) -> Figure:
    return lambda sample: sample.disk.get(part, 0)


def _disk_for_event(part: str, rate: float) -> Figure:
    return lambda sample: sample.disk.get(part, 0) / (sample.at * rate)


def _files_of(table: str, place: int) -> Figure:
    return lambda sample: sample.files.get(table, (0, 0))[place]


def thirds(plan: Plan) -> tuple[tuple[float, float], ...]:
    """The run in three parts."""
    cut = plan.total / 3
    return (0.0, cut), (cut, 2 * cut), (2 * cut, plan.total)


def _values(samples: Sequence[Sample], window: tuple[float, float], figure: Figure) -> list[float]:
    found = (figure(sample) for sample in samples if window[0] <= sample.at < window[1])
    return [value for value in found if value is not None]


def _median(samples: Sequence[Sample], window: tuple[float, float], figure: Figure) -> float:
    values = _values(samples, window, figure)
    if not values:
        raise ValueError(f"nothing was measured from {window[0]:.0f} s to {window[1]:.0f} s; the run is too short")
    return statistics.median(values)


def _most(samples: Sequence[Sample], window: tuple[float, float], figure: Figure) -> float:
    return max(_values(samples, window, figure), default=0.0)
