"""spark-submit jobs/cluster_network.py (or python): observed lead times, and which suppliers and locations are alike.
Needs no Spark session."""

from __future__ import annotations

from datetime import UTC, datetime

from pipelines.io.delta import Tables
from pipelines.network.clustering import cluster_network
from pipelines.operations.job import JobArguments, run_job


def run(arguments: JobArguments) -> None:
    cluster_network(arguments.settings, Tables(arguments.settings), arguments.as_of, datetime.now(UTC))


def main(argv: list[str] | None = None) -> int:
    return run_job(
        "Learn how long lanes take and which suppliers and locations are alike.", run, nightly=True, argv=argv
    )


if __name__ == "__main__":
    raise SystemExit(main())
