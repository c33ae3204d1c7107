"""`stockcast ingest`: how far reading has come, accepting a gap, and going on without a checkpoint."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime

import typer

from pipelines.contracts import topics
from pipelines.contracts.tables import INGEST_BATCHES
from pipelines.ingestion import sources
from pipelines.ingestion.checkpoint import Checkpoint
from pipelines.ingestion.ingestor import Ingestor
from pipelines.io import kafka
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.io.topic_state import TopicState, topic_states
from pipelines.operations.cli.options import (
    ConfigOption,
    JsonOption,
    SetOption,
    settings_from,
    show_json,
    show_table,
)
from pipelines.operations.settings import Settings

app = typer.Typer(help="Reading events from Kafka.", no_args_is_help=True)


@app.command()
def status(config: ConfigOption = None, overrides: SetOption = None, json: JsonOption = False) -> None:
    """How far each partition has been read, and gaps; exit code 1 when there is one."""
    settings = settings_from(config, overrides)
    tables = Tables(settings)
    states = topic_states(kafka.admin(settings), topics.INPUT_TOPICS)
    reading = sources.next_offsets(tables)
    gaps = _gaps(tables, states)
    rows = [
        [topic, partition, reading.get(topic, {}).get(partition, 0), state.beginnings[partition], end]
        for topic, state in sorted(states.items())
        for partition, end in sorted(state.ends.items())
    ]
    if json:
        names = ("topic", "partition", "next", "first_held", "end")
        places = [dict(zip(names, row, strict=True)) for row in rows]
        show_json({"partitions": places, "gaps": [vars(gap) for gap in gaps]})
    else:
        show_table("Reading", ["topic", "partition", "next", "first held", "end"], rows)
        for gap in gaps:
            typer.echo(f"gap: {gap}")
    raise typer.Exit(1 if gaps else 0)


@app.command()
def acknowledge(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Accept that Kafka has lost what was not read, and go on behind it. The ingest stream must be stopped."""
    settings = settings_from(config, overrides)
    tables = Tables(settings)
    with ownership(settings, INGEST_BATCHES.owner):
        states = topic_states(kafka.admin(settings), topics.INPUT_TOPICS)
        if not _gaps(tables, states):
            typer.echo("there is no gap; nothing was changed")
            return
        _restart(settings, tables)
        gaps = _gaps(tables, states)
        sources.acknowledge(tables, states, datetime.now(UTC), getpass.getuser(), gaps)
    for gap in gaps:
        typer.echo(f"accepted: {gap}")
    typer.echo("reading goes on behind it at the next start; silver/ingest_gaps keeps the record")


@app.command("restart-checkpoint")
def restart_checkpoint(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Set the stream's checkpoint aside: reading goes on after what the tables hold. The stream must be stopped."""
    settings = settings_from(config, overrides)
    tables = Tables(settings)
    with ownership(settings, INGEST_BATCHES.owner):
        _restart(settings, tables)
    for topic, places in sorted(sources.next_offsets(tables).items()):
        for partition, offset in sorted(places.items()):
            typer.echo(f"{topic}[{partition}] goes on at offset {offset}")


def _gaps(tables: Tables, states: dict[str, TopicState]) -> list[sources.Gap]:
    return sources.find_gaps(sources.sources(tables), sources.next_offsets(tables), states)


def _restart(settings: Settings, tables: Tables) -> None:
    """Set the checkpoint aside and finish from bronze what only it would have offered again."""
    now = datetime.now(UTC)
    aside = Checkpoint(settings).set_aside(now)
    if aside is not None:
        typer.echo(f"the checkpoint lies in {aside} now")
    Ingestor(tables, settings.ingest, "recovery", lambda: now).resume(new_stream=True)
