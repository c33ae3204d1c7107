"""A relay whose transaction fails says what became of the orders, also where a successor came in between."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from pipelines.errors import BrokerError
from pipelines.restocking.relay import Relay


class Producer:
    """Fails to abort with a given error; None: does not."""

    def __init__(self, error: KafkaError | None) -> None:
        self.error, self.aborted = error, 0

    def abort_transaction(self, _: float) -> None:
        self.aborted += 1
        if self.error is not None:
            raise KafkaException(self.error)


def told(error: KafkaError, while_aborting: KafkaError | None = None) -> tuple[str, int]:
    relay = Relay.__new__(Relay)
    relay._producer = producer = Producer(while_aborting)
    with pytest.raises(BrokerError) as failed:
        relay._give_up(KafkaException(error))
    return str(failed.value), producer.aborted


FENCED = KafkaError(KafkaError._FENCED, "fenced by a newer instance", fatal=True)
TIMED_OUT = KafkaError(KafkaError._TIMED_OUT, "timed out", txn_requires_abort=True)


def test_a_fenced_relay_says_that_another_took_over_and_aborts_nothing():
    message, aborted = told(FENCED)
    assert "another relay took over" in message
    assert aborted == 0


def test_one_that_is_fenced_while_it_aborts_says_the_same():
    message, aborted = told(TIMED_OUT, FENCED)
    assert "another relay took over" in message
    assert aborted == 1


def test_a_transaction_that_failed_is_aborted_and_its_orders_stay():
    message, aborted = told(TIMED_OUT)
    assert "they stay in the outbox" in message
    assert aborted == 1


def test_one_that_can_not_be_ended_is_told_with_its_cause():
    message, _ = told(TIMED_OUT, KafkaError(KafkaError._TRANSPORT, "broker away"))
    assert "broker away" in message
