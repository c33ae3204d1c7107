"""The relay: decided orders from the outbox to `restock.orders`, each exactly once.

The orders and the outbox place that they reach are committed in one Kafka transaction (the place as a consumer
group's offset), so the two can never disagree. A relay that starts fences its predecessor, which ends any
transaction left open, reads the committed place and goes on there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime

import pyarrow.compute as pc
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from pipelines.contracts import topics
from pipelines.contracts.tables import ORDER_OUTBOX
from pipelines.errors import BrokerError
from pipelines.io import kafka
from pipelines.io.delta import Tables
from pipelines.operations.failpoints import failpoint
from pipelines.operations.settings import Settings
from pipelines.restocking.expiry import Expiry

log = logging.getLogger("stockcast.relay")

GROUP = "stockcast-relay"
TRANSACTIONAL_ID = "stockcast-relay"
PLACE = (topics.RESTOCK_ORDERS, 0)
"""The partition whose group offset holds the outbox place: the sequence of the last order published."""

BATCH = 500
EXPIRY_SECONDS = 5.0
TIMEOUT = 30.0
OFFSETS_TIMEOUT = 10.0


class Relay:
    """Publishes the outbox. One runs at a time; an older one finds itself fenced.

    Raises:
        BrokerError: another relay took over, or the broker refuses.
    """

    def __init__(self, settings: Settings, tables: Tables) -> None:
        kafka.prepare(settings, read=(topics.RESTOCK_ORDERS,), write=(topics.RESTOCK_ORDERS,))
        self._tables = tables
        self._producer: Producer = kafka.producer(
            settings, **{"transactional.id": TRANSACTIONAL_ID, "transaction.timeout.ms": 30_000}
        )
        self._group: Consumer = kafka.consumer(settings, GROUP)
        try:
            self._producer.init_transactions(TIMEOUT)
            self.place = self._committed_place()
        except KafkaException as error:
            raise BrokerError(f"the relay cannot start: {error.args[0].str()}") from error
        self._outbox_version = -1
        log.info("going on after outbox place %d", self.place)

    def publish_available(self) -> int:
        """Publish what the outbox holds beyond the committed place; returns the number of orders."""
        version = self._tables.version(ORDER_OUTBOX)
        if version == self._outbox_version:
            return 0
        rows = self._tables.read(ORDER_OUTBOX, ("sequence", "order_id", "payload"), pc.field("sequence") > self.place)
        rows = rows.sort_by("sequence")
        for start in range(0, rows.num_rows, BATCH):
            self._publish(rows.slice(start, BATCH).to_pylist())
        self._outbox_version = version
        return int(rows.num_rows)

    def run(self, stopped: Callable[[float], bool], expiry: Expiry | None = None, poll_seconds: float = 0.1) -> None:
        """Publish until `stopped(seconds)`, which waits at most so long, says so; expire proposals meanwhile."""
        looked_at = 0.0
        while not stopped(poll_seconds):
            self.publish_available()
            if expiry is not None and time.monotonic() >= looked_at + EXPIRY_SECONDS:
                expiry.expire(datetime.now(UTC))
                looked_at = time.monotonic()

    def close(self) -> None:
        """Leave; nothing is pending between calls."""
        self._group.close()

    def _publish(self, orders: list[dict[str, object]]) -> None:
        last = orders[-1]["sequence"]
        try:
            self._producer.begin_transaction()
            for order in orders:
                self._producer.produce(
                    topics.RESTOCK_ORDERS, str(order["payload"]).encode(), key=str(order["order_id"])
                )
                self._producer.poll(0)
            self._send_place([TopicPartition(*PLACE, last)])
            failpoint("relay.inside_transaction")
            self._producer.commit_transaction(TIMEOUT)
        except KafkaException as error:
            self._give_up(error)
        failpoint("relay.after_transaction")
        self.place = int(str(last))
        log.info("published %d orders, up to outbox place %d", len(orders), self.place)

    def _send_place(self, place: list[TopicPartition]) -> None:
        """The client keeps no timeout here when the broker went away meanwhile: it waits for ever (librdkafka issues
        5456, 5511; a restarted broker does not wake it). So we wait outside, and leave the client to its successor,
        which fences it."""
        done: Future[None] = Future()

        def send() -> None:
            try:
                self._producer.send_offsets_to_transaction(place, self._group.consumer_group_metadata(), TIMEOUT)
                done.set_result(None)
            except BaseException as error:
                done.set_exception(error)

        threading.Thread(target=send, name="relay-offsets", daemon=True).start()
        try:
            done.result(OFFSETS_TIMEOUT)
        except TimeoutError:
            raise BrokerError(
                f"the broker did not take the outbox place within {OFFSETS_TIMEOUT:g} s; the orders stay in the "
                "outbox, for a new relay to publish"
            ) from None

    def _give_up(self, error: KafkaException) -> None:
        cause = error.args[0]
        if cause.fatal():
            raise BrokerError(
                f"another relay took over ({cause.str()}); this one ends, and nothing was published twice"
            ) from error
        if cause.txn_requires_abort():
            try:
                self._producer.abort_transaction(TIMEOUT)
            except KafkaException as worse:
                # A successor may have fenced this one meanwhile.
                if worse.args[0].fatal():
                    self._give_up(worse)
                raise BrokerError(f"a transaction could not be ended: {worse.args[0].str()}") from error
        raise BrokerError(f"orders could not be published: {cause.str()}; they stay in the outbox") from error

    def _committed_place(self) -> int:
        """The place of the last transaction. A broker that has just started is asked again: it first says that
        it does not know the group's coordinator, and only an answer may be taken for "nothing published"."""
        for attempt in Retrying(
            retry=retry_if_exception_type(KafkaException),
            stop=stop_after_delay(TIMEOUT),
            wait=wait_fixed(0.2),
            reraise=True,
        ):
            with attempt:
                (found,) = self._group.committed([TopicPartition(*PLACE)], timeout=TIMEOUT)
                if found.error is not None:
                    raise KafkaException(found.error)
        return max(0, int(found.offset))


def relay_once(settings: Settings, tables: Tables) -> int:
    """Publish what there is, then leave; returns the number of orders."""
    relay = Relay(settings, tables)
    try:
        return relay.publish_available()
    finally:
        relay.close()
