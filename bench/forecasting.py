"""Forecasting: fits and forecasts against the competitors, cost by number of series, and from Delta to Delta."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.fit_forms import FORMS, OURS, PEER, STOCK, environment
from bench.forecast_data import END, HORIZON, chunks
from bench.harness import ROOT, Options, await_quiet, busy_seconds, say

Row = dict[str, Any]

TASKS = {
    "730 days": {"days": 730, "missing": 0.0, "peer": 0.2},
    "1,433 days": {"days": 1433, "missing": 0.0, "peer": 0.2},
    "730 days, 3 % unknown": {"days": 730, "missing": 0.03, "peer": 0.2},
}
"""Length of the history, share of unknown days, and the share of the series that the package is timed on."""

FACTORS = (0.2, 1.0, 2.0, 4.0, 10.0)
"""Sizes, in units of the series of the other parts."""


# Fits --------------------------------------------------------------------------------------------------


def measure_fit(options: Options) -> dict[str, dict[str, list[Row]]]:
    """Each competitor on each task, in fresh processes, interleaved."""
    results: dict[str, dict[str, list[Row]]] = {}
    forms = [form for form in FORMS if not options.forms or form in options.forms]
    for task, what in TASKS.items():
        found: dict[str, list[Row]] = {form: [] for form in forms}
        for repetition in range(options.repetitions):
            for form in forms:
                await_quiet(options)
                row = _fit(options, form, what)
                found[form].append(row)
                say(f"fit, {task}, {form} {repetition + 1}: {row['per_second']:,.1f} series/s, WAPE {row['wape']:.4f}")
        results[task] = found
    return results


def _fit(options: Options, form: str, what: dict[str, float]) -> Row:
    count = options.forecast_series
    if form in PEER:
        count = round(count * what["peer"])
    if form in STOCK:
        count = options.stock_series
    common = min(options.stock_series, options.forecast_series)
    arguments = [form, "--days", str(what["days"]), "--missing", str(what["missing"])]
    arguments += ["--series", str(max(count, common)), "--common", str(common)]
    row, others = run_module("bench.fit_forms", options, *arguments)
    return {**row, "per_second": row["series"] / row["seconds"], "others": others}


def run_module(module: str, options: Options, *arguments: str, **variables: str) -> tuple[Row, float]:
    """What a module prints as JSON in its last line, and how many cores others kept busy meanwhile."""
    data = ["--data", str(options.data)] if options.data else []
    started, busy, own = time.monotonic(), busy_seconds(), _own_seconds()
    process = subprocess.run(
        [sys.executable, "-m", module, *arguments, *data],
        cwd=ROOT, env={**environment(), **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if process.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed:\n{process.stderr[-2000:]}")
    used = busy_seconds() - busy - (_own_seconds() - own)
    return json.loads(process.stdout.strip().splitlines()[-1]), max(0.0, used / (time.monotonic() - started))


def _own_seconds() -> float:
    """Processor time of this process and of those that it started and that have ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


# Cost by number of series ------------------------------------------------------------------------------


def measure_scale(options: Options) -> dict[str, list[Row]]:
    """Cost of a series and peak memory, one process and one batch at a time, by the number of series."""
    rows: dict[str, list[Row]] = {form: [] for form in OURS}
    for factor in FACTORS:
        for form in OURS:
            await_quiet(options)
            size = round(factor * options.forecast_series)
            row, others = run_module("bench.forecasting", options, form, "--series", str(size), "--days", "730")
            rows[form].append({**row, "others": others})
            say(f"scale, {form}: {rows[form][-1]}")
    return rows


def main(argv: list[str] | None = None) -> None:
    """One size: batches are made one after the other, and only fits and forecasts are timed."""
    from pipelines.forecasting.engines import EngineOptions, create
    from pipelines.forecasting.series import from_matrix
    from pipelines.operations.settings import ForecastSettings

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("form", choices=OURS)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--series", type=int, required=True)
    parser.add_argument("--days", type=int, required=True)
    chosen = parser.parse_args(argv)
    engine = create("prophet_batched", EngineOptions(ForecastSettings(seasonality_mode=OURS[chosen.form])))
    engine.fit_forecast(from_matrix(np.arange(800.0).reshape(2, 400) % 9, END), HORIZON, (0.1, 0.9))
    seconds, used, done = 0.0, 0.0, 0
    for demand in chunks(chosen.data, chosen.series, chosen.days):
        batch = from_matrix(demand[:, :-HORIZON], END)
        started, before = time.perf_counter(), time.process_time()
        found = engine.fit_forecast(batch, HORIZON, (0.1, 0.9))
        seconds, used = seconds + time.perf_counter() - started, used + time.process_time() - before
        done += sum(failure is None for failure in found.failures)
    print(json.dumps({
        "series": chosen.series, "done": done, "microseconds": 1e6 * seconds / chosen.series,
        "core_microseconds": 1e6 * used / chosen.series,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }))  # fmt: skip


# Posterior ---------------------------------------------------------------------------------------------


def measure_posterior(options: Options) -> dict[str, Row]:
    """Every real series' fit against Stan's, by Prophet's own posterior."""
    from bench.forecast_data import LAST, series
    from bench.posterior import compare
    from pipelines.forecasting.prophet_map.features import Specification

    rows = {}
    demand = series(options.data, 500, 1461 - HORIZON)
    for mode in OURS.values():
        table = compare(demand, LAST, Specification(seasonality_mode=mode))
        rows[mode] = {
            "series": len(table),
            "worst_gain": float(table["gain"].min()),
            "median_gain": float(table["gain"].median()),
            "median_difference": float(table["difference"].median()),
            "largest_difference": float(table["difference"].max()),
        }
        say(f"posterior, {mode}: {rows[mode]}")
    return rows


if __name__ == "__main__":
    main()
