"""Now: what needs a decision, the most money at risk first, and the figures of the moment."""

from __future__ import annotations

from datetime import datetime

from fastapi import Request
from nicegui import ui
from nicegui.element import Element
from starlette.responses import RedirectResponse

from pipelines.serving.dashboard import parts
from pipelines.serving.dashboard.deciding import decision_buttons
from pipelines.serving.dashboard.frame import Dashboard, Page, frame
from pipelines.serving.dashboard.links import series_link
from pipelines.serving.dashboard.rerouting import late_shipments
from pipelines.serving.dashboard.risk import Risk
from pipelines.serving.dashboard.store import COUNTERS, WAITING, WATCH
from pipelines.serving.dashboard.waiting import WaitingOrder
from pipelines.serving.dashboard.watchlist import WatchedSeries

STALE_HOURS = 36.0
HEADS = ("At risk", "Product", "On hand", "On order", "Chance of running out", "Empty")
AT_RISK = "Sales that would be lost, at the product's price, over lead time and review period without another order"


def register(dashboard: Dashboard) -> None:
    """The page at `/`."""

    @ui.page("/")
    def now(request: Request) -> RedirectResponse | None:
        if (session := dashboard.session(request)) is None:
            return RedirectResponse("/login")
        with frame(dashboard, session, request, "Now") as page:
            _figures(page)
            _decisions(page)
            late_shipments(page)
            _watched(page)
        return None


def _figures(page: Page) -> None:
    with parts.box("stats").props('aria-label="Live figures"'):
        waiting = parts.Stat("Waiting for you")
        rate = parts.Stat("Events a second", "Records taken in, mean of the last 20 seconds")
        lag = parts.Stat("Behind", "Records in Kafka that have not been taken in")
        flags = parts.Stat("Flagged series", "Series that may run out before the next possible delivery")
        orders = parts.Stat("Orders today", "Released since midnight UTC")
        age = parts.Stat("Forecast age")

    def show() -> None:
        figures = page.dashboard.store.counters
        hours = figures.forecast_age_hours
        waiting.show(parts.number(figures.waiting), "orders above the limit")
        rate.show(f"{figures.events_per_second:,.1f}")
        lag.show(parts.number(figures.lag), "Kafka is away" if figures.lag is None else "records")
        flags.show(parts.number(figures.flags), f"{figures.critical:,} critical", "bad" if figures.critical else "")
        orders.show(parts.number(figures.orders_today), "released")
        stale = hours is not None and hours > STALE_HOURS
        age.show(
            "–" if hours is None else f"{hours:.1f} h", "none in force" if hours is None else "", "bad" if stale else ""
        )

    page.on(COUNTERS, show)


def _decisions(page: Page) -> None:
    limit = page.dashboard.settings.dashboard.shown_decisions
    with parts.card("Needs a decision", "orders that wait, the most money at risk first"):
        with parts.box("line decide heads" + ("" if page.may_decide else " readonly")):
            for name in HEADS:
                parts.text(name)
            parts.text("Order")
        lines = parts.Lines[WaitingOrder](lambda row: row.order_id, lambda row: _decision(page, row), _nothing_waits)
        more = parts.text("", "soft small pad")

    def show() -> None:
        waiting = page.dashboard.store.waiting
        lines.show(waiting[:limit])
        rest = len(waiting) - limit
        more.set_text(f"and {rest:,} more with less at risk: decide on these first" if rest > 0 else "")
        more.set_visibility(rest > 0)

    page.on(WAITING, show)


def _nothing_waits() -> None:
    parts.empty("Nothing waits for a decision", "An order above orders.approval_value appears here as it is decided.")


def _decision(page: Page, row: WaitingOrder) -> Element:
    now = page.dashboard.clock()
    with parts.box("line decide" + ("" if page.may_decide else " readonly"), "article") as line:
        line.props["data-order"] = row.order_id
        _money(row.risk)
        _name(page, row.location_id, row.sku)
        _figure("on hand", parts.number(row.on_hand), "bad-text" if row.on_hand <= 0 else "")
        _figure("on order", parts.number(row.on_order))
        _chance(row.risk)
        _empty_at(row.risk, now)
        with parts.box("order-cell"):
            parts.span("order", "label")
            parts.span(f"{row.quantity:,}", "num strong")
            if row.quantity != row.proposed:
                parts.span(f" was {row.proposed:,}", "soft tiny")
        if page.may_decide:
            decision_buttons(page, row, line)
    return line


def _watched(page: Page) -> None:
    with parts.card("In danger, already ordered", "nothing to decide; may run out before the delivery"):
        with parts.box("line watch heads"):
            for name in (*HEADS, "Next delivery"):
                parts.text(name)
        lines = parts.Lines[WatchedSeries](
            lambda row: (row.location_id, row.sku),
            lambda row: _watched_line(page, row),
            lambda: parts.empty("No series is in danger", "Series that run out more likely than not show here."),
        )

    page.on(WATCH, lambda: lines.show(page.dashboard.store.watched))


def _watched_line(page: Page, row: WatchedSeries) -> Element:
    now = page.dashboard.clock()
    with parts.box("line watch", "article") as line:
        _money(row.risk)
        _name(page, row.location_id, row.sku)
        _figure("on hand", parts.number(row.on_hand), "bad-text" if row.on_hand <= 0 else "")
        _figure("on order", parts.number(row.on_order))
        _chance(row.risk)
        _empty_at(row.risk, now)
        with parts.box("order-cell"):
            parts.span("delivery", "label")
            parts.span(parts.when(row.next_receipt, now), "num")
    return line


def _money(risk: Risk | None) -> None:
    with parts.box("money-cell"):
        parts.span("–" if risk is None else parts.money(risk.money), "money").tooltip(AT_RISK)


def _name(page: Page, location_id: str, sku: str) -> None:
    catalog = page.dashboard.store.catalog
    with parts.box("name-cell"), ui.link("", series_link(location_id, sku)).classes("plain"):
        parts.text(catalog.product(sku), "strong clip")
        parts.text(f"{location_id} · {sku}", "soft small clip")


def _figure(name: str, value: str, classes: str = "") -> None:
    with parts.box():
        parts.span(name, "label")
        parts.span(value, f"num {classes}")


def _chance(risk: Risk | None) -> None:
    with parts.box("chance chance-cell"):
        if risk is None:
            parts.span("no policy yet", "soft small")
            return
        colour = parts.BAD if risk.probability >= 0.8 else parts.WARN if risk.probability >= 0.5 else parts.INFO
        parts.bar(risk.probability, colour)
        parts.span(parts.percent(risk.probability), "num small")


def _empty_at(risk: Risk | None, now: datetime) -> None:
    with parts.box("empty-cell"):
        parts.span("empty", "label")
        parts.span(parts.when(None if risk is None else risk.runs_out_at, now), "num")
