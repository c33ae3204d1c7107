"""A small home with everything in it, made without Spark and Kafka: for whatever only reads tables."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import chain, count

import pandas as pd
import pyarrow as pa

from pipelines.contracts.tables import (
    BRONZE_EVENTS,
    DAILY_DEMAND,
    FORECASTS,
    QUANTILE_COLUMNS,
    QUANTILES,
    SERIES_STATUS,
    STOCK_MOVEMENTS,
)
from pipelines.ingestion.catalog import load_catalog
from pipelines.ingestion.ingestor import Ingestor
from pipelines.inventory.planning import plan
from pipelines.io.delta import Tables
from pipelines.io.published import FORECASTS as FORECASTS_IN_FORCE
from pipelines.io.published import Published, publish
from pipelines.operations.settings import Settings
from pipelines.restocking.engine import RestockEngine
from pipelines.simulation import store
from pipelines.simulation.history import history
from pipelines.simulation.plan import Plan
from pipelines.simulation.world import World

PLAN = Plan(date(2025, 11, 1), seed=3, stores=2, products=3, days=70, low_stock=3)
NOW = datetime(2025, 11, 1, 0, 5, tzinfo=UTC)
VERSION, MODEL = "f-20251031-20251101T000500", "weekday_quantiles"


def prepare(settings: Settings) -> Tables:
    """Simulate a history, take it in, forecast, plan and decide orders."""
    tables = Tables(settings)
    load_catalog(settings, tables, store.prepare(settings, PLAN))
    _take_in(settings, tables)
    demand = _daily_demand(tables.read(STOCK_MOVEMENTS).to_pandas())
    tables.overwrite(DAILY_DEMAND, pa.Table.from_pandas(demand, schema=DAILY_DEMAND.schema, preserve_index=False))
    _forecast(tables, demand)
    plan(None, settings, tables, None, NOW)
    engine = RestockEngine(tables, settings.restock, lambda flags: None, lambda: NOW)
    engine.resume()
    engine.catch_up()
    engine.save()
    return tables


def _take_in(settings: Settings, tables: Tables) -> None:
    offsets = count()
    records = [
        {
            **{"topic": message.topic, "partition": 0, "offset": next(offsets), "kafka_timestamp": NOW},
            **{"key": message.key, "value": message.value, "headers": None},
        }
        for message in chain.from_iterable(history(World(PLAN)))
    ]
    schema = BRONZE_EVENTS.schema.remove(BRONZE_EVENTS.schema.get_field_index("ingested_at"))
    ingestor = Ingestor(tables, settings.ingest, "prepared", lambda: NOW)
    ingestor.resume(new_stream=True)
    ingestor.take_in(0, pa.Table.from_pylist(records, schema=schema))


def _daily_demand(ledger: pd.DataFrame) -> pd.DataFrame:
    sales = ledger[ledger.kind == "sale"].assign(date=lambda frame: frame.event_time.dt.floor("D").dt.tz_localize(None))
    days = pd.date_range(PLAN.start, PLAN.cutoff, inclusive="left")
    units = sales.pivot_table("quantity", "date", ["location_id", "sku"], "sum").reindex(days).fillna(0)
    demand = units.rename_axis(index="date").unstack().rename("demand").reset_index()
    return demand.assign(
        demand=demand.demand.astype("int64"),
        returned=0,
        promotion_share=0.0,
        revenue=None,
        in_stock_fraction=(demand.date.dt.day != 13).astype(float),
    )


def _forecast(tables: Tables, demand: pd.DataFrame) -> None:
    """Each weekday's quantiles so far, for four weeks."""
    targets = pd.DataFrame({"target_time": pd.date_range(PLAN.cutoff, periods=28, tz="UTC")})
    targets["weekday"] = targets.target_time.dt.weekday
    by_weekday = demand.groupby(["location_id", "sku", demand.date.dt.weekday.rename("weekday")]).demand
    quantiles = by_weekday.quantile(list(QUANTILES)).unstack().set_axis(QUANTILE_COLUMNS, axis=1)
    rows = quantiles.assign(yhat=by_weekday.mean()).reset_index().merge(targets, on="weekday")
    as_of = PLAN.cutoff - timedelta(days=1)
    named = {"forecast_version": VERSION, "model": MODEL}
    forecasts = rows.assign(grain="day", created_at=NOW, **named)
    tables.overwrite(FORECASTS, pa.Table.from_pandas(forecasts[FORECASTS.schema.names], schema=FORECASTS.schema))
    status = demand.groupby(["location_id", "sku"], as_index=False).agg(observations=("demand", "size"))
    status = status.assign(status="fallback", reason="made for a test", training_run=None, as_of=as_of, **named)
    scores = dict.fromkeys(("WAPE", "MASE", "bias", "coverage", "baseline_WAPE"), 0.5)
    status = status.assign(**scores)[SERIES_STATUS.schema.names]
    tables.overwrite(SERIES_STATUS, pa.Table.from_pandas(status, schema=SERIES_STATUS.schema))
    publish(tables, Published(FORECASTS_IN_FORCE, VERSION, as_of, None, NOW))
