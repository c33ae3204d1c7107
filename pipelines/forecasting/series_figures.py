"""Figures of one series: what its nested run in MLflow shows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import matplotlib.dates as mdates
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from pipelines.contracts.tables import QUANTILE_COLUMNS
from pipelines.forecasting.components import Components
from pipelines.forecasting.figures import BLUE, GREY, ORANGE, by_date, new_figure
from pipelines.forecasting.series import Floats

HISTORY_DAYS = 120
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
FAN = (("q05", "q95", 0.14), ("q10", "q90", 0.18), ("q25", "q75", 0.28))


def forecast_figure(row: Mapping[str, Any], history: pd.Series | None, as_of: date) -> Figure:
    """Recent demand, the backtest's fan against what came, and the forecast's.

    Args:
        row: one of `TRAINED_SERIES` as a dictionary.
        history: units a day by day; None: only the backtest's days are drawn.
    """
    figure = new_figure(12, 4.6)
    axis = figure.subplots()
    if history is not None and len(history):
        axis.plot(history.index, history.to_numpy(), color="black", linewidth=0.8, marker="o", markersize=2.2,
                  label="demand", zorder=3)  # fmt: skip
    if row["backtest_yhat"]:
        days = _days(as_of + timedelta(days=1 - len(row["backtest_yhat"])), len(row["backtest_yhat"]))
        if history is None or not len(history):
            axis.plot(days, row["backtest_actual"], color="black", linewidth=0.8, marker="o", markersize=2.2,
                      label="demand")  # fmt: skip
        axis.fill_between(
            days, _floats(row["backtest_low"]), _floats(row["backtest_high"]), color=ORANGE, alpha=0.22, linewidth=0,
            label="backtest, 80 %",
        )  # fmt: skip
        axis.plot(days, row["backtest_yhat"], color=ORANGE, linewidth=1.6, label="backtest")
    if row["day"]:
        days = _days(as_of + timedelta(days=1), len(row["day"]))
        fan = {name: np.array([step[name] for step in row["day"]]) for name in ("yhat", *QUANTILE_COLUMNS)}
        for low, high, shade in FAN:
            axis.fill_between(days, fan[low], fan[high], color=BLUE, alpha=shade, linewidth=0)
        axis.plot(days, fan["yhat"], color=BLUE, linewidth=1.6, label="forecast, 50, 80, 90 %")
    _mark(axis, as_of)
    axis.set_ylabel("units a day")
    axis.margins(x=0.01)
    axis.set_ylim(0, 1.15 * axis.get_ylim()[1])  # room for the legend
    axis.legend(loc="upper left", ncols=4, frameon=False)
    by_date(axis)
    axis.set_title(title(row), loc="left", fontsize=11)
    return figure


def error_figure(row: Mapping[str, Any], as_of: date) -> Figure | None:
    """The backtest's errors: day by day against the interval, and by weekday; None without a backtest."""
    if not row["backtest_yhat"]:
        return None
    yhat, low, high = (_floats(row[f"backtest_{name}"]) for name in ("yhat", "low", "high"))
    actual = _floats(row["backtest_actual"])
    error, days = actual - yhat, _days(as_of + timedelta(days=1 - len(yhat)), len(yhat))
    figure = new_figure(12, 3.6)
    left, right = figure.subplots(1, 2, width_ratios=(2.2, 1))
    left.fill_between(days, low - yhat, high - yhat, color=ORANGE, alpha=0.22, linewidth=0, label="80 % interval")
    outside = (actual < low) | (actual > high)
    left.bar(days, error, color=np.where(outside, ORANGE, BLUE), width=0.75)
    left.axhline(0, color=GREY, linewidth=0.8)
    left.set_title(f"Demand minus forecast: {int(outside.sum())} of {len(error)} days outside", loc="left")
    left.set_ylabel("units")
    left.legend(loc="upper left", frameon=False)
    by_date(left)
    weekday = days.weekday.to_numpy()
    known = np.isfinite(error)
    groups = [error[(weekday == day) & known] for day in range(7)]
    right.boxplot(groups, widths=0.6, medianprops={"color": ORANGE}, flierprops={"markersize": 3})
    right.axhline(0, color=GREY, linewidth=0.8)
    right.set_xticks(range(1, 8), WEEKDAYS)
    right.set_title("By weekday", loc="left")
    return figure


def components_figure(found: Components, as_of: date, title_: str) -> Figure:
    """Trend, then each seasonality over one of its periods, as Prophet draws them."""
    panels = ["trend", *found.parts]
    figure = new_figure(12, 2.1 * len(panels) + 0.4, gap=0.28)
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    axes[0].plot(found.dates, found.trend, color=BLUE)
    _mark(axes[0], as_of)
    axes[0].set_ylabel("trend, units a day")
    axes[0].set_title(title_, loc="left", fontsize=11)
    by_date(axes[0])
    for axis, (name, values) in zip(axes[1:], found.parts.items(), strict=True):
        _part(axis, found.dates, values, name)
        axis.axhline(0, color=GREY, linewidth=0.8)
        if name in found.multiplicative:
            axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axis.set_ylabel(f"{name}, {'share of trend' if name in found.multiplicative else 'units a day'}")
    return figure


def title(row: Mapping[str, Any]) -> str:
    """The series, its model and how it did, in a line."""
    scored = row["WAPE"] is not None
    if scored and row["baseline_WAPE"] is not None:
        score = f"WAPE {row['WAPE']:.1%} (seasonal naive {row['baseline_WAPE']:.1%}), bias {row['bias']:+.1%}"
    else:
        score = f"WAPE {row['WAPE']:.1%}" if scored else "not scored"
    return f"{row['location_id']}  {row['sku']}  ({row['category']}): {row['model']}, {score}"


def _part(axis: Axes, dates: pd.DatetimeIndex, values: Floats, name: str) -> None:
    if name == "weekly":
        week = pd.Series(values).groupby(dates.weekday).last()
        axis.bar([WEEKDAYS[day] for day in week.index], week.to_numpy(), color=BLUE, width=0.6)
    else:
        axis.plot(dates, values, color=BLUE)
        by_date(axis)


def _mark(axis: Axes, as_of: date) -> None:
    """A line between the last known day and the first forecast one."""
    dates: Any = mdates  # its functions carry no types
    axis.axvline(dates.date2num(as_of) + 0.5, color=GREY, linewidth=0.9, linestyle=":")


def _days(first: date, count: int) -> pd.DatetimeIndex:
    return pd.date_range(first, periods=count, freq="D")


def _floats(values: list[float | None]) -> Floats:
    return np.array(values, float)
