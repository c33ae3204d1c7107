"""spark-submit jobs/train_shipment_risk.py (or python): learn how late shipments will be. Needs no Spark session."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pipelines.io.delta import Tables
from pipelines.operations.job import JobArguments, run_job
from pipelines.shipments.risk.releasing import train_and_release


def run(arguments: JobArguments) -> None:
    now = datetime.now(UTC)
    as_of = arguments.as_of or now.date() - timedelta(days=1)
    train_and_release(arguments.settings, Tables(arguments.settings), as_of, now)


def main(argv: list[str] | None = None) -> int:
    return run_job("Learn from the shipments so far how late the next ones will be.", run, nightly=True, argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
