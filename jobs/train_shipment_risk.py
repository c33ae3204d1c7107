"""spark-submit jobs/train_shipment_risk.py (or python): learn how late shipments will be. Needs no Spark session."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipelines.errors import UsageError
from pipelines.io.delta import Tables
from pipelines.operations.job import JobArguments, run_job
from pipelines.shipments.risk.files import file_source
from pipelines.shipments.risk.releasing import release, train_and_release


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--deliveries",
        type=Path,
        metavar="FILE",
        help="learn from this Parquet or CSV file instead of the shipments tracked",
    )
    parser.add_argument("--columns", type=Path, metavar="FILE", help="YAML that says what the file's columns are")


def run(arguments: JobArguments) -> None:
    options, now, tables = arguments.options, datetime.now(UTC), Tables(arguments.settings)
    if (options.deliveries is None) != (options.columns is None):
        raise UsageError("--deliveries and --columns belong together: give both, or neither")
    if options.deliveries is None:
        as_of = arguments.as_of or now.date() - timedelta(days=1)
        train_and_release(arguments.settings, tables, as_of, now)
    else:
        source, last = file_source(options.deliveries, options.columns)
        release(arguments.settings, tables, source, arguments.as_of or last, now)


def main(argv: list[str] | None = None) -> int:
    return run_job(
        "Learn from the shipments so far how late the next ones will be.",
        run,
        nightly=True,
        add_arguments=add_arguments,
        argv=argv,
    )


if __name__ == "__main__":
    raise SystemExit(main())
