"""spark-submit jobs/refresh_forecasts.py: the rest of today's hours anew, from what has sold so far."""

from __future__ import annotations

import argparse
import logging
from datetime import UTC, datetime

from pipelines.forecasting.refreshing import refresh
from pipelines.io.delta import Tables
from pipelines.operations.job import JobArguments, run_job
from pipelines.operations.session import open_session

log = logging.getLogger("stockcast.forecasting")


def run(arguments: JobArguments) -> None:
    settings = arguments.settings
    spark = open_session("stockcast-refresh")
    try:
        report = refresh(spark, settings, Tables(settings), arguments.options.now or datetime.now(UTC))
    finally:
        spark.stop()
    log.info("in force for today's hours: %s", report.version or f"nothing new, {report.reason}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--now", type=moment, metavar="TIME", help="refresh as of this time (ISO 8601 with zone)")


def moment(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; expected one such as 2024-03-01T14:05Z") from None
    if time.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} has no time zone; write one such as {text}Z")
    return time


def main(argv: list[str] | None = None) -> int:
    return run_job(
        "Refresh today's hourly forecasts from what has sold so far, without refitting.",
        run,
        add_arguments=add_arguments,
        argv=argv,
    )


if __name__ == "__main__":
    raise SystemExit(main())
