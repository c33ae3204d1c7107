"""The embedded broker: survives a restart with its data, and says clearly what is wrong."""

from __future__ import annotations

import socket

import pytest
from confluent_kafka import Producer

from pipelines.contracts import topics
from pipelines.errors import BrokerError, StockcastError, UsageError
from pipelines.io import kafka
from pipelines.operations import broker as embedded
from pipelines.operations.settings import load_settings
from tests.conftest import free_port
from tests.reconciler import read_topics


@pytest.fixture
def own(tmp_path):
    """Settings of a broker that only this test uses."""
    settings = load_settings(
        overrides=[f"home={tmp_path}", f"kafka.bootstrap_servers=127.0.0.1:{free_port()}", "broker.heap_mb=256"]
    )
    yield settings
    embedded.stop(settings)


def test_it_survives_a_restart_with_its_data(own):
    # given a broker with a record
    first = embedded.start(own)
    assert embedded.start(own) == first, "starting twice starts once"
    producer = Producer({"bootstrap.servers": own.kafka.bootstrap_servers})
    producer.produce(topics.POS_SALES, b"value", key=b"key")
    producer.flush()
    # when it is stopped and started
    assert embedded.stop(own)
    assert not embedded.stop(own)
    assert not embedded.answers(own)
    assert embedded.start(own) != first
    # then the record is still there, and so are all topics
    (record,) = read_topics(own.kafka.bootstrap_servers, topics.POS_SALES)
    assert (record.key, record.value) == (b"key", b"value")
    listed = kafka.admin(own).list_topics(timeout=10).topics
    assert {*topics.INPUT_TOPICS, *topics.OUTPUT_TOPICS} <= set(listed)


def test_it_listens_on_loopback_only(own):
    pid = embedded.start(own)
    import psutil

    listening = {c.laddr.ip for c in psutil.Process(pid).net_connections("tcp") if c.status == "LISTEN"}
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_a_taken_port_is_named(own):
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(own.kafka.bootstrap_servers.split(":")[1])))
        other.listen()
        with pytest.raises(BrokerError, match=r"is taken by another program.*--set kafka\.bootstrap_servers"):
            embedded.start(own)


def test_missing_java_is_named(own, monkeypatch, tmp_path):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(StockcastError, match="Java 17 or newer is needed"):
        embedded.start(own)


def test_a_foreign_address_is_not_started():
    settings = load_settings(overrides=["kafka.bootstrap_servers=kafka.example.org:9092"])
    with pytest.raises(UsageError, match=r"127\.0\.0\.1"):
        embedded.start(settings)


def test_a_silent_broker_is_named():
    settings = load_settings(overrides=[f"kafka.bootstrap_servers=127.0.0.1:{free_port()}"])
    with pytest.raises(BrokerError, match="stockcast broker start"):
        kafka.ensure_topics(settings)
