"""Restock orders as the chain's suppliers receive them from Kafka."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping

import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from pipelines.contracts import topics
from pipelines.errors import BrokerError
from pipelines.io import kafka
from pipelines.operations.settings import Settings
from pipelines.simulation.world import Order

log = logging.getLogger("stockcast.simulation")

_GROUP = "stockcast-simulated-suppliers"
_MOST_AT_ONCE = 500
_PATIENCE_SECONDS = 60.0

SeriesOf = Callable[[str, str], int | None]


class OrderSource:
    """Committed orders, from given offsets on.

    Attributes:
        offsets: the next offset to read, by partition.
    """

    def __init__(self, consumer: Consumer, offsets: Mapping[int, int]) -> None:
        self._consumer = consumer
        self.offsets = dict(offsets)
        self._unread = set(offsets)
        consumer.assign([TopicPartition(topics.RESTOCK_ORDERS, partition, at) for partition, at in offsets.items()])

    def poll(self, series_of: SeriesOf) -> Iterator[Order]:
        """Orders that have arrived. Those that no supplier of this chain can serve are logged and left.

        Raises:
            BrokerError: Kafka refuses to hand them out.
        """
        yield from self._poll(series_of, 0.0)

    def waiting(self, series_of: SeriesOf) -> list[Order]:
        """All orders that are in the topic now.

        Raises:
            BrokerError: they could not be read to the end in time.
        """
        orders: list[Order] = []
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self._unread:
            orders += self._poll(series_of, 0.05)
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"{topics.RESTOCK_ORDERS} could not be read to its end within {_PATIENCE_SECONDS:.0f} s; "
                    "see that the broker runs (`stockcast broker status`)"
                )
        return orders

    def _poll(self, series_of: SeriesOf, timeout: float) -> Iterator[Order]:
        for message in self._consumer.consume(_MOST_AT_ONCE, timeout=timeout):
            if (error := message.error()) is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    self._unread.discard(message.partition())
                else:
                    _tolerate(error)
                continue
            self.offsets[message.partition()] = message.offset() + 1
            order = _parse(message, series_of)
            if order is not None:
                yield order

    def close(self) -> None:
        """Leave Kafka."""
        self._consumer.close()


def _tolerate(error: KafkaError) -> None:
    if not error.retriable() and error.code() not in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
        raise BrokerError(f"{topics.RESTOCK_ORDERS} cannot be read: {error.str()}")
    log.warning("restock orders cannot be read just now: %s", error.str())


def _parse(message: Message, series_of: SeriesOf) -> Order | None:
    where = f"{topics.RESTOCK_ORDERS}[{message.partition()}]@{message.offset()}"
    try:
        payload = orjson.loads(message.value() or b"")
        order_id, quantity = str(payload["order_id"]), int(payload["quantity"])
        series = series_of(payload["location_id"], payload["sku"])
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s is no order that a supplier can read: %r", where, error)
        return None
    if series is None or quantity <= 0:
        log.warning("%s: order %s is not for a series of this chain, or for nothing", where, order_id)
        return None
    return Order(order_id, series, quantity)


def kafka_orders(settings: Settings, saved: Mapping[int, int], start: str) -> OrderSource:
    """Orders from Kafka.

    Args:
        saved: offsets where the last phase ended, by partition.
        start: `saved`, `beginning` or `end`; a partition without a saved offset is read from its beginning.
    """
    ends = {
        partition: offset for (_, partition), offset in kafka.end_offsets(settings, [topics.RESTOCK_ORDERS]).items()
    }
    offsets = {
        "saved": {partition: saved.get(partition, OFFSET_BEGINNING) for partition in ends},
        "beginning": dict.fromkeys(ends, OFFSET_BEGINNING),
        "end": ends,
    }[start]
    return OrderSource(kafka.consumer(settings, _GROUP, **{"enable.partition.eof": True}), offsets)
