"""Forecasts, how their series fare, and which version is in force."""

from __future__ import annotations

import pyarrow as pa

from pipelines.contracts.tables.base import QUANTILE_COLUMNS, TIME, TRAINING, Table, schema_of, text

FORECASTS = Table(
    "gold/forecasts",
    schema_of(
        location_id=pa.string(),
        sku=pa.string(),
        grain=pa.string(),
        target_time=TIME,
        forecast_version=pa.string(),
        yhat=pa.float64(),
        **{column: pa.float64() for column in QUANTILE_COLUMNS},
        model=pa.string(),
        created_at=TIME,
    ),
    TRAINING,
    partition_by=("forecast_version",),
)

FORECAST_TOTALS = Table(
    "gold/forecast_totals",
    schema_of(
        **text("scope_kind scope grain"),
        target_time=TIME,
        forecast_version=pa.string(),
        series=pa.int64(),
        yhat=pa.float64(),
        **{column: pa.float64() for column in QUANTILE_COLUMNS},
        correlation=pa.float64(),
        created_at=TIME,
    ),
    TRAINING,
    partition_by=("forecast_version",),
)
"""What a forecast version's series add up to. `scope_kind`: global, region, category or region_category (`scope`
is then `region|category`); `correlation`: the one between its series that the quantiles assume."""

SERIES_STATUS = Table(
    "gold/series_status",
    schema_of(
        **text("location_id sku training_run status model reason"),
        WAPE=pa.float64(),
        MASE=pa.float64(),
        bias=pa.float64(),
        coverage=pa.float64(),
        baseline_WAPE=pa.float64(),
        observations=pa.int64(),
        forecast_version=pa.string(),
        as_of=pa.date32(),
    ),
    TRAINING,
)

PUBLISHED = Table(
    "gold/published",
    schema_of(
        artefact=pa.string(),
        version=pa.string(),
        as_of=pa.date32(),
        training_run=pa.string(),
        published_at=TIME,
    ),
    "publishing",
)
"""The pointer rows: which forecast version and which policy version are in force (one row an artefact)."""

PUBLICATIONS = Table("gold/publications", PUBLISHED.schema, "publishing")
"""Every switch of a pointer row, oldest first: what was in force when (append-only)."""

BACKTESTS = Table(
    "gold/backtests",
    schema_of(
        **text("location_id sku model"),
        forecast_version=pa.string(),
        first_day=pa.date32(),
        **{name: pa.list_(pa.float32()) for name in ("actual", "yhat", "low", "high")},
    ),
    TRAINING,
    partition_by=("forecast_version",),
)
"""The last backtest of each series of each stored version, a number a day from `first_day` on: what champion and
challenger are compared by, on the days that both forecast. `low`, `high`: the 80 % interval."""

FORECAST_DRIFT = Table(
    "gold/forecast_drift",
    schema_of(
        as_of=pa.date32(),
        scope=pa.string(),
        forecast_version=pa.string(),
        series=pa.int64(),
        scored_days=pa.int64(),
        WAPE=pa.float64(),
        bias=pa.float64(),
        coverage=pa.float64(),
        tracking_signal=pa.float64(),
        signalling_share=pa.float64(),
        level_change=pa.float64(),
        stability_index=pa.float64(),
        warning=pa.string(),
    ),
    TRAINING,
)
"""A row a night and scope (`all` or a category): the published forecasts against what came since, and how the
demand itself has shifted. `warning` says which limits were crossed, null for none."""
