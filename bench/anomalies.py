"""`python -m bench anomalies`: planted troubles and quiet days of simulated chains, watched by all rules."""

from __future__ import annotations

from collections import Counter
from textwrap import fill
from typing import Any

import numpy as np

from bench.anomaly_trial import QUIET_DAYS, STATED_HOURS, run_trial
from bench.harness import Options, say
from bench.report import foot

SEEDS = (3, 5, 8)


def measure(options: Options) -> list[dict[str, Any]]:
    """One row a trouble and seed, and one a seed."""
    del options
    rows: list[dict[str, Any]] = []
    for seed in SEEDS:
        outcome = run_trial(seed, progress=lambda line: say(line[:150]))
        for trouble in outcome.troubles:
            alarm = outcome.found(trouble)
            hours = None if alarm is None else alarm.hour - trouble.begin
            rows.append({"seed": seed, "kind": trouble.kind, "subject": trouble.subject, "hours": hours})
        rows.append(
            {
                "seed": seed,
                "false_alarms": len(outcome.false_alarms),
                "by_rule": dict(Counter(alarm.rule for alarm in outcome.false_alarms).most_common()),
                "recall": outcome.recall,
                "precision": outcome.precision(),
                "look_seconds": float(np.median(outcome.look_seconds)),
            }
        )
        say(str(rows[-1]))
    return rows


def section(options: Options, results: list[dict[str, Any]], command: str) -> str:
    """The table of what was found, and of what was said in vain."""
    del options
    seeds = sorted({row["seed"] for row in results})
    kinds = [row["kind"] for row in results if row["seed"] == seeds[0] and "kind" in row]
    hours = {(row["seed"], row["kind"]): row["hours"] for row in results if "kind" in row}
    sums = {row["seed"]: row for row in results if "kind" not in row}
    what = f"""Simulated chains of 120 series: 70 days to get to know them, {QUIET_DAYS} quiet days, 40 with
        troubles. The rules see only what has happened; forecasts are made anew every day from the days before. Budget:
        one false alarm a day for all rules together. A phantom stock that is one (the simulated shelf is empty) is no
        false alarm; an alarm about what a trouble does elsewhere (a store that waits for the blocked hub) counts
        against precision."""
    lines = [
        "| found after hours (stated) | " + " | ".join(f"seed {seed}" for seed in seeds) + " |",
        "|---|" + "---:|" * len(seeds),
    ]
    for kind in kinds:
        cells = ["not found" if hours[seed, kind] is None else str(hours[seed, kind]) for seed in seeds]
        lines.append(f"| {kind.replace('_', ' ')} ({STATED_HOURS[kind]}) | " + " | ".join(cells) + " |")
    for name, label in (
        ("recall", "recall"),
        ("precision", "precision"),
        ("false_alarms", f"false alarms in {QUIET_DAYS} quiet days (budget {QUIET_DAYS})"),
    ):
        lines.append(f"| {label} | " + " | ".join(f"{sums[seed][name]:.4g}" for seed in seeds) + " |")
    table = "\n".join(lines)
    return f"""
## Anomalies: planted troubles found, and what is said in vain

{fill(" ".join(what.split()), 120)}

{table}

{foot(command)}"""
