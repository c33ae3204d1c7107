"""spark-submit jobs/restock.py: the ledger to flags and decided orders."""

from __future__ import annotations

from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.operations.job import JobArguments, run_job
from pipelines.operations.monitoring.serving import monitored
from pipelines.operations.session import open_session
from pipelines.restocking.stream import running_engine, start_restock


def run(arguments: JobArguments) -> None:
    settings = arguments.settings
    with ownership(settings, "restock"):
        spark, tables = open_session("stockcast-restock"), Tables(settings)
        with monitored(settings, spark), running_engine(settings, tables) as engine:
            start_restock(spark, settings, tables, engine, once=arguments.once).awaitTermination()


def main(argv: list[str] | None = None) -> int:
    return run_job(
        "Follow the ledger: keep positions, raise stockout flags, decide orders into the outbox.",
        run,
        streaming=True,
        argv=argv,
    )


if __name__ == "__main__":
    raise SystemExit(main())
