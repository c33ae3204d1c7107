"""Orders from the outbox over the relay to a supplier's API: one effect each, whatever dies in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import SecretStr

from pipelines.contracts import topics
from pipelines.contracts.tables import LOCATIONS, ORDER_OUTBOX, ORDER_STATUS, SUPPLIER_CALLS, SUPPLIERS
from pipelines.errors import StockcastError
from pipelines.io.delta import Tables
from pipelines.restocking.relay import Relay, relay_once
from pipelines.restocking.sending import OrderSender
from tests.reconciler import read_topics
from tests.stub_supplier import SECRET, supplier_running

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def placed(broker, tmp_path_factory):
    """How many orders were decided so far, on this broker: each test has orders of its own."""
    home = tmp_path_factory.mktemp("sending")
    with closing(Relay(broker, Tables(broker.model_copy(update={"home": str(home)})))) as relay:
        return {"home": home, "orders": relay.place}


@pytest.fixture(scope="module")
def running():
    with supplier_running() as supplier:
        yield supplier


@pytest.fixture
def supplier(running):
    running.script.clear()
    running.calls.clear()
    return running


@pytest.fixture
def chain(broker, placed, supplier):
    """The broker's settings with a home of its own and the stub supplier."""
    api = broker.supplier_api.model_copy(
        update={
            "url": supplier.address,
            "secret": SecretStr(SECRET),
            "timeout_seconds": 2.0,
            "first_pause_seconds": 0.02,
            "largest_pause_seconds": 0.2,
            "retry_seconds": 1.0,
            "allowed_private_hosts": ("127.0.0.1",),
        }
    )
    return broker.model_copy(update={"home": str(placed["home"]), "supplier_api": api})


@pytest.fixture
def publish(chain, placed):
    """Decides orders and relays them; gives their ids."""

    def decide(count, **fields):
        first = placed["orders"] + 1
        placed["orders"] += count
        names = [f"o-{number}" for number in range(first, first + count)]
        rows = [
            {
                "sequence": first + place,
                "order_id": name,
                "payload": json.dumps({"order_id": name, "quantity": 6, **fields}),
            }
            for place, name in enumerate(names)
        ]
        tables = Tables(chain)
        tables.append(ORDER_OUTBOX, pa.Table.from_pylist(rows, schema=ORDER_OUTBOX.schema), "test", first + count)
        assert relay_once(chain, tables) == count
        return names

    return decide


def sender(chain, once=True):
    return closing(OrderSender(chain, Tables(chain), lambda: datetime.now(UTC), once=once))


def send_once(chain):
    with sender(chain) as sending:
        sending.run_once()


def outcomes(chain, names):
    rows = Tables(chain).read(SUPPLIER_CALLS).sort_by("answered_at").to_pylist()
    return {name: [row["outcome"] for row in rows if row["order_id"] == name] for name in names}


def statuses(chain, names):
    """The distinct status events of the orders, by order, from Kafka."""
    found = {name: set() for name in names}
    for record in read_topics(chain.kafka.bootstrap_servers, topics.ORDER_STATUS):
        if (event := json.loads(record.value))["order_id"] in found:
            found[event["order_id"]].add((event["event_id"], event["status"], record.value))
    return found


@pytest.fixture(scope="module", autouse=True)
def _other_orders_are_passed(broker, placed, running):
    """Orders that other tests left on the broker's topic are taken first."""
    api = {"url": running.address, "secret": SecretStr(SECRET), "allowed_private_hosts": ("127.0.0.1",)}
    settings = broker.model_copy(
        update={"home": str(placed["home"]), "supplier_api": broker.supplier_api.model_copy(update=api)}
    )
    send_once(settings)


def test_each_order_has_one_effect_and_one_acknowledgement(chain, publish, supplier):
    names = publish(60)
    supplier.script[names[3]] = [503, "lost", 429]
    send_once(chain)
    send_once(chain)
    assert all(supplier.effects[name] == json.dumps({"order_id": name, "quantity": 6}).encode() for name in names)
    assert all(outcome == ["acknowledged"] for outcome in outcomes(chain, names).values())
    assert all([status for _, status, _ in events] == ["acknowledged"] for events in statuses(chain, names).values())
    assert sum(key == names[3] for key, *_ in supplier.calls) == 4


def test_an_order_that_is_refused_or_never_gets_through_holds_up_none_of_the_others(chain, publish, supplier):
    names = publish(30)
    refused, stuck = names[0], names[1]
    supplier.script[refused] = [422]
    supplier.script[stuck] = [503] * 10_000
    stop = threading.Event()
    with sender(chain, once=False) as sending:
        thread = threading.Thread(target=sending.run, args=(stop.wait,))
        thread.start()
        # then the others are through, the refused one is parked, and the stuck one is tried on
        wait_until(lambda: all(outcomes(chain, names[2:]).values()))
        wait_until(lambda: any(alert["kind"] == "order_delayed" for alert in alerts(chain, stuck)))
        assert outcomes(chain, [refused, stuck]) == {refused: ["parked"], stuck: []}
        assert [alert["kind"] for alert in alerts(chain, refused)] == ["order_parked"]
        # and when the supplier takes it, it is
        supplier.script[stuck].clear()
        wait_until(lambda: outcomes(chain, [stuck]) == {stuck: ["acknowledged"]})
        stop.set()
        thread.join(20)
    # a parked order goes out after the fix
    with sender(chain) as sending:
        assert sending.retry_parked() == 1
        sending.run_once()
    assert outcomes(chain, [refused]) == {refused: ["parked", "retry", "acknowledged"]}
    assert set(names) <= set(supplier.effects)


def test_what_could_not_be_sent_is_said_and_sent_by_a_later_run(chain, publish, supplier):
    names = publish(3)
    supplier.script[names[0]] = [503] * 1_000
    with pytest.raises(StockcastError, match=names[0]):
        send_once(chain)
    assert outcomes(chain, names) == {names[0]: [], names[1]: ["acknowledged"], names[2]: ["acknowledged"]}
    supplier.script.clear()
    send_once(chain)
    assert outcomes(chain, names) == {name: ["acknowledged"] for name in names}


def test_an_order_called_off_before_it_was_sent_is_not_sent(chain, publish, supplier):
    names = publish(2)
    now = datetime.now(UTC)
    row = {"event_id": "d-1", "event_time": now, "order_id": names[0], "status": "rejected", "ingested_at": now}
    Tables(chain).append(ORDER_STATUS, pa.Table.from_pylist([row], schema=ORDER_STATUS.schema))
    send_once(chain)
    assert outcomes(chain, names) == {names[0]: ["withdrawn"], names[1]: ["acknowledged"]}
    assert names[0] not in supplier.effects


def test_an_order_called_off_after_it_was_called_is_not_taken_for_unsent(chain, publish, supplier):
    # given an order that the supplier has, whose answer died with the sender, and that is then called off
    (called,) = publish(1)
    assert run_job(chain, "supplier.after_call") == -signal.SIGKILL
    assert called in supplier.effects
    (unsent,) = publish(1)
    now = datetime.now(UTC)
    rows = [
        {"event_id": f"d-{name}", "event_time": now, "order_id": name, "status": "rejected", "ingested_at": now}
        for name in (called, unsent)
    ]
    Tables(chain).append(ORDER_STATUS, pa.Table.from_pylist(rows, schema=ORDER_STATUS.schema))
    # when the sender goes on
    assert run_job(chain) == 0
    # then what the supplier has is known to be sent, and the other is withdrawn
    assert outcomes(chain, [called, unsent]) == {called: ["acknowledged"], unsent: ["withdrawn"]}
    assert unsent not in supplier.effects


@pytest.mark.parametrize("failpoint", ["supplier.after_call:5", "supplier.after_storing"])
def test_killed_after_the_call_or_after_its_answer_each_order_still_has_one_effect(chain, publish, supplier, failpoint):
    # given orders, and a sender that dies
    names = publish(12)
    assert run_job(chain, failpoint) == -signal.SIGKILL
    before = {name: supplier.effects.get(name) for name in names}
    assert any(before.values())
    # when it is started again
    started = time.monotonic()
    assert run_job(chain) == 0
    # then every order has one effect, one stored answer and one acknowledgement, and it did not take long
    assert set(names) <= set(supplier.effects)
    assert all(outcome == ["acknowledged"] for outcome in outcomes(chain, names).values())
    assert all(len(events) == 1 for events in statuses(chain, names).values())
    assert time.monotonic() - started < 30
    if failpoint.startswith("supplier.after_call"):
        assert len(supplier.calls) > len(names)


def run_job(chain, failpoint=""):
    api = chain.supplier_api
    options = {
        "home": chain.home,
        "kafka.bootstrap_servers": chain.kafka.bootstrap_servers,
        "supplier_api.url": api.url,
        "supplier_api.allowed_private_hosts": "[127.0.0.1]",
        "supplier_api.first_pause_seconds": api.first_pause_seconds,
    }
    command = [sys.executable, str(ROOT / "jobs" / "send_orders.py"), "--once"]
    for name, value in options.items():
        command += ["--set", f"{name}={value}"]
    secrets = {"STOCKCAST__SUPPLIER_API__SECRET": SECRET, "STOCKCAST_FAILPOINT": failpoint}
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **secrets}, timeout=90, check=False).returncode


def alerts(chain, order_id):
    records = read_topics(chain.kafka.bootstrap_servers, topics.ALERTS)
    # Other tests of the same broker send what is no alert.
    said = [json.loads(record.value) for record in records if record.value.startswith(b"{")]
    found = {alert["alert_id"]: alert for alert in said if "alert_id" in alert}
    return [alert for alert in found.values() if alert.get("subject") == order_id]


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_a_transfer_is_published_and_no_supplier_is_called_for_it(chain, publish, supplier):
    # given a chain whose store can spare something, and a warehouse that is also a supplier
    tables = Tables(chain)
    places = [{"location_id": name, "kind": kind} for name, kind in (("s-1", "store"), ("w-1", "warehouse"))]
    tables.overwrite(LOCATIONS, pa.Table.from_pylist(places, schema=LOCATIONS.schema))
    tables.overwrite(SUPPLIERS, pa.Table.from_pylist([{"supplier_id": "w-1"}], schema=SUPPLIERS.schema))
    # when both are asked for goods
    (moved,), (bought,) = publish(1, supplier_id="s-1"), publish(1, supplier_id="w-1")
    send_once(chain)
    # then only the supplier is called
    assert outcomes(chain, [moved, bought]) == {moved: ["internal"], bought: ["acknowledged"]}
    assert statuses(chain, [moved]) == {moved: set()}
