"""kill -9 in the middle of the nightly training: yesterday's forecasts stay in force, and a run again completes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import deltalake
import numpy as np
import pyarrow as pa
import pytest

from pipelines.contracts.tables import DAILY_DEMAND, LOCATIONS, PRODUCTS, SOURCING
from pipelines.io.delta import Tables
from pipelines.operations.settings import load_settings
from tests.short_spark import SHORT_LIVED

ROOT = Path(__file__).parents[2]
YESTERDAY = date(2024, 5, 30)
TODAY = YESTERDAY + timedelta(days=1)
SERIES, DAYS, HORIZON = 12, 120, 7
SPARK = (
    f"--master local[2] --driver-memory 1g {SHORT_LIVED} --conf spark.ui.enabled=false"
    " --conf spark.sql.shuffle.partitions=2 --conf spark.default.parallelism=2 pyspark-shell"
)


@pytest.fixture
def settings(tmp_path):
    """A home with the demand of twelve series."""
    settings = load_settings(overrides=[f"home={tmp_path}"])
    tables, rng = Tables(settings), np.random.default_rng(1)
    days = [TODAY - timedelta(days=back) for back in range(DAYS)]
    rows = [
        {"location_id": "s1", "sku": f"p{item}", "date": day, "demand": int(rng.poisson(5 + item)), "returned": 0}
        for item in range(SERIES)
        for day in days
    ]
    skus = [f"p{item}" for item in range(SERIES)]
    for table, content in (
        (DAILY_DEMAND, [{**row, "promotion_share": 0.0, "in_stock_fraction": 1.0} for row in rows]),
        (PRODUCTS, [{"sku": sku, "name": sku, "category": "tea"} for sku in skus]),
        (LOCATIONS, [{"location_id": "s1", "kind": "store", "timezone": "UTC"}]),
        (SOURCING, [{"location_id": "s1", "sku": sku} for sku in skus]),
    ):
        tables.overwrite(table, pa.Table.from_pylist(content, schema=table.schema))
    return settings


def train(settings, as_of: date, failpoint: str = "") -> int:
    options = {"home": settings.home, "forecast.horizon_days": HORIZON, "forecast.hourly_horizon_hours": 24}
    command = [sys.executable, str(ROOT / "jobs" / "train_forecasts.py"), "--as-of", as_of.isoformat()]
    for name, value in options.items():
        command += ["--set", f"{name}={value}"]
    with open(settings.home_path / "train.log", "ab") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYSPARK_SUBMIT_ARGS": SPARK, "STOCKCAST_FAILPOINT": failpoint},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            return process.wait(500)
        finally:
            # Its JVM too: the group is ours.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def read(settings, table: str):
    """The table as an outsider reads it."""
    return deltalake.DeltaTable(str(settings.home_path / "tables" / table)).to_pandas()


def in_force(settings) -> str:
    rows = read(settings, "gold/published")
    return rows[rows["artefact"] == "forecasts"]["version"].iloc[0]


def complete(settings, version: str) -> bool:
    rows = read(settings, "gold/forecasts")
    rows = rows[(rows["forecast_version"] == version) & (rows["grain"] == "day")]
    return len(rows) == SERIES * HORIZON and rows.groupby("sku").size().eq(HORIZON).all()


@pytest.mark.timeout(2_000)
def test_a_training_that_dies_leaves_yesterdays_forecasts_in_force(settings):
    # given yesterday's forecasts
    assert train(settings, YESTERDAY) == 0, (settings.home_path / "train.log").read_text()[-3000:]
    before = in_force(settings)
    assert complete(settings, before)
    # when the next training dies, after the series and just before the switch
    for failpoint in ("train.after_series", "train.before_switch"):
        assert train(settings, TODAY, failpoint) == -signal.SIGKILL, failpoint
        # then nothing has changed for those who read
        assert in_force(settings) == before
        assert complete(settings, before)
    # and run once more it completes
    assert train(settings, TODAY) == 0, (settings.home_path / "train.log").read_text()[-3000:]
    after = in_force(settings)
    assert after > before
    assert complete(settings, after)
