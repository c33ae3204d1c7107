"""`stockcast dashboard`: what needs a decision, and whether all is well, in the browser."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer

from pipelines.errors import StockcastError
from pipelines.operations.cli.options import ConfigOption, SetOption, settings_from
from pipelines.operations.settings import Settings

START_SECONDS = 60.0
STOP_SECONDS = 20.0
SAID = "the dashboard is at "


def dashboard(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Serve the dashboard on dashboard.host and dashboard.port (127.0.0.1:8322), until Ctrl-C.

    The order API is served at the same address, under /v1, unless it runs as a process of its own: then decisions go
    through that one. Tokens and roles are those of the order API.
    """
    from pipelines.serving.dashboard.server import run_dashboard

    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    run_dashboard(settings_from(config, overrides), lambda address: typer.echo(f"{SAID}{address} (Ctrl-C ends it)"))


@contextmanager
def dashboard_process(settings: Settings, config: Sequence[str], overrides: Sequence[str]) -> Iterator[str]:
    """The dashboard as a process of its own while the block runs; gives its address.

    Its log is `dashboard.log` in the home.

    Raises:
        StockcastError: it did not start; says where its log is.
    """
    arguments = [part for path in config for part in ("--config", path)]
    arguments += [part for item in overrides for part in ("--set", item)]
    program = "from pipelines.operations.cli import main; main()"
    path = settings.home_path / "dashboard.log"
    with path.open("ab") as log:
        begin = log.tell()
        # A group of its own: Ctrl-C in the terminal ends the chain first, which then ends this.
        process = subprocess.Popen(
            [sys.executable, "-c", program, "dashboard", *arguments],
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield _address(process, path, begin)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[bytes], path: Path, begin: int) -> str:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        for line in path.read_bytes()[begin:].decode("utf-8", "replace").splitlines():
            if line.startswith(SAID):
                return line.removeprefix(SAID).split()[0]
        time.sleep(0.2)
    said = path.read_bytes()[begin:].decode("utf-8", "replace").strip().splitlines()
    raise StockcastError(f"the dashboard did not start: {said[-1] if said else 'it says nothing'} ({path})")
