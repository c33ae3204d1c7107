"""spark-submit jobs/plan_inventory.py: reorder points and order-up-to levels from the published forecasts."""

from __future__ import annotations

from datetime import UTC, datetime

from pipelines.inventory.planning import needs_executors, plan
from pipelines.io.delta import Tables
from pipelines.operations.job import JobArguments, run_job
from pipelines.operations.session import open_session


def run(arguments: JobArguments) -> None:
    settings, tables = arguments.settings, Tables(arguments.settings)
    spark = open_session("stockcast-plan") if needs_executors(settings, tables) else None
    plan(spark, settings, tables, arguments.as_of, datetime.now(UTC))


def main(argv: list[str] | None = None) -> int:
    return run_job(
        "Plan reorder points and order-up-to levels from the published forecasts.", run, nightly=True, argv=argv
    )


if __name__ == "__main__":
    raise SystemExit(main())
