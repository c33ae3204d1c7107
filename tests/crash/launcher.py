"""Starts a program of the pipeline so that the crash test can kill it at a named point, or put a fault into it.

    python -m tests.crash.launcher ROLE PROGRAM ARGUMENTS...

PROGRAM is a file of `jobs/`, a module of the crash test, or `stockcast`. A file `armed/ROLE` in `$CRASH_FOLDER` with
`FAILPOINT COUNT SIGNAL` makes the process send itself that signal when it passes the point for the n-th time from then
on; the file is gone when that happened. `$CRASH_MUTANT` names a fault of `tests.crash.mutants`.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.operations import failpoints


def arm_failpoints(armed: Path) -> None:
    """Let the named points of this process look at the file instead of the environment."""
    lock = threading.Lock()

    def failpoint(name: str) -> None:
        with lock:
            try:
                wanted, count, number = armed.read_text().split()
            except (OSError, ValueError):
                return
            if name != wanted:
                return
            if int(count) > 1:
                armed.write_text(f"{wanted} {int(count) - 1} {number}")
                return
            armed.unlink()
            os.kill(os.getpid(), int(number))

    within = failpoints.failpoint_on_change

    @contextmanager
    def failpoint_on_change(name: str, folder: Path | None) -> Iterator[None]:
        watched = armed.exists() and armed.read_text().startswith(f"{name} ")
        failpoints._name = name if watched else ""
        with within(name, folder):
            yield

    # The modules of the pipeline import the functions by name, so this must come before any of them.
    failpoints.failpoint = failpoint
    failpoints.failpoint_on_change = failpoint_on_change


def main() -> None:
    role, program, *arguments = sys.argv[1:]
    arm_failpoints(Path(os.environ["CRASH_FOLDER"], "armed", role))
    if mutant := os.environ.get("CRASH_MUTANT"):
        from tests.crash import mutants

        mutants.apply(mutant)
    sys.argv = [program, *arguments]
    if program == "stockcast":
        from pipelines.operations.cli import main as command

        command()
    elif program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__")


if __name__ == "__main__":
    main()
