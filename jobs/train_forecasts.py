"""Nightly training: a forecast for every series, published only when all of them are complete and sound."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from pipelines.forecasting.selection import refuse_unknown_candidates
from pipelines.forecasting.training import train
from pipelines.io.delta import Tables
from pipelines.operations.job import JobArguments, run_job
from pipelines.operations.session import open_session

log = logging.getLogger("stockcast.forecasting")


def run(arguments: JobArguments) -> None:
    settings = arguments.settings
    refuse_unknown_candidates(settings.forecast)
    spark = open_session("stockcast train_forecasts")
    try:
        dry_run = arguments.options.dry_run
        report = train(spark, settings, Tables(settings), arguments.as_of, datetime.now(UTC), dry_run=dry_run)
    finally:
        spark.stop()
    where = f"MLflow run {report.training_run}" if report.training_run else "not tracked: MLflow failed"
    role = "champion" if report.champion else "challenger"
    model = f", model version {report.model_version} ({role})" if report.model_version else ""
    log.info("forecasts %s as of %s: %s; %s%s", report.version, report.as_of, report.summary, where, model)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dry-run", action="store_true", help="train, track and judge, but leave in force what is in force"
    )


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(
        "Train a forecast for every series; publish only when all are complete and sound.",
        run,
        nightly=True,
        add_arguments=add_arguments,
        argv=argv,
    )


if __name__ == "__main__":
    sys.exit(main())
