"""Alerts: what needs a look, each once; acknowledged or snoozed by somebody, gone when it is over."""

from __future__ import annotations

from datetime import timedelta

from fastapi import Request
from nicegui import ui
from nicegui.element import Element
from starlette.responses import RedirectResponse

from pipelines.errors import StockcastError
from pipelines.serving.dashboard import parts
from pipelines.serving.dashboard.alerts import ACKNOWLEDGE, OPEN, REOPEN, SNOOZE, SNOOZED, AlertLine
from pipelines.serving.dashboard.frame import Dashboard, Page, frame
from pipelines.serving.dashboard.rerouting import LATE, other_ways_button
from pipelines.serving.dashboard.store import ALERTS

SNOOZES = {"1 hour": timedelta(hours=1), "8 hours": timedelta(hours=8), "A day": timedelta(days=1)}


def register(dashboard: Dashboard) -> None:
    """The page at `/alerts`."""

    @ui.page("/alerts")
    def alerts(request: Request) -> RedirectResponse | None:
        if (session := dashboard.session(request)) is None:
            return RedirectResponse("/login")
        with frame(dashboard, session, request, "Alerts") as page:
            _list(page, "Open", "close by themselves when they are over", open_ones=True)
            _list(page, "Acknowledged and snoozed", "", open_ones=False)
        return None


def _list(page: Page, title: str, note: str, *, open_ones: bool) -> None:
    with parts.card(title, note):
        lines = parts.Lines[AlertLine](
            lambda line: line.alert_id,
            lambda line: _line(page, line),
            lambda: parts.empty("All is well" if open_ones else "None", "Nothing needs a look." if open_ones else ""),
        )

    def show() -> None:
        lines.show([line for line in page.dashboard.store.board.lines if (line.state == OPEN) == open_ones])

    page.on(ALERTS, show)


def _line(page: Page, alert: AlertLine) -> Element:
    now = page.dashboard.clock()
    with parts.box("line alert", "article") as line:
        parts.severity(alert.severity)
        with parts.box("grow"):
            parts.text(alert.message)
            since = f"since {parts.when(alert.raised_at, now)}" if alert.lasting else parts.when(alert.raised_at, now)
            said = [alert.kind.replace("_", " "), alert.subject, since]
            if alert.actor:
                until = f" until {alert.until:%d %b %H:%M} UTC" if alert.state == SNOOZED and alert.until else ""
                said.append(f"{alert.state} by {alert.actor}{until}")
            parts.text(" · ".join(said), "soft small")
        if page.may_decide:
            _actions(page, alert)
    return line


def _actions(page: Page, alert: AlertLine) -> None:
    with parts.box("actions"):
        if alert.kind == LATE:
            other_ways_button(page, alert)
        if alert.state != OPEN:
            parts.button("Reopen", lambda: _say(page, alert, REOPEN), label=f"Reopen {alert.kind}")
            return
        parts.button("Acknowledge", lambda: _say(page, alert, ACKNOWLEDGE), "quiet", f"Acknowledge {alert.kind}")
        with parts.button("Snooze", lambda: None, "quiet", f"Snooze {alert.kind}"), ui.menu():
            for name, span in SNOOZES.items():
                ui.menu_item(name, lambda _, span=span: _say(page, alert, SNOOZE, span))


async def _say(page: Page, alert: AlertLine, action: str, span: timedelta | None = None) -> None:
    dashboard = page.dashboard
    if not page.may_decide:
        return
    now = dashboard.clock()
    until = None if span is None else now + span
    try:
        await dashboard.ask(
            lambda: dashboard.store.board.say(alert.alert_id, action, page.session.caller.name, now, until=until)
        )
    except StockcastError as error:
        if not page.client.is_deleted:
            with page.client:
                ui.notify(str(error), type="warning")
    dashboard.feed.ask()
