"""The order API as a process beside the real broker: killed between record and event, then on to the outbox."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import httpx
import pyarrow as pa
import pytest

from pipelines.contracts import topics
from pipelines.contracts.tables import BRONZE_EVENTS, ORDER_AUDIT, ORDER_OUTBOX, ORDERS
from pipelines.errors import OwnershipError
from pipelines.ingestion.ingestor import Ingestor
from pipelines.io.delta import Tables
from pipelines.restocking.engine import RestockEngine
from pipelines.serving.server import run_api
from tests.chain import plant_catalog
from tests.conftest import free_port
from tests.reconciler import read_topics

TOKEN = "planted-approve-token-0123456789"
BODY = {"location_id": "store-0", "sku": "item-0", "quantity": 30, "reason": "fair in town"}
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": "fair-1"}


@pytest.fixture
def chain(broker, tmp_path):
    settings = broker.model_copy(update={"home": str(tmp_path / "home")})
    plant_catalog(Tables(settings), [("store-0", "item-0")])
    return settings


@contextmanager
def api_process(chain, failpoint=""):
    """`stockcast api`: gives the process and its address once it answers."""
    port = free_port()
    command = [sys.executable, "-c", "from pipelines.operations.cli import main; main()", "api"]
    for name, value in {
        "home": chain.home,
        "kafka.bootstrap_servers": chain.kafka.bootstrap_servers,
        "api.port": port,
    }.items():
        command += ["--set", f"{name}={value}"]
    environment = os.environ | {"STOCKCAST__API__APPROVE_TOKEN": TOKEN, "STOCKCAST_FAILPOINT": failpoint}
    with open(f"{chain.home}/api.log", "ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 30
    try:
        while process.poll() is None and time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                httpx.get(f"{address}/health")
                break
            time.sleep(0.1)
        yield process, address
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(20)


def events_of(chain, order_id):
    records = read_topics(chain.kafka.bootstrap_servers, topics.ORDER_STATUS)
    return [record for record in records if record.key == order_id.encode()]


def test_an_order_by_hand_survives_a_kill_and_reaches_the_outbox_once(chain):
    # given an API that dies after it recorded an order and before it sent or answered anything
    with api_process(chain, "order_api.after_recording") as (process, address):
        with pytest.raises(httpx.TransportError):
            httpx.post(f"{address}/v1/orders", json=BODY, headers=HEADERS)
        assert process.wait(20) == -signal.SIGKILL
    # when it is started again and the client repeats its request
    with api_process(chain) as (_, address):
        answer = httpx.post(f"{address}/v1/orders", json=BODY, headers=HEADERS)
        assert (answer.status_code, answer.headers["Idempotency-Replayed"]) == (201, "true")
        order_id = answer.json()["order_id"]
        while httpx.get(f"{address}/health").json()["unsent_decisions"]:
            time.sleep(0.05)
        # (a second API on the same home does not start)
        with pytest.raises(OwnershipError):
            run_api(chain)
    # then there is one record of it and one event
    tables = Tables(chain)
    assert tables.read(ORDER_AUDIT).num_rows == 1
    (record,) = events_of(chain, order_id)
    # and by way of the ledger it is in the outbox once, though its event came twice, and in gold/orders
    take_in(chain, [record, record])
    engine = RestockEngine(tables, chain.restock, lambda flags: None, lambda: datetime.now(UTC))
    engine.resume()
    engine.catch_up()
    engine.save()
    (released,) = tables.read(ORDER_OUTBOX).to_pylist()
    order = json.loads(released["payload"])
    assert (order["order_id"], order["quantity"], order["location_id"]) == (order_id, 30, "store-0")
    (row,) = tables.read(ORDERS).to_pylist()
    assert (row["order_id"], row["state"], row["quantity"]) == (order_id, "approved", 30)
    # and the token is nowhere
    for folder, _, files in os.walk(chain.home):
        for name in files:
            with open(os.path.join(folder, name), "rb") as file:
                assert TOKEN.encode() not in file.read(), name


def take_in(chain, records):
    """Kafka records through ingestion, without Spark."""
    schema = pa.schema([field for field in BRONZE_EVENTS.schema if field.name != "ingested_at"])
    now = datetime.now(UTC)
    rows = [
        {**vars(record), "offset": place, "kafka_timestamp": now, "headers": None}
        for place, record in enumerate(records)
    ]
    ingestor = Ingestor(Tables(chain), chain.ingest, "test", lambda: now)
    ingestor.resume(new_stream=True)
    ingestor.take_in(0, pa.Table.from_pylist(rows, schema=schema))
