"""The relay: every order of the outbox on the topic once, whatever happens in between."""

from __future__ import annotations

import time
from contextlib import suppress

import psutil
import pyarrow as pa
import pytest

from pipelines.contracts import topics
from pipelines.contracts.tables import ORDER_OUTBOX
from pipelines.errors import BrokerError
from pipelines.io.delta import Tables
from pipelines.operations import broker as embedded
from pipelines.operations.settings import load_settings
from pipelines.restocking import relay as relays
from pipelines.restocking.relay import Relay, relay_once
from tests.conftest import free_port
from tests.reconciler import read_topics


@pytest.fixture
def own(tmp_path):
    settings = load_settings(
        overrides=[f"home={tmp_path}", f"kafka.bootstrap_servers=127.0.0.1:{free_port()}", "broker.heap_mb=256"]
    )
    embedded.start(settings)
    yield settings
    embedded.stop(settings)


def decide(tables, first, last):
    rows = [{"sequence": n, "order_id": f"o-{n}", "payload": f'{{"order_id":"o-{n}"}}'} for n in range(first, last + 1)]
    tables.append(ORDER_OUTBOX, pa.Table.from_pylist(rows, schema=ORDER_OUTBOX.schema), "test", last)


def published(settings):
    return sorted(
        record.key.decode() for record in read_topics(settings.kafka.bootstrap_servers, topics.RESTOCK_ORDERS)
    )


def orders(count):
    return sorted(f"o-{n}" for n in range(1, count + 1))


def test_orders_are_published_once_over_restarts(own):
    tables = Tables(own)
    assert relay_once(own, tables) == 0
    decide(tables, 1, 700)
    assert relay_once(own, Tables(own)) == 700
    assert relay_once(own, Tables(own)) == 0
    decide(tables, 701, 703)
    relay = Relay(own, tables)
    assert relay.publish_available() == 3
    assert relay.publish_available() == 0
    relay.close()
    assert published(own) == orders(703)


def test_dying_inside_a_transaction_loses_and_doubles_nothing(own, monkeypatch):
    tables = Tables(own)
    decide(tables, 1, 5)

    def die(name):
        if name == "relay.inside_transaction":
            raise SystemError("killed")

    monkeypatch.setattr(relays, "failpoint", die)
    dead = Relay(own, tables)
    with pytest.raises(SystemError):
        dead.publish_available()
    monkeypatch.undo()
    assert relay_once(own, Tables(own)) == 5
    assert published(own) == orders(5)


def test_dying_after_the_transaction_doubles_nothing(own, monkeypatch):
    tables = Tables(own)
    decide(tables, 1, 5)

    def die(name):
        if name == "relay.after_transaction":
            raise SystemError("killed")

    monkeypatch.setattr(relays, "failpoint", die)
    with pytest.raises(SystemError):
        Relay(own, tables).publish_available()
    monkeypatch.undo()
    assert relay_once(own, Tables(own)) == 0
    assert published(own) == orders(5)


def test_a_second_relay_fences_the_first(own):
    tables = Tables(own)
    first = Relay(own, tables)
    decide(tables, 1, 2)
    assert first.publish_available() == 2
    second = Relay(own, Tables(own))
    decide(tables, 3, 4)
    assert second.publish_available() == 2
    # the first wakes up with an old view of the outbox and tries to publish the same orders
    with pytest.raises(BrokerError, match="another relay took over"):
        first.publish_available()
    assert published(own) == orders(4)


def test_after_the_broker_was_killed_the_rest_is_published_once(own, monkeypatch):
    # given a relay that has published, and a broker that dies and comes back with its data
    monkeypatch.setattr(relays, "OFFSETS_TIMEOUT", 3.0)
    tables = Tables(own)
    decide(tables, 1, 5)
    relay = Relay(own, tables)
    assert relay.publish_available() == 5
    broker = psutil.Process(embedded.running(own))
    broker.kill()
    broker.wait(60)
    decide(tables, 6, 8)
    embedded.start(own)
    # when it goes on: it publishes, or it ends in time, since its client may wait for ever
    started = time.monotonic()
    with suppress(BrokerError):
        relay.publish_available()
    assert time.monotonic() < started + 60
    # then a successor publishes what is left, and each order is there once
    relay_once(own, Tables(own))
    assert published(own) == orders(8)
