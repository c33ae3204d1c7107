"""`stockcast broker`: the embedded broker."""

from __future__ import annotations

import typer

from pipelines.operations import broker as embedded
from pipelines.operations.cli.options import ConfigOption, SetOption, settings_from

app = typer.Typer(help="The embedded single-node Kafka broker.", no_args_is_help=True)


@app.command()
def start(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Start it, wait until it answers, create the topics."""
    settings = settings_from(config, overrides)
    embedded.start(settings)
    typer.echo(embedded.describe(settings))


@app.command()
def stop(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Stop it; its data stay."""
    stopped = embedded.stop(settings_from(config, overrides))
    typer.echo("stopped" if stopped else "was not running")


@app.command()
def status(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Say whether it runs; exit code 1 when not."""
    settings = settings_from(config, overrides)
    typer.echo(embedded.describe(settings))
    raise typer.Exit(0 if embedded.running(settings) and embedded.answers(settings) else 1)
