"""The frame of every job: parse, load settings, run one function, answer with an exit code."""

from __future__ import annotations

import argparse
import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

from pipelines.errors import StockcastError
from pipelines.operations import logs
from pipelines.operations.settings import Settings, load_settings

log = logging.getLogger("stockcast")


@dataclass(frozen=True)
class JobArguments:
    """What a job was called with."""

    settings: Settings
    options: argparse.Namespace

    @property
    def once(self) -> bool:
        """Streaming jobs: process everything available now, then end."""
        return bool(getattr(self.options, "once", False))

    @property
    def as_of(self) -> date | None:
        """Nightly jobs: the last day whose data may be used; None for the newest complete day."""
        return getattr(self.options, "as_of", None)


def run_job(
    description: str,
    run: Callable[[JobArguments], None],
    *,
    streaming: bool = False,
    nightly: bool = False,
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Run a job; 0 done, 2 bad usage or configuration, 1 anything else.

    Args:
        description: the first line of `--help`.
        run: does the work; raises `StockcastError` for what a person can mend.
        streaming: adds `--once`.
        nightly: adds `--as-of`.
        add_arguments: adds the job's own.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="FILE",
        help="settings in YAML; repeatable, later wins",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="a.b=value",
        help="one setting; repeatable",
    )
    parser.add_argument("--verbose", action="store_true", help="log debug messages and full tracebacks")
    if streaming:
        parser.add_argument("--once", action="store_true", help="process everything available now, then end")
    if nightly:
        parser.add_argument("--as-of", type=_date, metavar="DATE", help="last day whose data may be used (YYYY-MM-DD)")
    if add_arguments is not None:
        add_arguments(parser)
    options = parser.parse_args(argv)
    level = logging.DEBUG if options.verbose else logging.INFO
    logs.configure(logs.TEXT, level)
    try:
        settings = load_settings(options.config, options.overrides)
        logs.configure(settings.logging.format, level)
        run(JobArguments(settings, options))
    except StockcastError as error:
        _say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # the frame's own boundary: everything else is exit code 1
        _say(f"{type(error).__name__}: {error}", error, limit=None if options.verbose else -3)
        return 1
    return 0


def _say(message: str, error: Exception | None = None, limit: int | None = None) -> None:
    """The job's last line says why it ended; before it comes as much of the traceback as is wanted."""
    if logs.is_json():
        log.error("%s", message, exc_info=error)
        return
    if error is not None:
        traceback.print_exception(error, limit=limit)
    print(f"error: {message}", file=sys.stderr)


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date; expected YYYY-MM-DD") from None
