"""Reconciliation by MinT with a shrunk covariance, the option beside bottom-up totals.

The chain, its regions and its categories are forecast as series of their own by the same engine; MinT (Wickramasuriya,
Athanasopoulos and Hyndman 2019) combines them with the sums of the series of each region and category into the
coherent forecasts of least total error variance, given the covariance of their backtest errors, shrunk towards its
diagonal (Schäfer and Strimmer 2005). The series of a region and category are then scaled by one factor a day, so
that a hierarchy of any number of series needs a covariance of some dozens of rows only.

Totals are made of sales as they were recorded: where shelves are often empty, bottom-up is the better choice, since
only series are completed for missing stock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.contracts.tables import QUANTILE_COLUMNS, QUANTILES
from pipelines.forecasting.coherence import CELL, cell_errors, placed
from pipelines.forecasting.engines import Engine, fit_safely
from pipelines.forecasting.series import Floats, from_matrix

BOTTOM_UP, MINT_SHRINK = "bottom_up", "mint_shrink"


@dataclass(frozen=True)
class Hierarchy:
    """Cells (a region and a category each) and what they add up to.

    Attributes:
        cells: b pairs of region and category. upper: the names of the rows above them.
        summing: (N, b) of zeros and ones: the rows above first, the cells last.
    """

    cells: tuple[tuple[str, str], ...]
    upper: tuple[str, ...]
    summing: Floats


def hierarchy(cells: list[tuple[str, str]]) -> Hierarchy:
    """The chain, its regions and its categories over the given cells."""
    keys = sorted(set(cells))
    regions, categories = (sorted({key[place] for key in keys}) for place in range(2))
    rows = [np.ones(len(keys))]
    rows += [np.array([key[0] == region for key in keys], float) for region in regions]
    rows += [np.array([key[1] == category for key in keys], float) for category in categories]
    names = ("global", *(f"region {name}" for name in regions), *(f"category {name}" for name in categories))
    return Hierarchy(tuple(keys), names, np.concatenate([np.array(rows), np.eye(len(keys))]))


def mint_shrink(summing: Floats, base: Floats, residuals: Floats) -> Floats:
    """Coherent, non-negative forecasts of least error variance.

    Args:
        summing: (N, b), the b bottom rows last. base: (N, h) forecasts of every row by itself.
        residuals: (N, T) errors of such forecasts, actual less forecast, of days that are known.

    Returns:
        (N, h): exactly `summing` times its last b rows.
    """
    from hierarchicalforecast.methods import MinTrace

    bottom = summing.shape[1]
    found = MinTrace("mint_shrink", nonnegative=True).fit_predict(
        S=summing, y_hat=base, y_insample=residuals, y_hat_insample=np.zeros_like(residuals)
    )
    return np.asarray(summing @ np.maximum(np.asarray(found["mean"], float)[-bottom:], 0.0), float)


def reconciling_factors(
    cells: pd.DataFrame, errors: pd.DataFrame, demand: pd.DataFrame, engine: Engine, as_of: date
) -> pd.DataFrame:
    """By which factor the series of each region and category change on each day.

    Args:
        cells: date, region, category, yhat: sums of the series' forecasts of the days after `as_of`.
        errors: date, region, category, errors: sums of their backtest errors on the days up to `as_of`.
        demand: date, region, category, demand: what was sold.
        engine: forecasts the chain, the regions and the categories; where it fails, their sums stand in.

    Returns:
        date, region, category, factor.
    """
    tree = hierarchy([(str(row.region), str(row.category)) for row in cells[CELL].itertuples()])
    upper = tree.summing[: -len(tree.cells)]
    base, residuals, history = (_matrix(frame, name, tree) for frame, name in
                                ((cells, "yhat"), (errors, "errors"), (demand, "demand")))  # fmt: skip
    horizon, tested = base.shape[1], residuals.shape[1]
    batch = from_matrix(upper @ history.to_numpy(float), as_of, [("total", name) for name in tree.upper])
    ahead = fit_safely(engine, batch, horizon, QUANTILES).yhat
    behind = fit_safely(engine, batch.until(as_of - timedelta(days=tested)), tested, QUANTILES).yhat
    sums, missed = upper @ base.to_numpy(float), upper @ residuals.to_numpy(float)
    ahead = np.where(np.isfinite(ahead), ahead, sums)
    behind = np.where(np.isfinite(behind), batch.demand[:, batch.days - tested :] - behind, missed)
    reconciled = mint_shrink(
        tree.summing,
        np.concatenate([ahead, base.to_numpy(float)]),
        np.concatenate([behind, residuals.to_numpy(float)]),
    )[-len(tree.cells) :]
    before = base.to_numpy(float)
    factor = np.divide(reconciled, before, out=np.ones_like(before), where=before > 0)
    made = pd.DataFrame(factor, index=base.index, columns=base.columns)
    return made.reset_index().melt(id_vars=CELL, var_name="date", value_name="factor")[["date", *CELL, "factor"]]


def reconciled_rows(
    rows: DataFrame, backtests: DataFrame, daily: DataFrame, places: tuple[DataFrame, DataFrame],
    engine: Engine, as_of: date,
) -> DataFrame:  # fmt: skip
    """`gold/forecasts` rows of a version, reconciled: mean and quantiles of a series by its cell's factor of the day.

    Args:
        rows, backtests: of the version; daily: demand up to `as_of`; places: products and locations.
    """
    day = F.to_date("target_time").alias("date")
    forecast = placed(rows.where(F.col("grain") == "day").select("location_id", "sku", day, "yhat"), *places)
    cells = forecast.groupBy("date", *CELL).agg(F.sum("yhat").alias("yhat")).toPandas()
    sold = placed(daily.select("location_id", "sku", "date", "demand"), *places)
    demand = sold.groupBy("date", *CELL).agg(F.sum("demand").alias("demand")).toPandas()
    factors = reconciling_factors(cells, cell_errors(backtests, *places).toPandas(), demand, engine, as_of)
    factors = factors.assign(date=pd.to_datetime(factors["date"]).dt.date)
    known = rows.sparkSession.createDataFrame(factors, "date date, region string, category string, factor double")
    joined = placed(rows.withColumn("date", F.to_date("target_time")), *places).join(
        F.broadcast(known), on=["date", *CELL], how="left"
    )
    factor = F.coalesce("factor", F.lit(1.0))
    return joined.select(
        *((F.col(name) * factor).alias(name) if name in ("yhat", *QUANTILE_COLUMNS) else name for name in rows.columns)
    )


def _matrix(frame: pd.DataFrame, value: str, tree: Hierarchy) -> pd.DataFrame:
    """Cells by consecutive days; nothing where there is no row."""
    index = pd.MultiIndex.from_tuples(tree.cells, names=CELL)
    wide = frame.assign(date=pd.to_datetime(frame["date"])).pivot_table(value, CELL, "date", aggfunc="sum")
    days = pd.date_range(wide.columns.min(), wide.columns.max(), name="date")
    return wide.reindex(index=index, columns=days).fillna(0.0)
