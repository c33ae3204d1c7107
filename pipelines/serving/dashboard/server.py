"""Running the dashboard: one process with the order API beside it, which owns `gold/order_audit`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from socket import socket
from typing import TYPE_CHECKING

import pyarrow as pa
import uvicorn
from fastapi import FastAPI

from pipelines.errors import OwnershipError
from pipelines.io.ownership import ownership
from pipelines.operations.settings import Settings
from pipelines.serving.access import load_access
from pipelines.serving.api import create_app
from pipelines.serving.dashboard.desks import LocalDesk, OrderDesk, reach
from pipelines.serving.dashboard.sessions import Gate, Sessions
from pipelines.serving.server import OWNER, kafka_sender, order_desk, report_signer

if TYPE_CHECKING:
    from pipelines.serving.dashboard.frame import Dashboard

log = logging.getLogger("stockcast.dashboard")

DASHBOARD = "dashboard"


def run_dashboard(settings: Settings, started: Callable[[str], None] = lambda address: None) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        UsageError: a secret is not fit, or it would listen beyond loopback without a token.
        OwnershipError: another dashboard serves this home.
    """
    # Arrow's own allocators keep what a large read took; the system's gives it back.
    pa.set_memory_pool(pa.system_memory_pool())
    with dashboard_server(settings, started) as server:
        server.run()


@contextmanager
def dashboard_server(settings: Settings, started: Callable[[str], None]) -> Iterator[uvicorn.Server]:
    """The server, ready to run, with all that it owns."""
    access = load_access(settings.api, settings.dashboard.host, "dashboard.host")
    sessions = Sessions(access)
    with ownership(settings, DASHBOARD), ExitStack() as stack:
        app, desk = _order_api(settings, stack)
        from pipelines.serving.dashboard.app import add_pages, make_dashboard

        dashboard = make_dashboard(settings, desk, sessions)
        add_pages(app, dashboard)
        dashboard.store.kafka.start()
        stack.callback(dashboard.store.kafka.close)
        config = uvicorn.Config(
            Gate(app, sessions),
            host=settings.dashboard.host,
            port=settings.dashboard.port,
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=3,
        )
        yield _Server(config, dashboard, started)


def _order_api(settings: Settings, stack: ExitStack) -> tuple[FastAPI, OrderDesk]:
    """The order API of this process, or the one that serves this home already."""
    access = load_access(settings.api, settings.dashboard.host, "dashboard.host")
    try:
        stack.enter_context(ownership(settings, OWNER))
    except OwnershipError:
        remote = reach(f"http://{settings.api.host}:{settings.api.port}")
        stack.callback(remote.client.close)
        log.info("decisions go through the order API at %s", remote.client.base_url)
        return FastAPI(docs_url=None, redoc_url=None, openapi_url=None), remote
    desk = stack.enter_context(order_desk(settings, report_signer(settings), kafka_sender(settings)))
    return create_app(desk, access, settings.api.largest_body_bytes), LocalDesk(desk)


class _Server(uvicorn.Server):
    """Looks at the tables before it listens, so that the first page is complete, and goes on while it runs."""

    def __init__(self, config: uvicorn.Config, dashboard: Dashboard, started: Callable[[str], None]) -> None:
        super().__init__(config)
        self._dashboard = dashboard
        self._started = started

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """As uvicorn's."""
        await self._dashboard.feed.look()
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            self._started(f"http://{self.config.host}:{port}")
            self._following = asyncio.create_task(self._dashboard.feed.run())

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """As uvicorn's."""
        if hasattr(self, "_following"):
            self._following.cancel()
        await super().shutdown(sockets)
