"""The nightly aggregation: the whole ledger to hourly and daily demand."""

from __future__ import annotations

import logging
from datetime import date

from pyspark.sql import SparkSession

from pipelines.contracts.tables import DEMAND, STOCK_MOVEMENTS
from pipelines.demand.demand import DAY, HOUR, daily_sales, demand_per, hourly_sales, stockouts, until
from pipelines.demand.totals import run_totals
from pipelines.errors import OwnershipError
from pipelines.ingestion.late_duplicates import first_rows
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.operations.settings import Settings

log = logging.getLogger("stockcast.demand")


def aggregate_demand(spark: SparkSession, settings: Settings, tables: Tables, as_of: date | None) -> None:
    """Compute `gold/hourly_demand` and `gold/daily_demand` anew and bring `gold/demand_totals` up to date.

    Each table is replaced in one commit. The totals follow the whole ledger, whatever `as_of` says; where a
    live process keeps them, they are left to it.

    Args:
        as_of: the last day whose events count towards demand; None for all events.

    Raises:
        OwnershipError: another process is aggregating.
        BrokerError: totals have to be sent and Kafka does not take them.
    """
    with ownership(settings, DEMAND):
        write_demand(spark, tables, as_of)
    try:
        run_totals(spark, settings, tables, once=True)
    except OwnershipError as error:
        log.info("totals are being kept live, nothing to do for them here: %s", error)


def write_demand(spark: SparkSession, tables: Tables, as_of: date | None) -> None:
    """Compute hourly and daily demand anew; the caller owns them."""
    ledger = until(tables.frame(spark, STOCK_MOVEMENTS), as_of)
    # What came twice was sold once. Its stock is put right by an adjustment, so all rows count there.
    per_hour, out_of_stock = hourly_sales(first_rows(ledger)).persist(), stockouts(ledger).persist()
    try:
        tables.overwrite_frame(HOUR.table, demand_per(HOUR, per_hour, out_of_stock))
        tables.overwrite_frame(DAY.table, demand_per(DAY, daily_sales(per_hour), out_of_stock))
    finally:
        per_hour.unpersist()
        out_of_stock.unpersist()
    log.info("demand aggregated: %d daily rows", tables.read(DAY.table, columns=["date"]).num_rows)
