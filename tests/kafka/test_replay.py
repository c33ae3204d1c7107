"""Replay against the real broker, read back by a plain consumer."""

from __future__ import annotations

import time
from datetime import date

import orjson
import pandas as pd
import pytest
import typer
from confluent_kafka import Consumer, TopicPartition
from typer.testing import CliRunner

from pipelines.contracts.topics import INVENTORY_MOVEMENTS, POS_SALES
from pipelines.errors import UsageError
from pipelines.io import kafka
from pipelines.operations.settings import Settings
from pipelines.simulation.commands import register
from pipelines.simulation.replay import ReplayOptions, replay_file

TOPICS = (POS_SALES, INVENTORY_MOVEMENTS)


def read_since(settings: Settings, start: dict[tuple[str, int], int]) -> list[tuple[str, bytes, dict]]:
    end = kafka.end_offsets(settings, TOPICS)
    servers = settings.kafka.bootstrap_servers
    client = Consumer({"bootstrap.servers": servers, "group.id": "plain", "enable.auto.commit": False})
    client.assign([TopicPartition(*place, offset) for place, offset in start.items()])
    wanted, records = sum(end.values()) - sum(start.values()), []
    deadline = time.monotonic() + 30
    while len(records) < wanted and time.monotonic() < deadline:
        records += [record for record in client.consume(5000, timeout=0.5) if record.error() is None]
    client.close()
    assert len(records) == wanted
    return [(record.topic(), record.key(), orjson.loads(record.value())) for record in records]


def test_real_sales_arrive_to_the_unit(broker: Settings, shared_data) -> None:
    path = shared_data / "store_item_daily.parquet"
    start = kafka.end_offsets(broker, TOPICS)
    options = ReplayOptions(
        first=date(2015, 1, 1), last=date(2015, 3, 31), locations=("1", "10"), skus=("3", "50"), opening_stock=90
    )

    summary = replay_file(broker, path, options)

    file = pd.read_parquet(path)
    file["date"] = pd.to_datetime(file["date"])
    chosen = file[
        file["date"].between("2015-01-01", "2015-03-31") & file["store"].isin([1, 10]) & file["item"].isin([3, 50])
    ]
    records = read_since(broker, start)
    sales = pd.DataFrame([event for topic, _, event in records if topic == POS_SALES])
    counts = [event for topic, _, event in records if topic == INVENTORY_MOVEMENTS]
    found = {
        (event["location_id"], event["sku"], event["event_time"]): event["quantity"]
        for event in sales.to_dict("records")
    }
    assert found == {
        (str(row.store), str(row.item), f"{row.date:%Y-%m-%d}T12:00:00.000Z"): row.sales
        for row in chosen.itertuples()
        if row.sales > 0
    }
    assert len(sales) == len(found) == summary.sales > 300
    assert all(key.decode() == f"{event['location_id']}|{event['sku']}" for _, key, event in records)
    assert [(event["kind"], event["quantity"]) for event in counts] == [("count", 90)] * 4
    assert {event["event_time"] for event in counts} == {"2015-01-01T11:59:59.000Z"}


def test_replaying_twice_sends_the_same_bytes(broker: Settings, tmp_path) -> None:
    path = tmp_path / "sales.csv"
    path.write_text("date,store,item,sales\n2016-01-01,a,b,3\n2016-01-02,a,b,4\n2016-01-02,c,b,-1\n")
    start = kafka.end_offsets(broker, TOPICS)
    replay_file(broker, path)
    once = read_since(broker, start)

    replay_file(broker, path)

    twice = read_since(broker, start)
    assert len(once) == 3
    assert sorted(twice, key=str) == sorted(once * 2, key=str)


def test_bad_rows_stop_the_replay_before_anything_is_sent(broker: Settings, tmp_path) -> None:
    path = tmp_path / "sales.csv"
    path.write_text("date,store,item,sales\n2016-01-01,a,b,3\n2016-01-02,a,b,4.5\n")
    start = kafka.end_offsets(broker, TOPICS)

    with pytest.raises(UsageError, match="row 3"):
        replay_file(broker, path)

    assert kafka.end_offsets(broker, TOPICS) == start


def test_the_command_says_what_it_sent(broker: Settings, tmp_path) -> None:
    app = typer.Typer()
    register(app)
    path = tmp_path / "sales.csv"
    path.write_text("date,store,item,sales\n2016-01-01,a,b,3\n2016-01-02,a,b,4\n")
    arguments = ["replay", str(path), "--set", f"kafka.bootstrap_servers={broker.kafka.bootstrap_servers}"]

    started = time.monotonic()
    result = CliRunner().invoke(app, [*arguments, "--rate", "2"])

    assert result.exit_code == 0, result.output
    assert "2 events from 2 rows of 1 series" in result.output
    assert time.monotonic() - started > 0.5
