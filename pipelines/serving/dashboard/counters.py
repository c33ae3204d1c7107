"""The figures at the head of the page: events, orders, and how old the forecasts are."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts import topics
from pipelines.contracts.tables import INGEST_BATCHES, ORDER_OUTBOX, TIME
from pipelines.io import published
from pipelines.io.delta import Tables
from pipelines.serving.dashboard.follow import Tail

RATE_WINDOW = timedelta(seconds=20)
KEPT = timedelta(minutes=30)
LEARNED_BATCHES = 5_000
"""A batch names only the partitions that it read: so many of a topic are looked at to know them all."""
_BATCH = ("finished_at", "topic", "consumed", "quarantined")


@dataclass(frozen=True)
class Batch:
    """A row of `silver/ingest_batches`."""

    finished_at: datetime
    topic: str
    consumed: int
    quarantined: int


class Counters:
    """Follows what was taken in and what was ordered."""

    def __init__(self, tables: Tables, now: datetime) -> None:
        self._tables = tables
        newest = tables.largest(INGEST_BATCHES, "finished_at")
        after = None if newest is None else pa.scalar(_aware(newest) - KEPT, TIME)
        columns = (*_BATCH, "end_offsets")
        self._batches = Tail(tables, INGEST_BATCHES, "finished_at", columns, after)
        self.batches: deque[Batch] = deque()
        self.taken: dict[str, dict[int, int]] = {}
        if newest is not None:
            self._learn_offsets(_aware(newest))
        self._midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        self._outbox = Tail(tables, ORDER_OUTBOX, "sequence", ("decided_at",), self._before(self._midnight))
        self._orders: deque[datetime] = deque()
        self.decided = 0

    def poll(self) -> bool:
        """Whether a batch was taken in or an order released."""
        batches, orders = self._batches.look(), self._outbox.look()
        if batches is not None:
            rows = batches.sort_by("finished_at")
            self.batches.extend(Batch(**row) for row in rows.select(_BATCH).to_pylist())
            self._follow_offsets(rows)
            while self.batches and self.batches[0].finished_at < self.batches[-1].finished_at - KEPT:
                self.batches.popleft()
        if orders is not None:
            self._orders.extend(orders.column("decided_at").to_pylist())
            self.decided = pc.max(orders.column("sequence")).as_py()
        return batches is not None or orders is not None

    def _learn_offsets(self, newest: datetime) -> None:
        """From the newest batches of each topic, of the last day where it had some."""
        columns = ("finished_at", "topic", "end_offsets")
        where = pc.field("finished_at") > pa.scalar(newest - timedelta(days=1), TIME)
        recent = self._tables.read(INGEST_BATCHES, columns, where)
        for topic in topics.INPUT_TOPICS:
            rows = recent.filter(pc.equal(recent.column("topic"), topic))
            if rows.num_rows == 0:
                rows = self._tables.read(INGEST_BATCHES, columns, pc.field("topic") == topic)
            rows = rows.sort_by("finished_at")
            self._follow_offsets(rows.slice(max(0, rows.num_rows - LEARNED_BATCHES)))

    def _follow_offsets(self, rows: pa.Table) -> None:
        """Where each partition was read up to: a batch says so of those that it read."""
        for row in rows.sort_by("finished_at").to_pylist():
            with suppress(ValueError, AttributeError, TypeError):
                for partition, offset in orjson.loads(row["end_offsets"]).items():
                    self.taken.setdefault(row["topic"], {})[int(partition)] = int(offset)

    def events_per_second(self, now: datetime) -> float:
        """Records taken in over the last 20 seconds."""
        since = now - RATE_WINDOW
        taken = 0
        for batch in reversed(self.batches):
            if batch.finished_at < since:
                break
            taken += batch.consumed
        return taken / RATE_WINDOW.total_seconds()

    def orders_today(self, now: datetime) -> int:
        """Orders released since midnight, UTC."""
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        while self._orders and self._orders[0] < midnight:
            self._orders.popleft()
        return len(self._orders)

    def forecast_age_hours(self, now: datetime) -> float | None:
        """Age of the forecasts in force; None before the first."""
        pointer = published.in_force(self._tables, published.FORECASTS)
        return None if pointer is None else (now - pointer.published_at).total_seconds() / 3600

    def _before(self, midnight: datetime) -> pa.Scalar:
        where = pc.field("decided_at") >= pa.scalar(midnight, TIME)
        today = pc.min(self._tables.read(ORDER_OUTBOX, ("sequence",), where).column("sequence")).as_py()
        last = self._tables.largest(ORDER_OUTBOX, "sequence") or 0
        self.decided = last
        return pa.scalar(last if today is None else today - 1, pa.int64())


def _aware(instant: datetime) -> datetime:
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
