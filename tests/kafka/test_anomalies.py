"""The watch as a job: a real broker, tables on disk, alerts read back by another client."""

from __future__ import annotations

import json
import runpy
import time
from pathlib import Path

import pyarrow as pa
import pytest
from confluent_kafka import Consumer
from deltalake import DeltaTable

from pipelines.contracts.tables import INVENTORY_POSITIONS
from pipelines.io.delta import Tables
from pipelines.operations.settings import load_settings

JOB = Path(__file__).parents[2] / "jobs" / "watch_anomalies.py"
SHOP = "watched-shop"


def alerts_of(servers: str, subject: str, wanted: int) -> list[dict]:
    consumer = Consumer(
        {"bootstrap.servers": servers, "group.id": f"anomalies-{time.time_ns()}", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(["alerts"])
    found, deadline = [], time.monotonic() + 30
    while len(found) < wanted and time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is not None and message.error() is None and message.key() == subject.encode():
            found.append(json.loads(message.value()))
    consumer.close()
    return found


def test_books_below_zero_are_told_once_and_their_end_too(broker, tmp_path):
    # given a home whose books are below zero
    servers, home = broker.kafka.bootstrap_servers, tmp_path / "home"
    arguments = ["--once", "--set", f"home={home}", "--set", f"kafka.bootstrap_servers={servers}"]
    tables = Tables(load_settings(overrides=[f"home={home}"]))
    tables.ensure(INVENTORY_POSITIONS)

    def stands_at(level: int) -> None:
        row = {"location_id": SHOP, "sku": "s-1", "on_hand": level, "on_order": 0, "sequence": 1}
        tables.upsert(
            INVENTORY_POSITIONS,
            pa.Table.from_pylist([row], schema=INVENTORY_POSITIONS.schema),
            keys=("location_id", "sku"),
        )

    main = runpy.run_path(str(JOB))["main"]
    stands_at(-2)
    # when looked at twice, and once more after it was mended
    assert [main(arguments), main(arguments)] == [0, 0]
    stands_at(5)
    assert main(arguments) == 0
    # then it was told and ended, once each
    told = alerts_of(servers, SHOP, 2)
    assert [alert["kind"] for alert in told] == ["negative_stock", "negative_stock_over"]
    assert "s-1 at -2" in told[0]["message"]
    rows = DeltaTable(str(home / "tables" / "gold" / "anomalies")).to_pyarrow_table().to_pylist()
    assert len(rows) == 1
    assert rows[0]["closed_at"] is not None


def test_an_unknown_rule_is_bad_configuration(broker, tmp_path, capsys):
    arguments = ["--once", "--set", f"home={tmp_path}", "--set", "anomalies.rules=[no_such_rule]"]
    main = runpy.run_path(str(JOB))["main"]
    assert main([*arguments, "--set", f"kafka.bootstrap_servers={broker.kafka.bootstrap_servers}"]) == 2
    assert "phantom_stock" in capsys.readouterr().err


@pytest.mark.parametrize("rate", ["0", "-1"])
def test_a_budget_of_nothing_is_bad_configuration(rate, tmp_path):
    main = runpy.run_path(str(JOB))["main"]
    assert main(["--once", "--set", f"home={tmp_path}", "--set", f"anomalies.false_alarms_per_day={rate}"]) == 2
