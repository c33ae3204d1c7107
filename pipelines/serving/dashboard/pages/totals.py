"""Totals: orders, units and revenue of the day, per region and for the whole chain, as they come."""

from __future__ import annotations

from fastapi import Request
from nicegui import ui
from starlette.responses import RedirectResponse

from pipelines.serving.dashboard import charts, parts
from pipelines.serving.dashboard.frame import Dashboard, Page, frame
from pipelines.serving.dashboard.store import TOTALS
from pipelines.serving.dashboard.totals import GLOBAL, ScopeTotals

_NOTE = "Of today, UTC, against the same hours a week ago; bars are units per window, the newest ends {:%d %b %H:%M}"


class _ScopeCard:
    """A region's figures and its last two days."""

    def __init__(self, scope: str) -> None:
        with parts.card("Whole chain" if scope == GLOBAL else scope):
            with parts.box("mini"):
                self._orders, self._units = parts.Stat("Orders"), parts.Stat("Units")
                self._revenue, self._change = parts.Stat("Revenue"), parts.Stat("To last week")
            with parts.box("pad-b"):
                self._plot = ui.plotly(charts.bars([], [])).classes("plot")
        self._shown: ScopeTotals | None = None

    def show(self, totals: ScopeTotals) -> None:
        """Change what differs."""
        if totals == self._shown:
            return
        self._orders.show(parts.number(totals.orders))
        self._units.show(parts.number(totals.units))
        self._revenue.show(parts.money(totals.revenue))
        change = totals.change
        self._change.show("–" if change is None else f"{100 * change:+.0f} %")
        if self._shown is None or totals.windows != self._shown.windows:
            times, units = [row[0] for row in totals.windows], [row[1] for row in totals.windows]
            self._plot.update_figure(charts.bars(times, units, 220 if totals.scope == GLOBAL else 150))
        self._shown = totals


def register(dashboard: Dashboard) -> None:
    """The page at `/totals`."""

    @ui.page("/totals")
    def totals(request: Request) -> RedirectResponse | None:
        if (session := dashboard.session(request)) is None:
            return RedirectResponse("/login")
        with frame(dashboard, session, request, "Totals") as page:
            _totals(page)
        return None


def _totals(page: Page) -> None:
    until = parts.text("", "soft small num")
    whole = parts.box()
    regions = parts.box("grid three")
    cards: dict[str, _ScopeCard] = {}
    nothing = parts.card()
    with nothing as empty:
        parts.empty("No totals yet", "jobs/live.py or jobs/aggregate_totals.py makes them from the ledger.")

    def show() -> None:
        view = page.dashboard.store.totals
        empty.set_visibility(not view.scopes)
        until.set_text(_NOTE.format(view.until) if view.until else "")
        for scope in view.scopes:
            if scope.scope not in cards:
                with whole if scope.scope == GLOBAL else regions:
                    cards[scope.scope] = _ScopeCard(scope.scope)
            cards[scope.scope].show(scope)

    page.on(TOTALS, show)
