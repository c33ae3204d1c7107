"""spark-submit jobs/load_catalog.py: products, locations, suppliers and sourcing, validated and put in force."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from pipelines.ingestion.catalog import load_catalog
from pipelines.io.delta import Tables
from pipelines.operations.job import JobArguments, run_job

log = logging.getLogger("stockcast.catalog")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder with products, locations, suppliers and sourcing, each as .csv or .parquet",
    )


def run(arguments: JobArguments) -> None:
    rows = load_catalog(arguments.settings, Tables(arguments.settings), arguments.options.source)
    log.info("catalog loaded: %s", ", ".join(f"{count} {name}" for name, count in rows.items()))


def main(argv: list[str] | None = None) -> int:
    return run_job(
        "Validate and load the catalog from CSV or Parquet files.", run, add_arguments=add_arguments, argv=argv
    )


if __name__ == "__main__":
    raise SystemExit(main())
