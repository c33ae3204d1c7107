"""`stockcast dashboard`: what needs a decision, and whether all is well, in the browser."""

from __future__ import annotations

import logging

import typer

from pipelines.operations.cli.options import ConfigOption, SetOption, settings_from


def dashboard(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Serve the dashboard on dashboard.host and dashboard.port (127.0.0.1:8322), until Ctrl-C.

    The order API is served at the same address, under /v1, unless it runs as a process of its own: then decisions go
    through that one. Tokens and roles are those of the order API.
    """
    from pipelines.serving.dashboard.server import run_dashboard

    logging.getLogger().setLevel(logging.INFO)
    run_dashboard(
        settings_from(config, overrides), lambda address: typer.echo(f"the dashboard is at {address} (Ctrl-C ends it)")
    )
