"""Series: find one among all of them, and see everything about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import Request
from nicegui import ui
from starlette.responses import RedirectResponse

from pipelines.serving.dashboard import parts
from pipelines.serving.dashboard.finder import PAGE, FoundPage
from pipelines.serving.dashboard.frame import Dashboard, Page, frame, loading
from pipelines.serving.dashboard.links import series_link

ORDERS = {
    "risk": "Gravest flag first",
    "error": "Largest error first",
    "stock": "Least stock first",
    "name": "By product",
}
ALL = "All categories"


@dataclass
class _Asked:
    """What is searched for."""

    text: str = ""
    order: str = "risk"
    category: str = ALL
    page: int = 0
    number: int = 0


def register(dashboard: Dashboard) -> None:
    """The page at `/series`."""

    @ui.page("/series")
    async def series(request: Request) -> RedirectResponse | None:
        if (session := dashboard.session(request)) is None:
            return RedirectResponse("/login")
        with frame(dashboard, session, request, "Series") as page:
            await page.client.connected()
            await _finder(page, request.query_params.get("q", "")[:200])
        return None


async def _finder(page: Page, text: str) -> None:
    asked, queries = _Asked(text), page.dashboard.queries
    with parts.card():
        with parts.box("pad finder"):
            search = ui.input("Location, product or category", value=text).props("outlined dense clearable autofocus")
            category = ui.select([ALL], value=ALL, label="Category").props("outlined dense options-dense")
            order = ui.select(ORDERS, value="risk", label="Order").props("outlined dense options-dense")
        results = parts.box()

    async def show() -> None:
        asked.number += 1
        number = asked.number
        wanted = None if asked.category == ALL else asked.category
        found = await page.dashboard.ask(queries.search, asked.text, asked.order, asked.page, wanted)
        # An answer to what was typed before comes too late.
        if number == asked.number and not page.client.is_deleted:
            results.clear()
            with results:
                _show(page, asked, found, turn)

    async def turn(by: int) -> None:
        asked.page += by
        await show()

    async def change() -> None:
        asked.text, asked.category, asked.order = str(search.value or ""), category.value, order.value
        asked.page = 0
        await show()

    search.on("update:model-value", change, throttle=0.25, leading_events=False)
    category.on_value_change(change)
    order.on_value_change(change)
    with results, loading("Reading the series ..."):
        categories = await page.dashboard.ask(queries.categories)
    category.set_options([ALL, *categories], value=ALL)
    await show()


def _show(page: Page, asked: _Asked, found: FoundPage, turn: Any) -> None:
    if not found.total:
        parts.empty("No series yet", "They appear with the first events, or with the first night's forecasts.")
        return
    if not found.matching:
        parts.empty("No series matches", f"None of {found.total:,} holds every word of the search.")
        return
    columns = [
        ("Product", False),
        ("Location", False),
        ("Category", False),
        ("Flag", False),
        ("On hand", True),
        ("On order", True),
        ("Model", False),
        ("WAPE", True),
    ]
    parts.table(columns, [_row(row) for row in found.rows])
    first = asked.page * PAGE + 1
    last = asked.page * PAGE + len(found.rows)
    with parts.box("pad pager"):
        parts.text(f"{first:,} to {last:,} of {found.matching:,}", "soft small num grow")
        back = parts.button("Previous", lambda: turn(-1))
        back.set_enabled(asked.page > 0)
        on = parts.button("Next", lambda: turn(1))
        on.set_enabled(last < found.matching)


def _row(row: dict[str, Any]) -> list[Any]:
    def name() -> None:
        with ui.link("", series_link(row["location_id"], row["sku"])).classes("plain"):
            parts.text(row["name"], "strong")
            parts.text(row["sku"], "soft small")

    def flag() -> None:
        if row["flag_severity"]:
            parts.severity(row["flag_severity"])
        if row["lost_margin"]:
            parts.text(f"{parts.money(row['lost_margin'])} to lose", "soft small num")

    model = row["model"] or "–"
    if row["status"] and row["status"] != "ok":
        model = f"{model} ({row['status']})"
    return [
        name,
        row["location_id"],
        row["category"] or "–",
        flag,
        parts.number(row["on_hand"]),
        parts.number(row["on_order"]),
        model,
        parts.percent(row["WAPE"], 1),
    ]
