"""All that is live on the dashboard, kept once for all viewers: followed through the tables' versions."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import pyarrow.compute as pc

from pipelines.contracts.tables import FORECAST_DRIFT
from pipelines.io import published
from pipelines.io.delta import Tables
from pipelines.operations.settings import Settings
from pipelines.restocking.supplier import parked_orders
from pipelines.serving.dashboard.alerts import OPEN, AlertBoard
from pipelines.serving.dashboard.catalog import Catalog, CatalogSource
from pipelines.serving.dashboard.conditions import Facts, conditions
from pipelines.serving.dashboard.counters import Counters
from pipelines.serving.dashboard.health import QuarantineSource, ReasonLine, StreamLine, batch_sizes, stream_lines
from pipelines.serving.dashboard.kafka_probe import KafkaProbe
from pipelines.serving.dashboard.stock import PolicyShelf
from pipelines.serving.dashboard.totals import TotalsSource, TotalsView
from pipelines.serving.dashboard.waiting import Waiting, WaitingOrder
from pipelines.serving.dashboard.watchlist import WatchedSeries, Watchlist

log = logging.getLogger("stockcast.dashboard")

WAITING, WATCH, COUNTERS, TOTALS, HEALTH, ALERTS = "waiting", "watch", "counters", "totals", "health", "alerts"
"""What a page can be told of."""

SHOWN_WATCHED = 25
SHOWN_BATCHES = 120
SLOW_SECONDS = 5.0
"""Between two looks at what changes by the night or the hour."""


@dataclass(frozen=True)
class CountersView:
    """The head of every page. `lag`: records in Kafka that were not taken in, None while Kafka does not answer."""

    events_per_second: float
    lag: int | None
    flags: int
    critical: int
    orders_today: int
    waiting: int
    forecast_age_hours: float | None
    open_alerts: int


class Store:
    """What is live. `poll` is called from one thread; what it leaves is read from others and never changed.

    Args:
        unsent: how many recorded decisions have not reached Kafka.
    """

    def __init__(
        self, settings: Settings, tables: Tables, clock: Callable[[], datetime], unsent: Callable[[], int] = lambda: 0
    ) -> None:
        self._settings = settings
        self._tables = tables
        self._clock = clock
        self._unsent = unsent
        self._polling = threading.Lock()
        self._catalog = CatalogSource(tables)
        self._shelf = PolicyShelf(tables)
        self._waiting = Waiting(tables, self._shelf)
        self._watchlist = Watchlist(tables, self._shelf)
        self._counters = Counters(tables, clock())
        self._totals = TotalsSource(tables)
        self._quarantine = QuarantineSource(tables)
        self.board = AlertBoard(tables, Tables(settings))
        self.kafka = KafkaProbe(settings)
        self._broker_since = clock()
        self._backlog_since: datetime | None = None
        self._slow_at = 0.0
        self._parked: list[str] = []
        self._unsent_seen = 0
        self._drift: list[tuple[str, str, str]] = []
        self.waiting: tuple[WaitingOrder, ...] = ()
        self.watched: tuple[WatchedSeries, ...] = ()
        self.counters = CountersView(0.0, None, 0, 0, 0, 0, None, 0)
        self.streams: tuple[StreamLine, ...] = ()
        self.batch_sizes: tuple[tuple[datetime, int], ...] = ()
        self.ready = False

    @property
    def catalog(self) -> Catalog:
        """Names."""
        return self._catalog.current

    @property
    def totals(self) -> TotalsView:
        """Totals of now."""
        return self._totals.view

    @property
    def reasons(self) -> tuple[ReasonLine, ...]:
        """Counts of quarantine."""
        return self._quarantine.reasons

    @property
    def backlog(self) -> int:
        """Released orders that have not left; 0 while that is not known."""
        relayed = self.kafka.state.relayed
        return 0 if relayed is None else max(0, self._counters.decided - relayed)

    @property
    def unsent_decisions(self) -> int:
        """Recorded, and not in Kafka yet, as of the last slow look."""
        return self._unsent_seen

    def poll(self) -> set[str]:
        """Look at every table once; what changed."""
        with self._polling:
            changed = self._look()
            self.ready = True
            return changed

    def _look(self) -> set[str]:
        now, changed = self._clock(), set[str]()
        renamed, moved = self._catalog.poll(), self._watchlist.poll()
        if self._waiting.poll() or renamed or (moved and len(self._waiting)):
            waiting = tuple(self._waiting.ranked(now))
            if waiting != self.waiting or renamed:
                self.waiting = waiting
                changed.add(WAITING)
        if moved or renamed:
            watched = tuple(self._watchlist.ranked(now, SHOWN_WATCHED, self._waiting.keys))
            if watched != self.watched or renamed:
                self.watched = watched
                changed.add(WATCH)
        if self._totals.poll():
            changed.add(TOTALS)
        if self._quarantine.poll():
            changed.add(HEALTH)
        if self._counters.poll() | self._kafka_moved():
            changed.add(HEALTH)
        self._look_slowly()
        if self.board.poll(self.kafka.take_alerts(), conditions(self._facts(now), now), now):
            changed.add(ALERTS)
        self._count(now, changed)
        return changed

    def _kafka_moved(self) -> bool:
        state = self.kafka.state
        lines = tuple(stream_lines(self._counters.batches, self._counters.taken, state.ends, state.answers))
        moved, self.streams = lines != self.streams, lines
        if moved:
            self.batch_sizes = batch_sizes(self._counters.batches, SHOWN_BATCHES)
        return moved

    def _count(self, now: datetime, changed: set[str]) -> None:
        age = self._counters.forecast_age_hours(now)
        lags = [line.lag for line in self.streams if line.lag is not None]
        view = CountersView(
            round(self._counters.events_per_second(now), 1),
            sum(lags) if lags else None,
            sum(self._watchlist.flags.values()),
            self._watchlist.flags.get("critical", 0),
            self._counters.orders_today(now),
            len(self._waiting),
            None if age is None else round(age, 1),
            sum(1 for line in self.board.lines if line.state == OPEN),
        )
        if view != self.counters:
            self.counters = view
            changed.add(COUNTERS)

    def _look_slowly(self) -> None:
        if time.monotonic() < self._slow_at:
            return
        self._slow_at = time.monotonic() + SLOW_SECONDS
        self._parked = parked_orders(self._tables)
        self._unsent_seen = self._unsent()
        rows = self._tables.read(FORECAST_DRIFT, ("as_of", "scope", "warning"))
        newest = pc.max(rows.column("as_of")).as_py()
        self._drift = [
            (row["as_of"].isoformat(), row["scope"], row["warning"])
            for row in rows.to_pylist()
            if row["as_of"] == newest and row["warning"]
        ]

    def _facts(self, now: datetime) -> Facts:
        state = self.kafka.state
        if state.answers or self.kafka.looks == 0:
            self._broker_since = now
        if self.backlog == 0:
            self._backlog_since = None
        elif self._backlog_since is None:
            self._backlog_since = now
        forecasts = published.in_force(self._tables, published.FORECASTS)
        policies = published.in_force(self._tables, published.POLICIES)
        return Facts(
            broker_answers=state.answers or self.kafka.looks == 0,
            broker_since=self._broker_since,
            forecasts=None if forecasts is None else forecasts.version,
            forecast_age_hours=None if forecasts is None else _hours(now, forecasts.published_at),
            policies=None if policies is None else policies.version,
            policy_age_hours=None if policies is None else _hours(now, policies.published_at),
            behind=sum(line.lag or 0 for line in self.streams),
            backlog=self.backlog,
            backlog_since=self._backlog_since,
            parked=self._parked,
            oldest_proposal=min((order.waiting_since for order in self.waiting), default=None),
            expiry_hours=self._settings.orders.expiry_hours,
            drift=self._drift,
            unsent_decisions=self._unsent_seen,
        )


def _hours(now: datetime, then: datetime) -> float:
    return (now - then).total_seconds() / 3600
