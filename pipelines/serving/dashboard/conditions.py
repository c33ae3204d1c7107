"""What needs a look as long as it holds: rules over the figures of now. Each is over when its rule stops to hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pipelines.contracts.alerts import CRITICAL, HIGH, LOW
from pipelines.contracts.identifiers import identifier

STALE_HOURS = 36.0
BEHIND_RECORDS = 50_000
RELAY_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Facts:
    """What the rules look at. Ages in hours; None where there is nothing yet."""

    broker_answers: bool
    broker_since: datetime
    forecasts: str | None
    forecast_age_hours: float | None
    policies: str | None
    policy_age_hours: float | None
    behind: int
    backlog: int
    backlog_since: datetime | None
    parked: Sequence[str]
    oldest_proposal: datetime | None
    expiry_hours: float
    drift: Sequence[tuple[str, str, str]]
    unsent_decisions: int


@dataclass(frozen=True)
class Condition:
    """One finding. `occasion`: the same one again after a restart has the same id."""

    kind: str
    severity: str
    subject: str
    message: str
    since: datetime
    occasion: str

    @property
    def alert_id(self) -> str:
        """As of the alerts on Kafka."""
        return identifier("a", self.kind, self.subject, self.occasion)


def conditions(facts: Facts, now: datetime) -> list[Condition]:
    """What holds now."""
    return [*_chain(facts, now), *_orders(facts, now), *_forecasts(facts, now)]


def _chain(facts: Facts, now: datetime) -> list[Condition]:
    found = []
    if not facts.broker_answers:
        text = "Kafka does not answer: events, orders and decisions wait until it does (stockcast broker status)"
        found.append(
            Condition("broker_away", CRITICAL, "kafka", text, facts.broker_since, facts.broker_since.isoformat())
        )
    if facts.behind > BEHIND_RECORDS:
        text = f"{facts.behind:,} records wait to be taken in; is jobs/live.py running, and fast enough?"
        found.append(Condition("ingest_behind", HIGH, "ingest", text, now.replace(second=0, microsecond=0), "behind"))
    waits = facts.backlog_since is not None and (now - facts.backlog_since).total_seconds() > RELAY_PATIENCE_SECONDS
    if waits and facts.backlog_since is not None:
        text = f"{facts.backlog:,} released orders have not left; the relay runs with jobs/live.py"
        since = facts.backlog_since
        found.append(Condition("relay_backlog", HIGH, "relay", text, since, since.isoformat()))
    if facts.unsent_decisions:
        text = (
            f"{facts.unsent_decisions:,} decisions are recorded and have not reached Kafka yet; they will by themselves"
        )
        found.append(
            Condition("decisions_unsent", HIGH, "decisions", text, now.replace(second=0, microsecond=0), "unsent")
        )
    return found


def _orders(facts: Facts, now: datetime) -> list[Condition]:
    found = []
    if facts.parked:
        text = (
            f"{len(facts.parked):,} orders were not taken by the supplier, such as {facts.parked[0]}; after the fix: "
            "jobs/send_orders.py --retry-parked --once"
        )
        since = now.replace(minute=0, second=0, microsecond=0)
        found.append(Condition("orders_parked", HIGH, "suppliers", text, since, facts.parked[-1]))
    oldest = facts.oldest_proposal
    if oldest is not None and (hours := (now - oldest).total_seconds() / 3600) > 0.75 * facts.expiry_hours:
        text = f"a proposal has waited for {hours:.0f} hours and expires after {facts.expiry_hours:g}"
        found.append(Condition("proposal_expires", HIGH, "orders", text, oldest, oldest.isoformat()))
    return found


def _forecasts(facts: Facts, now: datetime) -> list[Condition]:
    found = []
    for what, version, age, job in (
        ("forecasts", facts.forecasts, facts.forecast_age_hours, "jobs/nightly.py"),
        ("policies", facts.policies, facts.policy_age_hours, "jobs/nightly.py"),
    ):
        if version is None:
            text = f"no {what} are in force: {job} makes them"
            since = now.replace(minute=0, second=0, microsecond=0)
            found.append(Condition(f"no_{what}", HIGH, what, text, since, "none"))
        elif age is not None and age > STALE_HOURS:
            text = f"the {what} in force are {age:.0f} hours old; did the night fail? {job} completes it"
            since = now.replace(minute=0, second=0, microsecond=0)
            found.append(Condition(f"{what}_stale", HIGH, what, text, since, version))
    for as_of, scope, warning in facts.drift:
        text = f"forecasts of {'all products' if scope == 'all' else scope}: {warning}"
        found.append(Condition("forecast_drift", LOW, scope, text, datetime.fromisoformat(f"{as_of}T00:00:00Z"), as_of))
    return found
