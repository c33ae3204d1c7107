"""`stockcast status`: the state of everything at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import typer

from pipelines.io.delta import Tables
from pipelines.operations.cli.options import ConfigOption, JsonOption, SetOption, settings_from, show_json, show_table
from pipelines.operations.monitoring.figures import ChainLook, Figures, InForce, KafkaLook
from pipelines.operations.monitoring.health import problems
from pipelines.operations.settings import Settings


def status(config: ConfigOption = None, overrides: SetOption = None, json: JsonOption = False) -> None:
    """Events, forecasts, positions and orders; for health checks: exit code 1 when something needs a look."""
    settings = settings_from(config, overrides)
    document = collect(settings, datetime.now(UTC))
    if json:
        show_json(document)
    else:
        show_table("Stockcast", ["what", "state"], [[name, text] for name, text in _lines(document)])
    raise typer.Exit(0 if document["healthy"] else 1)


def collect(settings: Settings, now: datetime) -> dict[str, Any]:
    """The state as a document; `problems` says what needs a look."""
    figures = ChainLook(Tables(settings), KafkaLook(settings).look).figures(now)
    found = problems(figures, settings)
    return {"healthy": not found, **_document(figures, settings), "problems": found}


def _document(figures: Figures, settings: Settings) -> dict[str, Any]:
    def version(state: InForce | None) -> dict[str, Any] | None:
        if state is None:
            return None
        return {"version": state.version, "as_of": state.as_of, "age_hours": round(state.age_seconds / 3600, 2)}

    return {
        "broker": {"address": settings.kafka.bootstrap_servers, "answers": figures.broker_answers},
        "events": figures.records,
        "lag": figures.lag,
        "last_batch_age_seconds": figures.last_batch_age,
        "event_time_age_seconds": figures.event_time_age,
        "quarantine": {line.reason: {"records": line.records, "waiting": line.waiting} for line in figures.quarantine},
        "series": figures.positions,
        "orders": figures.orders,
        "decided": figures.decided,
        "relay_backlog": figures.backlog,
        "relay_backlog_age_seconds": figures.backlog_age,
        "forecasts": version(figures.in_force.get("forecasts")),
        "policies": version(figures.in_force.get("policies")),
        "series_status": figures.series_status,
        "parked_orders": figures.parked,
    }


def _lines(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    def parts(counts: Mapping[str, int]) -> str:
        return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"

    def version(state: Mapping[str, Any] | None) -> str:
        return "none in force" if state is None else f"{state['version']}, {state['age_hours']:g} h old"

    waiting = {reason: counts["waiting"] for reason, counts in document["quarantine"].items() if counts["waiting"]}
    lag, backlog = document["lag"], document["relay_backlog"]
    behind = {topic: count for topic, count in (lag or {}).items() if count}
    return [
        ("broker", f"{document['broker']['address']} {'answers' if document['broker']['answers'] else 'is silent'}"),
        ("events", parts(document["events"])),
        ("waiting in Kafka", "not known" if lag is None else parts(behind)),
        ("last batch", _ago(document["last_batch_age_seconds"])),
        ("newest event", _ago(document["event_time_age_seconds"])),
        ("set aside", parts(waiting)),
        ("forecasts", version(document["forecasts"])),
        ("series", parts(document["series_status"])),
        ("policies", version(document["policies"])),
        ("positions", f"{document['series']:,} series"),
        ("orders decided", f"{document['decided']:,}"),
        ("to be relayed", "not known" if backlog is None else f"{backlog:,}"),
        ("orders", parts(document["orders"])),
        ("needs a look", "; ".join(document["problems"]) or "nothing"),
    ]


def _ago(seconds: float | None) -> str:
    """How long ago, in a unit that reads well."""
    if seconds is None:
        return "none yet"
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{max(0.0, seconds):.0f} seconds ago"
