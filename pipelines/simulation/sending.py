"""Sending to Kafka: bounded memory, and no delivery failure passes unnoticed."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, Producer

from pipelines.errors import BrokerError
from pipelines.io import kafka
from pipelines.operations.settings import Settings

_POLL_EVERY = 256
_FLUSH_SECONDS = 120.0


class Advance(NamedTuple):
    """How far a phase has come; `fraction` is None where it has no end."""

    phase: str
    messages: int
    simulated: datetime
    fraction: float | None


Progress = Callable[[Advance], None]


def no_progress(_: Advance) -> None:
    """Shows nothing."""


class Sender:
    """A producer as a context: on leaving, everything is delivered or `BrokerError` is raised.

    Attributes:
        delivered: messages that the broker acknowledged.
    """

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._failure: str | None = None
        self._failed = 0
        self._since_poll = 0
        self.delivered = 0

    def __enter__(self) -> Sender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self.flush()

    def send(self, topic: str, key: bytes, value: bytes | None) -> None:
        """Queue a message; waits while the queue is full.

        Raises:
            BrokerError: an earlier message could not be delivered.
        """
        while True:
            try:
                self._producer.produce(topic, value=value, key=key, on_delivery=self._delivered)
                break
            except BufferError:
                self._producer.poll(0.1)
                self._check()
        self._since_poll += 1
        if self._since_poll >= _POLL_EVERY:
            self._since_poll = 0
            self._producer.poll(0)
            self._check()

    def flush(self) -> None:
        """Wait until all that was queued is delivered.

        Raises:
            BrokerError: something was not delivered.
        """
        remaining = self._producer.flush(_FLUSH_SECONDS)
        if remaining and self._failure is None:
            self._failure = f"no acknowledgement within {_FLUSH_SECONDS:.0f} s"
        self._failed += remaining
        self._check()

    def _delivered(self, error: KafkaError | None, _: Any) -> None:
        if error is None:
            self.delivered += 1
        else:
            self._failed += 1
            self._failure = error.str()

    def _check(self) -> None:
        if self._failure is not None:
            raise BrokerError(
                f"{max(self._failed, 1)} messages were not delivered ({self._failure}), {self.delivered} were; "
                "see that the broker runs (`stockcast broker status`) and run this again: what was sent twice "
                "is recognised by its event ids"
            )


def open_sender(settings: Settings, **producer_options: Any) -> Sender:
    """A sender to the configured broker, with all topics in place.

    Raises:
        BrokerError: the broker cannot be reached.
    """
    kafka.ensure_topics(settings)
    return Sender(kafka.producer(settings, **producer_options))


class Pace:
    """Keeps to a rate; bursts no larger than a tenth of a second's worth."""

    def __init__(self, per_second: float | None) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._next = time.monotonic()

    def wait(self) -> None:
        """Wait for the next message's turn."""
        if not self._interval:
            return
        now = time.monotonic()
        self._next = max(self._next, now - 0.1) + self._interval
        if self._next - now > 0.002:
            time.sleep(self._next - now)
