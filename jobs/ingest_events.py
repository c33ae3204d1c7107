"""spark-submit jobs/ingest_events.py: Kafka to bronze, ledger and quarantine."""

from __future__ import annotations

from pipelines.ingestion.stream import start_ingest
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.operations.job import JobArguments, run_job
from pipelines.operations.monitoring.serving import monitored
from pipelines.operations.session import open_session


def run(arguments: JobArguments) -> None:
    settings = arguments.settings
    with ownership(settings, "ingest_events"):
        spark = open_session("stockcast-ingest")
        with monitored(settings, spark) as metrics:
            query = start_ingest(spark, settings, Tables(settings), once=arguments.once)
            metrics.remember(query.name, "event ids", query.remembered)
            query.awaitTermination()


def main(argv: list[str] | None = None) -> int:
    return run_job(
        "Take the chain's events in: Kafka to bronze, ledger and quarantine.", run, streaming=True, argv=argv
    )


if __name__ == "__main__":
    raise SystemExit(main())
