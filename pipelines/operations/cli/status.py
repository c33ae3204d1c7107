"""`stockcast status`: the state of everything at a glance."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc
import typer

from pipelines.contracts.tables import (
    INGEST_BATCHES,
    INVENTORY_POSITIONS,
    ORDER_OUTBOX,
    ORDERS,
    SERIES_STATUS,
)
from pipelines.io import published
from pipelines.io.delta import Tables
from pipelines.operations import broker
from pipelines.operations.cli.options import ConfigOption, JsonOption, SetOption, settings_from, show_json, show_table
from pipelines.operations.settings import Settings
from pipelines.restocking.supplier import parked_orders

STALE_AFTER_HOURS = 36.0


def status(config: ConfigOption = None, overrides: SetOption = None, json: JsonOption = False) -> None:
    """Events, forecasts, positions and orders; exit code 1 when something needs a look."""
    settings = settings_from(config, overrides)
    document = collect(settings, datetime.now(UTC))
    if json:
        show_json(document)
    else:
        show_table("Stockcast", ["what", "state"], [[name, text] for name, text in _lines(document)])
    raise typer.Exit(1 if document["problems"] else 0)


def collect(settings: Settings, now: datetime) -> dict[str, Any]:
    """The state as a document; `problems` says what needs a look."""
    tables = Tables(settings)
    batches = tables.read(INGEST_BATCHES)
    counted = ("consumed", "good", "quarantined", "duplicates", "tombstones")
    document: dict[str, Any] = {
        "broker": {"address": settings.kafka.bootstrap_servers, "answers": broker.answers(settings)},
        "events": {name: pc.sum(batches.column(name)).as_py() or 0 for name in counted},
        "series": tables.read(INVENTORY_POSITIONS, ("sku",)).num_rows,
        "orders": _count(tables.read(ORDERS, ("state",)).column("state")),
        "decided": tables.largest(ORDER_OUTBOX, "sequence") or 0,
    }
    for artefact in (published.FORECASTS, published.POLICIES):
        pointer = published.in_force(tables, artefact)
        document[artefact] = None if pointer is None else _age(pointer, now)
    if (forecasts := document["forecasts"]) is not None:
        run = pc.field("forecast_version") == forecasts["version"]
        document["series_status"] = _count(tables.read(SERIES_STATUS, ("status",), run).column("status"))
    document["parked_orders"] = len(parked_orders(tables))
    document["problems"] = list(_problems(document))
    return document


def _problems(document: dict[str, Any]) -> list[str]:
    problems = []
    if not document["broker"]["answers"]:
        problems.append(f"no broker answers at {document['broker']['address']}: stockcast broker start")
    for artefact, job in ((published.FORECASTS, "train_forecasts"), (published.POLICIES, "plan_inventory")):
        state = document[artefact]
        if state is None:
            problems.append(f"no {artefact} are in force: jobs/{job}.py")
        elif state["age_hours"] > STALE_AFTER_HOURS:
            problems.append(f"{artefact} are {state['age_hours']:.0f} hours old: jobs/nightly.py")
    if (parked := document["parked_orders"]) > 0:
        problems.append(f"{parked} orders were not taken by the supplier: jobs/send_orders.py --retry-parked --once")
    return problems


def _age(pointer: published.Published, now: datetime) -> dict[str, Any]:
    hours = (now - pointer.published_at).total_seconds() / 3600
    return {"version": pointer.version, "as_of": pointer.as_of, "age_hours": round(hours, 2)}


def _count(column: Any) -> dict[str, int]:
    return {item["values"]: item["counts"] for item in pc.value_counts(column).to_pylist()}


def _lines(document: dict[str, Any]) -> list[tuple[str, str]]:
    def parts(counts: dict[str, int]) -> str:
        return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"

    def version(state: dict[str, Any] | None) -> str:
        return "none in force" if state is None else f"{state['version']}, {state['age_hours']:g} h old"

    return [
        ("broker", f"{document['broker']['address']} {'answers' if document['broker']['answers'] else 'is silent'}"),
        ("events", parts(document["events"])),
        ("forecasts", version(document["forecasts"])),
        ("series", parts(document.get("series_status", {}))),
        ("policies", version(document["policies"])),
        ("positions", f"{document['series']:,} series"),
        ("orders decided", f"{document['decided']:,}"),
        ("orders", parts(document["orders"])),
        ("needs a look", "; ".join(document["problems"]) or "nothing"),
    ]
