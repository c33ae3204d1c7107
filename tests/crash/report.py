"""The results of a crash test as a table in Markdown, written into the results file by the test itself."""

from __future__ import annotations

import os
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from tests.crash.harness import Report
from tests.crash.mutants import MUTANTS

RESULTS = Path(__file__).parent / "RESULTS.md"
HEAD = """# Results of the crash test

Written by `make crash-test`; what is killed and what must hold is in [rules.py](rules.py) and
[schedule.py](schedule.py). Recovery: from the restart until nothing is left to do: all consumed, decided, published and
sent; it includes the start of Spark where that was killed.
"""


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(report: Report) -> str:
    """Kills and recovery by point."""
    kills: dict[tuple[str, str], list[float | None]] = defaultdict(list)
    for kill in report.kills:
        kills[(kill.role, kill.point)].append(kill.recovery)
    lines = ["| process | killed at | kills | recovery p50 | p95 | max |", "|---|---|---:|---:|---:|---:|"]
    everything = [kill.recovery for kill in report.kills if kill.recovery is not None]
    for (role, point), found in [*sorted(kills.items()), (("**all**", ""), [kill.recovery for kill in report.kills])]:
        times = [recovery for recovery in found if recovery is not None]
        cells = (
            [f"{statistics.median(times):.1f} s", f"{quantile(times, 0.95):.1f} s", f"{max(times):.1f} s"]
            if times
            else ["", "", ""]
        )
        lines.append(f"| {role} | {point} | {len(found)} | {' | '.join(cells)} |")
    assert everything or not report.kills
    return "\n".join(lines)


def summary(report: Report) -> str:
    """What was sent, decided and found, in one line."""
    found = f"{len(report.violations)} violations" if report.violations else "no violation"
    roles = ", ".join(f"{role} ({code})" for role, code in report.deaths)
    deaths = f"; {len(report.deaths)} processes ended by themselves and were started again: {roles}" if roles else ""
    points = ", ".join(f"{step.role} {step.point}" for step in report.missed)
    missed = f"; {len(report.missed)} points were not reached in time: {points}" if report.missed else ""
    return (
        f"{len(report.kills)} kills in {report.seconds / 60:.0f} minutes, {report.events:,d} records, "
        f"{report.orders:,d} orders, {report.effects:,d} effects at the supplier, {report.decisions:,d} decisions "
        f"by the order API, {report.reconciliations} full reconciliations: **{found}**{missed}{deaths}. "
        f"Meanwhile the machine's {os.cpu_count()} cores had a load of {statistics.mean(report.loads or [0]):.1f}."
    )


def mutants_table(caught: Mapping[str, Sequence[str]]) -> str:
    """Which rules caught which fault."""
    lines = ["| fault put in | caught by |", "|---|---|"]
    lines += [f"| {MUTANTS[name].title} | {', '.join(rules) or '**nothing**'} |" for name, rules in caught.items()]
    return "\n".join(lines)


def write(path: Path, title: str, command: str, parts: Sequence[str]) -> None:
    """Put a section into the results file, in place of the one with the same title."""
    text = path.read_text(encoding="utf-8") if path.exists() else HEAD
    section = "\n\n".join((f"## {title}", f"{date.today():%d %B %Y}, `{command}`", *parts)) + "\n"
    before = re.split(r"(?m)^(?=## )", text)
    kept = [part.rstrip() + "\n" for part in before if not part.startswith(f"## {title}\n")]
    path.write_text("\n".join([*kept, section]), encoding="utf-8")
