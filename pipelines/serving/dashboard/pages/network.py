"""Network: places, what is on its way to them and how likely it is late, where it stands, and the suppliers."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from nicegui import ui
from starlette.responses import RedirectResponse

from pipelines.serving.dashboard import network, parts
from pipelines.serving.dashboard.frame import Dashboard, Page, frame, loading

SHOWN = 25
NAMED = 12
AGAIN_SECONDS = 15.0
TONES = {"likely late": "critical", "perhaps late": "high", "on time": "low", "not rated": "info"}


def register(dashboard: Dashboard) -> None:
    """The page at `/network`."""

    @ui.page("/network")
    async def page(request: Request) -> RedirectResponse | None:
        if (session := dashboard.session(request)) is None:
            return RedirectResponse("/login")
        with frame(dashboard, session, request, "Network") as shown:
            await shown.client.connected()
            body = parts.box("main-in")
            with body, parts.card(), loading("Reading the network ..."):
                view = await _read(shown)
            body.clear()
            with body:
                _show(shown, view)
        return None


async def _read(page: Page) -> network.NetworkView:
    dashboard = page.dashboard
    return await dashboard.ask(dashboard.queries, network.network_view, dashboard.clock())


def _show(page: Page, view: network.NetworkView) -> None:
    if not view.locations and not view.under_way:
        with parts.card():
            parts.empty("No network yet", "Places and suppliers come with the catalog: jobs/load_catalog.py.")
        return
    with parts.box("stats"):
        figures = [parts.Stat(name) for name in ("Places", "Suppliers", "Shipments under way", "Likely late")]
    stuck = parts.box("main-in")
    with parts.card("Places and shipments", "by longitude and latitude"), parts.box("pad-b"):
        plot = ui.plotly(network.network_figure(view)).classes("plot")
    with parts.box("grid wide-left"):
        shipments = parts.box()
        stands = parts.box()
    with parts.card("Suppliers"):
        _suppliers(view)
    if view.clusters:
        with parts.card("Alike", "suppliers and locations grouped by how they behave"):
            _clusters(view)

    def fill(found: network.NetworkView) -> None:
        late = sum(1 for row in found.shipments if (row["late_probability"] or 0.0) >= network.LATE)
        shown = (len(found.locations), len(found.suppliers), found.under_way, late)
        for figure, value in zip(figures, shown, strict=True):
            figure.show(parts.number(value))
        for part in (stuck, shipments, stands):
            part.clear()
        with stuck:
            _stuck(page, found)
        with shipments:
            _shipments(page, found)
        with stands:
            _nodes(found)

    async def again() -> None:
        fresh = await _read(page)
        if not page.client.is_deleted and fresh != view:
            plot.update_figure(network.network_figure(fresh))
            fill(fresh)

    fill(view)
    ui.timer(AGAIN_SECONDS, again, immediate=False)


def _stuck(page: Page, view: network.NetworkView) -> None:
    """Where deliveries get stuck now; nothing where they do not."""
    now = page.dashboard.clock()
    for row in view.stuck:
        with parts.box("notice bad"):
            parts.text(f"Stuck at {row['node']} since {parts.when(row['opened_at'], now)}", "strong")
            parts.text(row["message"] or "", "soft small")


def _shipments(page: Page, view: network.NetworkView) -> None:
    now = page.dashboard.clock()
    with parts.card("Shipments under way", "the likeliest late first"):
        if not view.shipments:
            parts.empty(
                "No shipments under way", "They appear as shipments.events arrive and jobs/live.py follows them."
            )
            return
        columns = [("Shipment", False), ("To", False), ("Where", False), ("Expected", True), ("Late?", False)]
        parts.table(columns, [_shipment(row, now) for row in view.shipments[:SHOWN]])
        if view.under_way > SHOWN:
            parts.text(f"and {view.under_way - SHOWN:,} more", "soft small pad")


def _shipment(row: dict[str, Any], now: Any) -> list[Any]:
    name, _, _ = network.risk_class(row["late_probability"])

    def what() -> None:
        parts.text(row["shipment_id"], "strong")
        parts.text(f"{row['carrier_id'] or '–'}, {row['mode'] or '–'}", "soft small")

    def late() -> None:
        chance = row["late_probability"]
        parts.severity_text(TONES[name], name if chance is None else f"{name}, {parts.percent(chance)}")
        for reason in (row["reasons"] or ())[:2]:
            parts.text(reason, "soft tiny")

    expected = row["expected_arrival"] or row["eta"] or row["promised"]
    where = f"{row['node'] or '–'} ({str(row['state']).replace('_', ' ')})"
    return [what, row["destination"] or "–", where, parts.when(expected, now), late]


def _nodes(view: network.NetworkView) -> None:
    with parts.card("Where they stand", "most likely late first"):
        if not view.nodes:
            parts.empty("Nowhere")
            return
        rows = [
            [line.node, parts.number(line.shipments), parts.number(line.likely_late), f"{line.median_hours:,.0f} h"]
            for line in view.nodes[:15]
        ]
        parts.table([("Node", False), ("Shipments", True), ("Likely late", True), ("There for", True)], rows)


def _suppliers(view: network.NetworkView) -> None:
    if not view.suppliers:
        parts.empty("No suppliers in the catalog")
        return
    rows = [
        [
            row["name"] or row["supplier_id"],
            row["region"] or "–",
            parts.number(row["series"]),
            "–" if row["lead_time_days"] is None else f"{row['lead_time_days']:.1f} days",
            _observed(row["observed"]),
            parts.number(row["open_orders"]),
        ]
        for row in view.suppliers
    ]
    columns = [
        ("Supplier", False),
        ("Region", False),
        ("Series", True),
        ("Stated", True),
        ("Observed", True),
        ("Open orders", True),
    ]
    parts.table(columns, rows)


def _observed(days: tuple[float, float, float] | None) -> str:
    """Mean, and from the 10 % to the 90 % quantile."""
    return "–" if days is None else f"{days[0]:.1f} days ({days[1]:.1f} to {days[2]:.1f})"


def _clusters(view: network.NetworkView) -> None:
    columns = [("Kind", False), ("Group", False), ("What it is like", False), ("Members", False)]
    rows = [[line.kind, line.cluster + 1, line.description or "–", _named(line.members)] for line in view.clusters]
    parts.table(columns, rows)


def _named(members: tuple[str, ...]) -> str:
    rest = len(members) - NAMED
    return ", ".join(members[:NAMED]) + (f" and {rest:,} more" if rest > 0 else "")
