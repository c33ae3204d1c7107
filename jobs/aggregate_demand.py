"""spark-submit jobs/aggregate_demand.py: ledger to hourly and daily demand, and totals."""

from __future__ import annotations

from pipelines.demand.aggregate import aggregate_demand
from pipelines.io.delta import Tables
from pipelines.operations.job import JobArguments, run_job
from pipelines.operations.session import open_session


def run(arguments: JobArguments) -> None:
    spark = open_session("stockcast-demand")
    aggregate_demand(spark, arguments.settings, Tables(arguments.settings), arguments.as_of)


def main(argv: list[str] | None = None) -> int:
    return run_job("Aggregate the ledger to hourly and daily demand, and to totals.", run, nightly=True, argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
