"""The parts that a series' forecast adds up from, where its model has such parts."""

from __future__ import annotations

import pyarrow.compute as pc

from pipelines.io.delta import Tables
from pipelines.serving.dashboard import charts

BACK, AHEAD = 91, 28


def component_figures(tables: Tables, location_id: str, sku: str) -> list[tuple[str, charts.Figure]]:
    """A figure for trend, seasonalities and holidays each; none where the model has no such parts, or is not known."""
    from pipelines.forecasting.components import components
    from pipelines.forecasting.trained import TRAINED_SERIES

    where = (pc.field("location_id") == location_id) & (pc.field("sku") == sku)
    rows = tables.read(TRAINED_SERIES, ("parameters",), where).to_pylist()
    if not rows or not rows[0]["parameters"] or rows[0]["parameters"] == "{}":
        return []
    found = components(rows[0]["parameters"], BACK, AHEAD)
    if found is None:
        return []
    days = [day.date() for day in found.dates]
    figures = [("Trend, units a day", charts.lines(days, {"trend": found.trend.round(3).tolist()}, 170))]
    for name, values in found.parts.items():
        share = name in found.multiplicative
        title = f"{name.capitalize()}, {'share of the trend' if share else 'units a day'}"
        figures.append((title, charts.lines(days, {name: values.round(4).tolist()}, 150, share=share)))
    return figures
