"""Lead times as they were: by lane and supplier, open orders counted, few orders drawn towards what is stated."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from pipelines.inventory.lead_time_demand import Protection, protection_intervals
from pipelines.inventory.lead_times import LeadTimeRecords, Stated, lead_time_points, records_of
from pipelines.inventory.scenarios import scenarios

AS_OF = date(2024, 5, 31)


def stated(mean=7.0, deviation=1.0, supplier="S", location="L") -> Stated:
    return Stated(np.array([supplier], object), np.array([location], object), np.array([mean]), np.array([deviation]))


def records(days, supplier="S", location="L", arrived=None) -> LeadTimeRecords:
    days = np.asarray(days, float)
    names = np.full(len(days), supplier, object), np.full(len(days), location, object)
    return LeadTimeRecords(*names, days, np.ones(len(days), bool) if arrived is None else np.asarray(arrived))


def both(*parts: LeadTimeRecords) -> LeadTimeRecords:
    columns = ("supplier", "location", "days", "arrived")
    return LeadTimeRecords(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))


def test_without_a_record_it_is_the_stated_gamma_distribution():
    points = lead_time_points(LeadTimeRecords.none(), stated())[0]

    assert points == pytest.approx(stats.gamma(49, scale=1 / 7).ppf((np.arange(64) + 0.5) / 64))


def test_a_certain_lead_time_stays_certain():
    assert (lead_time_points(LeadTimeRecords.none(), stated(deviation=0.0)) == 7.0).all()


def test_many_orders_are_believed():
    seen = np.random.default_rng(0).choice([3.0, 4.0, 9.0], 4000, p=[0.5, 0.3, 0.2])
    points = lead_time_points(records(seen), stated())[0]

    assert [(points == days).mean() for days in (3.0, 4.0, 9.0)] == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


@pytest.mark.parametrize(("orders", "share"), [(10, 10 / 20), (40, 40 / 50), (0, 0.0)])
def test_a_lane_with_few_orders_is_drawn_to_its_supplier(orders, share):
    others = records(np.full(3000, 5.0), location="elsewhere")
    points = lead_time_points(both(others, records(np.full(orders, 12.0))), stated())[0]

    # Its supplier's distribution has the lane's own orders too; they are few among 3,000.
    assert (points == 12.0).mean() == pytest.approx(share, abs=0.03)


def test_another_supplier_says_nothing():
    points = lead_time_points(records(np.full(500, 30.0), supplier="T"), stated())[0]

    assert points.max() < 12


def test_open_orders_keep_the_slow_ones_in_the_picture():
    # An order a day for 60 days, taking 2 or 20 days in turn; what is not there yet is open.
    age = np.arange(60, 0, -1).astype(float)
    takes = np.where(np.arange(60) % 2 == 0, 2.0, 20.0)
    arrived = takes <= age
    seen = records(np.where(arrived, takes, age), arrived=arrived)
    points = lead_time_points(seen, stated(mean=2.0, deviation=0.0))[0]

    without_open = np.mean(takes[arrived] == 20.0)
    assert without_open < 0.42
    assert (points == 20.0).mean() == pytest.approx(0.5 * 60 / 65, abs=0.06)


def test_intervals_take_the_points_as_equally_likely_and_add_the_review():
    points = np.array([[6.0, 7.0, 8.0], [2.0, 2.0, 30.0]])
    sampled = protection_intervals(Protection.observed(points, np.array([1.0, 0.0])), scenarios(1024))

    for row, lead_times in ((0, (7.0, 8.0, 9.0)), (1, (2.0, 2.0, 30.0))):
        for value in set(lead_times):
            expected = lead_times.count(value) / 3
            assert (sampled[row] == value).mean() == pytest.approx(expected, abs=0.01)


# From the tables. --------------------------------------------------------------------------------------------


def at(day: int, hour: int = 12) -> datetime:
    return datetime(2024, 5, 1, hour, tzinfo=UTC) + timedelta(days=day - 1)


def orders_table(*rows: tuple[str, str, datetime]) -> pa.Table:
    return pa.table(
        {
            "order_id": [row[0] for row in rows],
            "state": [row[1] for row in rows],
            "created_at": pa.array([row[2] for row in rows], pa.timestamp("us", "UTC")),
            "supplier_id": ["S"] * len(rows),
            "location_id": ["L"] * len(rows),
        }
    )


def receipts_table(*rows: tuple[str | None, datetime]) -> pa.Table:
    return pa.table(
        {
            "order_id": pa.array([row[0] for row in rows], pa.string()),
            "event_time": pa.array([row[1] for row in rows], pa.timestamp("us", "UTC")),
        }
    )


def test_the_first_receipt_ends_an_order_and_those_that_came_to_nothing_do_not_count():
    orders = orders_table(
        ("a", "received", at(1)), ("b", "shipped", at(21)), ("c", "cancelled", at(1)), ("d", "partly_received", at(10))
    )
    receipts = receipts_table(("a", at(7)), ("d", at(14)), ("d", at(20)), (None, at(3)))

    found = records_of(orders, receipts, AS_OF)

    assert found.days.tolist() == [6.0, 10.5 + 0.0, 4.0]
    assert found.arrived.tolist() == [True, False, True]


def test_nothing_after_as_of_is_known():
    orders = orders_table(("a", "received", at(1)), ("late", "shipped", at(20)))
    receipts = receipts_table(("a", at(12)))

    found = records_of(orders, receipts, date(2024, 5, 10))

    assert found.arrived.tolist() == [False]
    assert found.days.tolist() == [9.5]


def test_no_orders_are_no_records():
    orders, receipts = orders_table(("a", "received", at(1))), receipts_table(("a", at(3)))
    found = records_of(orders.slice(0, 0), receipts.slice(0, 0), AS_OF)

    assert len(found.days) == 0
