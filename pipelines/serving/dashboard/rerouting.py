"""Late shipments, and sending them another way. A click that is repeated has one effect."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from nicegui import ui
from nicegui.element import Element

from pipelines.errors import StockcastError
from pipelines.serving.dashboard import parts
from pipelines.serving.dashboard.alerts import OPEN, AlertLine
from pipelines.serving.dashboard.frame import Page
from pipelines.serving.dashboard.store import ALERTS
from pipelines.shipments.routing.approving import options_of

LATE = "late_shipment"


def late_shipments(page: Page) -> None:
    """A card with the late shipments that nobody has seen to; none where there are none."""
    with parts.card("Late shipments", "that somebody waits for, with other ways for them") as card:
        lines = parts.Lines[AlertLine](lambda line: line.alert_id, lambda line: _line(page, line), lambda: None)

    def show() -> None:
        late = [line for line in page.dashboard.store.board.lines if line.kind == LATE and line.state == OPEN]
        lines.show(late)
        card.set_visibility(bool(late))

    page.on(ALERTS, show)


def _line(page: Page, alert: AlertLine) -> Element:
    with parts.box("line alert", "article") as line:
        parts.severity(alert.severity)
        with parts.box("grow"):
            parts.text(alert.message)
            parts.text(f"{alert.subject} · {parts.when(alert.raised_at, page.dashboard.clock())}", "soft small")
        if page.may_decide:
            with parts.box("actions"):
                other_ways_button(page, alert)
    return line


def other_ways_button(page: Page, alert: AlertLine) -> None:
    """Opens what can be done about the shipment of an alert."""
    parts.button("Other ways", lambda: _ask(page, alert.subject), "primary", f"Other ways for {alert.subject}")


async def _ask(page: Page, shipment_id: str) -> None:
    found = await page.dashboard.ask(page.dashboard.queries, options_of, shipment_id)
    newest = [row for row in found if row["at"] == found[0]["at"]]
    if page.client.is_deleted:
        return
    with page.client:
        _show(page, shipment_id, newest)


def _show(page: Page, shipment_id: str, options: list[dict[str, Any]]) -> None:
    key = uuid4().hex
    with ui.dialog() as dialog, parts.box("dialog wide").props("role=dialog"):
        parts.heading("Send it another way?", 2)
        parts.text(f"Shipment {shipment_id}", "strong")
        if not options:
            parts.text(
                "No other way that would save anything is known; new ones are told of as an alert.", "soft small"
            )
            parts.button("Close", dialog.close)
            _open(dialog)
            return
        choice = ui.radio({row["option_id"]: _said(row) for row in options}, value=options[0]["option_id"])
        reason = ui.input("Reason").props("outlined dense autofocus maxlength=1000 bottom-slots").mark("reroute-reason")

        async def approve() -> None:
            said = str(reason.value or "").strip()
            if not said:
                reason.props("error error-message='A reason is needed; it is kept with the decision'")
                return
            body = {"option": choice.value, "reason": said}
            if await _approve(page, f"{key}-{choice.value}", shipment_id, body):
                dialog.close()

        with parts.box("actions"):
            parts.button("Cancel", dialog.close)
            parts.button("Approve", approve, "primary").mark("reroute-confirm")
    _open(dialog)


def _said(option: dict[str, Any]) -> str:
    if option["approved"] is not None:
        return f"(approved by {option['approved']['actor']}) {option['description']}"
    return f"{'(proposed) ' if option['proposed'] else ''}{option['description']}"


def _open(dialog: ui.dialog) -> None:
    dialog.on("hide", dialog.delete)
    dialog.open()


async def _approve(page: Page, key: str, shipment_id: str, body: dict[str, Any]) -> bool:
    """Approve, and say how it went; whether it was recorded."""
    try:
        desk = page.dashboard.desk
        answer = await page.dashboard.ask(desk.reroute, page.session, key, shipment_id, body)
    except StockcastError as error:
        _tell(page, str(error), "warning")
        return False
    _tell(page, f"Approved: order {answer['order_id']} is expected {answer['eta']}", "positive")
    page.dashboard.feed.ask()
    return True


def _tell(page: Page, said: str, kind: Any) -> None:
    if not page.client.is_deleted:
        with page.client:
            ui.notify(said, type=kind, timeout=8000)
