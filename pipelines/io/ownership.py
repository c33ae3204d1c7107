"""One process owns the writes of a table: on a local disk Delta cannot keep two writers apart."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.errors import OwnershipError
from pipelines.operations.settings import Settings


@contextmanager
def ownership(settings: Settings, *owners: str) -> Iterator[None]:
    """Hold the locks of the named owners (`Table.owner`) until the block ends or the process dies.

    The kernel drops the locks of a killed process, so nothing stale is ever left behind. With a remote
    home there is no lock to take: there Delta's own commit protocol arbitrates, and the scheduler runs one
    job of each kind.

    Raises:
        OwnershipError: another process holds one of them; names it.
    """
    if "://" in settings.home and not settings.home.startswith("file://"):
        yield
        return
    folder = settings.home_path / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    held: list[int] = []
    try:
        for owner in sorted(owners):
            held.append(_acquire(folder / f"{owner}.lock", owner))
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)


def _acquire(path: Path, owner: str) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 4096).decode("utf-8", "replace") or "unknown"
        os.close(descriptor)
        raise OwnershipError(
            f"the tables of {owner} are being written by another process ({holder}); stop it first, "
            f"or run only one {owner} per home"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "program": sys.argv[0]}).encode(), 0)
    return descriptor
