"""The pools' sums from the table of daily demand, against pandas; nothing later than the cutoff, like for like."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from pipelines.forecasting.pooled.from_tables import pool_data
from pipelines.forecasting.series import from_matrix

FIRST, END = date(2023, 1, 1), date(2023, 12, 31)
DAYS = 365


@pytest.fixture(scope="module")
def demand():
    """Four series over a year: two all the time, one that comes in June, one that goes in June."""
    rng = np.random.default_rng(3)
    dates = pd.date_range(FIRST, END)
    frames = []
    for location, sku, begin, stop in (
        ("s1", "tea", 0, DAYS),
        ("s2", "rice", 0, DAYS),
        ("s1", "new", 150, DAYS),
        ("s2", "gone", 0, 150),
    ):
        units = rng.poisson(10, DAYS)
        frames.append(
            pd.DataFrame({"location_id": location, "sku": sku, "date": dates, "demand": units}).iloc[begin:stop]
        )
    return pd.concat(frames).assign(date=lambda rows: rows["date"].dt.date)


@pytest.fixture(scope="module")
def data(spark, demand):
    products = spark.createDataFrame(pd.DataFrame({"sku": ["tea", "rice", "new"], "category": ["a", "b", "a"]}))
    ends = [END, END - timedelta(days=240)]
    return pool_data(spark.createDataFrame(demand), products, FIRST, ends, from_matrix(np.ones((1, 9)), END))


def expected(demand, series, until):
    rows = demand[demand["sku"].isin(series) & (demand["date"] <= until)]
    return rows.groupby("date")["demand"].sum().to_numpy(float)


def test_only_series_that_were_there_all_the_time_are_added_up(data, demand):
    pool = data[END]
    np.testing.assert_array_equal(pool.category["a"], expected(demand, ["tea"], END))
    np.testing.assert_array_equal(pool.location["s2"], expected(demand, ["rice"], END))


def test_the_mix_is_what_each_location_sold_of_each_category(data, demand):
    tea, rice = (demand[demand["sku"] == sku]["demand"].sum() for sku in ("tea", "rice"))
    assert data[END].mix == {("a", "s1"): tea, ("b", "s2"): rice}


def test_a_cutoff_knows_nothing_of_what_came_later(data, demand):
    cutoff = END - timedelta(days=240)
    pool = data[cutoff]
    # the product that goes in June has not gone yet
    np.testing.assert_array_equal(pool.location["s2"], expected(demand, ["rice", "gone"], cutoff))
    assert pool.end == pool.sample.end == cutoff


def test_a_product_that_the_catalog_does_not_know_has_a_category_of_its_own(data):
    assert set(data[END].category) == {"a", "b", "unknown"}


def test_where_all_series_are_new_all_count(spark, demand):
    new = demand[demand["sku"] == "new"]
    old = pd.DataFrame({"location_id": "s1", "sku": "old", "date": [FIRST], "demand": [1]})
    products = spark.createDataFrame(pd.DataFrame({"sku": ["new"], "category": ["a"]}))
    data = pool_data(
        spark.createDataFrame(pd.concat([new, old])), products, FIRST, [END], from_matrix(np.ones((1, 9)), END)
    )
    assert data[END].category["a"].sum() == new["demand"].sum()


def test_without_sales_there_is_no_pool(spark, demand):
    products = spark.createDataFrame(pd.DataFrame({"sku": ["tea"], "category": ["a"]}))
    empty = spark.createDataFrame(demand.assign(demand=0))
    assert pool_data(empty, products, FIRST, [END], from_matrix(np.ones((1, 9)), END)) == {}
