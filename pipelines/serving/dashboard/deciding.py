"""Approve, change and reject, from wherever an order is shown. A click that is repeated has one effect."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from nicegui import ui
from nicegui.element import Element

from pipelines.errors import StockcastError
from pipelines.restocking.desk import APPROVE, CHANGE, REJECT
from pipelines.serving.dashboard import parts
from pipelines.serving.dashboard.frame import Page
from pipelines.serving.dashboard.waiting import WaitingOrder

DONE = {APPROVE: "Approved", CHANGE: "Changed", REJECT: "Rejected"}


def decision_buttons(page: Page, row: WaitingOrder, line: Element) -> None:
    """The three buttons of a line."""
    what = f"{page.dashboard.store.catalog.product(row.sku)} at {row.location_id}"
    key = uuid4().hex

    async def approve() -> None:
        # One key for the line: a second click on it repeats the first.
        await _decide(page, line, f"{key}-a", APPROVE, row, {"quantity": row.quantity})

    with parts.box("actions"):
        parts.button("Approve", approve, "primary", f"Approve {row.quantity} units of {what}")
        parts.button("Change", lambda: _ask_change(page, row, line, what), "quiet", f"Change the quantity of {what}")
        parts.button("Reject", lambda: _ask_reject(page, row, line, what), "quiet", f"Reject the order of {what}")


def _ask_change(page: Page, row: WaitingOrder, line: Element, what: str) -> None:
    key = uuid4().hex
    with ui.dialog() as dialog, parts.box("dialog").props("role=dialog"):
        parts.heading("Change the quantity", 2)
        parts.text(what, "strong")
        parts.text(row.explanation, "soft small")
        quantity = ui.number("Units", value=row.quantity, min=1, precision=0).props("outlined dense autofocus")
        reason = _reason()

        async def decide(action: str) -> None:
            body = {"quantity": None if quantity.value is None else int(quantity.value), "reason": _said(reason)}
            if action == CHANGE and not body["reason"]:
                reason.props("error error-message='A reason is needed; it is kept with the order'")
                return
            if await _decide(page, line, f"{key}-{action}-{body['quantity']}", action, row, body):
                dialog.close()

        with parts.box("actions"):
            parts.button("Cancel", dialog.close)
            parts.button("Save, decide later", lambda: decide(CHANGE))
            parts.button("Approve this quantity", lambda: decide(APPROVE), "primary")
    _open(dialog)


def _ask_reject(page: Page, row: WaitingOrder, line: Element, what: str) -> None:
    key = uuid4().hex
    hours = page.dashboard.settings.restock.hold_hours_after_rejection
    with ui.dialog() as dialog, parts.box("dialog").props("role=dialog"):
        parts.heading("Reject this order?", 2)
        parts.text(f"{row.quantity:,} units of {what}", "strong")
        parts.text(f"It will not be sent, and nothing is ordered for this series for {hours:g} hours.", "soft small")
        reason = _reason()

        async def reject() -> None:
            if not _said(reason):
                reason.props("error error-message='A reason is needed; it is kept with the order'")
                return
            if await _decide(page, line, f"{key}-r", REJECT, row, {"reason": _said(reason)}):
                dialog.close()

        reason.on("keydown.enter", reject)
        with parts.box("actions"):
            parts.button("Cancel", dialog.close)
            parts.button("Reject", reject, "danger").mark("decision-confirm")
    _open(dialog)


def _reason() -> ui.input:
    return ui.input("Reason").props("outlined dense autofocus maxlength=1000 bottom-slots").mark("decision-reason")


def _said(reason: ui.input) -> str | None:
    return str(reason.value or "").strip() or None


def _open(dialog: ui.dialog) -> None:
    dialog.on("hide", dialog.delete)
    dialog.open()


async def _decide(page: Page, line: Element, key: str, action: str, row: WaitingOrder, body: dict[str, Any]) -> bool:
    """Decide, and say how it went; whether it was recorded."""
    line.classes("leaving")
    try:
        desk = page.dashboard.desk
        answer = await page.dashboard.ask(desk.decide, page.session, key, action, row.order_id, body)
    except StockcastError as error:
        why = str(error)
        _tell(page, lambda: ui.notify(why, type="warning", timeout=8000))
        if not line.is_deleted:
            line.classes(remove="leaving")
        return False
    said = f"{DONE[action]}: {answer.get('quantity') or row.quantity:,} units for {row.location_id}"
    _tell(page, lambda: ui.notify(said, type="positive", timeout=3000))
    _tell(page, lambda: _focus_next(row.order_id))
    page.dashboard.feed.ask()
    return True


def _focus_next(order_id: str) -> None:
    """Who decides with the keyboard goes on with the next line."""
    ui.run_javascript(
        f"const line = document.querySelector('[data-order={json.dumps(order_id)}]');"
        "const next = (line?.nextElementSibling ?? line?.previousElementSibling)?.querySelector('button');"
        "if (line?.contains(document.activeElement) || document.activeElement === document.body) next?.focus();"
    )


def _tell(page: Page, tell: Callable[[], None]) -> None:
    """In the page's own context: the line that was clicked may be gone."""
    if not page.client.is_deleted:
        with page.client:
            tell()
