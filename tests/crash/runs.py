"""Whole runs on a fresh home each: kills without a fault, and a fault that must be found."""

from __future__ import annotations

import itertools
from pathlib import Path

from pipelines.operations.settings import load_settings
from tests.conftest import free_port
from tests.crash.harness import CrashTest, Report, Say
from tests.crash.mutants import MUTANTS
from tests.crash.processes import Place
from tests.crash.rules import rules_of
from tests.crash.schedule import schedule


def run_kills(home: Path, seed: int, kills: int, say: Say, series: int = 200) -> Report:
    """So many kills, drawn by the seed."""
    return CrashTest(place(home, seed, series), say).run(schedule(seed, kills))


def run_mutant(home: Path, name: str, seed: int, say: Say) -> list[str]:
    """The rules that a fault violates; none when it was not found.

    A chain that does not even come to rest counts as not found: what is then unfinished would be taken for lost.
    """
    mutant = MUTANTS[name]
    test = CrashTest(place(home, seed, 40, name), lambda line: None)
    found = test.run(mutant.steps)
    rules = rules_of(found.violations)
    caught = [] if "R0" in rules else rules
    example = found.violations[0] if found.violations else "nothing was found"
    say(f"fault: {mutant.title}: {', '.join(caught) or 'NOT CAUGHT'} in {found.seconds:.0f} s ({example})")
    return caught


def place(home: Path, seed: int, series: int, mutant: str = "") -> Place:
    """A fresh place with ports of its own."""
    ports = list(itertools.islice({free_port() for _ in range(12)}, 4))
    settings = load_settings(
        overrides=[f"home={home}", f"kafka.bootstrap_servers=127.0.0.1:{ports[0]}", "broker.heap_mb=384"]
    )
    return Place(settings, seed, series, *ports[1:], mutant=mutant)
