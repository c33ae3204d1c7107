"""spark-submit jobs/track_shipments.py (or python): shipment events to the state of every shipment. Needs no Spark
session."""

from __future__ import annotations

import threading

from pipelines.io.delta import Tables
from pipelines.operations.job import JobArguments, run_job
from pipelines.operations.monitoring.serving import monitored
from pipelines.shipments.following import follow_shipments


def run(arguments: JobArguments) -> None:
    settings = arguments.settings
    with monitored(settings):
        follow_shipments(settings, Tables(settings), threading.Event(), once=arguments.once)


def main(argv: list[str] | None = None) -> int:
    return run_job(
        "Follow the shipments that were taken in: state, place, expected arrival.", run, streaming=True, argv=argv
    )


if __name__ == "__main__":
    raise SystemExit(main())
