"""The pointer rows: which version of an artefact is in force. Switched only when the new one is complete."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import PUBLICATIONS, PUBLISHED
from pipelines.io.delta import Tables

FORECASTS = "forecasts"
FORECASTS_TODAY = "forecasts_today"
POLICIES = "policies"


@dataclass(frozen=True)
class Published:
    """One pointer row: `version` of `artefact` is in force, made from data up to the end of day `as_of`."""

    artefact: str
    version: str
    as_of: date
    training_run: str | None
    published_at: datetime


def in_force(tables: Tables, artefact: str) -> Published | None:
    """The version in force; None before the first was published."""
    rows = tables.read(PUBLISHED, where=pc.field("artefact") == artefact).to_pylist()
    return Published(**rows[0]) if rows else None


def refreshed_hours(tables: Tables) -> Published | None:
    """The version that holds today's hours as the last refresh left them.

    None where there was none since the forecasts in force were published: a newer night, or going back to an
    older one, ends what was refreshed of another.
    """
    base, today = in_force(tables, FORECASTS), in_force(tables, FORECASTS_TODAY)
    if base is None or today is None or not today.version.startswith(f"{base.version}-r"):
        return None
    return today


def publish(tables: Tables, pointer: Published) -> None:
    """Put a version in force: one commit, the old or the new for every reader. Call it as the owner of `publishing`."""
    tables.ensure(PUBLISHED)
    row = pa.Table.from_pylist([vars(pointer)], schema=PUBLISHED.schema)
    tables.upsert(PUBLISHED, row, keys=("artefact",))
    # The pointer decides; a process that dies here leaves the history a line short, which nothing relies on.
    tables.append(PUBLICATIONS, row)


def history(tables: Tables, artefact: str) -> list[Published]:
    """All that was put in force, oldest first."""
    rows = tables.read(PUBLICATIONS, where=pc.field("artefact") == artefact)
    return [Published(**row) for row in rows.sort_by("published_at").to_pylist()]
