"""spark-submit jobs/maintain_tables.py (or python): keep the tables in order whose owners are not at work. Needs no
Spark session."""

from __future__ import annotations

import logging

from pipelines.io.delta import Tables
from pipelines.operations.job import JobArguments, run_job
from pipelines.operations.maintenance import maintain_idle

log = logging.getLogger("stockcast.maintenance")


def run(arguments: JobArguments) -> None:
    done, busy = maintain_idle(arguments.settings, Tables(arguments.settings))
    merged, removed = (sum(getattr(upkeep, name) for upkeep in done.values()) for name in ("merged", "removed"))
    log.info("%d tables kept in order: %d files merged, %d old ones removed", len(done), merged, removed)
    for owner in sorted(set(busy.values())):
        log.info("%s is at work and keeps its own tables in order", owner)


def main(argv: list[str] | None = None) -> int:
    return run_job("Merge small files and remove old ones, of tables whose owners are not at work.", run, argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
