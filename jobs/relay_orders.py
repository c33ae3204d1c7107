"""spark-submit jobs/relay_orders.py (or python): the outbox to Kafka, and the expiry of proposals. Needs no Spark
session."""

from __future__ import annotations

import threading
from contextlib import closing

from pipelines.io.delta import Tables
from pipelines.operations.job import JobArguments, run_job
from pipelines.operations.monitoring.serving import monitored
from pipelines.restocking.expiry import kafka_expiry
from pipelines.restocking.relay import Relay, relay_once


def run(arguments: JobArguments) -> None:
    settings, tables = arguments.settings, Tables(arguments.settings)
    if arguments.once:
        relay_once(settings, tables)
        return
    with monitored(settings), closing(Relay(settings, tables)) as relay:
        relay.run(threading.Event().wait, kafka_expiry(settings, tables))


def main(argv: list[str] | None = None) -> int:
    return run_job(
        "Publish decided orders from the outbox to restock.orders, each exactly once.", run, streaming=True, argv=argv
    )


if __name__ == "__main__":
    raise SystemExit(main())
