"""Sends the seeded stream at a steady rate and in real time, until it is told to stop with SIGTERM.

    python -m tests.soak.generator --bootstrap HOST:PORT --record FILE --seed N --series N --rate EVENTS_PER_SECOND

Ordered goods come in a second or two after their order. The record is that of the crash test's generator.
"""

from __future__ import annotations

import argparse
import signal
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.crash.generator import Generator
from tests.crash.stream import Stream

STEP_SECONDS = 0.1
RECEIPTS_SECONDS = 1.0


class SteadyGenerator(Generator):
    """Sends at a rate rather than in portions."""

    def run(self, rate: float, stop: threading.Event) -> None:
        """Send until told to stop, then wait until everything is acknowledged."""
        start, sent, looked_at = time.monotonic(), 0, 0.0
        while not stop.wait(max(0.0, start + sent / rate - time.monotonic())):
            # The stream's own clock runs ahead within a step; with each it is set right.
            self._stream.now = datetime.now(UTC)
            messages = self._stream.take(round(rate * STEP_SECONDS))
            sent += len(messages)
            if time.monotonic() >= looked_at + RECEIPTS_SECONDS:
                messages += self._receipts()
                looked_at = time.monotonic()
            for message in messages:
                self._send(message)
            self._producer.poll(0)
        while self._unanswered:
            self._producer.poll(0.1)
        self._file.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--series", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    options = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stream = Stream(options.seed, datetime.now(UTC), f"s{options.seed}", options.series)
    generator = SteadyGenerator(options.bootstrap, options.record, stream, 0, set())
    print("ready", flush=True)
    generator.run(options.rate, stop)


if __name__ == "__main__":
    main()
