"""What a warehouse must be ready for: the demand of the stores that it serves, together.

A warehouse sells to nobody, so nothing forecasts it. Its mean is the sum of its stores', and its deviations add up with
the correlation between stores' errors: d² = (1 - ρ) Σdᵢ² + ρ (Σdᵢ)² (Silver, Pyke and Thomas, chapter 11), quantile by
quantile. That stores order in packs and not by the unit is not counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import BACKTESTS
from pipelines.inventory.forecast_distribution import FloatArray
from pipelines.inventory.level_correlation import level_correlation
from pipelines.inventory.live_stock import Key
from pipelines.io.delta import Tables

STORE_CORRELATION = 0.2
"""Presumed between two stores' errors on one day where no backtest tells."""
_INTERVAL_SCORES = 2.563
"""The 80 % interval of a backtest is so many standard deviations wide."""


def served_series(supplier_of: Mapping[Key, str | None], warehouses: frozenset[str]) -> dict[Key, str]:
    """Which warehouse serves each series, where one does that is itself sourced for the product."""
    return {
        key: supplier
        for key, supplier in supplier_of.items()
        if supplier in warehouses and supplier is not None and (supplier, key[1]) in supplier_of
    }


def with_warehouses(forecasts: pa.Table, served: Mapping[Key, str], correlation: float) -> pa.Table:
    """Day forecasts with those of warehouses added, which have none of their own.

    Args:
        forecasts: location_id, sku, target_time, yhat and quantiles. served: as `served_series` gives it.
    """
    if not served:
        return forecasts
    values = [name for name in forecasts.column_names if name not in {"location_id", "sku", "target_time"}]
    keys = list(zip(forecasts["location_id"].to_pylist(), forecasts["sku"].to_pylist(), strict=True))
    own = set(keys)
    rows: dict[tuple[str, str, object], list[int]] = defaultdict(list)
    times = forecasts["target_time"].to_pylist()
    for row, (key, time) in enumerate(zip(keys, times, strict=True)):
        warehouse = served.get(key)
        if warehouse is not None and (warehouse, key[1]) not in own:
            rows[warehouse, key[1], time].append(row)
    if not rows:
        return forecasts
    matrix = np.column_stack([forecasts[name].cast(pa.float64()).to_numpy() for name in values])
    summed = np.array([_sum(matrix[places], correlation) for places in rows.values()])
    added = {"location_id": [key[0] for key in rows], "sku": [key[1] for key in rows], "target_time": list(rows)}
    added["target_time"] = [key[2] for key in rows]
    columns = {name: pa.array(column) for name, column in added.items()}
    columns |= {name: pa.array(summed[:, place]) for place, name in enumerate(values)}
    more = pa.table({name: columns[name] for name in forecasts.column_names}).cast(forecasts.schema)
    return pa.concat_tables([forecasts, more])


def _sum(rows: FloatArray, correlation: float) -> FloatArray:
    """Mean first, then quantiles, (1 + q,), of the sum of several series' demand on a day."""
    mean = rows[:, 0].sum()
    apart = rows[:, 1:] - rows[:, :1]
    spread = np.sqrt((1 - correlation) * (apart**2).sum(axis=0) + correlation * apart.sum(axis=0) ** 2)
    quantiles = np.maximum(mean + np.sign(apart.sum(axis=0)) * spread, 0.0)
    return np.concatenate([[mean], np.maximum.accumulate(quantiles)])


def store_correlation(tables: Tables, forecast_version: str) -> float:
    """Between two stores' errors of one product on one day, by the backtest of the forecasts in force."""
    rows = tables.read(
        BACKTESTS,
        ("sku", "first_day", "actual", "yhat", "low", "high"),
        pc.field("forecast_version") == forecast_version,
    ).to_pylist()
    errors: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        first = row["first_day"].toordinal()
        for ahead, (actual, yhat, low, high) in enumerate(
            zip(row["actual"], row["yhat"], row["low"], row["high"], strict=True)
        ):
            errors[row["sku"], first + ahead].append((actual - yhat, (high - low) / _INTERVAL_SCORES))
    width = max(map(len, errors.values()), default=0)
    if width < 2:
        return STORE_CORRELATION
    found = np.full((len(errors), width, 2), np.nan)
    for place, values in enumerate(errors.values()):
        found[place, : len(values)] = values
    known = found[..., 1] > 0
    return round(
        level_correlation(
            np.where(known, found[..., 0], np.nan), np.where(known, found[..., 1], 0.0), STORE_CORRELATION
        ),
        3,
    )
