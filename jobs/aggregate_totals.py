"""spark-submit jobs/aggregate_totals.py: keep the totals per region and for the chain up to date."""

from __future__ import annotations

from pipelines.demand.totals import run_totals
from pipelines.io.delta import Tables
from pipelines.operations.job import JobArguments, run_job
from pipelines.operations.monitoring.serving import monitored
from pipelines.operations.session import open_session


def run(arguments: JobArguments) -> None:
    spark = open_session("stockcast-totals")
    with monitored(arguments.settings, spark):
        run_totals(spark, arguments.settings, Tables(arguments.settings), once=arguments.once)


def main(argv: list[str] | None = None) -> int:
    return run_job(
        "Keep orders, units and revenue per region and for the chain up to date.", run, streaming=True, argv=argv
    )


if __name__ == "__main__":
    raise SystemExit(main())
