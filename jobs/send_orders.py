"""spark-submit jobs/send_orders.py (or python): orders to the supplier's API. Needs no Spark session."""

from __future__ import annotations

import argparse
import logging
import threading
from datetime import UTC, datetime

from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.operations.job import JobArguments, run_job
from pipelines.operations.monitoring.serving import monitored
from pipelines.restocking.sending import OrderSender


def run(arguments: JobArguments) -> None:
    settings = arguments.settings
    with ownership(settings, "send_orders"), monitored(settings):
        sender = OrderSender(settings, Tables(settings), lambda: datetime.now(UTC), once=arguments.once)
        try:
            if arguments.options.retry_parked:
                logging.getLogger("stockcast.suppliers").info("%d parked orders again", sender.retry_parked())
            if arguments.once:
                sender.run_once()
            else:
                sender.run(threading.Event().wait)
        finally:
            sender.close()


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--retry-parked", action="store_true", help="send parked orders again, after a fix")


def main(argv: list[str] | None = None) -> int:
    return run_job(
        "Send orders from restock.orders to the supplier's API, each with one effect.",
        run,
        streaming=True,
        add_arguments=_add_arguments,
        argv=argv,
    )


if __name__ == "__main__":
    raise SystemExit(main())
