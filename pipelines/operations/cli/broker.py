"""`stockcast broker`: the embedded broker, and the rights of jobs in any."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.contracts.rights import RIGHTS
from pipelines.errors import UsageError
from pipelines.io import kafka, kafka_rights
from pipelines.operations import broker as embedded
from pipelines.operations.cli.options import ConfigOption, SetOption, settings_from

app = typer.Typer(help="The embedded single-node Kafka broker, and rights in any.", no_args_is_help=True)


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


@app.command()
def grant(
    job: Annotated[str, typer.Argument(help=f"of {', '.join(RIGHTS)}")],
    user: Annotated[str, typer.Argument(help="as it is known to Kafka")],
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Grant a user what a job may do, in any Kafka with access control; as an administrator."""
    if job not in RIGHTS:
        raise UsageError(f"there is no job {job}; there are {', '.join(RIGHTS)}")
    settings = settings_from(config, overrides)
    entries = kafka_rights.grant(kafka.admin(settings), user, RIGHTS[job])
    typer.echo(f"{user} may do what {job} needs ({entries} entries)")
