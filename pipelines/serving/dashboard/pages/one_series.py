"""One series: demand, forecast, stock and orders in one chart, each order's explanation, the model and its parts."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from nicegui import ui
from nicegui.element import Element
from starlette.responses import RedirectResponse

from pipelines.serving.dashboard import charts, parts
from pipelines.serving.dashboard.components import component_figures
from pipelines.serving.dashboard.deciding import decision_buttons
from pipelines.serving.dashboard.detail import SeriesDetail, series_detail
from pipelines.serving.dashboard.frame import Dashboard, Page, frame, loading
from pipelines.serving.dashboard.store import WAITING, WATCH
from pipelines.serving.dashboard.waiting import WaitingOrder

LONGEST_ID = 64


def register(dashboard: Dashboard) -> None:
    """The page at `/series/LOCATION/SKU`."""

    @ui.page("/series/{location_id}/{sku}")
    async def one_series(request: Request, location_id: str, sku: str) -> RedirectResponse | None:
        if (session := dashboard.session(request)) is None:
            return RedirectResponse("/login")
        location_id, sku = location_id[:LONGEST_ID], sku[:LONGEST_ID]
        with frame(dashboard, session, request, "Series") as page:
            with parts.box("head"):
                parts.heading(dashboard.store.catalog.product(sku))
                parts.text(f"{location_id} · {sku} · {dashboard.store.catalog.category(sku)}", "soft")
            await page.client.connected()
            body = parts.box("main-in")
            with body, parts.card(), loading("Reading the series ..."):
                detail = await _read(page, location_id, sku)
            body.clear()
            with body:
                _show(page, location_id, sku, detail)
        return None


async def _read(page: Page, location_id: str, sku: str) -> SeriesDetail:
    queries, now = page.dashboard.queries, page.dashboard.clock()
    return await page.dashboard.ask(queries, series_detail, queries.shelf, location_id, sku, now)


def _show(page: Page, location_id: str, sku: str, detail: SeriesDetail) -> None:
    if not detail.known:
        with parts.card():
            parts.empty("Nothing is known of this series", "Neither events nor forecasts name it.")
        return
    _figures(detail)
    _waiting(page, location_id, sku)
    with parts.card("Demand, forecast and stock", _forecast_note(detail)), parts.box("pad-b"):
        plot = ui.plotly(charts.series_figure(detail)).classes("plot")
    with parts.box("grid wide-left"):
        with parts.card("Orders", "newest first, each with its arithmetic"):
            orders = parts.Lines[dict[str, Any]](
                lambda row: row["order_id"],
                _order,
                lambda: parts.empty("No orders yet", "The first appears when stock falls to the reorder point."),
            )
            orders.show(detail.orders)
        with parts.box("grid"):
            _model(detail)
            _policy(detail)
            _components(page, location_id, sku)

    async def again() -> None:
        fresh = await _read(page, location_id, sku)
        if not page.client.is_deleted and fresh.stock != detail.stock:
            plot.update_figure(charts.series_figure(fresh))
            orders.show(fresh.orders)

    page.dashboard.feed.subscribe(page.client, WATCH, again)


def _forecast_note(detail: SeriesDetail) -> str:
    return f"forecast from data up to {detail.forecast_as_of}" if detail.forecast else "no forecast in force"


def _figures(detail: SeriesDetail) -> None:
    position, policy, status = detail.position or {}, detail.policy or {}, detail.status or {}
    with parts.box("stats"):
        on_hand = position.get("on_hand")
        tone = "bad" if on_hand is not None and on_hand <= 0 else ""
        parts.Stat("On hand").show(parts.number(on_hand), tone=tone)
        parts.Stat("On order").show(parts.number(position.get("on_order")))
        parts.Stat("Reorder point").show(parts.number(policy.get("reorder_point")))
        parts.Stat("Order up to").show(parts.number(policy.get("order_up_to")))
        days = [row["yhat"] for row in detail.forecast[:7]]
        parts.Stat("Forecast a week").show(parts.number(sum(days) if days else None), "units")
        parts.Stat("WAPE").show(parts.percent(status.get("WAPE"), 1), "of the backtest")


def _waiting(page: Page, location_id: str, sku: str) -> None:
    """The proposals for this series, with their buttons."""
    holder = parts.box("main-in")
    with holder:
        lines = parts.Lines[WaitingOrder](lambda row: row.order_id, lambda row: _proposal(page, row), lambda: None)

    def show() -> None:
        rows = [row for row in page.dashboard.store.waiting if (row.location_id, row.sku) == (location_id, sku)]
        lines.show(rows)
        holder.set_visibility(bool(rows))

    page.on(WAITING, show)


def _proposal(page: Page, row: WaitingOrder) -> Element:
    with parts.box("card pad proposal", "article") as line:
        with parts.box("grow"):
            parts.text(f"{row.quantity:,} units wait for a decision", "strong")
            parts.text(row.explanation, "soft small")
        if page.may_decide:
            decision_buttons(page, row, line)
    return line


def _order(row: dict[str, Any]) -> Element:
    with parts.box("line order", "article") as line:
        with parts.box("order-head"):
            parts.span(f"{row['quantity']:,} units", "strong num")
            with parts.box("chip", "span"):
                parts.span(row["state"].replace("_", " "))
            parts.span(f"{row['created_at']:%d %b %Y %H:%M}", "soft small num")
            parts.span(row["order_id"], "soft tiny hide-phone")
        parts.text(row["explanation"] or "no explanation was kept", "small")
    return line


def _model(detail: SeriesDetail) -> None:
    status = detail.status
    with parts.card("Model"):
        if status is None:
            parts.empty("No model yet", "The next night trains one.")
            return
        parts.table(
            [("", False), ("", True)],
            [
                ["Model", status["model"] or "–"],
                ["Status", status["status"]],
                ["WAPE", parts.percent(status["WAPE"], 1)],
                ["Seasonal naive's WAPE", parts.percent(status["baseline_WAPE"], 1)],
                ["MASE", "–" if status["MASE"] is None else f"{status['MASE']:.2f}"],
                ["Bias", parts.percent(status["bias"], 1)],
                ["80 % interval covers", parts.percent(status["coverage"])],
                ["Days of history", parts.number(status["observations"])],
            ],
        )
        if status["reason"]:
            parts.text(status["reason"], "soft small pad")


def _policy(detail: SeriesDetail) -> None:
    policy = detail.policy
    with parts.card("Policy"):
        if policy is None:
            parts.empty("No policy yet", "Without one nothing is ordered: jobs/plan_inventory.py.")
            return
        parts.table(
            [("", False), ("", True)],
            [
                ["Method", policy["method"]],
                ["Lead time", f"{policy['lead_time_days']:.1f} ± {policy['lead_time_std_days']:.1f} days"],
                ["Review period", f"{policy['review_days']:g} days"],
                ["Service level", parts.percent(policy["service_level"], 1)],
                ["Safety stock", parts.number(policy["safety_stock"])],
                ["Pack size", parts.number(policy["pack_size"])],
                ["Bound by", str(policy["binding_constraint"]).replace("_", " ")],
                ["Supplier", policy["supplier_id"] or "–"],
            ],
        )


def _components(page: Page, location_id: str, sku: str) -> None:
    with parts.card("Parts of the forecast"):
        holder = parts.box("pad-b")
        with holder:

            async def show() -> None:
                holder.clear()
                with holder, loading("Taking the model apart ..."):
                    figures = await page.dashboard.ask(page.dashboard.queries, component_figures, location_id, sku)
                with holder:
                    for title, figure in figures:
                        parts.text(title, "small strong")
                        ui.plotly(figure).classes("plot")
                    if not figures:
                        parts.text("This model has no trend and seasons that could be shown apart.", "soft small")

            parts.button("Show trend, seasons and holidays", show)
