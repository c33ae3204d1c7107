"""The network: places, suppliers, and what is on its way to them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

import pyarrow.compute as pc

from pipelines.contracts.tables import (
    BOTTLENECKS,
    LEAD_TIMES,
    LOCATIONS,
    NETWORK_CLUSTERS,
    ORDERS,
    SHIPMENTS,
    SOURCING,
    SUPPLIERS,
)
from pipelines.io.delta import Tables
from pipelines.restocking.orders import TERMINAL as ENDED
from pipelines.serving.dashboard import charts
from pipelines.shipments.tracking import TERMINAL

MOST_SHIPMENTS = 300
LATE, MAYBE = 0.5, 0.2
"""Chances from which a shipment counts as likely, and as perhaps, late."""


@dataclass(frozen=True)
class NodeLine:
    """A node with shipments in it. `median_hours`: how long they have been there."""

    node: str
    shipments: int
    likely_late: int
    median_hours: float


@dataclass(frozen=True)
class ClusterLine:
    """Suppliers or locations (`kind`) that are alike, and how."""

    kind: str
    cluster: int
    description: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class NetworkView:
    """What the page shows. `shipments`: under way, the likeliest late first; `stuck`: open bottlenecks, newest first;
    locations with the units on order for each."""

    locations: list[dict[str, Any]]
    suppliers: list[dict[str, Any]]
    shipments: list[dict[str, Any]]
    under_way: int
    nodes: list[NodeLine]
    stuck: list[dict[str, Any]]
    clusters: list[ClusterLine]


def network_view(tables: Tables, now: datetime) -> NetworkView:
    """Read it."""
    rows = tables.read(SHIPMENTS, where=~pc.field("state").isin(sorted(TERMINAL)))
    shipments = rows.to_pylist()
    shipments.sort(key=lambda row: (-(row["late_probability"] or 0.0), row["shipment_id"]))
    open_orders = tables.read(
        ORDERS, ("location_id", "supplier_id", "quantity"), ~pc.field("state").isin(sorted(ENDED))
    )
    units: Counter[str] = Counter()
    by_supplier: Counter[str] = Counter()
    for order in open_orders.to_pylist():
        units[order["location_id"]] += order["quantity"] or 0
        by_supplier[order["supplier_id"] or "–"] += 1
    locations = [{**row, "open_units": units[row["location_id"]]} for row in tables.read(LOCATIONS).to_pylist()]
    return NetworkView(
        sorted(locations, key=lambda row: str(row["location_id"])),
        _suppliers(tables, by_supplier),
        shipments[:MOST_SHIPMENTS],
        len(shipments),
        nodes(shipments, now),
        tables.read(BOTTLENECKS, where=pc.field("closed_at").is_null())
        .sort_by([("opened_at", "descending")])
        .to_pylist(),
        _clusters(tables),
    )


def _clusters(tables: Tables) -> list[ClusterLine]:
    rows = tables.read(NETWORK_CLUSTERS, ("kind", "member", "cluster", "description")).to_pylist()
    members: dict[tuple[str, int, str], list[str]] = defaultdict(list)
    for row in rows:
        members[row["kind"], row["cluster"], row["description"] or ""].append(row["member"])
    return [ClusterLine(*key, tuple(sorted(found))) for key, found in sorted(members.items())]


def _suppliers(tables: Tables, open_orders: Counter[str]) -> list[dict[str, Any]]:
    sourcing = tables.read(SOURCING, ("supplier_id", "lead_time_days", "location_id"))
    grouped = sourcing.group_by("supplier_id").aggregate([("lead_time_days", "mean"), ("location_id", "count")])
    lanes = {row["supplier_id"]: row for row in grouped.to_pylist()}
    observed = _observed(tables)
    return [
        {
            **row,
            "lead_time_days": lanes.get(row["supplier_id"], {}).get("lead_time_days_mean"),
            "series": lanes.get(row["supplier_id"], {}).get("location_id_count", 0),
            "open_orders": open_orders[row["supplier_id"]],
            "observed": observed.get(row["supplier_id"]),
        }
        for row in tables.read(SUPPLIERS).sort_by("supplier_id").to_pylist()
    ]


def _observed(tables: Tables) -> dict[str, tuple[float, float, float]]:
    """By supplier: mean, 10 % and 90 % quantile of its lanes' observed lead times in days, weighted by arrivals."""
    found: dict[str, tuple[float, float, float]] = {}
    columns = ("supplier_id", "arrived", "mean_days", "q10_days", "q90_days")
    rows = tables.read(LEAD_TIMES, columns, pc.field("arrived") > 0).to_pandas()
    for supplier, lanes in rows.groupby("supplier_id"):
        weights = lanes.arrived / lanes.arrived.sum()
        mean, low, high = (float((lanes[name] * weights).sum()) for name in columns[2:])
        found[str(supplier)] = (mean, low, high)
    return found


def nodes(shipments: Sequence[dict[str, Any]], now: datetime) -> list[NodeLine]:
    """Where shipments are, the nodes with the most likely late ones first."""
    by_node: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in shipments:
        by_node[row["node"] or "–"].append(row)
    lines = [
        NodeLine(
            node,
            len(found),
            sum(1 for row in found if (row["late_probability"] or 0.0) >= LATE),
            median(max(0.0, (now - row["since"]).total_seconds() / 3600) if row["since"] else 0.0 for row in found),
        )
        for node, found in by_node.items()
    ]
    return sorted(lines, key=lambda line: (-line.likely_late, -line.shipments, line.node))


def risk_class(probability: float | None) -> tuple[str, str, str]:
    """Of a shipment's chance to be late: name, colour and plotly symbol."""
    if probability is None:
        return "not rated", charts.GREY, "circle-open"
    if probability >= LATE:
        return "likely late", charts.RED, "diamond"
    return ("perhaps late", charts.ORANGE, "triangle-up") if probability >= MAYBE else ("on time", charts.SKY, "circle")


def network_figure(view: NetworkView) -> charts.Figure:
    """Places by longitude and latitude, and shipments from where they are to where they go. No map tiles: these would
    come from elsewhere."""
    places = {row["location_id"]: row for row in view.locations if row["latitude"] is not None}
    data: list[charts.Figure] = []
    for name in ("likely late", "perhaps late", "on time", "not rated"):
        rows = [
            row
            for row in view.shipments
            if risk_class(row["late_probability"])[0] == name and row["latitude"] is not None
        ]
        if rows:
            data += _shipments(name, rows, places)
    for kind, symbol in (("store", "circle"), ("warehouse", "square")):
        found = [row for row in places.values() if row["kind"] == kind]
        if found:
            data.append(_places(kind, symbol, found))
    axes = charts.layout(430, hovermode="closest")
    longitudes = [row["longitude"] for row in places.values()] or [-180, 180]
    latitudes = [row["latitude"] for row in places.values()] or [-60, 70]
    axes["xaxis"] |= {"showgrid": True, "range": _around(longitudes, 12), "ticksuffix": "°"}
    axes["yaxis"] |= {"rangemode": "normal", "range": _around(latitudes, 8), "ticksuffix": "°"}
    return {"data": data, "layout": axes, "config": charts.CONFIG}


def _around(values: Sequence[float], margin: float) -> list[float]:
    return [min(values) - margin, max(values) + margin]


def _places(kind: str, symbol: str, rows: Sequence[dict[str, Any]]) -> charts.Figure:
    return {
        "type": "scatter",
        "mode": "markers+text",
        "cliponaxis": False,
        "name": f"{kind}s",
        "x": [row["longitude"] for row in rows],
        "y": [row["latitude"] for row in rows],
        "text": [charts.safe(row["location_id"]) for row in rows],
        "textposition": "top center" if kind == "store" else "bottom center",
        "marker": {"symbol": symbol, "size": 11, "color": charts.BLUE if kind == "store" else charts.GREEN},
        "customdata": [f"{charts.safe(str(row['region']))}, {row['open_units']:,} units on order" for row in rows],
        "hovertemplate": "%{text}: %{customdata}<extra></extra>",
    }


def _shipments(name: str, rows: Sequence[dict[str, Any]], places: dict[str, dict[str, Any]]) -> list[charts.Figure]:
    _, colour, symbol = risk_class(rows[0]["late_probability"])
    x: list[float | None] = []
    y: list[float | None] = []
    for row in rows:
        if (to := places.get(row["destination"])) is not None:
            x += [row["longitude"], to["longitude"], None]
            y += [row["latitude"], to["latitude"], None]
    line = {"type": "scatter", "mode": "lines", "x": x, "y": y, "hoverinfo": "skip", "showlegend": False}
    said = [
        charts.safe(f"{row['shipment_id']} to {row['destination']}, {row['state']} at {row['node']}") for row in rows
    ]
    return [
        {**line, "line": {"color": colour, "width": 1}, "opacity": 0.35},
        {
            "type": "scatter",
            "mode": "markers",
            "name": f"{name} ({len(rows):,})",
            "x": [row["longitude"] for row in rows],
            "y": [row["latitude"] for row in rows],
            "marker": {"color": colour, "symbol": symbol, "size": 9},
            "text": said,
            "hovertemplate": "%{text}<extra></extra>",
        },
    ]
