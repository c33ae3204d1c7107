"""`stockcast broker`: the embedded broker, and the rights of jobs in any."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.contracts.rights import RIGHTS
from pipelines.errors import UsageError
from pipelines.io import kafka, kafka_rights
from pipelines.operations import broker as embedded
from pipelines.operations.cli.options import ConfigOption, JsonOption, SetOption, settings_from, tell
from pipelines.operations.settings import Settings

app = typer.Typer(help="The embedded single-node Kafka broker, and rights in any.", no_args_is_help=True)


@app.command()
def start(config: ConfigOption = None, overrides: SetOption = None, json: JsonOption = False) -> None:
    """Start it, wait until it answers, create the topics."""
    settings = settings_from(config, overrides)
    embedded.start(settings)
    _tell(settings, json)


@app.command()
def stop(config: ConfigOption = None, overrides: SetOption = None, json: JsonOption = False) -> None:
    """Stop it; its data stay."""
    stopped = embedded.stop(settings_from(config, overrides))
    tell("stopped" if stopped else "was not running", {"stopped": stopped}, json)


@app.command()
def status(config: ConfigOption = None, overrides: SetOption = None, json: JsonOption = False) -> None:
    """Say whether it runs; exit code 1 when not."""
    settings = settings_from(config, overrides)
    well = _tell(settings, json)
    raise typer.Exit(0 if well else 1)


@app.command()
def grant(
    job: Annotated[str, typer.Argument(help=f"of {', '.join(RIGHTS)}")],
    user: Annotated[str, typer.Argument(help="as it is known to Kafka")],
    config: ConfigOption = None,
    overrides: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Grant a user what a job may do, in any Kafka with access control; as an administrator."""
    if job not in RIGHTS:
        raise UsageError(f"there is no job {job}; there are {', '.join(RIGHTS)}")
    settings = settings_from(config, overrides)
    entries = kafka_rights.grant(kafka.admin(settings), user, RIGHTS[job])
    done = {"user": user, "job": job, "entries": entries}
    tell(f"{user} may do what {job} needs ({entries} entries)", done, json)


def _tell(settings: Settings, json: bool) -> bool:
    """Print the broker's state; returns whether it runs and answers."""
    pid, answers = embedded.running(settings), embedded.answers(settings)
    address = settings.kafka.bootstrap_servers
    tell(
        embedded.describe(settings),
        {"running": pid is not None, "pid": pid, "answers": answers, "address": address},
        json,
    )
    return pid is not None and answers
