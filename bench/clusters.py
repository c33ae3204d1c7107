"""What clusters of suppliers and of locations are good for, measured: lead times of few orders, and new series."""

from __future__ import annotations

from textwrap import fill
from typing import Any

import pandas as pd

from bench import clusters_lead_times, clusters_series
from bench.clusters_lead_times import EVERYBODY, FORMS, KIN, NOW
from bench.clusters_series import ALL, BOTH, KIND, SIZE
from bench.harness import Options
from bench.report import foot

Results = dict[str, list[dict[str, Any]]]


def measure(options: Options) -> Results:
    """Rows of both tables; without the folder of data, simulated ones alone."""
    return {"series": clusters_series.measure(options), "lead_times": clusters_lead_times.measure(options)}


def section(_: Options, results: Results, command: str) -> str:
    """The tables of `bench/RESULTS.md`."""
    series = f"""**New series**: a fifth of the series is taken to have 0 to 14 days of history at each of
        {len(clusters_series.ORIGINS)} origins, and the {clusters_series.HORIZON} days after it are forecast with the
        category's profile: over all locations; over those of the location's cluster, made of the year before the
        origin, without what is hidden; and, to compare, with levels times the location's own size. WAPE, and in
        brackets the mean pinball loss over the mean demand. Used: the cluster's."""
    times = f"""**Lead times** of suppliers by how many of their orders are known: mean CRPS in days of the next orders
        (real: {len(clusters_lead_times.CUTOFFS)} origins, a year each, stated times being the supplier's mean promise
        so far; simulated: {clusters_lead_times.SIMULATED} chains of {clusters_lead_times.SUPPLIERS} suppliers). Orders
        of the cluster count relative to what is stated. Gain of the cluster with its 90 % interval over suppliers
        drawn again; negative is better. Not used: see docs/shipments.md."""
    parts = [fill(" ".join(text.split()), 120) for text in (series, times)]
    tables = _series(results["series"]), _lead_times(results["lead_times"])
    body = "\n\n".join(piece for pair in zip(parts, tables, strict=True) for piece in pair)
    return f"\n## Clusters: what they are good for\n\n{body}\n\n{foot(command)}"


def _series(rows: list[dict[str, Any]]) -> str:
    table = pd.DataFrame(rows)
    lines = [f"| data | days known | {ALL} | {KIND} | gain | {SIZE} | {BOTH} |", "|---|" + "---:|" * 6]
    for (data, days), part in table.groupby(["data", "days"], sort=False):
        found = part.set_index("profile")
        cells = {name: f"{found.wape[name]:.3f} ({found.loss[name]:.4f})" for name in (ALL, KIND, SIZE, BOTH)}
        gain = found.wape[KIND] / found.wape[ALL] - 1
        lines.append(
            f"| {data} | {days} | {cells[ALL]} | {cells[KIND]} | {gain:+.1%} | {cells[SIZE]} | {cells[BOTH]} |"
        )
    return "\n".join(lines)


def _lead_times(rows: list[dict[str, Any]]) -> str:
    lines = [f"| data | known orders | tried | {NOW} | {KIN} | gain | {EVERYBODY} |", "|---|---|" + "---:|" * 5]
    for row in rows:
        now, kin, everybody = (row[form] for form in FORMS)
        gain = f"{kin / now - 1:+.1%} ({row['low']:+.1%} to {row['high']:+.1%})"
        lines.append(
            f"| {row['data']} | {row['known']} | {row['orders']:,} | {now:.2f} | {kin:.2f} | {gain} | {everybody:.2f} |"
        )
    return "\n".join(lines)
