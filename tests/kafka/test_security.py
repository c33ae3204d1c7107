"""Kafka over SASL_SSL with a user for each job: a small chain end to end, and refusals that say what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from pipelines.contracts import topics
from pipelines.contracts.rights import RIGHTS
from pipelines.demand.totals import run_totals
from pipelines.errors import BrokerError, UsageError
from pipelines.ingestion.stream import start_ingest
from pipelines.io import kafka
from pipelines.io.delta import Tables
from pipelines.io.kafka_rights import grant
from pipelines.operations.cli.app import app
from pipelines.operations.settings import Settings, load_settings
from pipelines.restocking.relay import relay_once
from pipelines.restocking.sending import OrderSender
from pipelines.restocking.stream import running_engine
from tests.chain import Events, plant_catalog, plant_policies
from tests.conftest import free_port
from tests.reconciler import read_table
from tests.secure_broker import ADMIN, ADMIN_PASSWORD, SecureBroker, secure_broker
from tests.stub_supplier import SECRET, supplier_running

JOBS = ("ingest_events", "restock", "relay_orders", "send_orders", "aggregate_totals", "simulate")


def password_of(user: str) -> str:
    """Passwords with everything that must be escaped somewhere."""
    return f'{user} "quoted" \\ back; and=more'


@pytest.fixture(scope="module")
def secured(tmp_path_factory) -> Iterator[SecureBroker]:
    """A broker with a user for each job, each with the rights of its job, and one with none."""
    folder = tmp_path_factory.mktemp("secure-broker")
    with secure_broker(folder, free_port(), free_port()) as broker:
        for job in JOBS:
            broker.add_user(job, password_of(job))
            grant(broker.admin, job, RIGHTS[job])
        broker.add_user("nobody", password_of("nobody"))
        yield broker


@pytest.fixture
def as_user(secured, tmp_path):
    """Settings of a home, with which a job reaches the broker as a user; its password lies in a file."""

    def settings(user: str, *more: str, password: str | None = None) -> Settings:
        file = tmp_path / f"{user}.{'password' if password is None else 'wrong'}"
        file.touch(0o600)
        file.write_text(password or password_of(user))
        return load_settings(
            overrides=[
                f"home={tmp_path / 'home'}",
                *secured.overrides(user),
                f"kafka.password_file={file}",
                *more,
            ],
            environment={"STOCKCAST__SUPPLIER_API__SECRET": SECRET},
        )

    return settings


def records(secured, topic):
    """What an administrator finds on a topic."""
    client = Consumer(
        secured.client(ADMIN, ADMIN_PASSWORD)
        | {"group.id": "outsider", "isolation.level": "read_committed", "enable.partition.eof": True}
    )
    client.assign([TopicPartition(topic, partition, 0) for partition in range(2)])
    found, ended = [], 0
    while ended < 2:
        message = client.poll(10.0)
        assert message is not None, f"{topic} could not be read"
        if message.error() is None:
            found.append((message.key().decode(), message.value()))
        else:
            ended += 1
    client.close()
    return found


def test_a_chain_runs_with_a_user_for_each_job(spark, secured, as_user):
    # given events sent by a user who may do nothing else
    events, tables = Events(seed=3, series=20), Tables(as_user("simulate"))
    series = [events.series_of(number) for number in range(events.series)]
    plant_catalog(tables, series)
    plant_policies(tables, series, reorder_point=30, order_up_to=80)
    sender = kafka.producer(as_user("simulate"))
    messages = events.take(1_500)
    for topic in (topics.POS_SALES, topics.INVENTORY_MOVEMENTS):
        kafka.send(sender, topic, [(key, value) for name, key, value in messages if name == topic])
    # when each job does its part as its own user
    start_ingest(spark, as_user("ingest_events"), tables, once=True).awaitTermination()
    with running_engine(as_user("restock"), Tables(as_user("restock"))):
        pass
    relay_once(as_user("relay_orders"), tables)
    run_totals(spark, as_user("aggregate_totals"), Tables(as_user("aggregate_totals")), once=True)
    with supplier_running() as supplier:
        options = [f"supplier_api.url={supplier.address}", "supplier_api.allowed_private_hosts=[127.0.0.1]"]
        settings = as_user("send_orders", *options)
        calls = OrderSender(settings, Tables(settings), lambda: datetime.now(UTC), once=True)
        calls.run_once()
        calls.close()
    # then every event is in, and every order went all the way
    home = as_user("nobody").home_path
    assert set(read_table(home, "silver/stock_movements").event_id) == events.valid_ids
    outbox = read_table(home, "gold/order_outbox")
    assert len(outbox) > 5
    orders = dict(zip(outbox.order_id, (payload.encode() for payload in outbox.payload), strict=True))
    assert dict(records(secured, topics.RESTOCK_ORDERS)) == orders
    assert supplier.effects == orders
    assert {key for key, _ in records(secured, topics.ORDER_STATUS)} == set(orders)
    assert records(secured, topics.STOCKOUT_FLAGS)
    assert records(secured, topics.DEMAND_TOTALS)


@pytest.mark.parametrize(
    ("job", "missing"),
    [
        ("ingest_events", "read pos.sales"),
        ("restock", "write stockout.flags"),
        ("relay_orders", "read restock.orders, write restock.orders"),
        ("send_orders", "read restock.orders, write alerts"),
        ("aggregate_totals", "write demand.totals"),
    ],
)
def test_a_user_without_the_rights_of_a_job_is_refused_in_one_line(spark, secured, as_user, job, missing):
    # given a user who may look at everything, but do something else only
    grant(secured.admin, "nobody", RIGHTS["order_api"])
    settings = as_user("nobody", "supplier_api.url=https://supplier.example.org/orders")
    tables = Tables(settings)
    start = {
        "ingest_events": lambda: start_ingest(spark, settings, tables, once=True),
        "restock": lambda: running_engine(settings, tables).__enter__(),
        "relay_orders": lambda: relay_once(settings, tables),
        "send_orders": lambda: OrderSender(settings, tables, lambda: datetime.now(UTC)),
        "aggregate_totals": lambda: run_totals(spark, settings, tables, once=True),
    }
    # when the job starts, then it is told what is missing and what to do, before anything is done
    with pytest.raises(BrokerError) as refused:
        start[job]()
    said = str(refused.value)
    assert said.startswith(f"Kafka's user nobody may not {missing}")
    assert "stockcast broker grant" in said
    assert "\n" not in said


def test_a_user_may_do_no_more_than_its_job_needs(secured, as_user):
    # given the users of jobs
    for job in JOBS:
        client = Producer(secured.client(job, password_of(job)))
        # when they write to topics that are not theirs, then the broker itself refuses
        for topic in {*topics.INPUT_TOPICS, *topics.OUTPUT_TOPICS} - set(RIGHTS[job].write):
            failures = []
            client.produce(topic, b"{}", on_delivery=lambda error, _, failures=failures: failures.append(error.name()))
            client.flush(10)
            assert failures == ["TOPIC_AUTHORIZATION_FAILED"], (job, topic)
    # and another's transactional id is not theirs either
    thief = Producer(
        secured.client("ingest_events", password_of("ingest_events")) | {"transactional.id": "stockcast-relay"}
    )
    with pytest.raises(KafkaException, match="TRANSACTIONAL_ID_AUTHORIZATION_FAILED"):
        thief.init_transactions(10)


def test_what_is_wrong_with_the_way_in_is_said_in_one_line(secured, as_user):
    # given a wrong password, and a broker whose authority we do not know
    wrong = as_user("restock", password="a-wrong-password-0815")
    for settings, expected in (
        (wrong, "does not take the password of user restock"),
        (as_user("restock", "kafka.ca_file=null"), "do not agree on TLS"),
    ):
        # then the message says so, and holds no password
        with pytest.raises(BrokerError) as refused:
            kafka.ensure_topics(settings)
        assert expected in str(refused.value)
        assert "0815" not in str(refused.value)
        assert "\n" not in str(refused.value)


def test_an_administrator_grants_a_job_to_a_user(secured, as_user, monkeypatch):
    # given a user who may do nothing
    from typer.testing import CliRunner

    secured.add_user("newcomer", password_of("newcomer"))
    with pytest.raises(BrokerError, match=r"newcomer may neither see nor create topic demand\.totals"):
        kafka.prepare(as_user("newcomer"), write=(topics.DEMAND_TOTALS,))
    # when an administrator grants it a job
    monkeypatch.setenv("STOCKCAST__KAFKA__PASSWORD", ADMIN_PASSWORD)
    options = [word for override in secured.overrides(ADMIN) for word in ("--set", override)]
    granted = CliRunner().invoke(app, ["broker", "grant", "aggregate_totals", "newcomer", *options])
    assert granted.exit_code == 0, granted.output
    # then it may do that
    monkeypatch.delenv("STOCKCAST__KAFKA__PASSWORD")
    kafka.prepare(as_user("newcomer"), write=(topics.DEMAND_TOTALS,))
    with pytest.raises(BrokerError, match=r"may not write stockout\.flags"):
        kafka.prepare(as_user("newcomer"), write=(topics.STOCKOUT_FLAGS,))


@pytest.mark.parametrize(
    ("overrides", "environment", "expected"),
    [
        (["kafka.client={sasl.password: x}"], {}, "kafka.client holds sasl.password, which is a secret"),
        (["kafka.client={sasl.jaas.config: x}"], {}, "kafka.client holds sasl.jaas.config"),
        (["kafka.username=u"], {}, "which sends neither"),
        (["kafka.security_protocol=SASL_SSL"], {}, "needs kafka.username"),
        (["kafka.security_protocol=SASL_SSL", "kafka.username=u"], {}, "STOCKCAST__KAFKA__PASSWORD"),
        (["kafka.ca_file=/ca.pem"], {}, "uses no TLS"),
        (
            ["kafka.security_protocol=SASL_SSL", "kafka.username=u", "kafka.password_file=/nowhere"],
            {"STOCKCAST__KAFKA__PASSWORD": "p"},
            "both set",
        ),
    ],
    ids=[
        "secret in client",
        "jaas in client",
        "user without SASL",
        "no user",
        "no password",
        "no TLS",
        "two passwords",
    ],
)
def test_settings_that_do_not_fit_together_are_refused(overrides, environment, expected):
    settings = load_settings(overrides=overrides, environment=environment)
    for options in (kafka.client_settings, kafka.spark_options):
        with pytest.raises(UsageError, match=expected):
            options(settings)


def test_a_password_file_that_others_can_read_is_refused(as_user, tmp_path):
    settings = as_user("restock")
    (tmp_path / "restock.password").chmod(0o640)
    with pytest.raises(UsageError, match=r"kafka\.password_file: others than its owner have rights .* chmod 600"):
        kafka.client_settings(settings)
