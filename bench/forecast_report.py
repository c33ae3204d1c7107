"""The tables of the forecasting parts."""

from __future__ import annotations

from textwrap import fill
from typing import Any

from bench.fit_forms import OURS, PEER, PROCESSES, STOCK
from bench.forecast_data import CHUNK, HORIZON, origin
from bench.harness import Options, Spread, spread
from bench.report import NAMES, foot

Row = dict[str, Any]


def fit_section(options: Options, results: dict[str, dict[str, list[Row]]], command: str) -> str:
    """Fits and forecasts a second, by task and competitor."""
    text = f"""{PROCESSES} processes, started and warmed up before; data in memory to forecasts in memory.
        {options.forecast_series:,} {origin(options.data)}; stock Prophet on the first {options.stock_series} of them,
        prophet-batch on the number stated (for both, the cost of a series does not depend on how many there are).
        Each run in fresh processes, {options.repetitions} repetitions, interleaved: median, least and most. Every
        competitor is left at its defaults, seasonality "auto": below 731 days Prophet has no yearly season.
        prophet-batch computes future rows and the needed columns alone, in its pool. WAPE: over the {HORIZON} days
        that follow, on the {options.stock_series} series that all have forecast. ×: series a second against stock's
        and prophet-batch's in the same mode; and the same by processor time, which other work on the machine hardly
        changes. Worker: the largest process's peak memory."""
    tables = "\n\n".join(f"**{task}**\n\n{_fit_table(found)}" for task, found in results.items())
    return f"""
## Fits: a {HORIZON}-day forecast with 80 % intervals, compute only

{fill(" ".join(text.split()), 120)}

{tables}

{foot(command)}"""


def _fit_table(found: dict[str, list[Row]]) -> str:
    speeds = {form: spread([row["per_second"] for row in rows]) for form, rows in found.items()}
    costs = {
        form: spread([1000 * row["processor_seconds"] / row["series"] for row in rows]) for form, rows in found.items()
    }
    thrifts = {form: spread([1 / cost.median]) for form, cost in costs.items()}
    lines = [
        "| competitor | series | series/s | × stock | × prophet-batch | ms of a core a series | × stock "
        "| × prophet-batch | WAPE | worker, MiB | others, cores |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for form, rows in found.items():
        mode = form.rsplit("_", 1)[1]
        cells = [
            NAMES[form],
            f"{rows[0]['series']:,}",
            speeds[form].show(0 if speeds[form].median > 100 else 1),
            _times(speeds, form, f"stock_{mode}"),
            _times(speeds, form, f"prophet_batch_{mode}"),
            costs[form].show(2 if costs[form].median < 10 else 0),
            _times(thrifts, form, f"stock_{mode}"),
            _times(thrifts, form, f"prophet_batch_{mode}"),
            f"{rows[0]['wape']:.4f}",
            f"{max(row['worker_mib'] for row in rows):,.0f}",
            spread([row["others"] for row in rows]).show(),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _times(speeds: dict[str, Spread], form: str, other: str) -> str:
    if other not in speeds or other == form:
        return "–"
    return f"{speeds[form].median / speeds[other].median:,.0f}" if form in OURS else _small(speeds, form, other)


def _small(speeds: dict[str, Spread], form: str, other: str) -> str:
    return f"{speeds[form].median / speeds[other].median:,.1f}" if form in PEER and other in STOCK else "–"


def scale_section(options: Options, results: dict[str, list[Row]], command: str) -> str:
    """Cost of a series by the number of series."""
    lines = [
        "| mode | series | forecast | µs a series | µs of a core a series | series/s and core | peak memory, MiB "
        "| others, cores |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for form, rows in results.items():
        for row in rows:
            lines.append(
                f"| {OURS[form]} | {row['series']:,} | {row['done']:,} | {row['microseconds']:,.0f} | "
                f"{row['core_microseconds']:,.0f} | {1e6 / row['core_microseconds']:,.0f} | {row['mib']:,.0f} | "
                f"{row['others']:.2f} |"
            )
    table = "\n".join(lines)
    text = f"""One process, 730 days, {HORIZON}-day forecasts with 80 % intervals and parameters as JSON, batches of
        {CHUNK} as on an executor, the features of the calendar computed once; {origin(options.data)}. Memory is
        that of the whole process, packages included."""
    return f"""
## Scale: cost of a series by how many there are

{fill(" ".join(text.split()), 120)}

{table}

{foot(command)}"""


def delta_section(options: Options, results: dict[str, list[Row]], command: str) -> str:
    """From a Delta table of demand to a Delta table of forecasts."""
    lines = [
        "| path | series | first run, s | fourth run, s | series/s | × stock, whole job | × stock, marginal "
        "| ms of a core a series | × stock, marginal | largest Python worker, MiB | all of them, MiB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    stock = results["delta_stock"]
    sizes = sorted({row["series"] for row in stock})
    whole = sizes[-1] / _median(stock, sizes[-1], "seconds")
    marginal, core_marginal = (
        (sizes[-1] - sizes[0]) / (_median(stock, sizes[-1], name) - _median(stock, sizes[0], name))
        for name in ("seconds", "core_seconds")
    )
    for form, rows in results.items():
        for size in sorted({row["series"] for row in rows}):
            same = [row for row in rows if row["series"] == size]
            speed, core_speed = (size / _median(same, size, name) for name in ("seconds", "core_seconds"))
            compared = ((speed, whole), (speed, marginal), (core_speed, core_marginal))
            times = ["–" if form == "delta_stock" else f"{ours / others:,.0f}" for ours, others in compared]
            lines.append(
                f"| {NAMES[form]} | {size:,} | {spread([row['cold'] for row in same]).show(1)} | "
                f"{spread([row['seconds'] for row in same]).show(1)} | {speed:,.1f} | {times[0]} | {times[1]} | "
                f"{1000 / core_speed:,.1f} | {times[2]} | "
                f"{max(row['largest_mib'] for row in same):,.0f} | {max(row['total_mib'] for row in same):,.0f} |"
            )
    table = "\n".join(lines)
    text = f"""730 days, {HORIZON}-day forecasts. Ours as the nightly training does it: one row a series, `mapInArrow`
        with hundreds of series a call, seven quantiles, rows of `gold/forecasts`. Stock Prophet in
        `groupBy().applyInPandas`, its own two bounds, on fewer series, in a table that holds no others;
        {origin(options.data)}. Each repetition of {options.repetitions} is a new session, interleaved:
        its first of four runs finds Spark, its workers and the packages cold, its fourth does not, and the speeds
        are those of the fourth. Stock's marginal speed leaves out what a Spark job costs whatever the number of
        series; ours is compared with both, all of its own costs included."""
    return f"""
## Delta to Delta: gold/daily_demand to forecasts, through Spark on two cores

{fill(" ".join(text.split()), 120)}

{table}

{foot(command)}"""


def _median(rows: list[Row], size: int, name: str) -> float:
    return spread([row[name] for row in rows if row["series"] == size]).median


def posterior_section(options: Options, results: dict[str, Row], command: str) -> str:
    """Our fits against Stan's by Prophet's posterior."""
    lines = [
        "| mode | series | worst gain | median gain | median difference, σ | largest difference, σ |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for mode, row in results.items():
        lines.append(
            f"| {mode} | {row['series']} | {row['worst_gain']:.1e} | {row['median_gain']:.1e} | "
            f"{row['median_difference']:.3f} | {row['largest_difference']:.2f} |"
        )
    table = "\n".join(lines)
    text = f"""500 {origin(options.data)}; 1,461 days. Gain: our log posterior less Stan's, relative to its size, by
        Prophet's own preprocessing; where Stan's optimiser stops short of the optimum it is positive. Difference: the
        largest of the {HORIZON} days' forecasts, in units of the fitted noise."""
    return f"""
## Posterior: every fit against Stan's

{fill(" ".join(text.split()), 120)}

{table}

{foot(command)}"""
