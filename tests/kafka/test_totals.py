"""Totals on their way through a real broker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import TopicPartition
from demand_oracle import event, ledger, random_ledger, totals, window_totals
from pyspark.sql import SparkSession

from pipelines.contracts import topics
from pipelines.contracts.tables import DEMAND_TOTALS, LOCATIONS, STOCK_MOVEMENTS
from pipelines.demand.totals import run_totals, start_totals
from pipelines.errors import BrokerError
from pipelines.io import kafka
from pipelines.io.delta import Tables
from pipelines.operations.settings import Settings, load_settings

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def wired(broker: Settings, settings: Settings) -> Settings:
    """A fresh home behind the real broker."""
    servers = broker.kafka.bootstrap_servers
    overrides = [f"home={settings.home}", f"kafka.bootstrap_servers={servers}", "totals.trigger_seconds=0"]
    return load_settings(overrides=overrides)


@pytest.fixture
def regions(tables: Tables) -> dict[str, str]:
    """Regions of the locations, named for this test alone: the broker's topic is shared by all tests."""
    mark = uuid.uuid4().hex[:8]
    regions = {"s0": f"north-{mark}", "s1": f"north-{mark}", "s2": f"south-{mark}"}
    rows = [{"location_id": name, "region": region} for name, region in regions.items()]
    tables.overwrite(LOCATIONS, pa.Table.from_pylist(rows, schema=LOCATIONS.schema))
    return regions


def received(settings: Settings, start: dict[tuple[str, int], int]) -> list[tuple[bytes, dict[str, Any]]]:
    """All messages on `demand.totals` from the offsets on, by a consumer of its own."""
    end = kafka.end_offsets(settings, [topics.DEMAND_TOTALS])
    wanted = sum(high - start.get(place, 0) for place, high in end.items())
    consumer = kafka.consumer(settings, f"test-{uuid.uuid4()}")
    consumer.assign([TopicPartition(name, partition, start.get((name, partition), 0)) for name, partition in end])
    messages = []
    try:
        while len(messages) < wanted:
            found = consumer.poll(20)
            assert found is not None, f"{wanted - len(messages)} messages are missing"
            assert found.error() is None
            messages.append((found.key(), json.loads(found.value())))
    finally:
        consumer.close()
    return messages


def test_the_newest_message_of_each_window_is_its_total(
    spark: SparkSession, wired: Settings, tables: Tables, regions: dict[str, str]
) -> None:
    """Given a ledger in two parts with late events, and a restart in between."""
    start = kafka.end_offsets(wired, [topics.DEMAND_TOTALS])
    events = random_ledger(seed=21, count=200)
    for part in (events[:150], events[150:]):
        tables.append(STOCK_MOVEMENTS, ledger(part))
        run_totals(spark, wired, tables, once=True)

    messages = received(wired, start)

    newest = {}
    for key, body in messages:
        assert key == body["scope"].encode()
        assert list(body) == ["scope", "window_start", "window_end", "orders", "units", "revenue"]
        newest[(body["scope"], body["window_start"])] = (body["orders"], body["units"], body["revenue"])
    assert newest == {
        (scope, f"{start:%Y-%m-%dT%H:%M:%SZ}"): (orders, units, float(revenue))
        for (scope, start), (orders, units, revenue) in totals(events, regions, timedelta(hours=1)).items()
    }


def test_locations_and_sliding_windows_are_sent_with_their_corrections(
    spark: SparkSession, wired: Settings, tables: Tables, regions: dict[str, str]
) -> None:
    """Given late events after a restart, the newest message of each scope and window is its total."""
    start = kafka.end_offsets(wired, [topics.DEMAND_TOTALS])
    kept = wired.totals.model_copy(update={"locations": True, "sliding_minutes": (180,)})
    chosen = wired.model_copy(update={"totals": kept})
    events = random_ledger(seed=24, count=60, days=1)
    for part in (events[:40], events[40:]):
        tables.append(STOCK_MOVEMENTS, ledger(part))
        run_totals(spark, chosen, tables, once=True)

    newest = {}
    for key, body in received(wired, start):
        assert key == body["scope"].encode()
        place = body["scope"].removeprefix("location:")
        assert body.get("region") == regions.get(place)
        window = (body["window_start"], body["window_end"])
        newest[(body["scope"], *window)] = (body["orders"], body["units"], body["revenue"])
    expected = window_totals(events, regions, timedelta(hours=1), (timedelta(hours=1), timedelta(hours=3)))
    assert newest == {
        (scope, f"{start:%Y-%m-%dT%H:%M:%SZ}", f"{end:%Y-%m-%dT%H:%M:%SZ}"): (orders, units, float(revenue))
        for (scope, start, end), (orders, units, revenue) in expected.items()
    }


def test_a_restart_without_news_sends_nothing(
    spark: SparkSession, wired: Settings, tables: Tables, regions: dict[str, str]
) -> None:
    tables.append(STOCK_MOVEMENTS, ledger(random_ledger(seed=22, count=50)))
    run_totals(spark, wired, tables, once=True)
    start = kafka.end_offsets(wired, [topics.DEMAND_TOTALS])

    run_totals(spark, wired, tables, once=True)

    assert received(wired, start) == []


def test_the_live_stream_sends_a_late_correction(
    spark: SparkSession, wired: Settings, tables: Tables, regions: dict[str, str]
) -> None:
    first = event("2024-03-01 10:10", "sale", 2, location_id="s0", unit_price=1.25)
    late = event("2024-03-01 10:05", "sale", 1, location_id="s1", unit_price=0.1)
    tables.append(STOCK_MOVEMENTS, ledger([first]))
    query = start_totals(spark, wired, Tables(wired))
    try:
        query.processAllAvailable()
        start = kafka.end_offsets(wired, [topics.DEMAND_TOTALS])
        tables.append(STOCK_MOVEMENTS, ledger([late]))
        query.processAllAvailable()
    finally:
        query.stop()

    bodies = {body["scope"]: body for _, body in received(wired, start)}

    assert bodies[regions["s0"]] == {
        "scope": regions["s0"],
        "window_start": "2024-03-01T10:00:00Z",
        "window_end": "2024-03-01T11:00:00Z",
        "orders": 2,
        "units": 3,
        "revenue": 2.6,
    }
    assert set(bodies) == {regions["s0"], "global"}


def test_without_a_broker_it_says_so_and_stores_nothing(
    spark: SparkSession, settings: Settings, tables: Tables
) -> None:
    tables.append(STOCK_MOVEMENTS, ledger([event("2024-03-01 10:10", "sale", 2)]))

    with pytest.raises(BrokerError, match="no Kafka broker answers"):
        run_totals(spark, settings, tables, once=True)

    assert tables.read(DEMAND_TOTALS).num_rows == 0


def test_killed_between_sending_and_storing_it_recovers(
    spark: SparkSession, wired: Settings, tables: Tables, regions: dict[str, str]
) -> None:
    """Given a SIGKILL after the totals were sent, the next run stores them once."""
    events = random_ledger(seed=23, count=60)
    tables.append(STOCK_MOVEMENTS, ledger(events))
    command = [sys.executable, "jobs/aggregate_totals.py", "--once", "--set", f"home={wired.home}"]
    command += ["--set", f"kafka.bootstrap_servers={wired.kafka.bootstrap_servers}"]
    killed = subprocess.run(
        command,
        cwd=PROJECT,
        env={**os.environ, "STOCKCAST_FAILPOINT": "totals-sent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr[-2000:]
    assert tables.read(DEMAND_TOTALS).num_rows == 0

    run_totals(spark, wired, tables, once=True)

    stored = {
        (row["scope"], row["window_start"]): (row["orders"], row["units"], row["revenue"])
        for row in tables.read(DEMAND_TOTALS).to_pylist()
    }
    assert stored == totals(events, regions, timedelta(hours=1))
    assert sum(value[2] for value in stored.values()) > Decimal(0)
