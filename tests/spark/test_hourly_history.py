"""From hourly demand to what training is told of a series' hours."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from pipelines.forecasting import frames
from pipelines.forecasting.censoring import Censoring, read_series

FIRST, LAST = date(2024, 3, 1), date(2024, 3, 20)
NOON = datetime(2024, 3, 20, 12, tzinfo=UTC)


def hour(back: int, sku: str, demand: int, in_stock: float | None) -> dict:
    return {
        "location_id": "s1",
        "sku": sku,
        "hour": NOON - timedelta(hours=back),
        "demand": demand,
        "in_stock_fraction": in_stock,
    }


@pytest.fixture(scope="module")
def history(spark):
    rows = [
        # tea ran out in its last hour; it sold once from no recorded stock; one row is before all that counts
        hour(0, "tea", 3, 0.25),
        hour(1, "tea", 2, 0.0),
        hour(2, "tea", 0, 0.0),
        hour(100, "tea", 5, 1.0),
        hour(24 * 40, "tea", 9, 0.0),
        # milk was always there; stock of bread is not known
        hour(0, "milk", 1, 1.0),
        hour(0, "bread", 1, None),
    ]
    schema = "location_id string, sku string, hour timestamp, demand long, in_stock_fraction double"
    hourly = spark.createDataFrame(pd.DataFrame(rows).astype({"in_stock_fraction": "float64"}), schema)
    return frames.hourly_history(hourly, FIRST, LAST, sold_days=2)


def test_hours_without_stock_and_recent_sales(history):
    found = history.toPandas().set_index("sku")
    tea = found.loc["tea"]
    out = dict(zip((pd.Timestamp(at) for at in tea["out_hour"]), tea["out_share"], strict=True))
    naive = pd.Timestamp(NOON).tz_localize(None)
    assert {(naive - at) / pd.Timedelta(hours=1): share for at, share in out.items()} == {0: 0.75, 1: -1.0, 2: 1.0}
    sold = dict(zip(tea["sold_hour"], tea["sold_units"], strict=True))
    assert sorted(sold.values()) == [2, 3]
    assert tea["ends_out"]
    for sku in ("milk", "bread"):
        assert len(found.loc[sku, "out_hour"]) == 0
        assert not found.loc[sku, "ends_out"]


def test_series_are_read_with_it_and_without_any_hour(spark, history):
    # given two series with twenty days, of which one has no hours at all
    days = pd.DataFrame({"date": pd.date_range(FIRST, LAST).date, "demand": 8, "promotion_share": 0.0})
    daily = pd.concat(
        [days.assign(location_id="s1", sku=sku, in_stock_fraction=1.0) for sku in ("tea", "salt")], ignore_index=True
    )
    daily.loc[(daily["sku"] == "tea") & (daily["date"] == LAST), ["demand", "in_stock_fraction"]] = [5, 1 - 1.75 / 24]
    daily_frame = spark.createDataFrame(daily)
    requested = daily_frame.select("location_id", "sku").distinct()
    products = spark.createDataFrame([("tea", "drinks"), ("salt", "food")], "sku string, category string")
    locations = spark.createDataFrame([("s1", "Europe/Berlin")], "location_id string, timezone string")
    rows = frames.series_rows(daily_frame, requested, products, locations, FIRST, history).toArrow()
    # when read two days after the last sale
    batch = read_series(rows, LAST + timedelta(days=2), Censoring())
    tea, salt = (batch.demand[batch.sku.index(sku)] for sku in ("tea", "salt"))
    # then the day of the last sale is completed, and the days after it are unknown where stock had run out
    assert 5 < tea[-3] < 6.5
    assert np.isnan(tea[-2:]).all()
    np.testing.assert_array_equal(salt[-3:], [8, 0, 0])
