"""What is wrong with a chain's figures, each in a line that says what to do."""

from __future__ import annotations

from pipelines.io import published
from pipelines.operations.monitoring.figures import Figures
from pipelines.operations.settings import Settings

JOBS = {published.FORECASTS: "train_forecasts", published.POLICIES: "plan_inventory"}


def problems(figures: Figures, settings: Settings) -> list[str]:
    """What needs a person; empty for a chain that is well.

    A moment's lag or backlog is none: both are when nothing has moved for `monitoring.stalled_seconds`.
    """
    return [
        *_of_broker(figures, settings.kafka.bootstrap_servers),
        *_of_versions(figures, settings.restock.stale_forecast_hours),
        *_of_flow(figures, settings.monitoring.stalled_seconds),
        *_of_supplier(figures),
    ]


def _of_broker(figures: Figures, servers: str) -> list[str]:
    return [] if figures.broker_answers else [f"no broker answers at {servers}: stockcast broker start"]


def _of_versions(figures: Figures, stale_hours: float) -> list[str]:
    found = []
    for artefact, job in JOBS.items():
        state = figures.in_force.get(artefact)
        if state is None:
            found.append(f"no {artefact} are in force: jobs/{job}.py")
        elif state.age_seconds > stale_hours * 3600:
            found.append(f"{artefact} are {state.age_seconds / 3600:.0f} hours old: jobs/nightly.py")
    return found


def _of_flow(figures: Figures, stalled: float) -> list[str]:
    found = []
    behind = sum((figures.lag or {}).values())
    if behind and (figures.last_batch_age is None or figures.last_batch_age > stalled):
        since = "ever" if figures.last_batch_age is None else f"for {figures.last_batch_age / 60:.0f} minutes"
        found.append(f"{behind:,} records wait in Kafka and none was taken in {since}: jobs/ingest_events.py")
    if figures.backlog_age is not None and figures.backlog_age > stalled:
        found.append(
            f"{figures.backlog:,} decided orders have not left, the oldest for {figures.backlog_age / 60:.0f} minutes: "
            "jobs/relay_orders.py"
        )
    return found


def _of_supplier(figures: Figures) -> list[str]:
    if figures.parked == 0:
        return []
    return [f"{figures.parked} orders were not taken by the supplier: jobs/send_orders.py --retry-parked --once"]
