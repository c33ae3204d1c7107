"""spark-submit jobs/watch_anomalies.py (or python): demand, stock, counts, prices and suppliers against what is usual.
Needs no Spark session."""

from __future__ import annotations

import threading

from pipelines.anomalies.following import watch_anomalies
from pipelines.io.delta import Tables
from pipelines.operations.job import JobArguments, run_job
from pipelines.operations.monitoring.serving import monitored


def run(arguments: JobArguments) -> None:
    settings = arguments.settings
    with monitored(settings):
        watch_anomalies(settings, Tables(settings), threading.Event(), once=arguments.once)


def main(argv: list[str] | None = None) -> int:
    return run_job("Watch for anomalies with the rules of anomalies.rules.", run, streaming=True, argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
