"""What a training's MLflow page holds: sums, figures, a note in words, nested runs for a few series."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import DAILY_DEMAND
from pipelines.forecasting import figures, series_figures
from pipelines.forecasting.components import components
from pipelines.forecasting.drift_watch import DriftReport
from pipelines.forecasting.summary import Summary, sample_keys, worst_keys, worst_series
from pipelines.forecasting.tracking import Delta, SeriesPage, Tracking
from pipelines.forecasting.trained import SCORES, TRAINED_SERIES
from pipelines.io.delta import Tables
from pipelines.operations.settings import TrackingSettings

log = logging.getLogger("stockcast.forecasting")

Key = tuple[str, str]
YEAR = 366
LISTED = 100
"""Series in the table of the worst."""


@dataclass(frozen=True)
class Trained:
    """A finished training, as its page needs it; `status` holds the scalar columns of `TRAINED_SERIES`, `drift` how
    the forecasts before it have fared (None: not known)."""

    version: str
    as_of: date
    horizon: int
    summary: Summary
    status: pd.DataFrame
    drift: DriftReport | None = None


def record(run: Tracking, tables: Tables, trained: Trained) -> str:
    """Log what a training used and gave, and register its model; returns the model's version.

    May raise whatever MLflow raises.
    """
    run.log_data([("training", Delta.of(tables, DAILY_DEMAND))])
    metrics = trained.summary.metrics()
    tags = {"forecast_version": trained.version, "as_of": trained.as_of.isoformat(), "published": "no"}
    if trained.drift is not None:
        metrics |= trained.drift.metrics()
        tags["drift"] = "; ".join(trained.drift.warnings)[:5000] or "no limit crossed"
    run.log_results(metrics, tags, {})
    return run.register(tables, trained.as_of.isoformat(), trained.horizon, trained.version)


def illustrate(run: Tracking, tables: Tables, trained: Trained, settings: TrackingSettings) -> None:
    """Make the run's page worth opening: a note, figures, the table of the worst series, nested runs for a few.

    May raise whatever MLflow raises.
    """
    pages = _chosen(trained.status, settings)
    shown = {
        "wape_by_series": figures.wape_distribution(trained.status),
        "coverage_and_bias_by_category": figures.coverage_by_category(trained.status),
        "forecasts_of_a_sample": figures.fans(_rows(tables, sample_keys(trained.status)), trained.as_of.isoformat()),
    }
    if trained.drift is not None and (fared := figures.published_forecasts(trained.drift.window)) is not None:
        shown["published_forecasts_against_demand"] = fared
    run.log_results({}, {"mlflow.note.content": _note(trained, pages)}, shown)
    run.client.log_table(run.run_id, _listed(trained.status), "worst_series.json")
    if pages:
        _log_pages(run, tables, trained, pages)


def _listed(status: pd.DataFrame) -> pd.DataFrame:
    names = ["location_id", "sku", "category", "model", "error_for_its_size", *SCORES, "actual", "reason"]
    return worst_series(status, LISTED)[names].reset_index(drop=True)


def _chosen(status: pd.DataFrame, settings: TrackingSettings) -> dict[Key, str]:
    """Which series get a page, and why."""
    pages = {
        key: f"worst {place}: error beyond what its counts explain"
        for place, key in enumerate(worst_keys(status, settings.worst_series), 1)
    }
    middle = np.linspace(0, 1, settings.sample_series + 2)[1:-1]
    for key in sample_keys(status, settings.sample_series, middle[np.argsort(np.abs(middle - 0.5))].tolist()):
        pages.setdefault(key, "sample")
    return pages


def _log_pages(run: Tracking, tables: Tables, trained: Trained, pages: dict[Key, str]) -> None:
    history = _history(tables, list(pages), trained.as_of)
    for row in _rows(tables, list(pages), parameters=True):
        key = (row["location_id"], row["sku"])
        run.log_series(series_page(row, history.get(key), trained.as_of, pages[key]))


def series_page(row: dict[str, Any], history: pd.Series | None, as_of: date, why: str) -> SeriesPage:
    """A series' page from its row of `TRAINED_SERIES`."""
    shown = {"forecast": series_figures.forecast_figure(row, history, as_of)}
    if (errors := series_figures.error_figure(row, as_of)) is not None:
        shown["errors"] = errors
    try:
        found = components(row["parameters"] or "{}", YEAR, len(row["day"] or ()))
    except Exception as error:  # parameters are an engine's own: a page without components is still a page
        log.debug("no components of %s %s: %s", row["location_id"], row["sku"], error)
        found = None
    if found is not None:
        shown["components"] = series_figures.components_figure(found, as_of, series_figures.title(row))
    params = {"model": row["model"], "status": row["status"], "category": row["category"], "why": why}
    if row["reason"]:
        params["reason"] = row["reason"][:500]
    metrics = {name: float(row[name]) for name in (*SCORES, "observations") if row[name] is not None}
    note = f"**{why}.** {series_figures.title(row)}. {row['reason'] or ''}"
    return SeriesPage(row["location_id"], row["sku"], why, params, metrics, shown, note.strip())


def _rows(tables: Tables, keys: Sequence[Key], *, parameters: bool = False) -> list[dict[str, Any]]:
    left_out = {"hour"} if parameters else {"hour", "parameters"}
    columns = [name for name in TRAINED_SERIES.schema.names if name not in left_out]
    rows = {
        (row["location_id"], row["sku"]): row for row in tables.read(TRAINED_SERIES, columns, _among(keys)).to_pylist()
    }
    return [rows[key] for key in keys if key in rows]


def _history(tables: Tables, keys: Sequence[Key], as_of: date) -> dict[Key, pd.Series]:
    """The last days' demand of a few series, zero where there is no row."""
    first = as_of - timedelta(days=series_figures.HISTORY_DAYS - 1)
    where = (pc.field("date") >= first) & (pc.field("date") <= as_of) & _among(keys)
    frame = tables.read(DAILY_DEMAND, ("location_id", "sku", "date", "demand"), where).to_pandas()
    days = pd.date_range(first, as_of, freq="D")
    histories = {}
    for (location_id, sku), rows in frame.groupby(["location_id", "sku"]):
        units = pd.Series(rows["demand"].to_numpy(float), index=pd.to_datetime(rows["date"]))
        known = days[days >= units.index.min()]
        histories[str(location_id), str(sku)] = units.groupby(level=0).sum().reindex(known, fill_value=0.0)
    return histories


def _among(keys: Sequence[Key]) -> pc.Expression:
    """Rows of these series: a filter by each name first, which a scan can use."""
    locations, skus = (pa.array(sorted({key[place] for key in keys}), pa.string()) for place in (0, 1))
    joined = pc.binary_join_element_wise(pc.field("location_id"), pc.field("sku"), "|")
    exact = pc.is_in(joined, pa.array(["|".join(key) for key in keys], pa.string()))
    return pc.field("location_id").isin(locations) & pc.field("sku").isin(skus) & exact


def _note(trained: Trained, pages: dict[Key, str]) -> str:
    """The run's description: what is where."""
    models = ", ".join(f"{count:,} {name}" for name, count in trained.summary.models.items())
    shown = f"Nested runs show {len(pages)} of them: the worst, and a sample. " if pages else ""
    return (
        f"Forecasts `{trained.version}` of {len(trained.status):,} series from data up to {trained.as_of}. "
        f"{trained.summary}.\n\nForecast by: {models}. {shown}Figures are under *Artifacts*; parameters and scores of "
        "every series are the table `model/artifacts/series.parquet`, its SHA-256 in the tag `series_sha256`. "
        "Tags that begin with `promotion` say what the gates found."
    )
