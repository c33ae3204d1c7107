"""A soak in words and tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bench.report import foot
from tests.soak import judge
from tests.soak.judge import Batch, Row
from tests.soak.run import Report

TABLES_SHOWN = ("bronze/events", "silver/stock_movements", "silver/ingest_batches", "gold/inventory_positions",
                "gold/order_outbox", "gold/orders", "gold/demand_totals")  # fmt: skip


def section(report: Report, command: str) -> str:
    """The section of bench/RESULTS.md."""
    plan = report.plan
    restarts = ", ".join(
        f"SIG{how} at {at:.0f} s (working again after {took:.0f} s)" for at, how, took in report.restarts
    )
    verdict = "Passed." if report.passed else "**Failed.**"
    adds_up = "every rule holds" if not report.violations else "; ".join(report.violations)
    shown = [row for row in report.rows if not row.passed or not _of_table(row) or row.name.endswith(TABLES_SHOWN)]
    hidden = len(report.rows) - len(shown)
    early = " to ".join(f"{at:.0f}" for at in plan.early_life)
    return f"""
## Soak: {plan.total / 60:g} minutes at {report.rate:,.0f} events/s, with restarts

{verdict} {report.events:,} events, {report.orders:,} orders; {report.behind:,.0f} records behind when the load ended.
Restarts of the live job: {restarts or "none"}. At rest, reconciled by the crash test's rules: {adds_up}.

| figure | early | late | limit | |
|---|---:|---:|---:|---|
{_lines(shown)}

{hidden} more figures, of other tables' files and log entries, are within their limits too. Early and late: batch time
in the first and the last {plan.window / 60:.3g} minutes, {plan.warm_up:.0f} s of warm-up of the process apart; the live
job's memory in the last ones, and when its first life was as old ({early} s); all else in the second
and the last third of the run. Limits: {judge.BATCH_FACTOR:g} times the early batch time; {judge.MEMORY_FACTOR:g} times
the early memory and {judge.MEMORY_MORE // 2**20} MiB, and for Python {judge.REMEMBERED_BYTES} bytes for each event id
that was remembered in between; {judge.DISK_FACTOR:g} times the early bytes for each event; {judge.FILES_FACTOR:g} times
the files and {judge.FILES_MORE}. Replaced files and log entries were
kept for {_keep(report):g} minutes.

{_stretches(report)}

{foot(command)}"""


def _lines(rows: Sequence[Row]) -> str:
    return "\n".join(
        f"| {row.name} | {_show(row.early, row.unit)} | {_show(row.late, row.unit)} | {_show(row.limit, row.unit)} "
        f"| {'' if row.passed else '**beyond**'} |"
        for row in rows
    )


def _show(value: float, unit: str) -> str:
    digits = 3 if unit == "s" else 0
    return f"{value:,.{digits}f} {unit}".strip()


def _of_table(row: Row) -> bool:
    return row.name.startswith(("files, ", "log entries, "))


def _keep(report: Report) -> float:
    return max(0.5, report.plan.total / 600)


def _stretches(report: Report) -> str:
    """Batch times in the measured stretches, with the noise of others."""
    lines = [
        "| stretch | batches | median, s | mean, s | p95, s | records a batch | others, cores |",
        "|---|" + "---:|" * 6,
    ]
    for name, (start, end) in (("first", report.plan.first), ("last", report.plan.last)):
        batches = [batch for batch in report.done if start <= batch.at < end]
        others = [sample.others for sample in report.samples if start <= sample.at < end]
        lines.append(
            f"| {name} {(end - start) / 60:.3g} minutes | {_batches(batches)} | {statistics.mean(others or [0]):.2f} |"
        )
    return "\n".join(lines)


def _batches(batches: Sequence[Batch]) -> str:
    if not batches:
        return "0 | | | | "
    seconds = sorted(batch.seconds for batch in batches)
    records = statistics.mean(batch.records for batch in batches)
    return (
        f"{len(batches)} | {statistics.median(seconds):.3f} | {statistics.mean(seconds):.3f} "
        f"| {seconds[int(0.95 * (len(seconds) - 1))]:.3f} | {records:.0f}"
    )
