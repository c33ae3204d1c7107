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
    tell,
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
def acknowledge(config: ConfigOption = None, overrides: SetOption = None, json: JsonOption = False) -> None:
    """Accept that Kafka has lost what was not read, and go on behind it. The ingest stream must be stopped."""
    settings = settings_from(config, overrides)
    tables = Tables(settings)
    with ownership(settings, INGEST_BATCHES.owner):
        states = topic_states(kafka.admin(settings), topics.INPUT_TOPICS)
        if not _gaps(tables, states):
            tell("there is no gap; nothing was changed", {"accepted": [], "checkpoint_aside": None}, json)
            return
        aside = _restart(settings, tables)
        gaps = _gaps(tables, states)
        sources.acknowledge(tables, states, datetime.now(UTC), getpass.getuser(), gaps)
    lines = [*_moved(aside), *(f"accepted: {gap}" for gap in gaps)]
    lines.append("reading goes on behind it at the next start; silver/ingest_gaps keeps the record")
    tell("\n".join(lines), {"accepted": [vars(gap) for gap in gaps], "checkpoint_aside": aside}, json)


@app.command("restart-checkpoint")
def restart_checkpoint(config: ConfigOption = None, overrides: SetOption = None, json: JsonOption = False) -> None:
    """Set the stream's checkpoint aside: reading goes on after what the tables hold. The stream must be stopped."""
    settings = settings_from(config, overrides)
    tables = Tables(settings)
    with ownership(settings, INGEST_BATCHES.owner):
        aside = _restart(settings, tables)
    places = [
        {"topic": topic, "partition": partition, "next": offset}
        for topic, offsets in sorted(sources.next_offsets(tables).items())
        for partition, offset in sorted(offsets.items())
    ]
    lines = [f"{place['topic']}[{place['partition']}] goes on at offset {place['next']}" for place in places]
    lines = lines or ["nothing was read yet; reading begins at the earliest record"]
    tell("\n".join([*_moved(aside), *lines]), {"partitions": places, "checkpoint_aside": aside}, json)


def _gaps(tables: Tables, states: dict[str, TopicState]) -> list[sources.Gap]:
    return sources.find_gaps(sources.sources(tables), sources.next_offsets(tables), states)


def _moved(aside: str | None) -> list[str]:
    return [] if aside is None else [f"the checkpoint lies in {aside} now"]


def _restart(settings: Settings, tables: Tables) -> str | None:
    """Set the checkpoint aside and finish from bronze what only it would have offered again; where it lies now."""
    now = datetime.now(UTC)
    aside = Checkpoint(settings).set_aside(now)
    Ingestor(tables, settings.ingest, "recovery", lambda: now).resume(new_stream=True)
    return None if aside is None else str(aside)
