"""All live streams in one Spark application: ingest, restock right behind it, totals, shipments,
anomalies, and the relay."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from types import FrameType

from pyspark.sql.streaming.query import StreamingQuery

from pipelines.anomalies.following import watch_anomalies
from pipelines.demand.totals import start_totals
from pipelines.ingestion.ingestor import TakenIn
from pipelines.ingestion.run import IngestRun
from pipelines.ingestion.stream import start_ingest
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.operations.logs import about
from pipelines.operations.monitoring.serving import monitored
from pipelines.operations.session import open_session
from pipelines.operations.settings import Settings
from pipelines.restocking.engine import RestockEngine
from pipelines.restocking.expiry import kafka_expiry
from pipelines.restocking.relay import Relay, relay_once
from pipelines.restocking.sending import OrderSender
from pipelines.restocking.stream import running_engine
from pipelines.restocking.supplier import check_supplier_api
from pipelines.serving.alert_webhook import AlertWebhook, check_alert_webhook
from pipelines.shipments.following import follow_shipments

log = logging.getLogger("stockcast.live")

OWNERS = ("ingest_events", "restock", "aggregate_totals", "relay_orders")
RETRY_SECONDS = 5.0
SHIPMENTS_STOPPED = "following the shipments stopped; trying again"
WATCH_STOPPED = "watching for anomalies stopped; trying again"


def run_live(settings: Settings, *, once: bool = False, stop: threading.Event | None = None) -> None:
    """Run until `stop` is set, SIGINT or SIGTERM arrives, or a stream fails; `once`: until all is done.

    Raises:
        StreamingQueryException, StockcastError: a stream failed; the others were stopped in an orderly way.
    """
    stop = stop or threading.Event()
    sending = settings.supplier_api.url is not None
    with ownership(settings, *OWNERS, *(("send_orders",) if sending else ())), _signals(stop):
        spark = open_session("stockcast-live")
        # Each thread reads through handles of its own.
        with (
            monitored(settings, spark) as metrics,
            _sending(settings, once=once),
            _alerting(settings, once=once),
            _relaying(settings),
            _following("track-shipments", follow_shipments, SHIPMENTS_STOPPED, settings, once=once),
            _following("watch-anomalies", watch_anomalies, WATCH_STOPPED, settings, once=once),
            running_engine(settings, Tables(settings)) as engine,
        ):
            ingest = start_ingest(spark, settings, Tables(settings), once=once, then=_deciding(engine))
            metrics.remember(ingest.name, "event ids", ingest.remembered)
            queries: list[StreamingQuery | IngestRun] = [ingest]
            try:
                if not once:
                    queries.append(start_totals(spark, settings, Tables(settings)))
                log.info("live: %s", ", ".join(query.name for query in queries))
                _wait(queries, stop)
                if once and follow_shipments(settings, Tables(settings), stop, once=True):
                    # What orders were told of their arrivals is taken in as well.
                    ingest.stop()
                    queries[0] = start_ingest(spark, settings, Tables(settings), once=True, then=_deciding(engine))
                    _wait(queries, stop)
            finally:
                for query in queries:
                    query.stop()
        if once:
            start_totals(spark, settings, Tables(settings), once=True).awaitTermination()


def _deciding(engine: RestockEngine) -> Callable[[TakenIn], None]:
    """The restock stage, whose log lines name the version that decides."""

    def stage(taken: TakenIn) -> None:
        with about(version=engine.policy_version):
            engine.stage(taken)

    return stage


def _wait(queries: list[StreamingQuery | IngestRun], stop: threading.Event) -> None:
    while not stop.wait(0.2):
        for query in queries:
            if not query.isActive:
                if (failure := query.exception()) is not None:
                    raise failure
                return


@contextmanager
def _kept_running(name: str, run: Callable[[threading.Event], None], failed: str) -> Iterator[None]:
    """Work in a thread of its own until the block ends; after a failure, which `failed` tells, it is begun anew."""
    stop = threading.Event()

    def keep_running() -> None:
        while not stop.is_set():
            try:
                run(stop)
            except Exception:
                log.exception(failed)
                stop.wait(RETRY_SECONDS)

    thread = threading.Thread(target=keep_running, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _relaying(settings: Settings) -> Iterator[None]:
    """The relay in a thread of its own; it outlives broker outages, and ends after publishing the rest."""

    def run(stop: threading.Event) -> None:
        relay = Relay(settings, Tables(settings))
        relay.run(stop.wait, kafka_expiry(settings, Tables(settings)))
        relay.close()

    with _kept_running("relay", run, "the relay stopped; orders stay in the outbox, trying again"):
        yield
    relay_once(settings, Tables(settings))


Follow = Callable[[Settings, Tables, threading.Event], object]


@contextmanager
def _following(name: str, follow: Follow, failed: str, settings: Settings, *, once: bool) -> Iterator[None]:
    """Something is followed in a thread of its own; not where everything ends by itself."""
    if once:
        yield
        return

    def run(stop: threading.Event) -> None:
        follow(settings, Tables(settings), stop)

    with _kept_running(name, run, failed):
        yield


@contextmanager
def _sending(settings: Settings, *, once: bool) -> Iterator[None]:
    """Orders to the supplier's API in a thread of its own, where one is set; `once`: at the end, in this one."""
    if settings.supplier_api.url is None:
        yield
        return
    if once:
        yield
        _send_once(settings)
        return

    def run(stop: threading.Event) -> None:
        with closing(OrderSender(settings, Tables(settings), lambda: datetime.now(UTC))) as sender:
            sender.run(stop.wait)

    check_supplier_api(settings.supplier_api)
    with _kept_running("send-orders", run, "sending orders stopped; they stay in Kafka, trying again"):
        yield


@contextmanager
def _alerting(settings: Settings, *, once: bool) -> Iterator[None]:
    """Alerts to the configured webhook in a thread of its own, where one is set."""
    if settings.alert_webhook.url is None or once:
        yield
        return
    check_alert_webhook(settings.alert_webhook)

    def run(stop: threading.Event) -> None:
        AlertWebhook(settings, lambda: datetime.now(UTC)).run(stop.is_set)

    with _kept_running("alert-webhook", run, "sending alerts stopped; they stay in Kafka, trying again"):
        yield


def _send_once(settings: Settings) -> None:
    with closing(OrderSender(settings, Tables(settings), lambda: datetime.now(UTC), once=True)) as sender:
        sender.run_once()


@contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into an orderly stop, where this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(_: int, __: FrameType | None) -> None:
        stop.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
