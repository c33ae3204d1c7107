"""kill -9 in mid-flow, at named points and at random: nothing lost, nothing doubled, orders in the topic = outbox."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from pipelines.io.delta import Tables
from tests.chain import Events, plant_catalog, plant_policies, send
from tests.reconciler import read_table, reconcile

ROOT = Path(__file__).parents[2]
FAILPOINTS = (
    "ingest.after_bronze:2",
    "ingest.after_ledger:2",
    "restock.after_outbox:2",
    "restock.after_orders:2",
    "relay.inside_transaction",
    "relay.after_transaction",
)


def start_live(settings, *arguments, failpoint=""):
    options = {
        "home": settings.home,
        "kafka.bootstrap_servers": settings.kafka.bootstrap_servers,
        "ingest.max_offsets_per_trigger": 800,
        "restock.snapshot_seconds": 0.5,
    }
    command = [sys.executable, str(ROOT / "jobs" / "live.py"), *arguments]
    for name, value in options.items():
        command += ["--set", f"{name}={value}"]
    log = open(settings.home_path / "live.log", "ab")  # noqa: SIM115  (belongs to the process)
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "STOCKCAST_FAILPOINT": failpoint},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def end_group(process):
    """SIGKILL to the process and its JVM, by the group that we started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)


def test_nothing_is_lost_or_doubled_when_the_live_process_is_killed(chain):
    # given a chain with policies, and events with duplicates, disorder and faults
    events, tables = Events(seed=11), Tables(chain)
    series = [events.series_of(number) for number in range(events.series)]
    plant_catalog(tables, series)
    plant_policies(tables, series)
    # when the live process dies at each failpoint, and once at a random moment
    for failpoint in FAILPOINTS:
        send(chain.kafka.bootstrap_servers, events.take(3_000))
        process = start_live(chain, failpoint=failpoint)
        try:
            assert process.wait(120) == -signal.SIGKILL, failpoint
        finally:
            end_group(process)
    send(chain.kafka.bootstrap_servers, events.take(3_000))
    process = start_live(chain)
    time.sleep(random.Random(events.seed).uniform(9, 14))
    end_group(process)
    # and runs once more to the end
    process = start_live(chain, "--once")
    try:
        assert process.wait(180) == 0, (chain.home_path / "live.log").read_text()[-3000:]
    finally:
        end_group(process)
    # then all of it adds up, for readers that share no code with the pipeline
    assert reconcile(chain.home_path, chain.kafka.bootstrap_servers, events.valid_ids) == []
    assert len(read_table(chain.home_path, "gold/order_outbox")) > 20
