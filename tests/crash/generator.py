"""The generator process: sends the seeded stream, receives ordered goods, and records what the broker acknowledged.

    python -m tests.crash.generator --bootstrap HOST:PORT --record FILE --seed N --series N

It takes commands on its standard input, `feed COUNT SECONDS` (answered by `fed COUNT` when the broker has
acknowledged all), and ends with it. The record has a line in JSON for each message before it is sent, and one for
each acknowledgement; so whatever the process or the broker dies of, the file tells what must have arrived, and what
may have.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

from confluent_kafka import Consumer, Producer, TopicPartition

from tests.crash.stream import Message, Stream

SLICES = 20
RECEIPTS = ("none", "half", "parts", *("whole",) * 7)
"""What comes in for an order, drawn by its id."""


class Generator:
    """Sends, and writes down what it sends and what was acknowledged."""

    def __init__(self, bootstrap: str, record: Path, stream: Stream, first: int, received: set[str]) -> None:
        self._file: TextIO = open(record, "a", encoding="ascii")  # noqa: SIM115  (open as long as the process)
        self._file.write("\n")
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 2,
                "message.timeout.ms": 300_000,
                "log_level": 2,
            }
        )
        self._orders = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"generator-{time.time_ns()}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "log_level": 2,
            }
        )
        partitions = self._orders.list_topics("restock.orders", timeout=30).topics["restock.orders"].partitions
        self._orders.assign([TopicPartition("restock.orders", number, 0) for number in partitions])
        self._stream, self._number, self._received = stream, first, received
        self._unanswered = 0

    def feed(self, count: int, seconds: float) -> int:
        """Send about `count` messages over `seconds`, and wait until all are acknowledged; returns their number."""
        messages = [*self._receipts(), *self._stream.take(count)]
        slice_ = -(-len(messages) // SLICES)
        for start in range(0, len(messages), slice_):
            for message in messages[start : start + slice_]:
                self._send(message)
            self._file.flush()
            self._producer.poll(seconds / SLICES)
        while self._unanswered:
            self._producer.poll(0.1)
        self._file.flush()
        return len(messages)

    def _send(self, message: Message) -> None:
        self._number += 1
        number = self._number
        value = None if message.value is None else base64.b64encode(message.value).decode()
        self._write(n=number, topic=message.topic, key=message.key, value=value, verdict=message.verdict,
                    event_id=message.event_id)  # fmt: skip
        self._file.flush()
        self._unanswered += 1
        self._producer.produce(
            message.topic,
            message.value,
            key=message.key,
            on_delivery=lambda error, record: self._ack(number, error, record),
        )

    def _ack(self, number: int, error: Any, record: Any) -> None:
        self._unanswered -= 1
        if error is None:
            self._write(ack=number, partition=record.partition(), offset=record.offset())
        else:
            self._write(failed=number, why=error.str())

    def _write(self, **line: Any) -> None:
        self._file.write(json.dumps(line) + "\n")

    def _receipts(self) -> list[Message]:
        """Goods for the orders that have come since."""
        found: list[Message] = []
        while messages := self._orders.consume(500, 0.05):
            for message in messages:
                if message.error() is None and (order_id := message.key().decode()) not in self._received:
                    self._received.add(order_id)
                    found += self._goods(json.loads(message.value()))
        return found

    def _goods(self, order: dict[str, Any]) -> list[Message]:
        drawn = hashlib.sha256(order["order_id"].encode()).digest()[0]
        what, quantity = RECEIPTS[drawn % len(RECEIPTS)], order["quantity"]
        parts = {"none": [], "half": [quantity // 2], "parts": [quantity // 3, quantity - quantity // 3]}
        wanted = parts.get(what, [quantity])
        return [self._stream.receipt(order, part, units) for part, units in enumerate(wanted) if units > 0]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--series", type=int, required=True)
    options = parser.parse_args()
    lines = read_lines(options.record)
    runs = sum("run" in line for line in lines)
    received = {
        line["event_id"].rsplit("-receipt-")[0] for line in lines if "-receipt-" in (line.get("event_id") or "")
    }
    numbers = [line["n"] for line in lines if "n" in line]
    start = datetime.now(UTC) - timedelta(minutes=30)
    stream = Stream(options.seed, start, f"e{options.seed}r{runs}", options.series)
    generator = Generator(options.bootstrap, options.record, stream, max(numbers, default=0), received)
    generator._write(run=runs)
    print("ready", flush=True)
    for line in sys.stdin:
        _, count, seconds = line.split()
        print("fed", generator.feed(int(count), float(seconds)), flush=True)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a record; one that was torn by a kill is left out."""
    lines = []
    for text in path.read_text(encoding="ascii").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


if __name__ == "__main__":
    main()
