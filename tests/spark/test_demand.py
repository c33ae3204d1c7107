"""Demand from the ledger, against plain-Python oracles and cases made by hand."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from demand_oracle import Event, at, demand, event, ledger, random_ledger, stock_histories
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from pyspark.sql import DataFrame, SparkSession

from pipelines.contracts.tables import DAILY_DEMAND, DEMAND, HOURLY_DEMAND, STOCK_MOVEMENTS
from pipelines.demand.aggregate import aggregate_demand
from pipelines.demand.demand import daily_demand, hourly_demand, until
from pipelines.errors import OwnershipError
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.operations.settings import Settings, load_settings

HOUR, DAY = timedelta(hours=1), timedelta(days=1)

Rows = Callable[..., list[dict[str, Any]]]


def collected(frame: DataFrame) -> list[dict[str, Any]]:
    rows = frame.toArrow().to_pylist()
    for row in rows:
        start = row.pop("hour", None) or row.pop("date")
        row["start"] = start if isinstance(start, datetime) else datetime(*start.timetuple()[:3], tzinfo=UTC)
        for name in ("promotion_share", "in_stock_fraction"):
            row[name] = round(row[name], 9)
    return sorted(rows, key=lambda row: (row["location_id"], row["sku"], row["start"]))


@pytest.fixture
def hourly(spark: SparkSession) -> Rows:
    """Hourly demand of events."""
    return lambda events: collected(hourly_demand(spark.createDataFrame(ledger(events))))


@pytest.fixture
def daily(spark: SparkSession) -> Rows:
    """Daily demand of events."""
    return lambda events: collected(daily_demand(spark.createDataFrame(ledger(events))))


def column(rows: list[dict[str, Any]], name: str) -> list[Any]:
    return [row[name] for row in rows]


def test_random_ledgers_agree_with_the_oracle(hourly: Rows, daily: Rows) -> None:
    events = random_ledger(seed=7, count=500)

    assert hourly(events) == list(demand(events, HOUR))
    assert daily(events) == list(demand(events, DAY))


def test_the_order_of_the_rows_does_not_matter(spark: SparkSession) -> None:
    events = random_ledger(seed=11, count=300)
    shuffled = random.Random(0).sample(events, len(events))
    there, back = (spark.createDataFrame(ledger(rows)) for rows in (events, shuffled))

    for transformation in (hourly_demand, daily_demand):
        assert collected(transformation(there.repartition(3))) == collected(transformation(back.coalesce(1)))


@hypothesis_settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=stock_histories())
def test_the_stock_trajectory_is_the_promised_one(hourly: Rows, events: list[Event]) -> None:
    """Given events that coincide with each other and with the hours' edges, in any order."""
    assert hourly(events) == list(demand(events, HOUR))


def test_returns_are_kept_apart_and_never_lessen_demand(hourly: Rows) -> None:
    rows = hourly(
        [
            event("2024-03-01 10:05", "sale", 2, unit_price=1.5),
            event("2024-03-01 10:06", "return", 5, unit_price=1.5),
            event("2024-03-01 11:30", "return", 1, unit_price=1.5),
            event("2024-03-01 12:00", "sale", 1, unit_price=1.5),
        ]
    )

    assert column(rows, "demand") == [2, 0, 1]
    assert column(rows, "returned") == [5, 1, 0]
    assert column(rows, "revenue") == [Decimal("3.00"), Decimal("0.00"), Decimal("1.50")]


def test_a_series_without_a_sale_has_no_demand(hourly: Rows, daily: Rows) -> None:
    events = [event("2024-03-01 10:00", "return", 1), event("2024-03-02 10:00", "receipt", 5)]

    assert hourly(events) == []
    assert daily(events) == []


def test_promotion_share_is_of_units(daily: Rows) -> None:
    rows = daily(
        [
            event("2024-03-01 10:00", "sale", 3, promotion=True),
            event("2024-03-01 11:00", "sale", 1, promotion=False),
            event("2024-03-01 12:00", "sale", 2, promotion=None),
        ]
    )

    assert column(rows, "promotion_share") == [0.5]


@pytest.mark.parametrize(
    ("price", "quantity", "revenue"),
    [
        pytest.param(1.15, 3, "3.45", id="not-a-binary-fraction"),
        pytest.param(0.005, 1, "0.01", id="half-a-cent-up"),
        pytest.param(0.0049, 1, "0.00", id="below-half-a-cent"),
        pytest.param(None, 4, "0.00", id="no-price"),
        pytest.param(1e300, 4, "0.00", id="beyond-money"),
    ],
)
def test_revenue_is_rounded_to_cents_per_event(daily: Rows, price: float | None, quantity: int, revenue: str) -> None:
    rows = daily([event("2024-03-01 10:00", "sale", quantity, unit_price=price)])

    assert column(rows, "revenue") == [Decimal(revenue)]


def test_the_gap_between_first_and_last_sale_is_filled_with_zeros(hourly: Rows, daily: Rows) -> None:
    events = [
        event("2024-02-28 22:10", "sale", 1),
        event("2024-03-01 00:00", "sale", 4),
        event("2024-03-05 08:00", "receipt", 9),
    ]

    hours, days = hourly(events), daily(events)

    assert column(days, "start") == [at("2024-02-28"), at("2024-02-29"), at("2024-03-01")]
    assert column(days, "demand") == [1, 0, 4]
    assert [hours[0]["start"], hours[-1]["start"]] == [at("2024-02-28 22:00"), at("2024-03-01 00:00")]
    assert len(hours) == 27
    assert sum(column(hours, "demand")) == 5


def test_periods_are_utc_to_the_microsecond(spark: SparkSession, daily: Rows) -> None:
    """Given a session in another zone: the day still ends at midnight UTC."""
    last = datetime(2024, 3, 30, 23, 59, 59, 999_999, tzinfo=UTC)
    events = [event(last, "sale", 1), event("2024-03-31 00:00", "sale", 2)]
    spark.conf.set("spark.sql.session.timeZone", "America/New_York")
    try:
        rows = daily(events)
    finally:
        spark.conf.set("spark.sql.session.timeZone", "UTC")

    assert [(row["start"], row["demand"]) for row in rows] == [(at("2024-03-30"), 1), (at("2024-03-31"), 2)]


SALE_AT_NINE = event("2024-03-01 09:00", "sale", 1)
SALE_AT_ELEVEN = event("2024-03-01 11:00", "sale", 1)


@pytest.mark.parametrize(
    ("events", "fractions"),
    [
        pytest.param([], [1.0, 1.0, 1.0], id="never-observed"),
        pytest.param([event("2024-03-01 12:30", "count", 0)], [1.0, 1.0, 1.0], id="observed-later"),
        pytest.param([event("2024-03-01 08:00", "count", 5)], [1.0, 1.0, 1.0], id="enough"),
        pytest.param([event("2024-03-01 08:00", "count", 1)], [0.0, 0.0, 0.0], id="sold-out-at-once"),
        pytest.param(
            [event("2024-03-01 08:00", "count", 1), event("2024-03-01 10:15", "receipt", 9)],
            [0.0, 0.75, 1.0],
            id="receipt-in-the-second-hour",
        ),
        pytest.param(
            [event("2024-03-01 08:00", "count", 1), event("2024-03-01 10:00", "receipt", 9)],
            [0.0, 1.0, 1.0],
            id="receipt-on-the-hour",
        ),
        pytest.param(
            [event("2024-03-01 08:00", "receipt", 2), event("2024-03-01 09:30", "write_off", 1)],
            [0.5, 0.0, 0.0],
            id="written-off",
        ),
        pytest.param(
            [event("2024-03-01 08:00", "receipt", 9), event("2024-03-01 10:45", "count", 0)],
            [1.0, 0.75, 0.0],
            id="count-of-zero-overrules",
        ),
        pytest.param(
            [
                event("2024-03-01 08:00", "count", 0),
                event("2024-03-01 09:30", "receipt", 1, event_id="b"),
                event("2024-03-01 09:30", "count", 0, event_id="c"),
            ],
            [0.0, 0.0, 0.0],
            id="same-instant-count-last-by-id",
        ),
        pytest.param(
            [
                event("2024-03-01 08:00", "count", 0),
                event("2024-03-01 09:30", "receipt", 3, event_id="c"),
                event("2024-03-01 09:30", "count", 0, event_id="b"),
            ],
            [0.5, 1.0, 1.0],
            id="same-instant-receipt-last-by-id",
        ),
    ],
)
def test_in_stock_fraction_is_the_share_of_time_with_stock(
    hourly: Rows, events: list[Event], fractions: list[float]
) -> None:
    rows = hourly([SALE_AT_ELEVEN, *events, SALE_AT_NINE])

    assert column(rows, "in_stock_fraction") == fractions


def test_a_days_in_stock_fraction_is_of_its_24_hours(daily: Rows) -> None:
    """Given stock from midnight to 06:00, then none for a day and a half."""
    rows = daily(
        [
            event("2024-03-01 00:00", "count", 2),
            event("2024-03-01 06:00", "sale", 2),
            event("2024-03-02 18:00", "receipt", 5),
            event("2024-03-02 19:00", "sale", 1),
        ]
    )

    assert column(rows, "in_stock_fraction") == [0.25, 0.25]


def test_as_of_leaves_out_what_happened_after_that_day(spark: SparkSession) -> None:
    events = [event("2024-03-01 23:59", "sale", 1), event("2024-03-02 00:00", "sale", 2)]
    frame = spark.createDataFrame(ledger(events))

    assert [row["quantity"] for row in until(frame, date(2024, 3, 1)).collect()] == [1]
    assert until(frame, date(2024, 3, 2)).count() == 2
    assert until(frame, None).count() == 2


@pytest.fixture
def quiet(settings: Settings) -> Settings:
    """Settings that store totals and send nothing."""
    return load_settings(overrides=[f"home={settings.home}", "totals.publish=false"])


def test_the_job_replaces_both_tables(spark: SparkSession, quiet: Settings, tables: Tables) -> None:
    """When a late event arrives and the aggregation runs again, its day is corrected."""
    events = random_ledger(seed=3, count=120, days=3)
    tables.append(STOCK_MOVEMENTS, ledger(events[:80]))
    aggregate_demand(spark, quiet, tables, as_of=None)
    tables.append(STOCK_MOVEMENTS, ledger(events[80:]))

    aggregate_demand(spark, quiet, tables, as_of=date(2024, 2, 29))

    known = [row for row in events if row["event_time"] < at("2024-03-01")]
    for table, step in ((HOURLY_DEMAND, HOUR), (DAILY_DEMAND, DAY)):
        assert collected(tables.frame(spark, table)) == list(demand(known, step))


def test_a_ledger_without_sales_gives_empty_tables(spark: SparkSession, quiet: Settings, tables: Tables) -> None:
    aggregate_demand(spark, quiet, tables, as_of=None)

    assert tables.exists(HOURLY_DEMAND)
    assert tables.read(DAILY_DEMAND).num_rows == 0


def test_a_second_aggregation_is_refused(spark: SparkSession, quiet: Settings, tables: Tables) -> None:
    with ownership(quiet, DEMAND), pytest.raises(OwnershipError):
        aggregate_demand(spark, quiet, tables, as_of=None)
