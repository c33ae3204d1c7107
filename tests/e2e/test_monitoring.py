"""A real run of the live streams: what it says to Prometheus, what it logs, and what `stockcast status` makes of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from pipelines.contracts.tables import SERIES_STATUS
from pipelines.io.delta import Tables
from pipelines.io.published import FORECASTS, Published, publish
from pipelines.operations.settings import load_settings
from tests.chain import Events, plant_catalog, plant_policies, send
from tests.conftest import free_port
from tests.promql import Expression, parse
from tests.short_spark import SHORT_LIVED

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "monitoring"
PATIENCE = 400.0
GIVEN_BY_PROMETHEUS = {"up": {"job", "instance"}}
ATTACHED = {"job", "instance"}
"""Labels that Prometheus adds to whatever it reads."""

Sample = tuple[str, frozenset[tuple[str, str]]]


@dataclass(frozen=True)
class Run:
    """What a run of `jobs/live.py` left."""

    metrics: dict[Sample, float]
    spark: str
    status: dict[str, object]
    status_code: int
    log: list[str]
    code: int
    lines: list[str]


def samples(text: str) -> dict[Sample, float]:
    families = text_string_to_metric_families(text)
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def fetch(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        return str(answer.read().decode())


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError):
            if ready():
                return
        time.sleep(1)
    raise AssertionError(f"the run did not come so far; exit code {process.poll()}")


def settled(found: dict[Sample, float]) -> bool:
    """Whether all was taken in, decided, totalled and relayed."""
    values = {name: value for (name, labels), value in found.items() if not labels}
    queries = {dict(labels)["query"] for name, labels in found if name == "stockcast_stream_batches_total"}
    lag = [value for (name, _), value in found.items() if name == "stockcast_consumer_lag_records"]
    return (
        bool(lag)
        and not any(lag)
        and values.get("stockcast_orders_decided_total", 0) > 0
        and values.get("stockcast_relay_backlog_orders") == 0
        and queries >= {"ingest", "totals"}
    )


@pytest.fixture(scope="module")
def run(broker, tmp_path_factory) -> Run:
    """The live streams over a few hundred events, with JSON lines and metrics, until they are told to end."""
    folder = tmp_path_factory.mktemp("monitored")
    items = [f"home={folder / 'home'}", f"kafka.bootstrap_servers={broker.kafka.bootstrap_servers}"]
    settings = load_settings(overrides=items)
    tables = Tables(settings)
    events = Events(seed=801, bad=0.03)
    series = [events.series_of(number) for number in range(events.series)]
    plant_catalog(tables, series)
    plant_policies(tables, series)
    publish(tables, Published(FORECASTS, "f-1", date(2026, 1, 1), None, datetime.now(UTC)))
    status = [{"location_id": place, "sku": sku, "forecast_version": "f-1", "status": "ok"} for place, sku in series]
    tables.append(SERIES_STATUS, pa.Table.from_pylist(status, schema=SERIES_STATUS.schema))
    send(settings.kafka.bootstrap_servers, events.take(400))

    port, ui = free_port(), free_port()
    arguments = [
        item
        for text in [*items, "logging.format=json", "monitoring.enabled=true", "totals.trigger_seconds=0"]
        for item in ("--set", text)
    ]
    arguments += ["--set", f"monitoring.port={port}", "--set", "monitoring.refresh_seconds=0.5"]
    environment = os.environ | {
        "PYTHONFAULTHANDLER": "1",
        "PYSPARK_SUBMIT_ARGS": f"--master local[2] --driver-memory 1g {SHORT_LIVED} --conf spark.ui.enabled=true "
        f"--conf spark.ui.port={ui} --conf spark.sql.shuffle.partitions=2 pyspark-shell",
    }
    path = folder / "log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "jobs" / "live.py"), *arguments],
            stderr=log,
            stdout=log,
            env=environment,
            cwd=folder,
        )
    try:

        def ready() -> bool:
            return settled(samples(fetch(port, "/metrics")))

        wait_for(ready, process)
        asked = subprocess.run(
            [Path(sys.executable).with_name("stockcast"), "status", "--json", *arguments],
            capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        metrics, spark = samples(fetch(port, "/metrics")), fetch(ui, "/metrics/prometheus")
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    lines = path.read_text(encoding="utf-8").splitlines()
    return Run(metrics, spark, json.loads(asked.stdout), asked.returncode, lines, code, lines)


def expressions() -> list[tuple[str, str]]:
    """Every PromQL expression of the rules and the dashboard, with where it is."""
    rules = yaml.safe_load((DEPLOY / "alerts.yaml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    panels = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))["panels"]
    return [(rule["alert"], rule["expr"]) for rule in rules] + [
        (panel["title"], target["expr"]) for panel in panels for target in panel["targets"]
    ]


def test_every_metric_and_label_of_the_rules_and_the_dashboard_exists_in_a_real_run(run):
    known: dict[str, set[str]] = {name: set(labels) for name, labels in GIVEN_BY_PROMETHEUS.items()}
    for name, labels in run.metrics:
        known.setdefault(name, set(ATTACHED)).update(label for label, _ in labels)
    wrong = []
    for where, text in expressions():
        found: Expression = parse(text)
        for name, matchers in found.selectors:
            if name not in known:
                wrong.append(f"{where}: no metric {name}")
            elif unknown := set(matchers) - known[name]:
                wrong.append(f"{where}: {name} has no label {unknown}")
        for kept, names in found.groups:
            wrong += [f"{where}: {name} has no label {kept - known[name]}" for name in names if kept - known[name]]
    assert wrong == []


def test_labels_that_are_selected_have_the_values_that_are_asked_for(run):
    for where, text in expressions():
        for name, matchers in parse(text).selectors:
            for label, value in matchers.items():
                if name not in GIVEN_BY_PROMETHEUS and "!" not in text:
                    values = {dict(labels).get(label) for found, labels in run.metrics if found == name}
                    assert value in values, (where, name, label)


def test_the_listener_has_followed_each_query(run):
    value = {(name, dict(labels).get("query")): figure for (name, labels), figure in run.metrics.items()}
    for query in ("ingest", "totals"):
        assert value["stockcast_stream_running", query] == 1
        assert value["stockcast_stream_rows_total", query] > 0
        assert value["stockcast_stream_failures_total", query] == 0
        assert (
            value["stockcast_stream_batch_seconds_count", query] == value["stockcast_stream_batches_total", query] > 0
        )
        assert time.time() - value["stockcast_stream_last_progress_timestamp_seconds", query] < 600


def test_status_prints_the_same_figures(run):
    assert (run.status_code, run.status["problems"]) == (0, [])
    value = {name: figure for (name, labels), figure in run.metrics.items() if not labels}
    by_label = {(name, *(text for _, text in labels)): figure for (name, labels), figure in run.metrics.items()}
    for outcome, count in run.status["events"].items():
        assert by_label["stockcast_records_total", outcome] == count
    assert run.status["events"]["good"] > 300
    assert run.status["events"]["consumed"] == sum(
        count for outcome, count in run.status["events"].items() if outcome != "consumed"
    )
    assert run.status["events"]["consumed"] == by_label["stockcast_stream_rows_total", "ingest"]
    for reason, counts in run.status["quarantine"].items():
        assert by_label["stockcast_quarantine_records", reason] == counts["records"]
    assert value["stockcast_orders_decided_total"] == run.status["decided"] > 0
    assert value["stockcast_relay_backlog_orders"] == run.status["relay_backlog"] == 0
    assert sum(run.status["orders"].values()) == run.status["decided"]
    assert by_label["stockcast_series", "ok"] == 40
    remembered = next(v for (name, labels), v in run.metrics.items() if name == "stockcast_stream_state_rows")
    assert remembered == run.status["events"]["good"]


def test_spark_tells_of_itself(run):
    streams = [line for line in run.spark.splitlines() if "spark_streaming_ingest" in line]
    assert any("inputRate" in line for line in streams), run.spark[:2000]


def test_every_log_line_is_a_json_object_that_says_what_it_is_about(run):
    # given the lines of the run, but what the JVM says before it knows how to
    lines = [line for line in run.log if not line.startswith("WARNING: Using incubator modules")]
    entries = [json.loads(line) for line in lines]
    # then each has a time, a level, a logger and a message
    for entry in entries:
        assert {"time", "level", "logger", "message"} <= set(entry)
        assert datetime.fromisoformat(entry["time"]).utcoffset().total_seconds() == 0
    # and those of a batch name the query and the batch
    of_batches = {(entry["query"], entry["batch"]) for entry in entries if "query" in entry}
    assert ("ingest", 0) in of_batches
    assert any(query == "totals" for query, _ in of_batches)
    assert all(entry["query"] == "ingest" for entry in entries if "set aside" in entry["message"])
    # and it ended in an orderly way
    assert run.code == 0
