"""`python -m bench [PART ...]`: measure, and put the tables into bench/RESULTS.md."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from bench import (
    accuracy,
    anomalies,
    catch_up,
    clusters,
    delta_to_delta,
    forecast_report,
    forecasting,
    inventory,
    lateness,
    levels,
    live_state,
    memory,
    report,
    shipments,
    tracking,
)
from bench.harness import Options, say

PARTS = {
    "live_state": (live_state.measure, report.live_section),
    "catch_up": (catch_up.measure, report.catch_up_section),
    "memory": (memory.measure, report.memory_section),
    "fit": (forecasting.measure_fit, forecast_report.fit_section),
    "scale": (forecasting.measure_scale, forecast_report.scale_section),
    "delta_to_delta": (delta_to_delta.measure, forecast_report.delta_section),
    "posterior": (forecasting.measure_posterior, forecast_report.posterior_section),
    "accuracy": (accuracy.measure, accuracy.section),
    "tracking": (tracking.measure, tracking.section),
    "inventory": (inventory.measure, inventory.section),
    "levels": (levels.measure, levels.section),
    "shipments": (shipments.measure, shipments.section),
    "anomalies": (anomalies.measure, anomalies.section),
    "lateness": (lateness.measure, lateness.section),
    "clusters": (clusters.measure, clusters.section),
}


def main(argv: list[str] | None = None) -> int:
    """Measure the parts named, or all."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; none: all")
    parser.add_argument("--folder", type=Path, help="where homes and logs go (a temporary folder)")
    parser.add_argument("--port", type=int, default=19304, help="of the bench's own brokers")
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=1000.0, help="live events a second")
    parser.add_argument("--warm-up", type=float, default=15.0, help="seconds")
    parser.add_argument("--seconds", type=float, default=40.0, help="measured seconds of a live run")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--events", type=int, default=300_000, help="events to catch up on")
    parser.add_argument("--forms", default="", help="only these, comma-separated")
    parser.add_argument("--peer", type=Path, help="folder of the Kafka Streams peer with its run.sh (BENCH_PEER)")
    parser.add_argument("--data", type=Path, help="folder of the real daily series (BENCH_DATA); none: simulated ones")
    parser.add_argument("--forecast-series", type=int, default=5000, help="series that are forecast")
    parser.add_argument("--stock-series", type=int, default=80, help="of them, by stock Prophet")
    parser.add_argument("--quiet", type=float, default=2.0, help="cores that others may keep busy in a run that counts")
    parser.add_argument("--attempts", type=int, default=1, help="how often a noisier run is measured again")
    parser.add_argument("--tracked", type=int, default=10_000, help="series of the tracking part's one run")
    parser.add_argument("--single-runs", type=int, default=100, help="runs of a single series that it compares with")
    parser.add_argument("--shipment-rate", type=float, default=2000.0, help="shipment events a second")
    parser.add_argument("--under-way", type=int, default=100_000, help="shipments under way from the start")
    parser.add_argument("--no-write", action="store_true", help="leave RESULTS.md as it is")
    chosen = parser.parse_args(argv)
    if unknown := [part for part in chosen.parts if part not in PARTS]:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    forms = tuple(form for form in chosen.forms.split(",") if form)
    if unknown := [form for form in forms if form not in report.NAMES]:
        parser.error(f"no form {', '.join(unknown)}; there are {', '.join(report.NAMES)}")
    peer, data = (given or _folder(name) for given, name in ((chosen.peer, "BENCH_PEER"), (chosen.data, "BENCH_DATA")))
    # So that what was started is ended in an orderly way.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="stockcast-bench-") as temporary:
        options = Options(
            folder=(chosen.folder or Path(temporary)).absolute(),
            port=chosen.port,
            series=chosen.series,
            rate=chosen.rate,
            warm_up=chosen.warm_up,
            seconds=chosen.seconds,
            repetitions=chosen.repetitions,
            events=chosen.events,
            forms=forms,
            peer=peer.absolute() if peer else None,
            data=data.absolute() if data else None,
            forecast_series=chosen.forecast_series,
            stock_series=chosen.stock_series,
            quiet=chosen.quiet,
            attempts=chosen.attempts,
            tracked=chosen.tracked,
            single_runs=chosen.single_runs,
            shipment_rate=chosen.shipment_rate,
            under_way=chosen.under_way,
        )
        for part in chosen.parts or PARTS:
            measure, section = PARTS[part]
            results = measure(options)
            text = section(options, results, command(part, chosen))
            say(f"{part}:\n{text}")
            if chosen.folder:
                (chosen.folder / f"{part}.json").write_text(json.dumps(results, indent=1))
            if not chosen.no_write:
                report.write(part, text)
    return 0


def _folder(variable: str) -> Path | None:
    named = os.environ.get(variable)
    return Path(named) if named else None


def command(part: str, chosen: argparse.Namespace) -> str:
    """The command that measures this again, its environment in words."""
    defaults = {
        "rate": 1000.0,
        "warm_up": 15.0,
        "seconds": 40.0,
        "repetitions": 3,
        "events": 300_000,
        "series": 1000,
        "forecast_series": 5000,
        "stock_series": 80,
        "quiet": 2.0,
        "attempts": 1,
        "tracked": 10_000,
        "single_runs": 100,
        "shipment_rate": 2000.0,
        "under_way": 100_000,
    }
    words = [
        f"--{name.replace('_', '-')} {getattr(chosen, name):g}"
        for name, value in defaults.items()
        if getattr(chosen, name) != value
    ]
    if chosen.forms:
        words.append(f"--forms {chosen.forms}")
    folder = "BENCH_PEER" if part in {"live_state", "catch_up", "memory"} else "BENCH_DATA"
    beside = "" if part in {"shipments", "anomalies"} else f"{folder}=FOLDER "
    return " ".join([f"{beside}python -m bench", part, *words])


if __name__ == "__main__":
    raise SystemExit(main())
