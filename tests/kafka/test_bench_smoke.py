"""The bench measures: one small live run ends, its orders are complete, and its checker would notice if not."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from bench.arrivals import check_orders
from bench.report import write
from bench.workload import ORDER_UP_TO, REORDER_POINT, Workload, event_id

ROOT = Path(__file__).parents[2]


def test_a_small_live_run_measures_complete_orders(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "bench", "live_state", "--forms", "chained", "--folder", str(tmp_path)),
        *("--port", str(port), "--series", "100", "--rate", "200", "--warm-up", "3", "--seconds", "5"),
        *("--repetitions", "1", "--no-write"),
    ]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = json.loads((tmp_path / "live_state.json").read_text())["chained"]
    assert result["drained"]
    assert result["outbox_orders"] > 5
    assert result["kafka_orders"] == result["outbox_orders"]
    assert 0 < result["outbox_p50"] <= result["outbox_p99"] <= result["outbox_max"]
    assert result["outbox_p50"] < result["kafka_p50"]
    assert result["queries"]["ingest"]["batches"] > 0


def orders_of(workload, events):
    """What a plain loop orders, up to the level, for the first events."""
    position = dict(zip(workload.all_keys(), workload.opening_levels(), strict=True))
    orders = []
    for place, (number, _, _, _, change) in enumerate(islice(workload.changes(), events)):
        key = workload.key(number)
        position[key] += change
        if position[key] <= REORDER_POINT:
            quantity = ORDER_UP_TO - position[key]
            position[key] += quantity
            orders.append(
                {"location_id": key[0], "sku": key[1], "quantity": quantity, "trigger_event_id": event_id(place)}
            )
    return orders


def test_missing_and_doubled_orders_are_noticed():
    workload = Workload(series=20)
    orders = orders_of(workload, 2000)
    check_orders(workload, 2000, orders)
    with pytest.raises(AssertionError, match="wrong position"):
        check_orders(workload, 2000, orders[:-1])
    with pytest.raises(AssertionError, match="ordered twice"):
        check_orders(workload, 2000, [*orders, orders[0]])


def test_a_part_measured_again_replaces_its_section(tmp_path):
    path = tmp_path / "RESULTS.md"
    write("one", "old figures", path)
    write("two", "figures of two", path)
    write("one", "new figures", path)
    text = path.read_text()
    assert "old figures" not in text
    assert text.index("new figures") < text.index("figures of two")
