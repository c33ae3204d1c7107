"""spark-submit jobs/live.py: ingest, restock, totals and relay in one Spark application."""

from __future__ import annotations

from pipelines.operations.job import JobArguments, run_job
from pipelines.operations.live import run_live


def run(arguments: JobArguments) -> None:
    run_live(arguments.settings, once=arguments.once)


def main(argv: list[str] | None = None) -> int:
    return run_job("Run all live streams in one Spark application.", run, streaming=True, argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
