"""The hourly refresh: from a night's forecasts and today's ledger to a version of today's hours."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipelines.contracts.tables import (
    FORECASTS,
    INVENTORY_POSITIONS,
    QUANTILE_COLUMNS,
    QUANTILES,
    STOCK_MOVEMENTS,
    TRAINING,
)
from pipelines.errors import MissingDataError, OwnershipError, PublishingError
from pipelines.forecasting import publishing, refreshing
from pipelines.forecasting.distributions import demand_quantiles
from pipelines.forecasting.refreshing import refresh
from pipelines.io import published
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.io.published import FORECASTS_TODAY, Published, publish, refreshed_hours
from pipelines.operations.settings import load_settings
from tests.demand_oracle import event, ledger

AS_OF, TODAY = date(2024, 3, 29), datetime(2024, 3, 30, tzinfo=UTC)
BASE = "f-20240329-20240330T020000"
SKUS = ("strong", "normal", "empty", "new")
MEAN, RELATIVE_VARIANCE = 48.0, 0.1


def night(tables: Tables, version: str = BASE) -> None:
    """A version that expects two units an hour of every product, for two days."""
    rows = []
    for sku in SKUS:
        for grain, step, count, mean in (("day", 24, 2, MEAN), ("hour", 1, 48, MEAN / 24)):
            spread = demand_quantiles(np.array(MEAN), np.array(MEAN + RELATIVE_VARIANCE * MEAN**2), QUANTILES)
            if grain == "hour":
                spread = demand_quantiles(np.array(mean), np.array(1.2 * mean), QUANTILES)
            for place in range(count):
                rows.append(
                    {
                        **{"location_id": "s1", "sku": sku, "grain": grain, "forecast_version": version},
                        "target_time": TODAY + timedelta(hours=step * place),
                        **{"yhat": mean, "model": "test", "created_at": TODAY},
                        **dict(zip(QUANTILE_COLUMNS, map(float, spread), strict=True)),
                    }
                )
    tables.append(FORECASTS, pa.Table.from_pylist(rows, schema=FORECASTS.schema))
    publish(tables, Published(published.FORECASTS, version, AS_OF, "run", TODAY))


def morning(tables: Tables) -> None:
    """Until ten o'clock: `strong` sells five an hour, `normal` two; `empty` sells two until its stock is gone at
    four; `new` has neither sales nor stock figures. A later hour is already in the ledger."""
    events = []
    for hour in range(11):
        at = TODAY + timedelta(hours=hour)
        events += [
            event(at + timedelta(minutes=5 * k), "sale", 1, sku="strong", event_id=f"a{hour}-{k}") for k in range(5)
        ]
        events += [event(at + timedelta(minutes=1), "sale", 2, sku="normal", event_id=f"b{hour}")]
        if hour < 4:
            events += [event(at + timedelta(minutes=59, seconds=59), "sale", 2, sku="empty", event_id=f"c{hour}")]
    table = ledger(events)
    tables.append(STOCK_MOVEMENTS, table)
    last = max(table.column("sequence").to_pylist())
    levels = {"strong": 500, "normal": 500, "empty": 0}
    positions = [
        {"location_id": "s1", "sku": sku, "on_hand": level, "on_order": 0, "sequence": last,
         "count_time": TODAY - timedelta(days=3), "counted": 600}
        for sku, level in levels.items()
    ]  # fmt: skip
    tables.overwrite(INVENTORY_POSITIONS, pa.Table.from_pylist(positions, schema=INVENTORY_POSITIONS.schema))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    settings = load_settings(overrides=[f"home={tmp_path_factory.mktemp('refresh')}"])
    tables = Tables(settings)
    night(tables)
    morning(tables)
    return settings, tables


@pytest.fixture(scope="module")
def refreshed(spark, home):
    settings, tables = home
    return refresh(spark, settings, tables, TODAY + timedelta(hours=10, minutes=3))


def hours(tables: Tables, version: str) -> pd.DataFrame:
    rows = tables.read(FORECASTS).to_pandas()
    chosen = rows[(rows["forecast_version"] == version) & (rows["grain"] == "hour")]
    return chosen[chosen["target_time"] < TODAY + timedelta(days=1)].sort_values(["sku", "target_time"])


def test_a_strong_morning_raises_the_rest_of_the_day(home, refreshed):
    _, tables = home
    assert refreshed.version == f"{BASE}-r20240330T10"
    rest = hours(tables, refreshed.version)
    rest = rest[rest["target_time"] >= TODAY + timedelta(hours=10)].groupby("sku")["yhat"].mean()
    # prior gamma of shape 10; 20 expected by ten, tempered by 1 / (1 + 0.01 * 20); 50 sold
    assert rest["strong"] == pytest.approx(2 * (10 + 50 / 1.2) / (10 + 20 / 1.2), rel=0.02)
    assert rest["normal"] == pytest.approx(2)
    # sold eight in four hours with stock: as expected; the six hours without stock tell nothing
    assert rest["empty"] == pytest.approx(2, rel=0.01)
    # nothing sold although nothing is known to be missing
    assert rest["new"] < 1


def test_hours_that_have_passed_and_the_night_s_version_are_not_touched(home, refreshed):
    _, tables = home
    names = ["location_id", "sku", "target_time", "yhat", *QUANTILE_COLUMNS]
    passed = TODAY + timedelta(hours=10)
    before, after = hours(tables, BASE), hours(tables, refreshed.version)
    assert len(after) == 24 * len(SKUS)
    pd.testing.assert_frame_equal(
        after.loc[after["target_time"] < passed, names].reset_index(drop=True),
        before.loc[before["target_time"] < passed, names].reset_index(drop=True),
    )
    rows = tables.read(FORECASTS).to_pandas()
    assert len(rows[rows["forecast_version"] == BASE]) == 50 * len(SKUS)
    assert published.in_force(tables, published.FORECASTS).version == BASE
    assert refreshed_hours(tables).version == refreshed.version


def test_a_second_run_in_the_same_hour_changes_nothing(spark, home, refreshed):
    settings, tables = home
    before = (tables.version(FORECASTS), published.in_force(tables, FORECASTS_TODAY))
    again = refresh(spark, settings, tables, TODAY + timedelta(hours=10, minutes=40))
    assert again.version is None
    assert "in force already" in again.reason
    assert (tables.version(FORECASTS), published.in_force(tables, FORECASTS_TODAY)) == before


def test_midnight_has_nothing_to_refresh(spark, home, refreshed):
    settings, tables = home
    assert "no hour" in refresh(spark, settings, tables, TODAY + timedelta(minutes=10)).reason


def test_a_malformed_refresh_leaves_the_last_one_in_force(spark, home, refreshed, monkeypatch):
    settings, tables = home
    rows = refreshing.refreshed_rows

    def one_series_short(batches, today, passed):
        for batch in batches:
            yield rows(batch.filter(pa.compute.not_equal(batch.column("sku"), "new")), today, passed)

    monkeypatch.setattr(refreshing, "_refreshed", one_series_short)
    with pytest.raises(PublishingError, match="1 series without a forecast"):
        refresh(spark, settings, tables, TODAY + timedelta(hours=11))
    assert refreshed_hours(tables).version == refreshed.version
    assert publishing.stored_versions(tables) == {BASE, refreshed.version}


def test_a_training_under_way_is_not_disturbed(spark, home, refreshed):
    settings, tables = home
    with ownership(settings, TRAINING), pytest.raises(OwnershipError):
        refresh(spark, settings, tables, TODAY + timedelta(hours=12))


def test_the_next_hours_replace_it_and_a_new_night_ends_it(home, refreshed):
    _, tables = home
    # given the versions of the next hours
    later = [publishing.refreshed_version(BASE, TODAY + timedelta(hours=hour)) for hour in (11, 12)]
    for version in later:
        row = {"forecast_version": version, "grain": "hour"}
        tables.append(FORECASTS, pa.Table.from_pylist([row], schema=FORECASTS.schema))
    # then the one in force and the last but one are kept
    assert publishing.delete_old_refreshed(tables) == [refreshed.version]
    assert publishing.stored_versions(tables) == {BASE, *later}
    # and when a new night is published, readers of hours find its own; what was refreshed goes
    night(tables, "f-20240329-20240331T020000")
    assert refreshed_hours(tables) is None
    publishing.delete_old_versions(tables, keep=2)
    assert publishing.stored_versions(tables) == {BASE, "f-20240329-20240331T020000"}


def test_without_forecasts_or_hours_for_today_it_says_what_to_do(spark, home, refreshed, tables, settings):
    with pytest.raises(MissingDataError, match="train first"):
        refresh(spark, settings, tables, TODAY + timedelta(hours=10))
    with pytest.raises(MissingDataError, match="no hours for 2024-04-05"):
        refresh(spark, *home, TODAY + timedelta(days=6, hours=10))
