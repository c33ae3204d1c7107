"""Figures for plotly, as plain documents: Okabe and Ito's colours, text escaped, no titles of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

Figure = dict[str, Any]

BLUE, SKY, ORANGE, GREEN, RED, PURPLE, GREY = (
    "#0072B2",
    "#56B4E9",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#8a929c",
)
FAN = (("q05", "q95", 0.13), ("q10", "q90", 0.13), ("q25", "q75", 0.20))
CONFIG = {"displayModeBar": False, "responsive": True, "scrollZoom": False}


def safe(text: str) -> str:
    """Text for a figure, where plotly would take markup for markup."""
    return escape(text, quote=False)


def layout(height: int, **more: Any) -> dict[str, Any]:
    """Quiet axes on a transparent ground: the page's own colours show in both themes."""
    small = {"font": {"size": 12.5}}
    axis: dict[str, Any] = {
        "title": small,
        "showgrid": True,
        "zeroline": False,
        "automargin": True,
        "ticks": "",
        "fixedrange": True,
    }
    base = {
        "height": height,
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8, "pad": 4},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12.5, "color": GREY},
        "hovermode": "x unified",
        "hoverlabel": {"bgcolor": "#1d232b", "bordercolor": "#1d232b", "font": {"color": "#fff"}},
        "legend": {
            "orientation": "h",
            "y": 1.0,
            "yanchor": "bottom",
            "x": 0,
            "font": {"size": 12},
            "traceorder": "normal",
        },
        "xaxis": {**axis, "showgrid": False},
        "yaxis": {**axis, "gridcolor": "rgba(128,128,128,.18)", "rangemode": "tozero"},
    }
    return {**base, **more}


def titled(text: str) -> dict[str, Any]:
    """An axis' title."""
    return {"text": text, "font": {"size": 12.5}}


def series_figure(detail: Any) -> Figure:
    """Demand and its forecast above, stock and its levels below, orders marked: one axis of time."""
    data = [*_demand(detail), *_fan(detail), *_stock(detail), *_orders(detail)]
    axes = layout(560)
    axes["xaxis"] = {**axes["xaxis"], "domain": [0, 1], "anchor": "y2", "range": list(detail.span), "type": "date"}
    axes["yaxis"] = {**axes["yaxis"], "domain": [0.56, 0.97], "title": titled("units a day")}
    axes["yaxis2"] = {**axes["yaxis"], "domain": [0.0, 0.46], "title": titled("stock, units"), "anchor": "x"}
    axes["yaxis2"]["rangemode"] = "normal"
    axes["shapes"] = _levels(detail)
    axes["annotations"] = _level_names(detail)
    return {"data": data, "layout": axes, "config": CONFIG}


def _demand(detail: Any) -> list[Figure]:
    full = [row for row in detail.demand if (row["in_stock_fraction"] or 0.0) >= 0.999]
    partly = [row for row in detail.demand if (row["in_stock_fraction"] or 0.0) < 0.999]
    marks = []
    for name, rows, symbol in (("sold", full, "circle"), ("sold, partly out of stock", partly, "circle-open")):
        if rows:
            marks.append(
                {
                    "type": "scatter",
                    "mode": "markers" if symbol != "circle" else "lines+markers",
                    "name": name,
                    "x": [row["date"].isoformat() for row in rows],
                    "y": [row["demand"] for row in rows],
                    "marker": {"size": 4.5 if symbol == "circle" else 7, "color": GREY, "symbol": symbol},
                    "line": {"width": 1, "color": "rgba(138,146,156,.55)"},
                }
            )
    return marks


def _fan(detail: Any) -> list[Figure]:
    rows = detail.forecast
    if not rows:
        return []
    days = [row["target_time"].date().isoformat() for row in rows]
    traces: list[Figure] = []
    for low, high, alpha in FAN:
        traces.append(_edge(days, [row[low] for row in rows]))
        band = _edge(days, [row[high] for row in rows])
        band |= {"fill": "tonexty", "fillcolor": f"rgba(0,114,178,{alpha})"}
        if (low, high) == ("q05", "q95"):
            band |= {"name": "5 to 95 %", "showlegend": True}
        traces.append(band)
    middle = {"type": "scatter", "mode": "lines", "x": days, "line": {"color": BLUE, "width": 2}, "name": "forecast"}
    return [*traces, {**middle, "y": [round(row["yhat"], 2) for row in rows]}]


def _edge(days: list[str], values: list[float]) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": days,
        "y": [round(value, 2) for value in values],
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _stock(detail: Any) -> list[Figure]:
    if not detail.stock:
        return []
    step = {"type": "scatter", "mode": "lines", "yaxis": "y2", "line": {"shape": "hv"}}
    times = [time.isoformat() for time, *_ in detail.stock]
    return [
        {
            **step,
            "name": "on hand",
            "x": times,
            "y": [level for _, level, _ in detail.stock],
            "line": {"shape": "hv", "color": GREEN, "width": 2},
        },
        {
            **step,
            "name": "on hand and on order",
            "x": times,
            "y": [position for *_, position in detail.stock],
            "line": {"shape": "hv", "color": PURPLE, "width": 1.4, "dash": "dot"},
        },
    ]


def _orders(detail: Any) -> list[Figure]:
    shown = [order for order in detail.orders if order["created_at"] >= detail.since]
    if not shown:
        return []
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "yaxis": "y2",
            "name": "orders",
            "x": [order["created_at"].isoformat() for order in shown],
            "y": [(order["on_hand"] or 0) + (order["on_order"] or 0) for order in shown],
            "marker": {"symbol": "triangle-up", "size": 11, "color": ORANGE, "line": {"width": 1, "color": "#6b4a00"}},
            "text": [safe(f"{order['quantity']:,} units, {order['state']}") for order in shown],
            "hovertemplate": "%{text}<extra>order</extra>",
        }
    ]


def _levels(detail: Any) -> list[Figure]:
    lines = []
    for name, colour in (("reorder_point", RED), ("order_up_to", BLUE)):
        if detail.policy is not None:
            lines.append(
                {
                    "type": "line",
                    "xref": "paper",
                    "x0": 0,
                    "x1": 1,
                    "yref": "y2",
                    "y0": detail.policy[name],
                    "y1": detail.policy[name],
                    "line": {"color": colour, "width": 1.2, "dash": "dash"},
                }
            )
    return lines


def _level_names(detail: Any) -> list[Figure]:
    if detail.policy is None:
        return []
    names = (("reorder_point", "reorder point"), ("order_up_to", "order up to"))
    return [
        {
            "xref": "paper",
            "x": 1,
            "xanchor": "right",
            "yref": "y2",
            "y": detail.policy[name],
            "yanchor": "bottom",
            "showarrow": False,
            "text": f"{said} {detail.policy[name]:,}",
            "font": {"size": 11.5},
        }
        for name, said in names
    ]


def lines(
    x: Sequence[Any],
    named: Mapping[str, Sequence[float | None]],
    height: int = 220,
    *,
    unit: str = "",
    share: bool = False,
) -> Figure:
    """Some lines over time, told apart by colour and dash."""
    styles = ((BLUE, "solid"), (ORANGE, "dash"), (GREEN, "dot"), (PURPLE, "dashdot"), (RED, "longdash"))
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": safe(name),
            "x": [item.isoformat() if hasattr(item, "isoformat") else item for item in x],
            "y": list(values),
            "line": {"color": colour, "dash": dash, "width": 2},
        }
        for (name, values), (colour, dash) in zip(named.items(), styles * 4, strict=False)
    ]
    axes = layout(height)
    axes["yaxis"] = {**axes["yaxis"], "title": titled(unit), "tickformat": ".0%" if share else ""}
    axes["showlegend"] = len(named) > 1
    return {"data": data, "layout": axes, "config": CONFIG}


def bars(x: Sequence[datetime], y: Sequence[float], height: int = 160, *, growing: bool = True) -> Figure:
    """Bars over time; the last one lighter where it is still growing."""
    colours = [BLUE] * max(0, len(x) - growing) + [SKY] * growing
    data = [
        {
            "type": "bar",
            "x": [item.isoformat() for item in x],
            "y": list(y),
            "marker": {"color": colours},
            "hovertemplate": "%{x|%d %b %H:%M}: %{y:,}<extra></extra>",
        }
    ]
    return {"data": data, "layout": layout(height, bargap=0.25, showlegend=False), "config": CONFIG}


def batch_bars(x: Sequence[datetime], y: Sequence[float], height: int = 170) -> Figure:
    """A bar a batch, side by side however far apart in time."""
    figure = bars(x, y, height, growing=False)
    times = [f"{item:%H:%M:%S}" for item in x]
    figure["data"][0] |= {"x": list(range(len(times))), "customdata": times}
    figure["data"][0]["hovertemplate"] = "%{customdata}: %{y:,} records<extra></extra>"
    step = max(1, len(times) // 5)
    places = list(range(0, len(times), step))
    figure["layout"]["xaxis"] |= {"tickvals": places, "ticktext": [times[place] for place in places], "tickangle": 0}
    return figure
