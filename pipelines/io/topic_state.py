"""What a broker says of topics: which they are, and which offsets they hold."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ListOffsetsResultInfo, OffsetSpec

from pipelines.errors import BrokerError

SECONDS = 15.0
PASSING = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,
)


@dataclass(frozen=True)
class TopicState:
    """A topic as the broker holds it.

    Attributes:
        topic_id: Kafka's own id, another one for a topic that was deleted and created again.
        beginnings, ends: by partition, the first offset that is held, and the one after the last.
    """

    topic: str
    topic_id: str
    beginnings: Mapping[int, int]
    ends: Mapping[int, int]


def topic_ids(client: AdminClient, names: Sequence[str]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The id and the partitions of each topic that exists.

    Raises:
        BrokerError: no broker answers.
    """
    found = {}
    futures: dict[str, Future[object]] = client.describe_topics(TopicCollection(list(names)), request_timeout=SECONDS)
    for name, future in futures.items():
        try:
            description = future.result()
        except KafkaException as error:
            if error.args[0].name() == "UNKNOWN_TOPIC_OR_PART":
                continue
            raise BrokerError(f"topic {name} cannot be looked at: {error.args[0].str()}") from None
        partitions = tuple(sorted(partition.id for partition in description.partitions))  # type: ignore[attr-defined]  # confluent-kafka has no types for results
        found[name] = (str(description.topic_id), partitions)  # type: ignore[attr-defined]  # likewise
    return found


def topic_states(client: AdminClient, names: Sequence[str]) -> dict[str, TopicState]:
    """The state of each topic that exists.

    Raises:
        BrokerError: no broker answers.
    """
    known = topic_ids(client, names)
    places = [TopicPartition(name, number) for name, (_, partitions) in known.items() for number in partitions]
    beginnings = _offsets(client, places, OffsetSpec.earliest())
    ends = _offsets(client, places, OffsetSpec.latest())
    return {
        name: TopicState(
            name,
            topic_id,
            {number: beginnings[(name, number)] for number in partitions},
            {number: ends[(name, number)] for number in partitions},
        )
        for name, (topic_id, partitions) in known.items()
    }


def _offsets(client: AdminClient, places: Iterable[TopicPartition], spec: OffsetSpec) -> dict[tuple[str, int], int]:
    """A topic that was just created, or whose broker just came back, has no leader for a moment: that passes."""
    wanted = list(places)
    found: dict[tuple[str, int], int] = {}
    deadline = time.monotonic() + SECONDS
    while wanted:
        futures: dict[TopicPartition, Future[ListOffsetsResultInfo]] = client.list_offsets(
            dict.fromkeys(wanted, spec), request_timeout=SECONDS
        )
        for place, future in futures.items():
            try:
                found[(place.topic, place.partition)] = int(future.result().offset)
            except KafkaException as error:
                if error.args[0].code() not in PASSING or time.monotonic() > deadline:
                    said = error.args[0].str()
                    raise BrokerError(f"{place.topic}[{place.partition}] cannot be looked at: {said}") from None
        wanted = [place for place in wanted if (place.topic, place.partition) not in found]
        if wanted:
            time.sleep(0.2)
    return found
