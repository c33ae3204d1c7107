"""Running the order API: one process, which owns `gold/order_audit`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import uvicorn
from fastapi import FastAPI

from pipelines.contracts import topics
from pipelines.contracts.tables import ORDER_AUDIT
from pipelines.io import kafka
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.operations.maintenance import TableKeeper
from pipelines.operations.secret_files import secret_of
from pipelines.operations.settings import Settings
from pipelines.restocking.webhooks import Signer
from pipelines.serving.access import Access, load_access
from pipelines.serving.api import create_app
from pipelines.serving.book import OrderBook
from pipelines.serving.decisions import Desk
from pipelines.serving.journal import Journal, SendEvents

log = logging.getLogger("stockcast.orders")

OWNER = "order_api"


def run_api(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        UsageError: a secret is not fit, or the API would listen beyond loopback without a token.
        OwnershipError: another order API serves this home.
    """
    access = load_access(settings.api)
    signer = report_signer(settings)
    with ownership(settings, OWNER), order_app(settings, access, signer, kafka_sender(settings)) as app:
        config = uvicorn.Config(
            app,
            host=settings.api.host,
            port=settings.api.port,
            log_config=None,
            access_log=False,
            server_header=False,
            # Longer than clients keep a connection that waits: one closed under a request looks like an outage.
            timeout_keep_alive=75,
            timeout_graceful_shutdown=10,
        )
        uvicorn.Server(config).run()


def report_signer(settings: Settings) -> Signer | None:
    """What verifies suppliers' reports; None: none are taken.

    Raises:
        UsageError: the secret is not fit.
    """
    secret = secret_of(settings.api.webhook_secret, settings.api.webhook_secret_file, "api.webhook_secret")
    return None if secret is None else Signer(secret, "api.webhook_secret")


@contextmanager
def order_app(
    settings: Settings,
    access: Access,
    signer: Signer | None,
    send: SendEvents,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[FastAPI]:
    """The application with its journal at work; the caller holds the ownership of `order_api`."""
    with order_desk(settings, signer, send, clock) as desk:
        yield create_app(desk, access, settings.api.largest_body_bytes)


@contextmanager
def order_desk(
    settings: Settings,
    signer: Signer | None,
    send: SendEvents,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[Desk]:
    """The desk with its journal at work; the caller holds the ownership of `order_api`."""
    tables = Tables(settings)
    journal = Journal(tables, send, clock, TableKeeper(tables, settings, (ORDER_AUDIT,)).tick)
    journal.start()
    try:
        yield Desk(OrderBook(Tables(settings), journal.events_of), journal, clock, settings.ingest, signer)
    finally:
        journal.close()


def kafka_sender(settings: Settings) -> SendEvents:
    """Sends order status events; the topic is made at the first."""
    producer = kafka.producer(settings, **{"message.timeout.ms": 30_000})
    ready = False

    def send(events: Iterable[tuple[str, bytes]]) -> None:
        nonlocal ready
        if not ready:
            kafka.prepare(settings, write=(topics.ORDER_STATUS,))
            ready = True
        kafka.send(producer, topics.ORDER_STATUS, events)

    return send
