"""Figures of a training that are worth opening."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import matplotlib.dates as mdates
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.contracts.tables import QUANTILE_COLUMNS
from pipelines.forecasting.drift import NOMINAL_COVERAGE, Window
from pipelines.forecasting.series import Floats

BLUE, ORANGE, GREY = "#1f5fa8", "#d8681c", "#777777"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
}


def wape_distribution(status: pd.DataFrame) -> Figure:
    """How WAPE spreads over the series, beside seasonal naive's, and which series gain or lose by it.

    Args:
        status: columns WAPE and baseline_WAPE, one row a series; rows without either are left out.
    """
    scored = status.dropna(subset=["WAPE", "baseline_WAPE"])
    figure = new_figure(11, 4.2)
    left, right = figure.subplots(1, 2)
    top = 1.25 * float(np.nanquantile(scored[["WAPE", "baseline_WAPE"]], 0.9)) if len(scored) else 1.0
    bins = np.linspace(0, max(top, 1e-9), 40)
    left.hist(scored["baseline_WAPE"].clip(upper=top), bins=bins, color=GREY, alpha=0.5, label="seasonal naive")
    left.hist(scored["WAPE"].clip(upper=top), bins=bins, color=BLUE, alpha=0.7, label="chosen model")
    left.set(xlabel="WAPE on the backtest (the last bin holds all above)", ylabel="series", title="Accuracy by series")
    left.legend()
    shown = scored[["baseline_WAPE", "WAPE"]].clip(upper=top)
    right.scatter(shown["baseline_WAPE"], shown["WAPE"], s=9, color=BLUE, alpha=0.5, clip_on=False)
    right.plot([0, top], [0, top], color=GREY, linewidth=1)
    better = (scored["WAPE"] < scored["baseline_WAPE"]).mean() if len(scored) else float("nan")
    right.set(
        xlim=(0, top),
        ylim=(0, top),
        xlabel="seasonal naive's WAPE",
        ylabel="WAPE",
        title=f"Below the line is better: {better:.0%} of {len(scored)} series",
    )
    return figure


def fans(sample: list[dict[str, Any]], as_of: str) -> Figure:
    """A fan for each sampled series: the backtest against what came, then the forecast.

    Args:
        sample: rows of `TRAINED_SERIES` as dictionaries.
    """
    figure = new_figure(13, 3.0 * max(len(sample), 1), gap=0.25)
    axes = figure.subplots(max(len(sample), 1), 1, squeeze=False)[:, 0]
    for axis, row in zip(axes, sample, strict=False):
        tested = row["backtest_yhat"] or []
        past = np.arange(-len(tested) + 1, 1)
        if tested:
            axis.fill_between(past, row["backtest_low"], row["backtest_high"], color=ORANGE, alpha=0.2, linewidth=0)
            axis.plot(past, tested, color=ORANGE, label="backtest, 80 %")
            axis.plot(past, row["backtest_actual"], "o-", color="black", markersize=3, linewidth=0.8)
        steps = np.arange(1, len(row["day"]) + 1)
        fan = {name: _column(row["day"], name) for name in ("yhat", *QUANTILE_COLUMNS)}
        for low, high, shade in (("q05", "q95", 0.15), ("q10", "q90", 0.2), ("q25", "q75", 0.3)):
            axis.fill_between(steps, fan[low], fan[high], color=BLUE, alpha=shade, linewidth=0)
        axis.plot(steps, fan["yhat"], color=BLUE, label="forecast, 50, 80, 90 %")
        axis.axvline(0.5, color=GREY, linewidth=0.8)
        wape = "not scored" if row["WAPE"] is None else f"WAPE {row['WAPE']:.1%}"
        axis.set_title(f"{row['location_id']} {row['sku']} ({row['category']}): {row['model']}, {wape}", fontsize=9)
        axis.set_ylabel("units a day")
        axis.set_ylim(bottom=0)
        axis.set_xlim(-len(row["day"]), len(row["day"]) + 1)
    axes[0].legend(loc="upper left", fontsize=8)
    axes[-1].set_xlabel(f"days from {as_of}")
    return figure


def coverage_by_category(status: pd.DataFrame) -> Figure:
    """How often the 80 % interval held, and the bias, by category.

    Args:
        status: columns category, covered, days, error, actual; one row a series.
    """
    sums = status.groupby("category")[["covered", "days", "error", "actual"]].sum()
    sums = sums[sums["days"] > 0].nlargest(40, "actual").iloc[::-1]
    figure = new_figure(11, 1.5 + 0.32 * max(len(sums), 3), left=1.5)
    left, right = figure.subplots(1, 2, sharey=True)
    bars = left.barh(sums.index, sums["covered"] / sums["days"], color=BLUE)
    left.bar_label(bars, fmt="{:.0%}", padding=-28, color="white")
    left.axvline(NOMINAL_COVERAGE, color=ORANGE)
    left.set(
        xlim=(0, 1),
        xlabel="coverage of the 80 % interval",
        title="Coverage (line: nominal), the largest categories first",
    )
    right.barh(sums.index, sums["error"] / sums["actual"].where(sums["actual"] > 0), color=GREY)
    right.axvline(0, color=ORANGE)
    right.set(xlabel="Σ(forecast - actual) / Σ actual", title="Bias")
    return figure


def published_forecasts(window: Window) -> Figure | None:
    """What was published against what came, summed over the series of each day; None before anything was scored."""
    known = np.isfinite(window.error)
    scored = np.flatnonzero(known.any(axis=0))
    if not len(scored):
        return None
    columns = slice(scored[0], None)
    days = pd.date_range(end=window.end, periods=window.days, freq="D")[columns]
    mask = known[:, columns]
    units, forecast, wrong, held = (
        np.where(mask, values[:, columns], 0.0).sum(axis=0)
        for values in (window.actual, window.yhat, np.abs(window.error), window.covered)
    )
    figure = new_figure(12, 6.4, gap=0.12)
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(1.6, 1, 1))
    top.plot(days, units, "o-", color="black", markersize=3, linewidth=0.9, label="demand")
    top.plot(days, forecast, color=BLUE, linewidth=1.6, label="published forecast")
    top.set_ylabel("units")
    top.set_title(f"The forecasts in force against what came: {len(window.keys):,} series", loc="left", fontsize=11)
    top.legend(loc="upper left", ncols=2, frameon=False)
    top.set_ylim(0, 1.2 * max(float(units.max()), float(forecast.max()), 1.0))
    middle.bar(days, wrong / np.where(units > 0, units, np.nan), color=GREY, width=0.7)
    middle.set_ylabel("WAPE")
    bottom.plot(days, held / np.maximum(mask.sum(axis=0), 1), "o-", color=BLUE, markersize=3)
    bottom.axhline(NOMINAL_COVERAGE, color=ORANGE)
    bottom.set(ylim=(0, 1.02), ylabel="coverage (line: 80 %)")
    by_date(bottom)
    return figure


def by_date(axis: Axes) -> None:
    """Label an axis of days briefly."""
    dates: Any = mdates  # its classes carry no types
    locator = dates.AutoDateLocator(minticks=5, maxticks=12)
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))


def new_figure(width: float, height: float, left: float = 0.85, bottom: float = 0.5, gap: float = 0.5) -> Figure:
    """An empty figure in the house's style; sizes in inches.

    Margins are given, not found: finding them takes longer than drawing.

    Args:
        left, bottom: of the outermost axes.
        gap: between rows of axes, as a share of their height.
    """
    figure = _StyledFigure(figsize=(width, height), dpi=110)
    figure.subplots_adjust(
        left=left / width, right=1 - 0.2 / width, bottom=bottom / height, top=1 - 0.35 / height, hspace=gap, wspace=0.14
    )
    return figure


class _StyledFigure(Figure):
    """Without global state: the style holds while axes are made."""

    def add_subplot(self, *args: Any, **kwargs: Any) -> Any:
        with mpl.rc_context(STYLE):
            return super().add_subplot(*args, **kwargs)


def _column(steps: list[dict[str, float]], name: str) -> Floats:
    return np.array([step[name] for step in steps])
