"""Kafka clients, topics, and Kafka as a Spark source."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from pyspark.sql import DataFrame, SparkSession

from pipelines.contracts import topics
from pipelines.errors import BrokerError
from pipelines.io.kafka_rights import HINT, check_rights
from pipelines.io.kafka_security import java_options, librdkafka_options
from pipelines.operations.settings import Settings

_LEADER_SECONDS = 15.0
_NOT_ALLOWED = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)
_NO_LEADER_YET = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)


def client_settings(settings: Settings) -> dict[str, Any]:
    """librdkafka settings shared by every client.

    Its own log is cut to what is critical: it repeats each refused connection every second, and what fails for
    good reaches us as an error.
    """
    return {
        "bootstrap.servers": settings.kafka.bootstrap_servers,
        "log_level": 2,
        **librdkafka_options(settings.kafka),
    }


def admin(settings: Settings) -> AdminClient:
    """An admin client."""
    return AdminClient(client_settings(settings))


def producer(settings: Settings, **extra: Any) -> Producer:
    """An idempotent producer that waits for all replicas."""
    return Producer(
        {
            **client_settings(settings),
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 5,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 500_000,
            **extra,
        }
    )


def send(client: Producer, topic: str, messages: Iterable[tuple[str, bytes]]) -> None:
    """Produce (key, value) pairs and return when the broker has them all.

    Raises:
        BrokerError: a record could not be delivered.
    """
    failures: list[str] = []

    def delivered(error: Any, _: Any) -> None:
        if error is not None:
            failures.append(error.str())

    for key, value in messages:
        while True:
            try:
                client.produce(topic, value, key=key, on_delivery=delivered)
                break
            except BufferError:
                client.poll(0.1)
    client.flush()
    if failures:
        raise BrokerError(f"{len(failures)} records for {topic} were not delivered; the first: {failures[0]}")


def consumer(settings: Settings, group: str, **extra: Any) -> Consumer:
    """A consumer that sees committed records only and commits nothing by itself."""
    return Consumer(
        {
            **client_settings(settings),
            "group.id": group,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            **extra,
        }
    )


def prepare(settings: Settings, *, read: Sequence[str] = (), write: Sequence[str] = ()) -> None:
    """Make the topics that do not exist yet, and make sure that we may read and write them.

    Raises:
        BrokerError: the broker cannot be reached, or it refuses us; says what, and what to do.
    """
    ensure_topics(settings, tuple(dict.fromkeys((*read, *write))))
    if settings.kafka.username is not None:
        check_rights(admin(settings), settings.kafka.username, read, write)


def ensure_topics(settings: Settings, names: Iterable[str] = (*topics.INPUT_TOPICS, *topics.OUTPUT_TOPICS)) -> None:
    """Create the topics that do not exist; existing ones stay as they are.

    The broker stamps records on arrival (`LogAppendTime`), so that a producer's wrong clock cannot hide
    an event from the future, and retention never removes replayed history early.

    Raises:
        BrokerError: the broker cannot be reached or refuses.
    """
    refusals: list[KafkaError] = []
    client = AdminClient({**client_settings(settings), "error_cb": refusals.append})
    existing = _listed(settings, client, refusals)
    missing = [
        NewTopic(
            name,
            num_partitions=settings.kafka.partitions,
            replication_factor=settings.kafka.replication_factor,
            config={"message.timestamp.type": "LogAppendTime"},
        )
        for name in names
        if name not in existing
    ]
    if not missing:
        return
    for name, future in client.create_topics(missing).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() in _NOT_ALLOWED:
                who = f"Kafka's user {settings.kafka.username}"
                raise BrokerError(f"{who} may neither see nor create topic {name}; {HINT}") from None
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise BrokerError(f"topic {name} cannot be created: {error.args[0].str()}") from None


def _listed(settings: Settings, client: AdminClient, refusals: Sequence[KafkaError]) -> set[str]:
    """The topics that we may see. A broker that refuses us is told from one that does not answer yet."""
    deadline = time.monotonic() + _LEADER_SECONDS
    while True:
        try:
            return set(client.list_topics(timeout=3).topics)
        except KafkaException as error:
            client.poll(0)
            refused = any(refusal.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL) for refusal in refusals)
            if refused or time.monotonic() > deadline:
                raise _unreachable(settings, error.args[0], refusals) from None


def _unreachable(settings: Settings, error: KafkaError, refusals: Sequence[KafkaError]) -> BrokerError:
    """What stands between us and the broker, as far as the client found out."""
    at = settings.kafka.bootstrap_servers
    for refusal in refusals:
        if refusal.code() == KafkaError._AUTHENTICATION:
            return BrokerError(
                f"the Kafka broker at {at} does not take the password of user {settings.kafka.username}; set "
                "STOCKCAST__KAFKA__PASSWORD or kafka.password_file to the one that it knows"
            )
        if refusal.code() == KafkaError._SSL:
            return BrokerError(
                f"the Kafka broker at {at} and we do not agree on TLS ({refusal.str()}); check kafka.security_protocol "
                "and kafka.ca_file"
            )
    return BrokerError(
        f"no Kafka broker answers at {at} ({error.str()}); start one with `stockcast broker start`, or set "
        "kafka.bootstrap_servers and, where it asks for TLS, kafka.security_protocol"
    )


def end_offsets(settings: Settings, names: Sequence[str]) -> dict[tuple[str, int], int]:
    """The offset after the newest record of each (topic, partition)."""
    client = consumer(settings, "stockcast-offsets")
    try:
        found: dict[tuple[str, int], int] = {}
        metadata = client.list_topics(timeout=15)
        for name in names:
            topic = metadata.topics.get(name)
            for partition in topic.partitions if topic is not None else ():
                found[(name, partition)] = _end_offset(client, TopicPartition(name, partition))
        return found
    finally:
        client.close()


def _end_offset(client: Consumer, place: TopicPartition) -> int:
    """A topic that was just created has no leader for a moment: that passes."""
    deadline = time.monotonic() + _LEADER_SECONDS
    while True:
        try:
            return int(client.get_watermark_offsets(place, timeout=15)[1])
        except KafkaException as error:
            if error.args[0].code() not in _NO_LEADER_YET or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def spark_options(settings: Settings) -> dict[str, str]:
    """Options of Spark's Kafka source and sink."""
    options = {"bootstrap.servers": settings.kafka.bootstrap_servers, **java_options(settings.kafka)}
    return {f"kafka.{name}": value for name, value in options.items()}


def stream(
    spark: SparkSession, settings: Settings, names: Sequence[str], starting_offsets: str = "earliest"
) -> DataFrame:
    """The topics' records, with headers, as a streaming DataFrame.

    `failOnDataLoss` stays true: a gap stops the query rather than passing in silence.
    """
    return (
        spark.readStream.format("kafka")
        .options(**spark_options(settings))
        .option("subscribe", ",".join(names))
        .option("startingOffsets", starting_offsets)
        .option("includeHeaders", "true")
        .option("failOnDataLoss", "true")
        .option("maxOffsetsPerTrigger", str(settings.ingest.max_offsets_per_trigger))
        .option("kafka.isolation.level", "read_committed")
        # A poll of 500 records (the default) costs a catch-up a third of its time.
        .option("kafka.max.poll.records", "5000")
        # A broker that is away for a while is waited for, with what is being read left as it is.
        .option("kafka.default.api.timeout.ms", str(round(settings.ingest.broker_patience_seconds * 1000)))
        .option("kafkaConsumer.pollTimeoutMs", str(round(settings.ingest.broker_patience_seconds * 1000)))
        .load()
    )
