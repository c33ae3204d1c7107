"""What every page has: navigation, theme, who is there, and whether what is shown is still live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Any, TypeVar

from fastapi import Request
from nicegui import Client, ui

from pipelines.operations.settings import Settings
from pipelines.serving import access
from pipelines.serving.dashboard import parts
from pipelines.serving.dashboard.desks import OrderDesk
from pipelines.serving.dashboard.feed import Feed
from pipelines.serving.dashboard.queries import Queries
from pipelines.serving.dashboard.sessions import COOKIE, Session, Sessions
from pipelines.serving.dashboard.store import ALERTS, COUNTERS, Store

Found = TypeVar("Found")

PAGES = (
    ("/", "Now"),
    ("/series", "Series"),
    ("/network", "Network"),
    ("/totals", "Totals"),
    ("/forecasts", "Forecasts"),
    ("/data", "Data"),
    ("/decisions", "Decisions"),
    ("/alerts", "Alerts"),
)
THEME = "stockcast_theme"
THEMES: dict[str, bool | None] = {"auto": None, "light": False, "dark": True}
NEXT = {"auto": "light", "light": "dark", "dark": "auto"}
ICON = {"auto": "◐", "light": "○", "dark": "●"}


@dataclass(frozen=True)
class Dashboard:
    """All that pages are given."""

    settings: Settings
    store: Store
    feed: Feed
    queries: Queries
    desk: OrderDesk
    sessions: Sessions
    clock: Callable[[], datetime]

    def session(self, request: Request) -> Session | None:
        """Who asks for a page; None: they must log in."""
        return self.sessions.of(request.cookies.get(COOKIE))

    async def ask(self, query: Callable[..., Found], *arguments: Any) -> Found:
        """Run a query on the tables in a thread, so that other pages go on."""
        return await asyncio.get_running_loop().run_in_executor(None, lambda: query(*arguments))


@dataclass(frozen=True)
class Page:
    """The page that is being built."""

    dashboard: Dashboard
    session: Session
    client: Client

    @property
    def may_decide(self) -> bool:
        """Whether whoever looks at it may decide."""
        return self.session.caller.may(access.APPROVE)

    def on(self, topic: str, show: Callable[[], None]) -> None:
        """Show now, and whenever the topic changed."""
        show()
        self.dashboard.feed.subscribe(self.client, topic, show)


def add_style() -> None:
    """The one style sheet, from the package."""
    style = resources.files("pipelines.serving.dashboard").joinpath("style.css").read_text(encoding="utf-8")
    ui.add_head_html(f"<style>{style}</style>", shared=True)


@contextmanager
def frame(dashboard: Dashboard, session: Session, request: Request, title: str) -> Iterator[Page]:
    """A page with its head; what is built inside is its content."""
    ui.page_title(f"{title} · Stockcast")
    page = Page(dashboard, session, ui.context.client)
    theme = request.cookies.get(THEME, "auto")
    theme = theme if theme in THEMES else "auto"
    dark = ui.dark_mode(THEMES[theme])
    with parts.box("top", "header"), parts.box("top-in"):
        ui.link("Skip to the content", "#content").classes("skip")
        ui.link("Stockcast", "/").classes("brand")
        _navigation(page, title)
        with parts.box("who"):
            _theme_button(dark, theme)
            if not dashboard.sessions.is_open:
                parts.span(f"{session.caller.name} ({session.caller.role})", "soft small hide-phone")
                ui.link("Log out", "/logout").classes("link small")
    with parts.box("main", "main").props('id="content"'):
        _failure(page)
        yield page


def _navigation(page: Page, title: str) -> None:
    with parts.box("nav", "nav").props('aria-label="Pages"'):
        for path, name in PAGES:
            with ui.link("", path) as link:
                parts.span(name)
                count = parts.span("", "count")
            if name == title:
                link.props("aria-current=page")
            if name in {"Now", "Alerts"}:
                _counted(page, count, name)
            else:
                count.set_visibility(False)


def _counted(page: Page, count: ui.label, name: str) -> None:
    def show() -> None:
        figures = page.dashboard.store.counters
        value = figures.waiting if name == "Now" else figures.open_alerts
        count.set_text(f"{value:,}" if value < 1000 else "999+")
        count.set_visibility(value > 0)

    page.on(COUNTERS, show)
    page.on(ALERTS, show)


def _theme_button(dark: ui.dark_mode, theme: str) -> None:
    chosen = {"theme": theme}

    def change() -> None:
        chosen["theme"] = NEXT[chosen["theme"]]
        dark.value = THEMES[chosen["theme"]]
        show()
        ui.run_javascript(f"document.cookie = '{THEME}={chosen['theme']}; path=/; max-age=31536000; samesite=strict'")

    made = ui.button("", on_click=change, color=None).props("flat no-caps dense").classes("flat-icon")

    def show() -> None:
        made.set_text(f"{ICON[chosen['theme']]} {chosen['theme'].capitalize()}")
        made.props["aria-label"] = f"Theme: {chosen['theme']}"

    show()


def _failure(page: Page) -> None:
    """A line while the tables cannot be read: what is shown is then of a moment ago."""
    with parts.box("notice bad").props("role=status") as line:
        label = parts.text("")

    def show() -> None:
        failure = page.dashboard.feed.failure
        label.set_text(f"The tables cannot be read just now, so this may be out of date: {failure}" if failure else "")
        line.set_visibility(failure is not None)

    show()
    ui.timer(2.0, show)


@contextmanager
def loading(what: str) -> Iterator[None]:
    """A line while something is read; gone when the block ends."""
    with parts.box("empty").props("role=status") as line:
        ui.spinner(size="sm")
        parts.text(what)
    try:
        yield
    finally:
        line.delete()
