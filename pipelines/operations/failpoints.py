"""Named points at which a test may make the process die, as power loss would: `STOCKCAST_FAILPOINT=name[:n]`."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_name, _, _count = os.environ.get("STOCKCAST_FAILPOINT", "").partition(":")
_remaining = int(_count or 1)


def failpoint(name: str) -> None:
    """Kill this process with SIGKILL when it passes the named point for the n-th time; otherwise nothing."""
    global _remaining  # noqa: PLW0603  (one countdown per process)
    if name != _name:
        return
    _remaining -= 1
    if _remaining <= 0:
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def failpoint_on_change(name: str, folder: Path | None) -> Iterator[None]:
    """The named point lies inside a call into a library: where it has added or removed a first data file below the
    folder. Costs nothing where the point is not armed."""
    if name != _name or folder is None:
        yield
        return
    before, ended = _data_files(folder), threading.Event()

    def watch() -> None:
        while not ended.wait(0.0005):
            if _data_files(folder) != before:
                failpoint(name)
                return

    watcher = threading.Thread(target=watch, name="failpoint", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _data_files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*.parquet") if "_delta_log" not in path.parts}
