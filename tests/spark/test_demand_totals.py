"""Totals per region and for the chain: exact sums, corrected by late events, never doubled."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from demand_oracle import Event, at, event, ledger, random_ledger, totals
from pyspark.sql import DataFrame, SparkSession

from pipelines.contracts.tables import DEMAND_TOTALS, HOURLY_DEMAND, LOCATIONS, STOCK_MOVEMENTS
from pipelines.demand import totals as module
from pipelines.demand.aggregate import aggregate_demand
from pipelines.demand.sliding import totals_of
from pipelines.demand.totals import Totals, run_totals, start_totals
from pipelines.demand.windows import (
    MEASURES,
    NO_REPEATS,
    Facts,
    location_totals,
    sale_lines,
    scope_sums,
    scope_sums_of_few,
    shape_of,
    windows_of,
)
from pipelines.errors import OwnershipError, UsageError
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.operations.settings import Settings, load_settings

REGIONS = {"s0": "north", "s1": "north", "s2": "south"}
HOURLY = windows_of(60)
SHAPE = shape_of(60)


@pytest.fixture
def quiet(settings: Settings) -> Settings:
    """Settings that store totals and send nothing."""
    overrides = [f"home={settings.home}", "totals.publish=false", "totals.trigger_seconds=0"]
    return load_settings(overrides=overrides)


@pytest.fixture
def catalogued(tables: Tables) -> Tables:
    """Tables whose catalog knows the regions."""
    tables.overwrite(LOCATIONS, locations(REGIONS))
    tables.ensure(DEMAND_TOTALS)
    return tables


def locations(regions: dict[str, str]) -> pa.Table:
    rows = [{"location_id": name, "region": region} for name, region in regions.items()]
    return pa.Table.from_pylist(rows, schema=LOCATIONS.schema)


def stored(tables: Tables) -> dict[Any, tuple[int, int, Decimal]]:
    return by_key(tables.read(DEMAND_TOTALS))


def by_key(rows: pa.Table) -> dict[Any, tuple[int, int, Decimal]]:
    found = {
        (row["scope"], row["window_start"]): (row["orders"], row["units"], row["revenue"]) for row in rows.to_pylist()
    }
    assert len(found) == rows.num_rows
    return found


@pytest.mark.parametrize("minutes", [15, 1440])
def test_random_totals_agree_with_the_oracle(spark: SparkSession, minutes: int) -> None:
    events = random_ledger(seed=5, count=400)
    windows = windows_of(minutes)
    per_location = location_totals(sale_lines(spark.createDataFrame(ledger(events)), windows))
    shape = shape_of(minutes)
    by_spark = scope_sums(per_location, spark.createDataFrame(locations(REGIONS)), MEASURES, shape).toArrow()
    few = scope_sums_of_few(per_location.toArrow(), REGIONS, MEASURES, shape)

    expected = totals(events, REGIONS, timedelta(minutes=minutes))
    for sums in (by_spark, few):
        numbers = set(sums["period"].to_pylist())
        assert by_key(totals_of(Facts(sums, NO_REPEATS), numbers, shape)) == expected


def test_regions_are_the_sum_of_their_stores_and_global_of_the_regions(spark: SparkSession) -> None:
    """Given prices whose binary sums depend on their order; s9 is in no region."""
    events = [
        event("2024-03-01 10:00", "sale", n % 3 + 1, event_id=f"e{n}", location_id=f"s{n % 4}", unit_price=0.1 * n)
        for n in range(200)
    ]
    per_location = location_totals(sale_lines(spark.createDataFrame(ledger(events)), HOURLY))
    stores = {row["location_id"]: row for row in per_location.toArrow().to_pylist()}
    sums = scope_sums(per_location, spark.createDataFrame(locations(REGIONS)), MEASURES, SHAPE).toArrow()
    numbers = set(sums["period"].to_pylist())
    rows = totals_of(Facts(sums, NO_REPEATS), numbers, SHAPE)
    found = {scope: numbers for (scope, _), numbers in by_key(rows).items()}

    assert set(found) == {"north", "south", "unknown", "global"}
    for scope, members in {"north": ["s0", "s1"], "south": ["s2"], "unknown": ["s3"], "global": stores}.items():
        orders, units, revenue = found[scope]
        assert orders == sum(stores[name]["orders"] for name in members)
        assert units == sum(stores[name]["units"] for name in members)
        assert revenue == Decimal(sum(stores[name]["cents"] for name in members)) / 100


def test_an_order_is_a_ticket_of_a_location(spark: SparkSession) -> None:
    """Given a ticket of three lines, the same number at another store, a ticket named like an event, and two
    sales without a ticket: 1 + 1 + 1 + 2 orders; a ticket of returns only is none."""
    time = "2024-03-01 10:00"
    events = [
        *(event(time, "sale", 1, event_id=f"line{n}", ticket_id="t1", location_id="s0") for n in range(3)),
        event(time, "sale", 1, event_id="other", ticket_id="t1", location_id="s1"),
        event(time, "sale", 1, event_id="alone1", location_id="s0"),
        event(time, "sale", 1, event_id="alone2", location_id="s0"),
        event(time, "sale", 1, event_id="named", ticket_id="alone1", location_id="s0"),
        event(time, "return", 1, event_id="back", ticket_id="t9", location_id="s0"),
    ]
    per_location = location_totals(sale_lines(spark.createDataFrame(ledger(events)), HOURLY))

    assert {row["location_id"]: row["orders"] for row in per_location.collect()} == {"s0": 4, "s1": 1}


class Published:
    """Collects what a refresh sends."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def __call__(self, rows: pa.Table) -> None:
        self.rows += rows.to_pylist()

    def take(self) -> list[tuple[str, Any, int]]:
        taken = [(row["scope"], row["window_start"], row["units"]) for row in self.rows]
        self.rows.clear()
        return taken


@dataclass
class Keeper:
    """The totals of one process, and what they sent."""

    spark: SparkSession
    tables: Tables
    published: Published = field(default_factory=Published)

    def __post_init__(self) -> None:
        self.totals = Totals(self.spark, self.tables, SHAPE, self.published)

    def append(self, events: list[Event]) -> DataFrame:
        rows = ledger(events)
        self.tables.append(STOCK_MOVEMENTS, rows)
        return self.spark.createDataFrame(rows)

    def add(self, *events: Event) -> int:
        return self.totals.refresh(self.append(list(events)))


@pytest.fixture(params=["live", "catching-up"])
def keeper(
    request: pytest.FixtureRequest, spark: SparkSession, catalogued: Tables, monkeypatch: pytest.MonkeyPatch
) -> Keeper:
    """Totals kept in memory, and the same computed by Spark from the ledger."""
    if request.param == "catching-up":
        monkeypatch.setattr(module, "LIVE_SALES", 0)
    return Keeper(spark, catalogued)


def test_a_late_event_corrects_its_window_and_only_changes_are_sent(keeper: Keeper) -> None:
    ten, eleven = at("2024-03-01 10:00"), at("2024-03-01 11:00")
    keeper.add(event("2024-03-01 10:10", "sale", 2, location_id="s0"))
    keeper.add(event("2024-03-01 11:10", "sale", 5, location_id="s2"))
    assert keeper.published.take() == [
        ("global", ten, 2),
        ("north", ten, 2),
        ("global", eleven, 5),
        ("south", eleven, 5),
    ]

    changed = keeper.add(event("2024-03-01 10:20", "sale", 3, location_id="s2"))

    assert changed == 2
    assert keeper.published.take() == [("global", ten, 5), ("south", ten, 3)]
    assert {key: value[1] for key, value in stored(keeper.tables).items()} == {
        ("global", ten): 5,
        ("north", ten): 2,
        ("south", ten): 3,
        ("global", eleven): 5,
        ("south", eleven): 5,
    }


def test_a_repeated_batch_changes_and_sends_nothing(keeper: Keeper) -> None:
    """Given the same process, and one that starts anew."""
    batch = keeper.append(random_ledger(seed=2, count=60, days=1))
    keeper.totals.refresh(batch)
    before = stored(keeper.tables)
    keeper.published.take()

    again = [keeper.totals.refresh(batch), Keeper(keeper.spark, keeper.tables, keeper.published).totals.refresh(batch)]

    assert (again, keeper.published.take()) == ([0, 0], [])
    assert stored(keeper.tables) == before


def test_totals_that_were_sent_and_not_stored_are_sent_again(spark: SparkSession, catalogued: Tables) -> None:
    """Given a crash between sending and storing, the repeated batch sends the same rows."""
    published = Published()

    def crash(rows: pa.Table) -> None:
        published(rows)
        raise ConnectionError

    keeper = Keeper(spark, catalogued)
    batch = keeper.append([event("2024-03-01 10:10", "sale", 2, location_id="s0")])
    with pytest.raises(ConnectionError):
        Totals(spark, catalogued, SHAPE, crash).refresh(batch)

    keeper.totals.refresh(batch)

    sent = keeper.published.take()
    assert sent == published.take()
    assert len(sent) == 2


def test_scattered_windows_leave_those_between_alone(keeper: Keeper) -> None:
    """Given a batch with an event a month late, only the two windows it touches are computed."""
    keeper.append([event("2024-03-10 10:00", "sale", 9, location_id="s0")])

    keeper.add(
        event("2024-03-01 10:00", "sale", 1, location_id="s0"),
        event("2024-03-31 10:00", "sale", 2, location_id="s0"),
    )

    starts = {start for _, start in stored(keeper.tables)}
    assert starts == {at("2024-03-01 10:00"), at("2024-03-31 10:00")}


def test_a_location_that_moved_leaves_zeros_behind(keeper: Keeper) -> None:
    ten = at("2024-03-01 10:00")
    keeper.add(event("2024-03-01 10:10", "sale", 2, location_id="s2"))
    keeper.tables.overwrite(LOCATIONS, locations({**REGIONS, "s2": "west"}))

    keeper.add(event("2024-03-01 10:20", "sale", 1, location_id="s2"))

    units = {scope: numbers[1] for (scope, start), numbers in stored(keeper.tables).items() if start == ten}
    assert units == {"global": 3, "south": 0, "west": 3}


def test_live_and_catching_up_take_turns(
    spark: SparkSession, catalogued: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given live batches, one too large to be live, and live ones again: memory and ledger agree."""
    events = random_ledger(seed=13, count=150, days=1)
    keeper = Keeper(spark, catalogued)
    for part in (events[:30], events[30:60]):
        keeper.add(*part)
    with monkeypatch.context() as patch:
        patch.setattr(module, "LIVE_SALES", 10)
        keeper.add(*events[60:120])

    keeper.add(*events[120:])

    assert stored(catalogued) == totals(events, REGIONS, timedelta(hours=1))


def test_the_ledger_may_be_ahead_of_the_batches(spark: SparkSession, catalogued: Tables) -> None:
    """Given rows that were appended before the batch that has them is taken, none counts twice."""
    events = random_ledger(seed=14, count=90, days=1)
    keeper = Keeper(spark, catalogued)
    batches = [keeper.append(part) for part in (events[:30], events[30:60], events[60:])]

    for batch in batches:
        keeper.totals.refresh(batch)

    assert stored(catalogued) == totals(events, REGIONS, timedelta(hours=1))


def test_the_stream_goes_on_where_it_stopped(spark: SparkSession, quiet: Settings, catalogued: Tables) -> None:
    """Given runs with restarts in between, and one without its checkpoint, nothing is doubled or missed."""
    events = random_ledger(seed=9, count=300)
    for part in (events[:100], events[100:250], events[250:]):
        catalogued.append(STOCK_MOVEMENTS, ledger(part))
        run_totals(spark, quiet, catalogued, once=True)
    expected = totals(events, REGIONS, timedelta(hours=1))

    assert stored(catalogued) == expected
    shutil.rmtree(quiet.under_home("checkpoints", "totals"))
    run_totals(spark, quiet, catalogued, once=True)
    assert stored(catalogued) == expected


def test_the_live_stream_follows_the_ledger(spark: SparkSession, quiet: Settings, catalogued: Tables) -> None:
    events = random_ledger(seed=4, count=80)
    catalogued.append(STOCK_MOVEMENTS, ledger(events[:40]))
    query = start_totals(spark, quiet, Tables(quiet))
    try:
        query.processAllAvailable()
        catalogued.append(STOCK_MOVEMENTS, ledger(events[40:]))
        query.processAllAvailable()
    finally:
        query.stop()

    assert stored(catalogued) == totals(events, REGIONS, timedelta(hours=1))


def test_units_and_revenue_equal_hourly_demand(spark: SparkSession, quiet: Settings, catalogued: Tables) -> None:
    catalogued.append(STOCK_MOVEMENTS, ledger(random_ledger(seed=6, count=200)))

    aggregate_demand(spark, quiet, catalogued, as_of=None)

    demand = catalogued.read(HOURLY_DEMAND)
    whole = catalogued.read(DEMAND_TOTALS, where=pc.field("scope") == "global")
    assert pc.sum(whole["units"]) == pc.sum(demand["demand"])
    assert pc.sum(whole["revenue"]).as_py() == pc.sum(demand["revenue"]).as_py()


def test_the_nightly_run_leaves_live_totals_to_their_owner(
    spark: SparkSession, quiet: Settings, catalogued: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    catalogued.append(STOCK_MOVEMENTS, ledger(random_ledger(seed=6, count=20)))

    with ownership(quiet, DEMAND_TOTALS.owner), caplog.at_level("INFO", "stockcast"):
        aggregate_demand(spark, quiet, catalogued, as_of=None)

    assert "being kept live" in caplog.text
    assert stored(catalogued) == {}
    assert catalogued.read(HOURLY_DEMAND).num_rows > 0


def test_two_keepers_of_the_totals_are_refused(spark: SparkSession, quiet: Settings, tables: Tables) -> None:
    with ownership(quiet, DEMAND_TOTALS.owner), pytest.raises(OwnershipError):
        run_totals(spark, quiet, tables, once=True)


def test_windows_of_another_length_are_refused(spark: SparkSession, quiet: Settings, catalogued: Tables) -> None:
    Keeper(spark, catalogued).add(event("2024-03-01 10:10", "sale", 2))
    other = load_settings(overrides=[f"home={quiet.home}", "totals.publish=false", "totals.window_minutes=15"])

    with pytest.raises(UsageError, match=r"0:15:00.*1:00:00"):
        run_totals(spark, other, catalogued, once=True)
