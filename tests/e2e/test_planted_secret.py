"""Secrets of a run are found nowhere: not in logs, Spark's UI, event logs, checkpoints, tables or MLflow."""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
import sys
import threading
from datetime import date
from pathlib import Path

import httpx
import psutil
import pytest

from pipelines.contracts.rights import RIGHTS
from pipelines.ingestion.catalog import load_catalog
from pipelines.io.delta import Tables
from pipelines.io.kafka_rights import grant
from pipelines.operations.settings import load_settings
from pipelines.simulation import store
from pipelines.simulation.history import simulate_history
from pipelines.simulation.plan import Plan
from tests.chain import plant_policies
from tests.conftest import free_port
from tests.reconciler import read_table
from tests.secret_scan import find
from tests.secure_broker import secure_broker
from tests.short_spark import SHORT_LIVED
from tests.stub_supplier import SECRET as SIGNING_SECRET
from tests.stub_supplier import supplier_running

ROOT = Path(__file__).parents[2]
PLAN = Plan(date(2026, 3, 1), seed=8, stores=1, products=3, days=21)
SECRETS = {
    "STOCKCAST__KAFKA__PASSWORD": 'planted-kafka "password" \\ 7f3a91',
    "STOCKCAST__API__APPROVE_TOKEN": "planted-approve-token-5d10c2",
    "STOCKCAST__API__READ_TOKEN": "planted-read-token-88e4b1",
    "STOCKCAST__API__WEBHOOK_SECRET": "whsec_" + base64.b64encode(b"planted-webhook-secret-21b7").decode(),
    "STOCKCAST__SUPPLIER_API__SECRET": SIGNING_SECRET,
}
PLANS = "sql?details=true&planDescription=true&length=1000"
CHEAP = [
    "forecast.engine=seasonal_naive",
    *(f"forecast.candidates.{name}=[default]" for name in ("smooth", "erratic", "intermittent", "lumpy")),
    "forecast.ensemble=[seasonal_naive]",
    "forecast.backtest_cutoffs=1",
    "forecast.calibration=none",
    "forecast.hourly_method=profile",
    "forecast.hourly_horizon_hours=24",
]
PAGES = ("environment/", "SQL/", "StreamingQuery/", "jobs/", "stages/", "executors/")


@pytest.fixture
def secured(tmp_path_factory):
    """A secured broker with one user for all that happens here."""
    with secure_broker(tmp_path_factory.mktemp("secure-broker"), free_port(), free_port()) as broker:
        broker.add_user("live", SECRETS["STOCKCAST__KAFKA__PASSWORD"])
        for job in ("live", "simulate"):
            grant(broker.admin, "live", RIGHTS[job])
        yield broker


class Watcher(threading.Thread):
    """Keeps what Spark's UI answers and what the processes' command lines say, while a job runs."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        super().__init__(daemon=True)
        self._process, self._base = process, f"http://127.0.0.1:{port}"
        self.seen: dict[str, bytes] = {}

    def run(self) -> None:
        while self._process.poll() is None:
            # The UI comes later than the process and goes before it.
            with contextlib.suppress(httpx.HTTPError, psutil.Error, ValueError, IndexError):
                self._look()
            threading.Event().wait(0.5)

    def _look(self) -> None:
        root = psutil.Process(self._process.pid)
        for process in [root, *root.children(recursive=True)]:
            self._keep(f"command line of {process.name()}", " ".join(process.cmdline()).encode())
        api = f"{self._base}/api/v1/applications"
        application = httpx.get(api).json()[0]["id"]
        for part in (
            "environment",
            "sql?details=true&planDescription=true&length=1000",
            "jobs",
            "stages",
            "allexecutors",
        ):
            self._keep(part, httpx.get(f"{api}/{application}/{part}").content)
        for page in PAGES:
            self._keep(page, httpx.get(f"{self._base}/{page}").content)
        for number in range(0, len(httpx.get(f"{api}/{application}/sql?length=1000").json()), 20):
            self._keep("SQL/execution", httpx.get(f"{self._base}/SQL/execution/?id={number}").content)

    def _keep(self, name: str, content: bytes) -> None:
        if content not in self.seen.get(name, b""):
            self.seen[name] = self.seen.get(name, b"") + content


def test_planted_secrets_are_found_nowhere(secured, tmp_path):
    # given a chain whose Kafka, supplier and order API all have secrets, and everything that Spark can write down
    home, events = tmp_path / "home", tmp_path / "home" / "eventlog"
    events.mkdir(parents=True)
    options = [f"home={home}", *secured.overrides("live"), "orders.expiry_hours=1"]
    settings = load_settings(overrides=options, environment=SECRETS)
    tables = Tables(settings)
    simulate_history(settings, PLAN)
    load_catalog(settings, tables, store.catalog_folder(settings))
    rows = read_table(home, "catalog/sourcing")
    series = list(zip(rows.location_id, rows.sku, strict=True))
    plant_policies(tables, series, as_of=date(2026, 2, 1), reorder_point=5_000, order_up_to=5_100)
    port = free_port()
    submit = (
        f"--master local[2] --driver-memory 1g {SHORT_LIVED} --conf spark.ui.port={port} "
        f"--conf spark.eventLog.enabled=true --conf spark.eventLog.dir={events.as_uri()} "
        "--conf spark.eventLog.compress=false --conf spark.eventLog.rolling.enabled=false "
        "--conf spark.sql.shuffle.partitions=2 pyspark-shell"
    )
    seen: dict[str, bytes] = {}
    with supplier_running() as supplier:
        options += [f"supplier_api.url={supplier.address}", "supplier_api.allowed_private_hosts=[127.0.0.1]"]
        # when the live job and a night run, as talkative as they can be
        for job, more in (("live", ["--once"]), ("nightly", ["--as-of", "2026-02-28"])):
            sets = [word for option in (*options, *CHEAP) for word in ("--set", option)]
            with open(home / f"{job}.log", "wb") as log:
                process = subprocess.Popen(
                    [sys.executable, str(ROOT / "jobs" / f"{job}.py"), "--verbose", *more, *sets],
                    cwd=ROOT,
                    env={**os.environ, **SECRETS, "PYSPARK_SUBMIT_ARGS": submit, "PYTHONPATH": str(ROOT)},
                    stdout=log,
                    stderr=log,
                )
            watcher = Watcher(process, port)
            watcher.start()
            try:
                assert process.wait(600) == 0, (home / f"{job}.log").read_text()[-3000:]
            finally:
                process.kill()
                watcher.join(10)
            seen |= {f"{job}: {name}": content for name, content in watcher.seen.items()}
        # then both did their work with the secrets
        assert supplier.effects
        assert supplier.unsigned == 0
    assert len(read_table(home, "gold/series_status")) == len(series)
    # and wrote down what was expected: logs, plans, environment, tables, checkpoints, MLflow
    assert b"spark.eventLog.enabled" in b"".join(seen.get(f"{job}: environment", b"") for job in ("live", "nightly"))
    assert b"planDescription" in b"".join(content for name, content in seen.items() if name.endswith(PLANS))
    assert len(list(events.iterdir())) == 2
    assert b"SparkListenerSQLExecutionStart" in b"".join(path.read_bytes() for path in events.iterdir())
    assert (home / "mlflow.db").is_file()
    assert (home / "checkpoints" / "ingest" / "offsets").is_dir()
    # and no secret is anywhere
    found, looked = find(SECRETS, home, seen)
    assert found == []
    assert looked > 200
