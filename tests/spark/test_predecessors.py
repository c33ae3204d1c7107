"""New products that go on from the history of an old one."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from pipelines.forecasting.predecessors import PRIOR_DAYS, with_predecessors

LAST = date(2024, 3, 29)
SCHEMA = "location_id string, sku string, date date, demand bigint, in_stock_fraction double"


def days(location: str, sku: str, first: int, last: int, units: int):
    """Rows from `first` to `last` days before the last one."""
    return [(location, sku, LAST - timedelta(days=back), units, 1.0) for back in range(first, last - 1, -1)]


@pytest.fixture(scope="module")
def found(spark):
    rows = [
        *days("berlin", "old", 60, 0, 10),
        *days("berlin", "new", 13, 0, 30),
        *days("boston", "old", 60, 20, 4),
        *days("boston", "other", 5, 0, 1),
        *days("paris", "new", 5, 0, 2),
    ]
    daily = spark.createDataFrame(rows, SCHEMA)
    frame = with_predecessors(daily, {"new": "old", "never": "missing"}).toPandas()
    return frame.set_index(["location_id", "sku", "date"]).sort_index()["demand"]


def test_the_new_one_begins_with_the_old_ones_days_at_its_own_level(found):
    series = found["berlin", "new"]
    # given two weeks at 30 after an old level of 10, which counts a week
    level = (14 * 30 + PRIOR_DAYS * 10) / (14 + PRIOR_DAYS)
    before = series[series.index < LAST - timedelta(days=13)]
    assert len(before) == 47
    assert before.to_numpy() == pytest.approx(level)
    assert (series[series.index >= LAST - timedelta(days=13)] == 30).all()
    assert not series.index.duplicated().any()


def test_one_that_has_not_sold_yet_takes_the_old_level_as_it_is(found):
    assert (found["boston", "new"] == 4).all()
    assert len(found["boston", "new"]) == 41


def test_all_else_is_as_it_was(found):
    assert len(found["paris", "new"]) == 6
    assert (found["boston", "other"] == 1).all()
    assert len(found["berlin", "old"]) == 61


def test_without_predecessors_nothing_is_computed(spark):
    daily = spark.createDataFrame([], SCHEMA)
    assert with_predecessors(daily, {}) is daily
