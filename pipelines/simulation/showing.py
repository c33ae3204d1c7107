"""Progress for people: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from pipelines.simulation.sending import Advance
from pipelines.simulation.sending import Progress as Report

_LINE_EVERY_SECONDS = 3.0


@contextmanager
def shown_progress(console: Console) -> Iterator[Report]:
    """A callback that shows how far a phase has come."""
    if not console.is_terminal:
        yield _plain_lines(console)
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        console=console,
    )
    with bar:
        task = bar.add_task("starting", total=None, detail="")

        def report(advance: Advance) -> None:
            bar.update(
                task,
                description=advance.phase,
                total=None if advance.fraction is None else 1.0,
                completed=advance.fraction or 0.0,
                detail=_detail(advance),
            )

        yield report


def _plain_lines(console: Console) -> Report:
    last = time.monotonic() - _LINE_EVERY_SECONDS
    ended = False

    def report(advance: Advance) -> None:
        nonlocal last, ended
        now = time.monotonic()
        if now - last < _LINE_EVERY_SECONDS and (ended or advance.fraction != 1.0):
            return
        last, ended = now, advance.fraction == 1.0
        share = "" if advance.fraction is None else f"{advance.fraction:4.0%}  "
        console.print(f"{advance.phase}: {share}{_detail(advance)}", highlight=False, soft_wrap=True)

    return report


def _detail(advance: Advance) -> str:
    return f"{advance.messages:,} messages, simulated {advance.simulated:%Y-%m-%d %H:%M}"
