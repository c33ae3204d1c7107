"""The dashboard's application: NiceGUI's pages mounted beside the order API's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from fastapi import FastAPI
from nicegui import ui

from pipelines.io.delta import Tables
from pipelines.operations.settings import Settings
from pipelines.serving.dashboard import login
from pipelines.serving.dashboard.desks import OrderDesk
from pipelines.serving.dashboard.feed import Feed
from pipelines.serving.dashboard.frame import Dashboard, add_style
from pipelines.serving.dashboard.pages import (
    alerts,
    data,
    decisions,
    forecasts,
    network,
    now,
    one_series,
    series,
    totals,
)
from pipelines.serving.dashboard.queries import Queries
from pipelines.serving.dashboard.sessions import Sessions
from pipelines.serving.dashboard.store import Store

FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#0072b2"/>'
    '<path d="M6 21l6-7 5 4 9-10" fill="none" stroke="#fff" stroke-width="3" stroke-linecap="round" '
    'stroke-linejoin="round"/><path d="M6 26h20" stroke="#e69f00" stroke-width="3" stroke-linecap="round"/></svg>'
)
PAGES = (now, series, one_series, network, totals, forecasts, data, decisions, alerts)


def make_dashboard(
    settings: Settings,
    desk: OrderDesk,
    sessions: Sessions,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Dashboard:
    """All that the pages need, over a home's tables."""
    store = Store(settings, Tables(settings), clock, desk.unsent)
    feed = Feed(store, settings.dashboard.poll_seconds)
    return Dashboard(settings, store, feed, Queries(settings), desk, sessions, clock)


def register_pages(dashboard: Dashboard) -> None:
    """Every page, with NiceGUI."""
    add_style()
    for page in PAGES:
        page.register(dashboard)


def add_pages(app: FastAPI, dashboard: Dashboard) -> None:
    """Mount the dashboard under the application's own addresses."""
    login.add_login(app, dashboard.sessions)
    register_pages(dashboard)
    ui.run_with(
        app,
        title="Stockcast",
        favicon=FAVICON,
        tailwind=False,
        language="en-US",
        show_welcome_message=False,
        reconnect_timeout=30.0,
    )
