"""Figures, health, metrics and how they are served; the rules and the dashboard that use them."""

from __future__ import annotations

import json
import logging
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pipelines.contracts.tables import (
    INGEST_BATCHES,
    INGEST_SOURCES,
    ORDER_OUTBOX,
    ORDERS,
    QUARANTINE,
    SERIES_STATUS,
)
from pipelines.errors import UsageError
from pipelines.io.published import FORECASTS, POLICIES, Published, publish
from pipelines.operations.cli import main
from pipelines.operations.monitoring.exposition import FiguresCollector
from pipelines.operations.monitoring.figures import ChainLook, Figures, KafkaFigures, KafkaLook, RecentFigures
from pipelines.operations.monitoring.health import problems
from pipelines.operations.monitoring.serving import monitored
from pipelines.operations.monitoring.streams import StreamListener, StreamMetrics
from pipelines.operations.settings import load_settings
from tests.conftest import free_port
from tests.promql import parse

DEPLOY = Path(__file__).parents[2] / "deploy" / "monitoring"
RULES = yaml.safe_load((DEPLOY / "alerts.yaml").read_text(encoding="utf-8"))
DASHBOARD = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLACES = {("pos.sales", 0): 130, ("pos.sales", 1): 40}


def rows(table, *values):
    return pa.Table.from_pylist(list(values), schema=table.schema)


def batch(number, ends, consumed=10, quarantined=0, minutes=10):
    return {
        "batch_id": number,
        "topic": "pos.sales",
        "consumed": consumed,
        "good": consumed - quarantined,
        "quarantined": quarantined,
        "duplicates": 0,
        "tombstones": 0,
        "end_offsets": json.dumps(ends),
        "finished_at": NOW - timedelta(minutes=minutes),
    }


def plant(tables):
    """Batches, quarantine, orders and an outbox."""
    tables.append(INGEST_BATCHES, rows(INGEST_BATCHES, batch(0, {"0": 60, "1": 40}, consumed=100, quarantined=2)))
    tables.append(INGEST_BATCHES, rows(INGEST_BATCHES, batch(1, {"0": 100}, consumed=40, minutes=8)))
    aside = [{"topic": "pos.sales", "partition": 0, "offset": n, "reason": "not_json"} for n in (1, 2)]
    aside[1]["replayed_at"] = NOW
    tables.append(QUARANTINE, rows(QUARANTINE, *aside))
    states = ["approved", "approved", "shipped"]
    tables.append(ORDERS, rows(ORDERS, *({"order_id": f"o-{n}", "state": state} for n, state in enumerate(states))))
    outbox = [{"sequence": n, "order_id": f"o-{n}", "decided_at": NOW - timedelta(minutes=20 - n)} for n in range(1, 6)]
    tables.append(ORDER_OUTBOX, rows(ORDER_OUTBOX, *outbox))
    publish(tables, Published(FORECASTS, "f-1", date(2026, 2, 28), None, NOW - timedelta(hours=3)))
    publish(tables, Published(POLICIES, "p-1", date(2026, 2, 28), None, NOW - timedelta(hours=2)))
    status = [
        {"location_id": "s", "sku": str(n), "forecast_version": "f-1", "status": status}
        for n, status in enumerate(["ok", "ok", "fallback"])
    ]
    tables.append(SERIES_STATUS, rows(SERIES_STATUS, *status))


def look(tables, relayed=3, answers=True):
    return ChainLook(tables, lambda: KafkaFigures(answers, PLACES if answers else None, relayed))


def exposed(figures: Figures) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    registry = CollectorRegistry()
    registry.register(FiguresCollector(lambda: figures))
    return samples(generate_latest(registry).decode())


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """By name and labels; read as Prometheus would."""
    families = text_string_to_metric_families(text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


class TestFigures:
    def test_are_those_of_the_tables_and_of_kafka(self, tables):
        plant(tables)
        figures = look(tables).figures(NOW)
        assert figures.records == {"consumed": 140, "good": 138, "quarantined": 2, "duplicates": 0, "tombstones": 0}
        assert figures.lag == {"pos.sales": 30}
        assert [(line.reason, line.records, line.waiting) for line in figures.quarantine] == [("not_json", 2, 1)]
        assert figures.last_batch_age == 8 * 60
        assert (figures.orders, figures.decided, figures.backlog) == ({"approved": 2, "shipped": 1}, 5, 2)
        assert figures.backlog_age == 16 * 60
        assert figures.in_force[FORECASTS].age_seconds == 3 * 3600
        assert figures.series_status == {"ok": 2, "fallback": 1}

    def test_follow_what_is_new(self, tables):
        plant(tables)
        looking = look(tables, relayed=5)
        looking.figures(NOW)
        tables.append(INGEST_BATCHES, rows(INGEST_BATCHES, batch(2, {"0": 125}, consumed=25, minutes=1)))
        tables.append(ORDERS, rows(ORDERS, {"order_id": "o-9", "state": "received"}))
        figures = looking.figures(NOW)
        assert (figures.records["consumed"], figures.lag, figures.last_batch_age) == (165, {"pos.sales": 5}, 60)
        assert figures.orders["received"] == 1
        assert (figures.backlog, figures.backlog_age) == (0, None)

    def test_a_gap_that_was_accepted_is_not_waited_for(self, tables):
        plant(tables)
        looking = look(tables)
        looking.figures(NOW)
        source = {"topic": "pos.sales", "topic_id": "t", "first_offsets": json.dumps({"0": 130, "1": 38})}
        source |= {"since": NOW - timedelta(minutes=1), "recorded_at": NOW - timedelta(minutes=1)}
        tables.append(INGEST_SOURCES, rows(INGEST_SOURCES, source))
        assert looking.figures(NOW).lag == {"pos.sales": 2}

    def test_of_an_empty_home_without_a_broker_are_none(self, tables):
        figures = look(tables, relayed=None, answers=False).figures(NOW)
        assert figures.records["consumed"] == figures.decided == figures.positions == 0
        assert (figures.lag, figures.backlog, figures.last_batch_age, figures.in_force) == (None, None, None, {})
        assert exposed(figures)["stockcast_broker_up", ()] == 0

    def test_are_not_taken_more_often_than_asked(self, tables):
        plant(tables)
        times, taken = [NOW, NOW + timedelta(seconds=5), NOW + timedelta(seconds=11)], []
        clock = iter(times)

        def take(now: datetime) -> Figures:
            taken.append(now)
            return look(tables).figures(now)

        recent = RecentFigures(take, lambda: next(clock), 10)
        for _ in times:
            recent.get()
        assert taken == [times[0], times[2]]


class TestHealth:
    @pytest.fixture
    def well(self, tables, settings):
        plant(tables)
        figures = replace(look(tables, relayed=5).figures(NOW), lag={"pos.sales": 0})
        assert problems(figures, settings) == []
        return figures

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"broker_answers": False}, r"no broker answers at 127.0.0.1:1: stockcast broker start"),
            ({"in_force": {}}, r"no forecasts are in force: jobs/train_forecasts.py"),
            ({"lag": {"pos.sales": 7}}, r"7 records wait in Kafka and none was taken in for 8 minutes"),
            ({"lag": {"pos.sales": 7}, "last_batch_age": None}, r"none was taken in ever"),
            ({"backlog": 2, "backlog_age": 900.0}, r"2 decided orders have not left, the oldest for 15 minutes"),
            ({"parked": 1}, r"1 orders were not taken by the supplier"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
    )
    def test_says_what_is_wrong_and_what_to_do(self, well, settings, changes, said):
        found = problems(replace(well, **changes), settings)
        assert any(said in line for line in found), found
        assert all(": " in line for line in found)

    def test_a_moments_lag_and_backlog_are_no_problem(self, well, settings):
        busy = replace(well, lag={"pos.sales": 900}, last_batch_age=2.0, backlog=3, backlog_age=1.0)
        assert problems(busy, settings) == []

    def test_old_forecasts_are(self, well, settings):
        old = {name: replace(state, age_seconds=37 * 3600) for name, state in well.in_force.items()}
        found = problems(replace(well, in_force=old), settings)
        assert found == ["forecasts are 37 hours old: jobs/nightly.py", "policies are 37 hours old: jobs/nightly.py"]

    @pytest.mark.parametrize("answers", [True, False])
    def test_status_ends_with_it_as_its_exit_code(self, tables, settings, monkeypatch, capsys, answers):
        # given a chain whose orders have left
        plant(tables)
        now = datetime.now(UTC)
        for artefact in (FORECASTS, POLICIES):
            publish(tables, Published(artefact, "v-2", now.date(), None, now))
        said = KafkaFigures(answers, {} if answers else None, 5 if answers else None)
        monkeypatch.setattr(KafkaLook, "look", lambda _: said)
        monkeypatch.setattr(sys, "argv", ["stockcast", "status", "--json", "--set", f"home={settings.home}"])
        # when it is asked how it fares
        with pytest.raises(SystemExit) as ended:
            main()
        # then the exit code is the answer
        document = json.loads(capsys.readouterr().out)
        assert ended.value.code == (0 if answers else 1)
        assert document["healthy"] is answers
        assert bool(document["problems"]) is not answers
        assert document["quarantine"] == {"not_json": {"records": 2, "waiting": 1}}
        assert document["relay_backlog"] == (0 if answers else None)


PROGRESS = {
    "name": "ingest",
    "batchId": 4,
    "numInputRows": 50,
    "inputRowsPerSecond": 25.0,
    "processedRowsPerSecond": float("nan"),
    "durationMs": {"triggerExecution": 400, "addBatch": 300},
    "eventTime": {"watermark": "2026-03-01T11:59:00.000Z"},
    "stateOperators": [{"operatorName": "dedupe", "numRowsTotal": 12}, {"operatorName": "dedupe", "numRowsTotal": 3}],
    "sources": [{"metrics": {"maxOffsetsBehindLatest": "7"}}],
}


class TestStreams:
    def listening(self) -> tuple[StreamListener, StreamMetrics, Callable[[], dict]]:
        registry = CollectorRegistry()
        metrics = StreamMetrics(registry, NOW.timestamp)

        def read() -> dict:
            return {
                (name, *(value for _, value in labels)): figure
                for (name, labels), figure in samples(generate_latest(registry).decode()).items()
            }

        return StreamListener(metrics), metrics, read

    def progress(self, **changes):
        class Progress(dict):
            name = PROGRESS["name"]

        return SimpleNamespace(progress=Progress(PROGRESS | changes))

    def test_a_batch_is_told_of(self):
        listener, metrics, read = self.listening()
        listener.onQueryStarted(SimpleNamespace(name="ingest", runId="r"))
        listener.onQueryProgress(self.progress())
        metrics.remember("ingest", "event ids", lambda: 99)
        found = read()
        assert found["stockcast_stream_running", "ingest"] == 1
        assert found["stockcast_stream_input_rows_per_second", "ingest"] == 25
        assert found["stockcast_stream_processed_rows_per_second", "ingest"] == 0
        assert found["stockcast_stream_rows_total", "ingest"] == 50
        assert found["stockcast_stream_batch_seconds_sum", "ingest"] == 0.4
        assert found["stockcast_stream_last_batch_phase_seconds", "addBatch", "ingest"] == 0.3
        assert found["stockcast_stream_watermark_age_seconds", "ingest"] == 60
        assert found["stockcast_stream_state_rows", "dedupe-0", "ingest"] == 12
        assert found["stockcast_stream_state_rows", "dedupe-1", "ingest"] == 3
        assert found["stockcast_stream_state_rows", "event ids", "ingest"] == 99
        assert found["stockcast_stream_source_lag_rows", "ingest", "kafka-0"] == 7
        assert found["stockcast_stream_last_progress_timestamp_seconds", "ingest"] == NOW.timestamp()

    def test_batches_without_rows_do_not_count_as_fast_ones(self):
        listener, _, read = self.listening()
        listener.onQueryProgress(self.progress(numInputRows=0))
        assert ("stockcast_stream_batch_seconds_count", "ingest") not in read()

    @pytest.mark.parametrize(("exception", "failures"), [(None, 0), ("boom", 1)])
    def test_an_end_is_told_of(self, exception, failures):
        listener, _, read = self.listening()
        listener.onQueryStarted(SimpleNamespace(name="totals", runId="r"))
        listener.onQueryTerminated(SimpleNamespace(runId="r", exception=exception))
        assert read()["stockcast_stream_running", "totals"] == 0
        assert read()["stockcast_stream_failures_total", "totals"] == failures

    def test_a_report_that_is_not_understood_is_logged_and_stops_nothing(self, caplog):
        listener, _, read = self.listening()
        listener.onQueryProgress(self.progress(stateOperators=[{}]))
        assert "could not be taken up" in caplog.text
        listener.onQueryProgress(self.progress())
        assert read()["stockcast_stream_rows_total", "ingest"] == 100


def served(settings, *items: str):
    return load_settings(
        overrides=[f"home={settings.home}", f"kafka.bootstrap_servers={settings.kafka.bootstrap_servers}", *items],
        environment={},
    )


def ask(port: int, token: str | None = None) -> str:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()


class TestServing:
    def test_nothing_listens_unless_it_is_wanted(self, settings):
        port = free_port()
        with monitored(served(settings, f"monitoring.port={port}")), pytest.raises(urllib.error.URLError):
            ask(port)

    def test_metrics_are_served_while_the_block_runs_even_without_a_broker(self, settings, tables):
        plant(tables)
        port = free_port()
        with monitored(served(settings, "monitoring.enabled=true", f"monitoring.port={port}")) as metrics:
            metrics.started("relay")
            found = samples(ask(port))
        assert found["stockcast_stream_running", (("query", "relay"),)] == 1
        assert found["stockcast_records_total", (("outcome", "consumed"),)] == 140
        assert found["stockcast_figures_up", ()] == 1
        assert found["process_resident_memory_bytes", ()] > 0
        with pytest.raises(urllib.error.URLError):
            ask(port)

    def test_a_port_that_is_taken_is_said_and_stops_nothing(self, settings, caplog):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            with monitored(served(settings, "monitoring.enabled=true", f"monitoring.port={port}")):
                done = True
        assert done
        assert f"127.0.0.1:{port} cannot be listened on" in caplog.text
        assert "monitoring.port" in caplog.text

    def test_figures_that_cannot_be_taken_leave_the_rest(self, caplog):
        def take() -> Figures:
            raise OSError("no disk")

        registry = CollectorRegistry()
        registry.register(FiguresCollector(take))
        with caplog.at_level(logging.WARNING):
            found = [samples(generate_latest(registry).decode()) for _ in range(3)]
        assert found == [{("stockcast_figures_up", ()): 0}] * 3
        assert caplog.text.count("no disk") == 1

    def test_beyond_loopback_a_token_is_needed_and_asked_for(self, settings, monkeypatch):
        wide = ["monitoring.enabled=true", "monitoring.host=0.0.0.0"]
        with pytest.raises(UsageError, match=r"monitoring.host is 0.0.0.0.*STOCKCAST__MONITORING__TOKEN"):
            monitored(served(settings, *wide)).__enter__()
        token, port = "a-token-of-some-length", free_port()
        secret = Path(settings.home).parent / "token"
        secret.write_text(token)
        secret.chmod(0o600)
        here = served(settings, "monitoring.enabled=true", f"monitoring.port={port}", f"monitoring.token_file={secret}")
        with monitored(here):
            assert "stockcast_broker_up" in ask(port, token)
            for wrong in (None, token[:-1], "x" * 200):
                with pytest.raises(urllib.error.HTTPError, match="401"):
                    ask(port, wrong)


class TestRulesAndDashboard:
    @pytest.mark.parametrize("rule", RULES["groups"][0]["rules"], ids=lambda rule: rule["alert"])
    def test_a_rule_is_complete(self, rule):
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "action"}
        parse(rule["expr"])

    def test_rules_have_the_form_that_prometheus_reads(self):
        assert set(RULES) == {"groups"}
        assert [set(group) for group in RULES["groups"]] == [{"name", "rules"}]
        names = [rule["alert"] for rule in RULES["groups"][0]["rules"]]
        assert len(set(names)) == len(names) > 10

    def test_prometheus_is_told_of_jobs_rules_and_spark(self):
        config = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text(encoding="utf-8"))
        assert set(config) == {"global", "rule_files", "scrape_configs"}
        assert [(DEPLOY / name).is_file() for name in config["rule_files"]] == [True]
        jobs = {job["job_name"]: job for job in config["scrape_configs"]}
        assert set(jobs) == {"stockcast", "spark"}
        port = load_settings(environment={}).monitoring.port
        assert jobs["stockcast"]["static_configs"][0]["targets"] == [f"127.0.0.1:{port}"]
        defaults = (DEPLOY.parents[1] / "conf" / "spark-defaults.conf").read_text(encoding="utf-8")
        assert f"prometheusServlet.path         {jobs['spark']['metrics_path']}\n" in defaults

    def test_the_dashboard_has_the_form_that_grafana_reads(self):
        panels = DASHBOARD["panels"]
        assert DASHBOARD["schemaVersion"] >= 36
        assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["source"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        taken: set[tuple[int, int]] = set()
        for panel in panels:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            assert place["x"] + place["w"] <= 24
            taken |= cells
            assert panel["targets"]
            for target in panel["targets"]:
                parse(target["expr"])

    @pytest.mark.parametrize(
        "text",
        [
            "rate(x)",
            "max(x[5m])",
            "x{a=b}",
            "sum by x (y)",
            "frobnicate(x)",
            "x > ",
            "x[5m]",
            "1 and x",
            "max(x",
            "x y",
        ],
    )
    def test_what_is_no_promql_is_refused(self, text):
        with pytest.raises(ValueError, match=r"."):
            parse(text)
