"""How much memory the live state of a series takes in the owner's process, measured on many."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import psutil

from bench.harness import Options, say
from bench.workload import Workload
from pipelines.restocking.positions import OpenOrder, Position

SERIES = 200_000
NOW = 1_800_000_000_000_000
CASES = ((0, 0), (0, 1), (8, 1), (64, 1))
"""Changes remembered for late counts (at most `restock.recent_changes`), and open orders."""


def measure(_: Options) -> dict[str, list[dict[str, Any]]]:
    """Bytes per series for each case, each in a process of its own."""
    rows = []
    for changes, orders in CASES:
        command = [sys.executable, "-m", "bench.memory", str(changes), str(orders)]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append({"changes": changes, "orders": orders, "bytes": int(found.stdout)})
        say(f"memory: {rows[-1]}")
    return {"positions": rows}


def bytes_per_series(changes: int, open_orders: int) -> float:
    """Growth of this process per series: its key, its position and what that remembers."""
    process, chance, workload = psutil.Process(), random.Random(1), Workload(SERIES)
    before = process.memory_info().rss
    positions = {}
    for number in range(SERIES):
        location, sku = workload.key(number)
        position = Position(location, sku, on_hand=chance.randrange(300, 2000), clock=NOW + chance.randrange(10**9))
        position.count_time, position.count_event_id = NOW - chance.randrange(10**9), f"event-{number:09d}"
        position.recent = [(NOW + chance.randrange(10**9), -chance.randrange(1, 4)) for _ in range(changes)]
        for order in range(open_orders):
            position.open_orders[f"o-{number:016x}{order:016x}"] = OpenOrder(100, NOW + chance.randrange(10**12))
        positions[location, sku] = position
    return (process.memory_info().rss - before) / len(positions)


if __name__ == "__main__":
    print(round(bytes_per_series(int(sys.argv[1]), int(sys.argv[2]))))
