"""Reading tables with a condition, however their rows were written."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pyarrow.compute as pc

from pipelines.contracts.tables import PUBLISHED
from pipelines.io.delta import Tables
from pipelines.io.published import FORECASTS, POLICIES, Published, in_force, publish


def pointer(artefact: str, version: str) -> Published:
    return Published(artefact, version, date(2024, 3, 1), "run", datetime(2024, 3, 2, tzinfo=UTC))


def test_each_pointer_is_found_after_both_were_switched(tables: Tables) -> None:
    """Given two pointers written and replaced by merges, each is read by its name."""
    for version in ("v1", "v2"):
        publish(tables, pointer(FORECASTS, version))
        publish(tables, pointer(POLICIES, version))

    assert in_force(tables, FORECASTS) == pointer(FORECASTS, "v2")
    assert in_force(tables, POLICIES) == pointer(POLICIES, "v2")


def test_a_condition_may_be_on_a_column_that_is_not_asked_for(tables: Tables) -> None:
    publish(tables, pointer(FORECASTS, "v1"))
    publish(tables, pointer(POLICIES, "v7"))

    rows = tables.read(PUBLISHED, columns=["version"], where=pc.field("artefact") == POLICIES)

    assert rows.to_pylist() == [{"version": "v7"}]
