"""A chain's figures as metrics for Prometheus."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipelines.io import published
from pipelines.operations.monitoring.figures import COUNTED, Figures
from pipelines.restocking.orders import STATES

log = logging.getLogger("stockcast.monitoring")

PREFIX = "stockcast_"


class FiguresCollector(Collector):
    """Asks for the figures when Prometheus asks for metrics. Where they cannot be taken, only that is told.

    Args:
        figures: gives them.
    """

    def __init__(self, figures: Callable[[], Figures]) -> None:
        self._figures = figures
        self._failed = False

    def collect(self) -> Iterable[Metric]:
        """All metrics that come from tables and Kafka."""
        try:
            families = list(families_of(self._figures()))
            self._failed = False
        except Exception as error:
            if not self._failed:
                log.warning("the figures of tables and Kafka cannot be taken (%s: %s)", type(error).__name__, error)
            self._failed, families = True, []
        yield _gauge("figures_up", "1 where the figures of tables and Kafka could be taken", 0.0 if self._failed else 1)
        yield from families

    def describe(self) -> Iterable[Metric]:
        """Nothing: asking for names must not read tables."""
        return ()


def families_of(figures: Figures) -> Iterator[Metric]:
    """The metrics of the figures; what is not known is left out."""
    yield _gauge("broker_up", "1 where a broker answers", float(figures.broker_answers))
    outcomes = {name: figures.records.get(name, 0) for name in COUNTED}
    yield _counter("records", "Records by outcome; consumed is the sum of the others", "outcome", outcomes)
    reasons = figures.quarantine
    yield _by("quarantine_records", "Records set aside", "reason", {line.reason: line.records for line in reasons})
    waiting = {line.reason: line.waiting for line in reasons}
    yield _by("quarantine_waiting_records", "Of them, those not sent again", "reason", waiting)
    yield _by("consumer_lag_records", "Records in Kafka that were not taken in", "topic", figures.lag or {})
    yield _gauge("last_batch_age_seconds", "Since a batch was finished", figures.last_batch_age)
    yield _gauge("event_time_age_seconds", "From the newest event time in the ledger to now", figures.event_time_age)
    ages = {name: state.age_seconds for name, state in figures.in_force.items()}
    versions = GaugeMetricFamily(f"{PREFIX}in_force_info", "The versions in force", labels=("artefact", "version"))
    for name, state in figures.in_force.items():
        versions.add_metric((name, state.version), 1)
    yield versions
    yield _gauge("forecast_age_seconds", "Since the forecasts in force were published", ages.get(published.FORECASTS))
    yield _gauge("policy_age_seconds", "Since the policies in force were published", ages.get(published.POLICIES))
    yield _by("series", "Series by how their training ended", "status", figures.series_status)
    yield _gauge("positions", "Series whose stock is known", figures.positions)
    orders = {state: figures.orders.get(state, 0) for state in dict.fromkeys((*STATES, *figures.orders))}
    yield _by("orders", "Orders by state", "state", orders)
    yield _counter("orders_decided", "Orders released", None, {"": figures.decided})
    yield _gauge("relay_backlog_orders", "Released orders that have not left", figures.backlog)
    oldest = 0.0 if figures.backlog == 0 else figures.backlog_age
    yield _gauge("relay_backlog_age_seconds", "Since the oldest of them was decided", oldest)
    yield _gauge("parked_orders", "Orders that the supplier did not take", figures.parked)


def _gauge(name: str, text: str, value: float | None) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text, labels=())
    if value is not None:
        family.add_metric((), value)
    return family


def _by(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family


def _counter(name: str, text: str, label: str | None, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=() if label is None else (label,))
    for key, value in values.items():
        family.add_metric(() if label is None else (key,), value)
    return family
