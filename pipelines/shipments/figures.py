"""Pictures of where shipments spend their time."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipelines.forecasting.figures import new_figure
from pipelines.shipments.bottlenecks import SHARE

SHOWN = 15


def stays_figure(stays: pd.DataFrame) -> Figure:
    """Hours at each node: median, middle half, and the limit that one stay in twenty goes beyond.

    Args:
        stays: node, entered, left of `bottlenecks.stays`.
    """
    finished = stays[stays.left > stays.entered]
    hours = ((finished.left - finished.entered).dt.total_seconds() / 3600).groupby(finished.node)
    shares = {"low": 0.25, "median": 0.5, "high": 0.75, "limit": 1 - SHARE}
    table = pd.DataFrame({name: hours.quantile(share) for name, share in shares.items()})
    table = table.sort_values("median").tail(SHOWN)
    figure = new_figure(10, 1.2 + 0.35 * len(table))
    axes = figure.subplots()
    rows = np.arange(len(table))
    axes.hlines(rows, table["low"], table["high"], linewidth=7, alpha=0.35, label="middle half")
    axes.plot(table["median"], rows, "o", label="median")
    axes.plot(table["limit"], rows, "|", markersize=14, color="tab:red", label="one in twenty stays longer")
    axes.set_yticks(rows, table.index)
    axes.set(xlabel="hours at the node", title="Where shipments spend their time", xlim=(0, None))
    axes.legend(loc="lower right")
    return figure


def lateness_figure(deliveries: pd.DataFrame, by: str) -> Figure:
    """Hours behind the first promise, by supplier, carrier or mode: share of late ones, and how late.

    Args:
        deliveries: `by` and hours_late (missing: not delivered yet).
    """
    known = deliveries.dropna(subset=["hours_late"])
    grouped = known.groupby(by).hours_late
    table = pd.DataFrame(
        {"late": grouped.apply(lambda hours: (hours > 0).mean()), "p90": grouped.quantile(0.9), "count": grouped.size()}
    ).sort_values("late")
    table = table.tail(SHOWN)
    figure = new_figure(10, 1.2 + 0.35 * len(table))
    left, right = figure.subplots(1, 2, sharey=True)
    rows = np.arange(len(table))
    left.barh(rows, 100 * table["late"], height=0.6)
    right.barh(rows, table["p90"], height=0.6, color="tab:orange")
    left.set_yticks(rows, [f"{name} ({count})" for name, count in table["count"].items()])
    left.set(xlabel="late, %", title=f"Late deliveries by {by.removesuffix('_id')}")
    right.set(xlabel="hours behind the promise, of the slowest tenth")
    return figure
