"""What is measured of a running chain, every few seconds, from outside."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

MEMORY = ("python", "jvm", "broker")


@dataclass(frozen=True)
class Sample:
    """One look at the chain.

    Attributes:
        at: seconds since the start of the run.
        memory: resident bytes of the live job's Python and of its JVM (none between two of its lives), of the broker.
        disk: bytes below home by part: data files, table logs, checkpoints, broker, other.
        files: number of files, by table: data files and log entries.
        others: cores that were kept busy by others since the last sample.
    """

    at: float
    memory: dict[str, int] = field(default_factory=dict)
    disk: dict[str, int] = field(default_factory=dict)
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    others: float = 0.0


def resident(live: int | None, broker: int | None) -> dict[str, int]:
    """Resident bytes of the processes, as far as they run; the live job's is the parent of its JVM."""
    found: dict[str, int] = defaultdict(int)
    for pid, role in ((live, "python"), (broker, "broker")):
        if pid is None:
            continue
        try:
            root = psutil.Process(pid)
            found[role] += root.memory_info().rss
            for child in root.children(recursive=True):
                found["jvm" if child.name().startswith("java") else role] += child.memory_info().rss
        except psutil.Error:
            continue
    return dict(found)


def disk(home: Path) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
    """Bytes by part, and data files and log entries by table."""
    parts: dict[str, int] = defaultdict(int)
    files: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for path, size in _files(home):
        part, table = _part(path.relative_to(home))
        parts[part] += size
        if table is not None:
            files[table][part == "logs"] += 1
    return dict(parts), {table: (data, log) for table, (data, log) in files.items()}


def _part(path: Path) -> tuple[str, str | None]:
    first = path.parts[0]
    if first != "tables":
        return (first if first in {"checkpoints", "broker"} else "other"), None
    table = "/".join(path.parts[1:3])
    return ("logs" if "_delta_log" in path.parts else "data"), table


def _files(folder: Path) -> Iterator[tuple[Path, int]]:
    """Every file below a folder with the bytes that it takes on disk; those that vanish meanwhile are left out."""
    for name, _, names in os.walk(folder):
        for file in names:
            path = Path(name, file)
            try:
                yield path, path.stat().st_blocks * 512
            except OSError:
                continue


class Others:
    """Cores that the machine spends on nothing of ours, between two looks."""

    def __init__(self) -> None:
        self._used: dict[tuple[int, float], float] = {}
        self._busy = self._at = 0.0

    def look(self, at: float, roots: list[int]) -> float:
        """Since the last look; processes that ended in between count for others."""
        used = dict(_used(roots))
        busy = _busy()
        own = sum(seconds - self._used.get(process, 0.0) for process, seconds in used.items())
        elapsed, cores = at - self._at, busy - self._busy
        first = not self._busy
        self._used, self._busy, self._at = used, busy, at
        return 0.0 if first or elapsed <= 0 else max(0.0, (cores - own) / elapsed)


def _used(roots: list[int]) -> Iterator[tuple[tuple[int, float], float]]:
    for pid in [os.getpid(), *roots]:
        try:
            root = psutil.Process(pid)
            for process in [root, *root.children(recursive=True)]:
                times = process.cpu_times()
                yield (process.pid, process.create_time()), times.user + times.system
        except psutil.Error:
            continue


def _busy() -> float:
    times = psutil.cpu_times()
    return times.user + times.system + times.nice + times.irq + times.softirq
