"""Forecasts: how good they are, by category and by days ahead, champion and challenger, and whether they drift."""

from __future__ import annotations

import math
from typing import Any

from fastapi import Request
from nicegui import ui
from starlette.responses import RedirectResponse

from pipelines.errors import StockcastError
from pipelines.serving.dashboard import charts, parts
from pipelines.serving.dashboard.frame import Dashboard, Page, frame, loading
from pipelines.serving.dashboard.models import model_versions
from pipelines.serving.dashboard.quality import QualityView, Score, nan_free, quality_view


def register(dashboard: Dashboard) -> None:
    """The page at `/forecasts`."""

    @ui.page("/forecasts")
    async def forecasts(request: Request) -> RedirectResponse | None:
        if (session := dashboard.session(request)) is None:
            return RedirectResponse("/login")
        with frame(dashboard, session, request, "Forecasts") as page:
            await page.client.connected()
            body = parts.box("main-in")
            with body, parts.card(), loading("Scoring the forecasts ..."):
                names = {sku: str(row["category"] or "–") for sku, row in dashboard.store.catalog.products.items()}
                view = await dashboard.ask(dashboard.queries, quality_view, names)
            body.clear()
            with body:
                _show(page, view)
                if view.pointer is None:
                    return None
                models = parts.box()
            with models, parts.card("Models"), loading("Asking MLflow ..."):
                await _models(page)
        return None


def _show(page: Page, view: QualityView) -> None:
    if view.pointer is None:
        with parts.card():
            parts.empty("No forecasts in force yet", "jobs/nightly.py trains and publishes them.")
        return
    _figures(page, view)
    with parts.box("grid two"):
        with parts.card("By category", "the last backtest, 28 days at most"):
            _categories(view.categories)
        with parts.card("By days ahead"):
            _ahead(view.ahead)
    with parts.card("Since they were published", "a row a night: what came against what was forecast"):
        _drift(view)


def _figures(page: Page, view: QualityView) -> None:
    pointer = view.pointer
    whole = view.categories[0] if view.categories else None
    with parts.box("stats"):
        parts.Stat("WAPE").show(parts.percent(None if whole is None else whole.wape, 1), "Σ|error| / Σ demand")
        parts.Stat("Bias").show(parts.percent(None if whole is None else whole.bias, 1), "Σ error / Σ demand")
        parts.Stat("80 % interval covers").show(parts.percent(None if whole is None else whole.coverage))
        parts.Stat("Series").show(parts.number(sum(view.status.values())), _said(view.status))
        parts.Stat("Data up to").show("–" if pointer is None else f"{pointer.as_of:%d %b}")
        published = None if pointer is None else pointer.published_at
        parts.Stat("Published").show(parts.when(published, page.dashboard.clock()))


def _said(counts: Any) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _categories(found: tuple[Score, ...]) -> None:
    if not found:
        parts.empty("No backtests stored", "They come with the next night.")
        return
    columns = [("Category", False), ("Series", True), ("WAPE", True), ("Bias", True), ("Covered", True)]
    parts.table(
        columns,
        [
            [
                row.name,
                parts.number(row.series),
                parts.percent(row.wape, 1),
                _signed(row.bias),
                parts.percent(row.coverage),
            ]
            for row in found
        ],
    )


def _signed(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:+.1f} %"


def _ahead(found: tuple[Score, ...]) -> None:
    if not found:
        parts.empty("No backtests stored")
        return
    named = {
        "WAPE": nan_free(row.wape for row in found),
        "bias": nan_free(row.bias for row in found),
        "covered by the 80 % interval": nan_free(row.coverage for row in found),
    }
    with parts.box("pad-b"):
        figure = charts.lines([int(row.name) for row in found], named, 270, share=True)
        figure["layout"]["xaxis"]["title"] = charts.titled("days ahead")
        ui.plotly(figure).classes("plot")


def _drift(view: QualityView) -> None:
    if not view.drift:
        parts.empty("Nothing to compare yet", "A night after the first the published forecasts meet what was sold.")
        return
    scored = [row for row in view.drift if row["scored_days"]]
    if len(scored) > 1:
        named = {
            "WAPE": nan_free(row["WAPE"] for row in scored),
            "bias": nan_free(row["bias"] for row in scored),
            "covered by the 80 % interval": nan_free(row["coverage"] for row in scored),
        }
        with parts.box("pad-b"):
            ui.plotly(charts.lines([row["as_of"] for row in scored], named, 240, share=True)).classes("plot")
    else:
        parts.text("A line is drawn from the second night on whose forecasts met what was sold.", "soft small pad-b")
    columns = [
        ("Scope", False),
        ("WAPE", True),
        ("Bias", True),
        ("Series that signal", True),
        ("Stability index", True),
        ("Warning", False),
    ]
    parts.table(
        columns,
        [
            [
                "all products" if row["scope"] == "all" else row["scope"],
                parts.percent(row["WAPE"], 1),
                parts.percent(row["bias"], 1),
                parts.percent(row["signalling_share"], 1),
                "–" if row["stability_index"] is None else f"{row['stability_index']:.2f}",
                row["warning"] or "none",
            ]
            for row in view.warnings
        ],
    )


async def _models(page: Page) -> None:
    dashboard = page.dashboard
    try:
        found = await dashboard.ask(dashboard.queries, model_versions, dashboard.settings)
    except StockcastError as error:
        parts.empty("The registry of models does not answer", str(error))
        return
    if not found.rows:
        parts.empty("No model registered yet", "The first night registers one.")
        return
    columns = [
        ("Version", False),
        ("Data up to", False),
        ("WAPE", True),
        ("Naive's", True),
        ("Bias", True),
        ("Covered", True),
        ("Is", False),
        ("MLflow run", False),
    ]
    parts.table(columns, [_version(row) for row in found.rows])
    parts.text(f"MLflow's own pages: {found.command}", "soft small pad mono")


def _version(row: dict[str, Any]) -> list[Any]:
    def run() -> None:
        if row["link"]:
            ui.link(str(row["run_id"])[:12], row["link"], new_tab=True).classes("link")
        else:
            parts.text(str(row["run_id"] or "–"), "soft tiny mono")

    return [
        row["version"],
        "–" if row["as_of"] is None else f"{row['as_of']:%d %b %Y}",
        parts.percent(row["wape"], 1),
        parts.percent(row["baseline_wape"], 1),
        _signed(row["bias"]),
        parts.percent(row["coverage"]),
        ", ".join(row["state"]) or "–",
        run,
    ]
