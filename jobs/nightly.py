"""spark-submit jobs/nightly.py: what the scheduler calls once a night."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from pipelines.io.delta import Tables
from pipelines.operations.job import JobArguments, run_job
from pipelines.operations.nightly import run_nightly
from pipelines.operations.session import open_session

log = logging.getLogger("stockcast.nightly")


def run(arguments: JobArguments) -> None:
    settings = arguments.settings
    spark = open_session("stockcast-nightly")
    report = run_nightly(spark, settings, Tables(settings), arguments.as_of, lambda: datetime.now(UTC))
    log.info("as of %s: %s", report.as_of, report.training.summary)
    log.info("%s", report.planning)


def main(argv: list[str] | None = None) -> int:
    return run_job("Aggregate, train, promote, plan: what the scheduler calls.", run, nightly=True, argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
