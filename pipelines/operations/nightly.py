"""What the scheduler calls: aggregate, train, promote, plan, look at the network. Safe to run again; a failed night
changes nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from pyspark.sql import SparkSession

from pipelines.contracts import topics
from pipelines.contracts.alerts import Alert
from pipelines.contracts.tables import (
    ALL_TABLES,
    CATALOG,
    DEMAND,
    NETWORK_CLUSTERS,
    PLANNING,
    PUBLISHED,
    STOCK_MOVEMENTS,
    TRAINING,
)
from pipelines.demand.aggregate import aggregate_demand
from pipelines.errors import BrokerError, MissingDataError, UsageError
from pipelines.forecasting.passes import Progress
from pipelines.forecasting.training import TrainingReport, train
from pipelines.ingestion.late_duplicates import Messages, correct_late_duplicates
from pipelines.inventory.health_report import health_alerts
from pipelines.inventory.learned.learning import LEARNT_DAYS, learn_policies
from pipelines.inventory.planning import PlanningReport, plan
from pipelines.io import kafka
from pipelines.io.alerts import send_alerts
from pipelines.io.delta import Tables
from pipelines.network.clustering import NetworkReport, cluster_network
from pipelines.operations.maintenance import maintain_idle
from pipelines.operations.settings import Settings
from pipelines.shipments.risk.releasing import RiskReport, train_and_release

OWNERS = {CATALOG, DEMAND, TRAINING, PLANNING, PUBLISHED.owner, NETWORK_CLUSTERS.owner}
"""Of the tables that a night keeps in order; the live ones are kept by the processes that write them."""

log = logging.getLogger("stockcast.nightly")


@dataclass(frozen=True)
class NightlyReport:
    """What a night came to."""

    as_of: date
    training: TrainingReport
    planning: PlanningReport
    network: NetworkReport
    lateness: RiskReport | None


def run_nightly(
    spark: SparkSession,
    settings: Settings,
    tables: Tables,
    as_of: date | None,
    clock: Callable[[], datetime],
    progress: Progress | None = None,
) -> NightlyReport:
    """Bring demand, forecasts and policies up to the end of day `as_of`.

    Each step publishes only when it is complete, so that a night that fails or dies leaves yesterday's
    forecasts and policies in force, and running it again completes it.

    Args:
        as_of: the last day whose data may be used; None: the newest day in the ledger that is over.

    Raises:
        MissingDataError: the ledger has no day that is over.
    """
    as_of = as_of or newest_complete_day(tables, clock())
    log.info("nightly run as of %s", as_of)
    _correct_late_duplicates(spark, settings, tables, clock())
    aggregate_demand(spark, settings, tables, as_of)
    training = train(spark, settings, tables, as_of, clock(), progress)
    _learn_levels(settings, tables)
    planning = plan(spark, settings, tables, as_of, clock())
    _tell_of_stock(settings, planning, clock())
    network = cluster_network(settings, tables, as_of, clock())
    lateness = _learn_lateness(settings, tables, as_of, clock())
    if settings.maintenance.enabled:
        maintain_idle(settings, tables, [table for table in ALL_TABLES if table.owner in OWNERS])
    return NightlyReport(as_of, training, planning, network, lateness)


def _learn_levels(settings: Settings, tables: Tables) -> None:
    """Only where the plan uses what is learnt, for it forecasts the past once more. A young chain knows too little."""
    if not (settings.planning.use_learned or settings.planning.correct_service):
        return
    try:
        learn_policies(settings, tables, LEARNT_DAYS)
    except (MissingDataError, UsageError) as error:
        log.info("levels are not learnt yet: %s", error)


def _tell_of_stock(settings: Settings, planning: PlanningReport, now: datetime) -> None:
    """Alerts of what began and ended with this night; without a broker they are in `gold/stock_health` all the same."""
    alerts = health_alerts(list(planning.health), planning.as_of, now)
    try:
        if alerts:
            send_alerts(kafka.producer(settings), alerts)
    except BrokerError as error:
        log.warning("%d alerts of stock could not be sent: %s", len(alerts), error)


def _learn_lateness(settings: Settings, tables: Tables, as_of: date, now: datetime) -> RiskReport | None:
    """A young chain has too few shipments to learn from, which is said and stops nothing."""
    try:
        return train_and_release(settings, tables, as_of, now)
    except MissingDataError as error:
        log.info("lateness of shipments is not learnt yet: %s", error)
        return None


def _correct_late_duplicates(spark: SparkSession, settings: Settings, tables: Tables, now: datetime) -> None:
    """Without a broker the next night does it: forecasts do not wait for it."""

    def send(messages: Messages) -> None:
        kafka.send(kafka.producer(settings), topics.INVENTORY_MOVEMENTS, messages)

    def tell(alerts: list[Alert]) -> None:
        send_alerts(kafka.producer(settings), alerts)

    try:
        correct_late_duplicates(spark, tables, now, send, tell)
    except BrokerError as error:
        log.warning("late duplicates are corrected another night: %s", error)


def newest_complete_day(tables: Tables, now: datetime) -> date:
    """The newest UTC day with events that is over.

    Raises:
        MissingDataError: there is none.
    """
    newest = tables.largest(STOCK_MOVEMENTS, "event_time")
    if newest is None:
        raise MissingDataError("the ledger is empty; take events in first (jobs/ingest_events.py --once)")
    newest = newest if newest.tzinfo else newest.replace(tzinfo=UTC)
    yesterday: date = now.date() - timedelta(days=1)
    newest_day: date = newest.date()
    return min(yesterday, newest_day)
