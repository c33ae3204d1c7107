"""Totals of locations and of sliding windows: exact, corrected, and true of their regions in every version."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from deltalake import DeltaTable
from demand_oracle import Event, at, event, ledger, random_ledger, window_totals
from pyspark.sql import SparkSession

from pipelines.contracts.tables import DEMAND_TOTALS, LOCATIONS, STOCK_MOVEMENTS
from pipelines.demand import totals as module
from pipelines.demand.totals import Totals, run_totals
from pipelines.demand.windows import shape_of, standing
from pipelines.errors import UsageError
from pipelines.ingestion.late_duplicates import correction_id
from pipelines.io.delta import Tables
from pipelines.operations.settings import Settings, load_settings

REGIONS = {"s0": "north", "s1": "north", "s2": "south"}
HOUR = timedelta(hours=1)
LENGTHS = (HOUR, 3 * HOUR, 24 * HOUR)
SHAPE = shape_of(60, (1440, 180), locations=True)

Stored = dict[Any, tuple[int, int, Decimal]]


@pytest.fixture
def catalogued(tables: Tables) -> Tables:
    """Tables whose catalog knows the regions."""
    place(tables, REGIONS)
    return tables


def place(tables: Tables, regions: dict[str, str]) -> None:
    rows = [{"location_id": name, "region": region} for name, region in regions.items()]
    tables.overwrite(LOCATIONS, LOCATIONS.schema.empty_table().from_pylist(rows, schema=LOCATIONS.schema))


def everything(settings: Settings, **changes: str) -> Settings:
    chosen = {"publish": "false", "trigger_seconds": "0", "sliding_minutes": "[180,1440]", "locations": "true"}
    overrides = [f"totals.{name}={value}" for name, value in {**chosen, **changes}.items()]
    return load_settings(overrides=[f"home={settings.home}", *overrides])


def versions(settings: Settings) -> list[list[dict[str, Any]]]:
    """The rows of every version of the table, as an outsider reads them."""
    folder = f"{settings.home}/tables/{DEMAND_TOTALS.name}"
    newest = DeltaTable(folder).version()
    return [DeltaTable(folder, version=n).to_pyarrow_table().to_pylist() for n in range(newest + 1)]


def stored(settings: Settings) -> Stored:
    """What is in the table now, without the zeros that say that nothing is left."""
    rows = versions(settings)[-1]
    found = {
        (row["scope"], row["window_start"], row["window_end"]): (row["orders"], row["units"], row["revenue"])
        for row in rows
    }
    assert len(found) == len(rows)
    return {key: value for key, value in found.items() if value != (0, 0, 0)}


def assert_regions_are_the_sums_of_their_stores(rows: list[dict[str, Any]]) -> None:
    sums: dict[Any, list[Any]] = defaultdict(lambda: [0, 0, Decimal(0)])
    said = {}
    for row in rows:
        key, numbers = (row["window_start"], row["window_end"]), [row[name] for name in ("orders", "units", "revenue")]
        if row["scope"].startswith("location:"):
            for scope in (row["region"], "global"):
                sums[(scope, *key)] = [a + b for a, b in zip(sums[(scope, *key)], numbers, strict=True)]
        else:
            assert row["region"] is None
            said[(row["scope"], *key)] = numbers
    nothing = [0, 0, Decimal(0)]
    assert said == {key: sums.pop(key, nothing) for key in said}
    assert not sums


def late_and_repeated(seed: int, count: int) -> list[Event]:
    """Shuffled over three days: every event but a few is late; tickets sell in many hours, and there are returns."""
    events = random_ledger(seed=seed, count=count, days=3)
    assert {"sale", "return"} <= {row["kind"] for row in events}
    return events


@pytest.mark.parametrize("path", ["live", "catching-up", "by turns"])
def test_any_batches_give_the_totals_of_the_ledger(
    spark: SparkSession, settings: Settings, catalogued: Tables, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Given late events, repeated batches and tickets of many hours, in every version regions are sums of stores."""
    dice = random.Random(17)
    events = late_and_repeated(17, 90)
    totals = Totals(spark, catalogued, SHAPE, lambda rows: None)
    monkeypatch.setattr(totals, "_most_windows", 10_000)
    for start in range(0, len(events), 30):
        rows = ledger(events[start : start + 30])
        catalogued.append(STOCK_MOVEMENTS, rows)
        live = path == "live" or (path == "by turns" and start % 60 == 0)
        monkeypatch.setattr(module, "LIVE_SALES", 10_000 if live else 0)
        for _ in range(dice.choice([1, 2])):
            totals.refresh(spark.createDataFrame(rows))

    assert stored(settings) == window_totals(events, REGIONS, HOUR, LENGTHS)
    found = versions(settings)
    assert len(found) > 3
    for rows in found:
        assert_regions_are_the_sums_of_their_stores(rows)


def test_the_stream_keeps_locations_and_sliding_windows(
    spark: SparkSession, settings: Settings, catalogued: Tables
) -> None:
    """Given a restart in between, by the settings."""
    events = late_and_repeated(3, 160)
    for part in (events[:100], events[100:]):
        catalogued.append(STOCK_MOVEMENTS, ledger(part))
        run_totals(spark, everything(settings), catalogued, once=True)

    assert stored(settings) == window_totals(events, REGIONS, HOUR, LENGTHS)


@pytest.fixture(params=["live", "catching-up"])
def totals(
    request: pytest.FixtureRequest, spark: SparkSession, catalogued: Tables, monkeypatch: pytest.MonkeyPatch
) -> Totals:
    if request.param == "catching-up":
        monkeypatch.setattr(module, "LIVE_SALES", -1)
    return Totals(spark, catalogued, SHAPE, lambda rows: None)


def test_a_location_that_moved_is_counted_in_one_region_of_a_window(
    spark: SparkSession, settings: Settings, catalogued: Tables, totals: Totals
) -> None:
    """Given windows from before the move, some touched again: each says where the location was counted."""
    for time, regions in (("08:10", REGIONS), ("10:10", {**REGIONS, "s1": "west"})):
        place(catalogued, regions)
        rows = ledger(event(f"2024-03-01 {time}", "sale", 2, location_id=name) for name in REGIONS)
        catalogued.append(STOCK_MOVEMENTS, rows)
        totals.refresh(spark.createDataFrame(rows))

    for rows in versions(settings):
        assert_regions_are_the_sums_of_their_stores(rows)
    start, end = at("2024-03-01 08:00"), at("2024-03-01 09:00")
    moved = {
        (row["window_start"], row["window_end"]): row["region"]
        for row in versions(settings)[-1]
        if row["scope"] == "location:s1"
    }
    assert moved[start, end] == "north"
    assert moved[start, end + 2 * HOUR] == "west"


def test_a_sale_that_was_taken_back_leaves_the_totals(
    spark: SparkSession, settings: Settings, catalogued: Tables, totals: Totals
) -> None:
    """Given a repetition that entered the ledger, and one with another content at another time; then the
    corrections of both, with a further sale of that hour."""
    first = [
        event("2024-03-01 10:10", "sale", 2, event_id="a", location_id="s0", ticket_id="t"),
        event("2024-03-01 12:10", "sale", 3, event_id="b", location_id="s0", ticket_id="t"),
    ]
    again = [first[0], {**first[1], "event_time": at("2024-03-02 10:10"), "quantity": 40, "location_id": "s2"}]
    for part in (first, again):
        catalogued.append(STOCK_MOVEMENTS, ledger(part))
        totals.refresh(spark.createDataFrame(catalogued.read(STOCK_MOVEMENTS)))
    assert stored(settings)["global", at("2024-03-01 10:00"), at("2024-03-01 11:00")][1] == 4

    later = sorted(catalogued.read(STOCK_MOVEMENTS).to_pylist(), key=lambda row: row["sequence"])[2:]
    corrections = [{**row, "kind": "adjustment", "event_id": correction_id(row), "ticket_id": None} for row in later]
    more = event("2024-03-01 10:20", "sale", 1, event_id="c", location_id="s0")
    batch = ledger([*corrections, more])
    catalogued.append(STOCK_MOVEMENTS, batch)
    for _ in range(2):
        totals.refresh(spark.createDataFrame(batch))

    assert stored(settings) == window_totals([*first, more], REGIONS, HOUR, LENGTHS)
    frame = spark.createDataFrame(catalogued.read(STOCK_MOVEMENTS)).where("kind = 'sale' OR kind = 'adjustment'")
    assert sorted(row.event_id for row in standing(frame).where("kind = 'sale'").collect()) == ["a", "b", "c"]
    for rows in versions(settings):
        assert_regions_are_the_sums_of_their_stores(rows)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sliding_minutes": "[180]"}, r"ask for windows of 1:00:00, 3:00:00 with .* 1 day"),
        ({"sliding_minutes": "[180,240,1440]"}, "4:00:00"),
        ({"locations": "false"}, "without locations, but .* with locations"),
    ],
    ids=["one less", "one more", "no locations"],
)
def test_other_windows_and_scopes_than_are_stored_are_refused(
    spark: SparkSession, settings: Settings, catalogued: Tables, change: dict[str, str], said: str
) -> None:
    rows = ledger([event("2024-03-01 10:10", "sale", 2)])
    catalogued.append(STOCK_MOVEMENTS, rows)
    Totals(spark, catalogued, SHAPE, lambda rows: None).refresh(spark.createDataFrame(rows))

    with pytest.raises(UsageError, match=said):
        run_totals(spark, everything(settings, **change), catalogued, once=True)


def test_a_live_refresh_reads_the_ledger_only_for_windows_it_does_not_know(
    spark: SparkSession, catalogued: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    totals = Totals(spark, catalogued, SHAPE, lambda rows: None)
    lines = totals._ledger_lines
    monkeypatch.setattr(totals, "_ledger_lines", lambda numbers: (read.append(len(numbers)), lines(numbers))[1])
    time: datetime = at("2024-03-01 10:10")
    for number in range(4):
        rows = ledger([event(time + timedelta(minutes=20 * number), "sale", 1, event_id=f"e{number}")])
        catalogued.append(STOCK_MOVEMENTS, rows)
        totals.refresh(spark.createDataFrame(rows))

    # The day before and after the first hour; then, with the next hour, the one that came in reach.
    assert read == [47, 1]
