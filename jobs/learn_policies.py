"""spark-submit jobs/learn_policies.py: levels learnt from the past, judged by their cost beside the classical ones."""

from __future__ import annotations

import argparse

from pipelines.inventory.learned.learning import LEARNT_DAYS, learn_policies
from pipelines.io.delta import Tables
from pipelines.operations.job import JobArguments, run_job


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--days", type=int, default=LEARNT_DAYS, help="of the newest past, half to judge in")


def run(arguments: JobArguments) -> None:
    learn_policies(arguments.settings, Tables(arguments.settings), arguments.options.days)


def main(argv: list[str] | None = None) -> int:
    return run_job(
        "Learn reorder points and order-up-to levels from the past, and judge them by cost.",
        run,
        add_arguments=add_arguments,
        argv=argv,
    )


if __name__ == "__main__":
    raise SystemExit(main())
