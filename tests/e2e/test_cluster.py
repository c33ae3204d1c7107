"""Every job of the chain through plain spark-submit, on a standalone cluster, with nothing but the wheel.

What this proves: drivers and executors run a Python that cannot import the project by itself, from a folder
outside the checkout and with no PYTHONPATH; so whatever ran in them came out of the wheel in `--py-files`. The
results are read with deltalake and confluent-kafka alone, and held against the topics' own account and against
a local run on the same topics.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest
import simulation_oracle as oracle
import yaml
from confluent_kafka import Consumer, TopicPartition
from deltalake import DeltaTable
from mlflow import MlflowClient

from pipelines.demand.aggregate import aggregate_demand
from pipelines.ingestion.catalog import load_catalog
from pipelines.ingestion.stream import start_ingest
from pipelines.io.delta import Tables
from pipelines.operations import broker
from pipelines.operations.settings import Settings, load_settings
from pipelines.simulation import store
from pipelines.simulation.history import simulate_history
from pipelines.simulation.manifest import Manifest
from pipelines.simulation.plan import Faults, Plan
from tests.e2e.cluster import (
    Cluster,
    bare_environment,
    free_port,
    standalone_cluster,
)

PLAN = Plan(
    date(2025, 11, 1), seed=11, stores=2, products=3, days=90, low_stock=3, faults=Faults(0.03, 0.03, 0.02, 0.005)
)
AS_OF = PLAN.cutoff - timedelta(days=1)
SERIES = PLAN.stores * PLAN.products
EXECUTOR_MB = 640
RESOURCES = ("--driver-memory", "1g", "--executor-memory", f"{EXECUTOR_MB}m")
SMALL = {
    "forecast": {"uncertainty_samples": 50, "horizon_days": 14, "hourly_horizon_hours": 24},
    "planning": {"paths": 500, "driver_series": 0},  # 0: plan on the executors, however few series there are
}
SECONDS = 1200
INPUT = ("pos.sales", "inventory.movements", "shipments.events", "restock.order_status")


pytestmark = pytest.mark.timeout(SECONDS)


@dataclass(frozen=True)
class Chain:
    """A chain whose events went through every job on the cluster, seen from outside."""

    settings: Settings
    sent: Manifest
    cluster: Cluster
    logs: dict[str, str]

    def table(self, name: str) -> pd.DataFrame:
        return DeltaTable(f"{self.settings.home}/tables/{name}").to_pandas()

    def topic(self, *names: str) -> list[tuple[str, bytes | None]]:
        """(topic, value) of all committed records."""
        client = Consumer(
            {
                "bootstrap.servers": self.settings.kafka.bootstrap_servers,
                "group.id": "outsider",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )
        places = [
            TopicPartition(name, partition, 0)
            for name in names
            for partition in client.list_topics(name, timeout=10).topics[name].partitions
        ]
        client.assign(places)
        records, ended = [], 0
        while ended < len(places):
            message = client.poll(20)
            assert message is not None, f"{names}: no end after {len(records)} records"
            if message.error() is None:
                records.append((message.topic(), message.value()))
            else:
                ended += 1
        client.close()
        return records


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Manifest]]:
    """A small chain's history on a broker that holds nothing else."""
    home = tmp_path_factory.mktemp("cluster") / "home"
    servers = f"127.0.0.1:{free_port()}"
    settings = load_settings(overrides=[f"home={home}", f"kafka.bootstrap_servers={servers}", "broker.heap_mb=384"])
    broker.start(settings)
    try:
        yield settings, simulate_history(settings, PLAN)
    finally:
        broker.stop(settings)


@pytest.fixture(scope="module")
def chain(sent: tuple[Settings, Manifest], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """The jobs in turn, each by spark-submit, while the cluster runs."""
    settings, manifest = sent
    folder = tmp_path_factory.mktemp("standalone")
    config = folder / "small.yaml"
    config.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    here = ("--set", f"home={settings.home}", "--set", f"kafka.bootstrap_servers={settings.kafka.bootstrap_servers}")
    night = ("--as-of", AS_OF.isoformat())
    with standalone_cluster(folder) as cluster:
        logs = {
            job: cluster.submit(
                job, "--config", str(config), *here, *arguments, options=RESOURCES, configured=job != "restock"
            )
            for job, arguments in (
                ("load_catalog", ("--source", str(store.catalog_folder(settings)))),
                ("ingest_events", ("--once",)),
                ("aggregate_demand", night),
                ("train_forecasts", night),
                ("plan_inventory", night),
                ("restock", ("--once",)),
                ("relay_orders", ("--once",)),
            )
        }
        yield Chain(settings, manifest, cluster, logs)


def test_the_jobs_python_has_the_packages_but_not_the_project(chain: Chain) -> None:
    def import_(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [chain.cluster.python, "-c", f"import {name}"],
            env=bare_environment(), cwd="/", capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert import_("pyspark, deltalake, confluent_kafka").returncode == 0
    assert "No module named 'pipelines'" in import_("pipelines").stderr


def test_both_workers_ran_the_applications_with_the_memory_of_the_command_line(chain: Chain) -> None:
    finished = chain.cluster.status()["completedapps"]
    names = [application["name"] for application in finished]
    assert len(names) == 5, names
    for word in ("ingest", "demand", "train", "plan", "restock"):
        assert any(word in name for name in names), (word, names)
    assert {application["state"] for application in finished} == {"FINISHED"}
    assert {application["memoryperexecutor"] for application in finished} == {EXECUTOR_MB}
    for worker in ("worker-0", "worker-1"):
        ran = {path.parent.name for path in (chain.cluster.folder / worker / "work").glob("app-*/*")}
        assert ran == {application["id"] for application in finished}


def test_the_ledger_holds_the_valid_events_of_the_topics_once(chain: Chain) -> None:
    catalog = store.catalog_folder(chain.settings)
    skus = set(pd.read_csv(catalog / "products.csv")["sku"])
    locations = set(pd.read_csv(catalog / "locations.csv")["location_id"])
    records = chain.topic(*INPUT)
    latest = PLAN.cutoff.isoformat()
    expected = oracle.ledger(
        event
        for topic, value in records
        if (event := oracle.read_event(topic, value, skus, locations, latest)) is not None
    )
    ledger = chain.table("silver/stock_movements")

    assert len(records) == chain.sent.messages > 3000
    assert len(ledger) == sum(chain.sent.topics[topic].valid for topic in INPUT[:2])
    columns = ["event_time", "location_id", "sku", "kind", "quantity", "change"]
    pd.testing.assert_frame_equal(
        ledger.set_index("event_id")[columns].sort_index(),
        expected.set_index("event_id")[columns].sort_index(),
        check_dtype=False,
    )
    positions = chain.table("gold/inventory_positions")
    on_hand = {f"{row.location_id}|{row.sku}": row.on_hand for row in positions.itertuples()}
    assert on_hand == oracle.on_hand(expected)
    counts = chain.table("silver/ingest_batches")[["consumed", "good", "quarantined", "duplicates", "tombstones"]].sum()
    assert counts["consumed"] == chain.sent.messages == counts.drop("consumed").sum()
    assert counts["good"] == chain.sent.total("valid")
    assert counts["duplicates"] == chain.sent.total("exact_duplicates")
    assert counts["tombstones"] == chain.sent.total("tombstones")


def test_a_local_run_on_the_same_topics_finds_the_same_tables(chain: Chain, spark, tmp_path: Path) -> None:
    local = chain.settings.model_copy(update={"home": str(tmp_path / "home")})
    tables = Tables(local)
    load_catalog(local, tables, store.catalog_folder(chain.settings))
    start_ingest(spark, local, tables, once=True).awaitTermination()
    aggregate_demand(spark, local, tables, AS_OF)

    for name, keys, arrival in (
        ("silver/stock_movements", ["event_id"], ["ingested_at", "sequence"]),
        ("silver/shipment_events", ["event_id"], ["ingested_at", "sequence"]),
        ("silver/quarantine", ["topic", "partition", "offset"], ["quarantined_at"]),
        ("gold/daily_demand", ["location_id", "sku", "date"], []),
        ("gold/hourly_demand", ["location_id", "sku", "hour"], []),
        ("gold/demand_totals", ["scope", "window_start"], []),
    ):
        there = chain.table(name).drop(columns=arrival).set_index(keys).sort_index()
        here = DeltaTable(f"{local.home}/tables/{name}").to_pandas().drop(columns=arrival).set_index(keys).sort_index()
        assert len(here) > 0, name
        pd.testing.assert_frame_equal(there, here, obj=name)


def test_every_series_has_forecasts_and_a_policy_that_were_put_in_force(chain: Chain) -> None:
    in_force = chain.table("gold/published").set_index("artefact")["version"]
    forecasts = chain.table("gold/forecasts").query("forecast_version == @in_force['forecasts']")
    policies = chain.table("gold/inventory_policies").query("policy_version == @in_force['policies']")

    rows = forecasts.groupby(["location_id", "sku", "grain"]).size().unstack("grain")
    assert len(rows) == SERIES
    assert set(rows["day"]) == {14}
    assert set(rows["hour"]) == {24}
    assert set(chain.table("gold/series_status")["status"]) <= {"ok", "fallback"}
    assert len(policies) == policies.groupby(["location_id", "sku"]).ngroups == SERIES
    assert set(policies["forecast_version"]) == {in_force["forecasts"]}


def test_the_training_was_tracked_and_its_model_serves_where_the_project_is_not_installed(chain: Chain) -> None:
    assert "MLflow could not" not in chain.logs["train_forecasts"]
    client = MlflowClient(*2 * [f"sqlite:///{chain.settings.home}/mlflow.db"])
    model = client.get_registered_model("stockcast-demand")
    assert set(model.aliases) == {"champion", "challenger"}
    (model_file,) = Path(chain.settings.home, "mlartifacts").rglob("MLmodel")
    series = chain.table("catalog/sourcing")[["location_id", "sku"]]
    program = (
        "import io, sys, mlflow.pyfunc, pandas as pd; model = mlflow.pyfunc.load_model(sys.argv[1]);"
        "print(len(model.predict(pd.read_json(io.StringIO(sys.argv[2])))))"
    )
    served = subprocess.run(
        [chain.cluster.python, "-c", program, model_file.parent, series.assign(horizon=5).to_json(orient="records")],
        env=bare_environment(), cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert served.returncode == 0, served.stderr
    assert int(served.stdout) == 5 * SERIES


def test_the_topic_holds_the_outbox_and_another_relay_adds_nothing(chain: Chain) -> None:
    outbox = chain.table("gold/order_outbox")
    assert len(outbox) >= PLAN.low_stock

    here = ("--set", f"home={chain.settings.home}")
    servers = ("--set", f"kafka.bootstrap_servers={chain.settings.kafka.bootstrap_servers}")
    chain.cluster.submit("relay_orders", "--once", *here, *servers, options=RESOURCES)

    sent = Counter(value.decode() for _, value in chain.topic("restock.orders"))
    assert sent == Counter(outbox["payload"])
    assert set(sent.values()) == {1}
    orders = chain.table("gold/orders").set_index("order_id")["quantity"].to_dict()
    assert orders == {order["order_id"]: order["quantity"] for order in map(json.loads, sent)}
    assert chain.topic("stockout.flags")
