"""Answering Prometheus, beside a job that runs."""

from __future__ import annotations

import hmac
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from pyspark.sql import SparkSession

from pipelines.errors import UsageError
from pipelines.io.delta import Tables
from pipelines.operations.monitoring.exposition import FiguresCollector
from pipelines.operations.monitoring.figures import ChainLook, KafkaLook, RecentFigures
from pipelines.operations.monitoring.streams import StreamListener, StreamMetrics
from pipelines.operations.secret_files import secret_of
from pipelines.operations.settings import MonitoringSettings, Settings
from pipelines.serving.access import is_loopback

log = logging.getLogger("stockcast.monitoring")

SHORTEST_TOKEN = 16
App = Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]


@contextmanager
def monitored(settings: Settings, spark: SparkSession | None = None) -> Iterator[StreamMetrics]:
    """Serve metrics while the block runs, where `monitoring.enabled` is set.

    Args:
        spark: its streaming queries are followed; None where there are none.

    Yields:
        What is known of streams; it may be told of state that is kept outside Spark.

    Raises:
        UsageError: it would listen beyond loopback without a token, or the token is not fit.
    """
    registry = CollectorRegistry()
    metrics = StreamMetrics(registry)
    if not settings.monitoring.enabled:
        yield metrics
        return
    token = _token(settings.monitoring)
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    recent = RecentFigures(
        ChainLook(Tables(settings), KafkaLook(settings).look).figures,
        lambda: datetime.now(UTC),
        settings.monitoring.refresh_seconds,
    )
    registry.register(FiguresCollector(recent.get))
    app = make_wsgi_app(registry)
    with _served(app if token is None else _guarded(app, token), settings.monitoring), _followed(spark, metrics):
        yield metrics


@contextmanager
def _followed(spark: SparkSession | None, metrics: StreamMetrics) -> Iterator[None]:
    """The one listener, while the block runs."""
    if spark is None:
        yield
        return
    listener = StreamListener(metrics)
    spark.streams.addListener(listener)
    try:
        yield
    finally:
        # A session that was stopped meanwhile has no listeners.
        with suppress(Exception):
            spark.streams.removeListener(listener)


@contextmanager
def _served(app: App, settings: MonitoringSettings) -> Iterator[None]:
    """Listen while the block runs. Metrics are no reason for a stream to stop: a port that is taken is said."""
    try:
        server = _server(app, settings)
    except OSError as error:
        log.warning(
            "metrics are not served: %s:%d cannot be listened on (%s); set monitoring.port to one that is free",
            *(settings.host, settings.port, error.strerror or error),
        )
        yield
        return
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    log.info("metrics are at http://%s:%d/metrics", settings.host, server.server_port)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def _server(app: App, settings: MonitoringSettings) -> WSGIServer:
    family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
    kind = type("MetricsServer", (ThreadingWSGIServer,), {"address_family": family})
    return make_server(settings.host, settings.port, app, kind, handler_class=_Handler)


class _Handler(WSGIRequestHandler):
    timeout = 30
    """A connection that says nothing is closed."""

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""


def _guarded(app: App, token: str) -> App:
    """Only whoever bears the token is answered."""
    wanted = f"Bearer {token}".encode()

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if hmac.compare_digest(str(environ.get("HTTP_AUTHORIZATION", "")).encode(), wanted):
            return app(environ, start_response)
        start_response("401 Unauthorized", [("WWW-Authenticate", "Bearer"), ("Content-Type", "text/plain")])
        return [b"the token is missing or wrong\n"]

    return guarded


def _token(settings: MonitoringSettings) -> str | None:
    token = secret_of(settings.token, settings.token_file, "monitoring.token")
    if token is None and not is_loopback(settings.host):
        raise UsageError(
            f"monitoring.host is {settings.host}, which others can reach, and no token is set; set "
            "STOCKCAST__MONITORING__TOKEN or monitoring.token_file, or listen on 127.0.0.1"
        )
    if token is not None and len(token) < SHORTEST_TOKEN:
        raise UsageError(f"monitoring.token has fewer than {SHORTEST_TOKEN} characters")
    return token
