"""Sends the workload's events, in a process of its own: `python -m bench.producer --help`.

An event's time is the time at which it is handed to the Kafka client; the same times are saved, by number, as
an array of microseconds, for the latencies to be counted from.
"""

from __future__ import annotations

import argparse
import time
from itertools import islice

import numpy as np

from bench.workload import Workload, event_id, message
from pipelines.io import kafka
from pipelines.operations.settings import load_settings


def send_at_rate(settings_list: list[str], workload: Workload, rate: float, seconds: float) -> np.ndarray:
    """Send evenly for some seconds; returns the send times."""
    settings = load_settings(overrides=settings_list)
    client = kafka.producer(settings)
    total = round(rate * seconds)
    sent = np.zeros(total, np.int64)
    start = time.monotonic()
    for place, (number, topic, kind, quantity, _) in enumerate(islice(workload.changes(), total)):
        ahead = start + place / rate - time.monotonic()
        if ahead > 0.001:
            time.sleep(ahead)
        at = time.time_ns() // 1000
        key, value = message(workload, event_id(place), at, number, kind, quantity)
        client.produce(topic, value, key=key)
        client.poll(0)
        sent[place] = at
    client.flush()
    return sent


def send_all(settings_list: list[str], workload: Workload, events: int) -> np.ndarray:
    """Send as fast as possible, dated evenly over the last minutes; returns the event times."""
    settings = load_settings(overrides=settings_list)
    client = kafka.producer(settings)
    now = time.time_ns() // 1000
    times = np.linspace(now - 300_000_000, now, events).astype(np.int64)
    for place, (number, topic, kind, quantity, _) in enumerate(islice(workload.changes(), events)):
        key, value = message(workload, event_id(place), int(times[place]), number, kind, quantity)
        while True:
            try:
                client.produce(topic, value, key=key)
                break
            except BufferError:
                client.poll(0.1)
        if place % 1000 == 0:
            client.poll(0)
    client.flush()
    return times


def main() -> None:
    """Send, then save the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--series", type=int, required=True)
    parser.add_argument("--rate", type=float, help="events a second; without it: --events, as fast as possible")
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--events", type=int, default=0)
    parser.add_argument("--times", required=True, help="file for the send times (.npy)")
    options = parser.parse_args()
    workload = Workload(options.series)
    if options.rate:
        times = send_at_rate(options.overrides, workload, options.rate, options.seconds)
    else:
        times = send_all(options.overrides, workload, options.events)
    np.save(options.times, times)


if __name__ == "__main__":
    main()
