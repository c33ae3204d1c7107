"""Spark's streaming queries, followed by one listener."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from pyspark.sql.streaming.listener import (
    QueryIdleEvent,
    QueryProgressEvent,
    QueryStartedEvent,
    QueryTerminatedEvent,
    StreamingQueryListener,
)

log = logging.getLogger("stockcast.monitoring")

BATCH_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0)
UNNAMED = "unnamed"


class StreamMetrics:
    """What is known of each query, as metrics labelled with its name.

    Args:
        registry: where the metrics are entered.
        clock: seconds since 1970.
    """

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        query = ("query",)

        def gauge(name: str, text: str, labels: tuple[str, ...] = query) -> Gauge:
            return Gauge(f"stockcast_stream_{name}", text, labels, registry=registry)

        self._running = gauge("running", "1 while the query runs")
        self._input = gauge("input_rows_per_second", "Rows that arrive, in the last batch")
        self._processed = gauge("processed_rows_per_second", "Rows that are processed, in the last batch")
        self._phase = gauge("last_batch_phase_seconds", "What the last batch spent its time on", ("query", "phase"))
        self._state = gauge("state_rows", "Rows that the query remembers", ("query", "operator"))
        self._watermark = gauge("watermark_age_seconds", "From the query's watermark to now")
        self._progress = gauge("last_progress_timestamp_seconds", "When the query last finished a batch or had none")
        self._behind = gauge("source_lag_rows", "Rows in the source behind the last batch", ("query", "source"))
        self._batches = Counter("stockcast_stream_batches", "Batches with rows", query, registry=registry)
        self._rows = Counter("stockcast_stream_rows", "Rows processed", query, registry=registry)
        self._failures = Counter("stockcast_stream_failures", "Ends by an error", query, registry=registry)
        self._seconds = Histogram(
            "stockcast_stream_batch_seconds", "Duration of batches with rows", query, buckets=BATCH_SECONDS,
            registry=registry,
        )  # fmt: skip

    def started(self, query: str) -> None:
        """A query began."""
        self._running.labels(query).set(1)
        self._failures.labels(query)
        self.alive(query)

    def ended(self, query: str, *, failed: bool) -> None:
        """A query ended."""
        self._running.labels(query).set(0)
        if failed:
            self._failures.labels(query).inc()

    def alive(self, query: str) -> None:
        """A query looked for rows."""
        self._progress.labels(query).set(self._clock())

    def remember(self, query: str, operator: str, rows: Callable[[], float]) -> None:
        """State that a query keeps outside Spark: `rows` is asked at each look."""
        self._state.labels(query, operator).set_function(rows)

    def advanced(self, query: str, progress: Mapping[str, Any]) -> None:
        """A query finished a batch.

        Args:
            progress: Spark's report of it.
        """
        self.alive(query)
        self._input.labels(query).set(_number(progress.get("inputRowsPerSecond")))
        self._processed.labels(query).set(_number(progress.get("processedRowsPerSecond")))
        spent = {phase: milliseconds / 1000 for phase, milliseconds in (progress.get("durationMs") or {}).items()}
        for phase, seconds in spent.items():
            self._phase.labels(query, phase).set(seconds)
        if rows := int(progress.get("numInputRows") or 0):
            self._batches.labels(query).inc()
            self._rows.labels(query).inc(rows)
            self._seconds.labels(query).observe(spent.get("triggerExecution", 0.0))
        # Two operators of a kind are told apart by their place.
        for place, operator in enumerate(progress.get("stateOperators") or ()):
            self._state.labels(query, f"{operator['operatorName']}-{place}").set(operator["numRowsTotal"])
        if (watermark := (progress.get("eventTime") or {}).get("watermark")) is not None:
            instant = datetime.fromisoformat(watermark).timestamp()
            self._watermark.labels(query).set_function(lambda: self._clock() - instant)
        for place, source in enumerate(progress.get("sources") or ()):
            behind = (source.get("metrics") or {}).get("maxOffsetsBehindLatest")
            if behind is not None:
                self._behind.labels(query, f"kafka-{place}").set(_number(behind))


class StreamListener(StreamingQueryListener):
    """Hands what Spark tells of its queries to the metrics. It never raises: Spark would only print it."""

    def __init__(self, metrics: StreamMetrics) -> None:
        self._metrics = metrics
        self._names: dict[str, str] = {}

    def onQueryStarted(self, event: QueryStartedEvent) -> None:
        """Remembers the name, which later events may lack."""
        name = event.name or UNNAMED
        self._names[str(event.runId)] = name
        self._safely(lambda: self._metrics.started(name))

    def onQueryProgress(self, event: QueryProgressEvent) -> None:
        """A batch is done."""
        progress = event.progress
        self._safely(lambda: self._metrics.advanced(progress.name or UNNAMED, progress))

    def onQueryIdle(self, event: QueryIdleEvent) -> None:
        """There was nothing to do."""
        if (name := self._names.get(str(event.runId))) is not None:
            self._safely(lambda: self._metrics.alive(name))

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:
        """The query ended."""
        if (name := self._names.pop(str(event.runId), None)) is not None:
            self._safely(lambda: self._metrics.ended(name, failed=event.exception is not None))

    def _safely(self, note: Callable[[], None]) -> None:
        try:
            note()
        except Exception:
            log.exception("a report on a query could not be taken up")


def _number(value: Any) -> float:
    """Spark leaves a rate out, or says NaN or Infinity, where a batch took no time."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if number - number == 0 else 0.0
