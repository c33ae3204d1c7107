from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from pipelines.forecasting.series import from_arrow, from_matrix, mask_stockouts, seed

END = date(2024, 3, 10)


def rows(**series):
    """Arrow rows as Spark hands them over; each value is a list of (day, demand, in_stock, promotion)."""
    names = list(series)
    return pa.table(
        {
            "location_id": ["north"] * len(names),
            "sku": names,
            "category": ["tea"] * len(names),
            "timezone": ["UTC"] * len(names),
            "first_date": pa.array([min((d[0] for d in series[n]), default=None) for n in names], pa.date32()),
            "date": pa.array([[d[0] for d in series[n]] or None for n in names], pa.list_(pa.date32())),
            "demand": pa.array([[d[1] for d in series[n]] or None for n in names], pa.list_(pa.int64())),
            "in_stock": pa.array([[d[2] for d in series[n]] or None for n in names], pa.list_(pa.float64())),
            "promotion": pa.array([[d[3] for d in series[n]] or None for n in names], pa.list_(pa.float64())),
        }
    )


def day(back: int) -> date:
    return END - timedelta(days=back)


class TestFromArrow:
    def test_ragged_series_end_on_the_same_day_and_are_zero_extended(self):
        # given one series that last sold two days ago, in no order, and one that sold on the last day only
        table = rows(old=[(day(2), 7, 1.0, 0.5), (day(4), 5, 1.0, 0.0)], new=[(day(0), 3, 1.0, None)])
        # when
        batch = from_arrow(table, END)
        # then a gap and the days after the last sale are zero, the days before the first unknown
        np.testing.assert_array_equal(batch.demand, [[5, 0, 7, 0, 0], [np.nan, np.nan, np.nan, np.nan, 3]])
        np.testing.assert_array_equal(batch.start, [0, 4])
        np.testing.assert_array_equal(batch.observed, [5, 1])
        assert batch.promotion[0, 2] == 0.5
        assert str(batch.dates[-1]) == "2024-03-10"

    def test_a_series_without_history_has_no_known_day(self):
        batch = from_arrow(rows(old=[(day(1), 7, 1.0, 0.0)], never=[]), END)
        np.testing.assert_array_equal(batch.observed, [2, 0])
        np.testing.assert_array_equal(batch.start, [0, 2])

    def test_a_batch_of_series_without_any_history_has_no_columns(self):
        batch = from_arrow(rows(never=[]), END)
        assert batch.demand.shape == (1, 0)

    def test_days_after_the_end_are_not_looked_at(self):
        batch = from_arrow(rows(a=[(day(1), 7, 1.0, 0.0), (END + timedelta(days=1), 99, 1.0, 0.0)]), END)
        np.testing.assert_array_equal(batch.demand, [[7, 0]])

    def test_a_day_without_stock_and_sales_is_unknown_and_missing_stock_figures_are_not(self):
        table = rows(a=[(day(2), 7, 1.0, 0.0), (day(1), 0, 0.0, 0.0), (day(0), 0, None, 0.0)])
        np.testing.assert_array_equal(from_arrow(table, END).demand, [[7, np.nan, 0]])


@pytest.mark.parametrize(
    ("demand", "in_stock", "expected"),
    [
        (0, 0.0, np.nan),
        (0, 0.01, 0),
        (0, 1.0, 0),
        (4, 0.0, 4),
        (4, 0.5, 4),
        (0, np.nan, 0),
    ],
    ids=["no stock", "some stock", "in stock", "sold without stock", "partly in stock", "stock unknown"],
)
def test_only_zero_demand_of_days_without_any_stock_is_masked(demand, in_stock, expected):
    np.testing.assert_array_equal(mask_stockouts(np.array([demand]), np.array([in_stock])), [expected])


class TestSeriesBatch:
    def test_until_a_cutoff_leaves_nothing_later_in(self):
        batch = from_matrix(np.array([[1.0, 2, 3, 4], [np.nan, np.nan, np.nan, 9]]), END)
        earlier = batch.until(day(1))
        np.testing.assert_array_equal(earlier.demand, [[1, 2, 3], [np.nan] * 3])
        assert earlier.end == day(1)
        np.testing.assert_array_equal(earlier.start, [0, 3])

    def test_until_a_day_before_all_history_is_empty(self):
        assert from_matrix(np.ones((1, 4)), END).until(day(100)).days == 0

    def test_take_drops_the_columns_that_nobody_needs(self):
        batch = from_matrix(np.array([[1.0, 2, 3], [np.nan, np.nan, 9]]), END)
        taken = batch.take(np.array([1]))
        np.testing.assert_array_equal(taken.demand, [[9]])
        assert taken.sku == ("sku-1",)
        np.testing.assert_array_equal(taken.start, [0])

    def test_seeds_depend_on_the_name_alone(self):
        one = from_matrix(np.ones((2, 3)), END, [("a", "b"), ("a", "c")])
        other = from_matrix(np.zeros((1, 9)), day(4), [("a", "c")])
        assert one.seeds[1] == other.seeds[0] == seed("a", "c")
        assert one.seeds[0] != one.seeds[1]
