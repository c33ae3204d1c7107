"""From a Delta table of daily demand to a Delta table of forecasts, through Spark on this machine's cores.

`python -m bench.delta_to_delta FORM --home FOLDER --series N ...` is one session with four runs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa

from bench.forecast_data import CHUNK, END, HORIZON, series
from bench.forecasting import run_module
from bench.harness import SUBMIT, Options, await_quiet, say
from pipelines.contracts.tables import DAILY_DEMAND, FORECASTS, LOCATIONS, PRODUCTS, QUANTILES
from pipelines.io.delta import Tables
from pipelines.operations.settings import load_settings

Row = dict[str, Any]

DAYS = 730
RUNS = 4
MODES = {"delta_ours_additive": "additive", "delta_ours_multiplicative": "multiplicative", "delta_stock": "additive"}
TRAINED = "location_id string, sku string, model string, day array<{0}>, hour array<{0}>"
STOCK = "location_id string, sku string, ds timestamp, yhat double, yhat_lower double, yhat_upper double"


def measure(options: Options) -> dict[str, list[Row]]:
    """Ours and stock's, interleaved, each in a session of its own on a table that holds its series alone."""
    sizes = {form: [options.forecast_series] for form in MODES}
    # Two sizes, so that what a job costs by itself can be told from what a series costs.
    sizes["delta_stock"] = [options.stock_series, 3 * options.stock_series]
    homes = {size: options.folder / f"delta-{size}" for found in sizes.values() for size in found}
    rows: dict[str, list[Row]] = {form: [] for form in MODES}
    try:
        for size, home in homes.items():
            plant(options, home, size)
        for repetition in range(options.repetitions):
            for form, found in sizes.items():
                for size in found:
                    await_quiet(options)
                    arguments = (form, "--home", str(homes[size]), "--series", str(size))
                    row, others = run_module("bench.delta_to_delta", options, *arguments, PYSPARK_SUBMIT_ARGS=SUBMIT)
                    rows[form].append({**row, "others": others})
                    told = f"{row['cold']:.1f}, {row['seconds']:.1f} s"
                    say(f"delta_to_delta, {form}, {size} series, {repetition + 1}: {told}")
    finally:
        for home in homes.values():
            shutil.rmtree(home, ignore_errors=True)
    return rows


def plant(options: Options, home: Path, count: int) -> None:
    """Demand of `count` series in `gold/daily_demand`, and the catalog."""
    shutil.rmtree(home, ignore_errors=True)
    tables = _tables(home)
    history = series(options.data, count, DAYS)[:, :-HORIZON]
    days = np.datetime64(END, "D") - np.arange(DAYS - 1, -1, -1)
    names = [(f"store-{number // 500}", f"sku-{number % 500}") for number in range(count)]
    for first in range(0, count, 1000):
        part = names[first : first + 1000]
        rows = _rows(
            DAILY_DEMAND.schema,
            location_id=np.repeat([location for location, _ in part], DAYS),
            sku=np.repeat([sku for _, sku in part], DAYS),
            date=np.tile(days, len(part)),
            demand=history[first : first + 1000].ravel(),
        )
        tables.append(DAILY_DEMAND, rows)
    tables.append(PRODUCTS, _rows(PRODUCTS.schema, sku=sorted({sku for _, sku in names}), category="one"))
    stores = sorted({store for store, _ in names})
    tables.append(LOCATIONS, _rows(LOCATIONS.schema, location_id=stores, kind="store", timezone="UTC"))


def _rows(schema: pa.Schema, **columns: Any) -> pa.Table:
    """Rows of the columns given; a text stands for the same in every row, what is not given is null."""
    count = max(len(values) for values in columns.values() if not isinstance(values, str))
    return pa.table(
        [
            pa.nulls(count, field.type)
            if (values := columns.get(field.name)) is None
            else pa.array([values] * count if isinstance(values, str) else values).cast(field.type)
            for field in schema
        ],
        schema=schema,
    )


def _tables(home: Path) -> Tables:
    return Tables(load_settings(overrides=[f"home={home}", "kafka.bootstrap_servers=127.0.0.1:1"]))


# One session -------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> None:
    """Open a session and run four times: the first run finds everything cold, the last the JVM's code compiled."""
    from pipelines.operations.session import open_session

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("form", choices=MODES)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--series", type=int, required=True)
    parser.add_argument("--data", type=Path)
    chosen = parser.parse_args(argv)
    tables = _tables(chosen.home)
    spark = open_session("bench")
    spark.sparkContext.setLogLevel("ERROR")
    run = partial(stock if chosen.form == "delta_stock" else ours, spark, tables, MODES[chosen.form])
    seconds, cores = [], []
    with _watching() as memory:
        for _ in range(RUNS):
            started, used = time.perf_counter(), _processor_seconds()
            run()
            seconds.append(time.perf_counter() - started)
            cores.append(_processor_seconds() - used)
    written = tables.uri(FORECASTS) if chosen.form != "delta_stock" else _stock_path(tables)
    count = spark.read.format("delta").load(str(written)).count()
    spark.stop()
    if count != chosen.series * HORIZON:
        raise RuntimeError(f"{count} forecast rows instead of {chosen.series * HORIZON}")
    print(
        json.dumps(
            {"series": chosen.series, "cold": seconds[0], "seconds": seconds[-1], "core_seconds": cores[-1], **memory}
        )
    )


def ours(spark: Any, tables: Tables, mode: str) -> None:
    """As the nightly training does it, fit and forecast only: `gold/forecasts` rows of the daily grain."""
    from pyspark.sql import functions as F

    from pipelines.forecasting import frames
    from pipelines.io.delta import spark_schema
    from pipelines.operations.settings import ForecastSettings

    daily = tables.frame(spark, DAILY_DEMAND).where(F.col("date") <= F.lit(END))
    requested = daily.select("location_id", "sku").distinct()
    products, locations = (tables.frame(spark, table) for table in (PRODUCTS, LOCATIONS))
    rows = frames.series_rows(daily, requested, products, locations, END - timedelta(days=DAYS - 1))
    quantiles = [field for field in spark_schema(FORECASTS) if field.name == "yhat" or field.name.startswith("q")]
    step = "struct<" + ", ".join(f"{field.name}: double" for field in quantiles) + ">"
    settings = ForecastSettings(seasonality_mode=mode)
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", CHUNK)
    trained = rows.repartition(8).mapInArrow(partial(fit_rows, settings=settings), TRAINED.format(step))
    now = datetime(2017, 1, 1, tzinfo=UTC)
    tables.overwrite_frame(FORECASTS, frames.forecast_rows(trained, END, "bench", now))


def fit_rows(batches: Iterator[pa.RecordBatch], settings: Any) -> Iterator[pa.RecordBatch]:
    """`series_rows` in, forecasts as arrays of structs out."""
    from threadpoolctl import threadpool_limits

    from pipelines.contracts.tables import QUANTILE_COLUMNS
    from pipelines.forecasting.engines import EngineOptions, create
    from pipelines.forecasting.series import from_arrow

    engine = create("prophet_batched", EngineOptions(settings))
    with threadpool_limits(limits=1):
        for rows in batches:
            batch = from_arrow(rows, END)
            found = engine.fit_forecast(batch, HORIZON, QUANTILES)
            values = np.concatenate([found.yhat[:, :, None], found.quantiles], axis=2).reshape(-1, 1 + len(QUANTILES))
            structs = pa.StructArray.from_arrays(
                [pa.array(column) for column in np.ascontiguousarray(values.T)], names=["yhat", *QUANTILE_COLUMNS]
            )
            ends = pa.array(np.arange(len(batch) + 1) * HORIZON, pa.int32())
            day = pa.ListArray.from_arrays(ends, structs)
            hour = pa.ListArray.from_arrays(pa.array(np.zeros(len(batch) + 1), pa.int32()), structs.slice(0, 0))
            model = [engine.name] * len(batch)
            yield pa.record_batch(
                [pa.array(batch.location_id), pa.array(batch.sku), pa.array(model), day, hour],
                names=["location_id", "sku", "model", "day", "hour"],
            )


def stock(spark: Any, tables: Tables, mode: str) -> None:
    """Prophet's own documentation's way on Spark: one group a series."""
    daily = tables.frame(spark, DAILY_DEMAND).select("location_id", "sku", "date", "demand")
    # As many groups a task as there are; without this, adaptive execution leaves one task and one core idle.
    spark.conf.set("spark.sql.shuffle.partitions", 8)
    spark.conf.set("spark.sql.adaptive.coalescePartitions.enabled", "false")
    found = daily.groupBy("location_id", "sku").applyInPandas(partial(_fit_one, mode=mode), STOCK)
    found.write.format("delta").mode("overwrite").save(_stock_path(tables))


def _stock_path(tables: Tables) -> str:
    return str(tables.uri(FORECASTS)) + "_stock"


def _fit_one(rows: pd.DataFrame, mode: str) -> pd.DataFrame:
    import logging

    from prophet import Prophet

    logging.getLogger("cmdstanpy").disabled = True
    history = pd.DataFrame({"ds": pd.to_datetime(rows["date"]), "y": rows["demand"]})
    model = Prophet(seasonality_mode=mode).fit(history)
    future = model.make_future_dataframe(HORIZON, include_history=False)
    found = model.predict(future)[["ds", "yhat", "yhat_lower", "yhat_upper"]]
    return found.assign(location_id=rows["location_id"].iloc[0], sku=rows["sku"].iloc[0])


# Processor time and memory -----------------------------------------------------------------------------


def _processor_seconds() -> float:
    """Of this process and all below it, the JVM and its Python workers, so far."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.Error):
            used = process.cpu_times()
            total += used.user + used.system
    return total


class _watching:
    """Peak memory of the Python workers below this process, MiB: of the largest, and of all together."""

    def __enter__(self) -> dict[str, float]:
        self._found = {"largest_mib": 0.0, "total_mib": 0.0}
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self._found

    def __exit__(self, *_: object) -> None:
        self._halt.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._halt.wait(0.1):
            sizes = [_resident(worker) for worker in psutil.Process().children(recursive=True)]
            sizes = [size for size in sizes if size] or [0.0]
            self._found["largest_mib"] = max(self._found["largest_mib"], *sizes)
            self._found["total_mib"] = max(self._found["total_mib"], sum(sizes))


def _resident(process: psutil.Process) -> float:
    try:
        if "pyspark.daemon" not in process.cmdline():
            return 0.0
        return float(process.memory_info().rss) / 2**20
    except psutil.Error:
        return 0.0


if __name__ == "__main__":
    main()
