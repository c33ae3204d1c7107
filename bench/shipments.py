"""Shipment events beside the restock stream: `python -m bench shipments`.

The live chain as it runs (ingest, restock right behind it, the relay, the tracker in its thread) takes 2,000 shipment
events a second on top of the stock's. How long an event takes to `gold/shipments` is read off the table itself: a
version that holds a row of a place in the order of ingestion holds all events up to that place.

As a module it is the producer, in a process of its own: `python -m bench.shipments --help`.
"""

from __future__ import annotations

import argparse
import random
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from bench.arrivals import outbox_arrivals
from bench.harness import (
    Background,
    Meter,
    Options,
    Scene,
    ending,
    environment,
    median_of,
    quietest,
    say,
    scene,
    spread,
    wait_for,
)
from bench.live_state import latencies, progress_of, start_form, stop_form
from bench.workload import Workload
from pipelines.contracts import topics
from pipelines.contracts.tables import ORDERS, SHIPMENT_EVENTS, SHIPMENTS
from pipelines.ingestion.times import format_time
from pipelines.io import kafka
from pipelines.io.delta import Tables
from pipelines.operations import broker
from pipelines.operations.settings import load_settings

FORM = "with_shipments"
SUPPLIERS, CARRIERS, HUBS = 200, 12, 40
STATUSES = ("picked_up", "departed", "arrived", "customs", "departed", "arrived", "out_for_delivery", "delivered")
DELAYED = 0.02
"""Share of events that put the arrival off by two days."""
ORDERED_EVERY = 10
"""Every so many a shipment carries an order that a series here waits for."""
START_SECONDS, DRAIN_SECONDS = 300.0, 120.0

Result = dict[str, Any]


# The load ----------------------------------------------------------------------------------------------


@dataclass
class Fleet:
    """Shipments under way; the next event is of any of them, and one that has come gives way to a new one."""

    under_way: int
    workload: Workload
    steps: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    made: int = 0

    def __post_init__(self) -> None:
        self._chance = random.Random(11)
        self.steps, self.numbers = [0] * self.under_way, list(range(self.under_way))
        self.made = self.under_way

    def opening(self) -> list[tuple[int, str, bool]]:
        """The first event of each: its number, status, and whether it puts the arrival off."""
        return [(number, "created", False) for number in self.numbers]

    def next(self) -> tuple[int, str, bool]:
        """The next event."""
        slot = self._chance.randrange(self.under_way)
        step, number = self.steps[slot], self.numbers[slot]
        if step == len(STATUSES):
            self.numbers[slot], self.steps[slot], self.made = self.made, 0, self.made + 1
            return self.numbers[slot], "created", False
        if self._chance.random() < DELAYED:
            return number, "exception", True
        self.steps[slot] = step + 1
        return number, STATUSES[step], False


def order_of(number: int) -> str | None:
    """The order that a shipment carries."""
    return f"carried-{number // ORDERED_EVERY}" if number % ORDERED_EVERY == 0 else None


def event_of(workload: Workload, event_id: str, at: int, number: int, status: str, delayed: bool) -> tuple[str, bytes]:
    """Kafka key and value."""
    place, sku = workload.key(number % workload.series)
    promised = at // 60_000_000 * 60_000_000 + (3 + 2 * delayed) * 86_400_000_000
    node = f"hub-{(number * 7 + len(status)) % HUBS}"
    event = {
        "event_id": event_id,
        "event_time": format_time(at),
        "shipment_id": f"shipment-{number}",
        "supplier_id": f"supplier-{number % SUPPLIERS}",
        "carrier_id": f"carrier-{number % CARRIERS}",
        "mode": "road",
        "origin": f"hub-{number % HUBS}",
        "destination": place,
        "node": place if status == "delivered" else node,
        "status": status,
        "sku": sku,
        "quantity": 10,
    }
    if status == "created" or delayed:
        event["eta"] = format_time(promised)
    if (order_id := order_of(number)) is not None:
        event["order_id"] = order_id
    return f"shipment-{number}", orjson.dumps(event)


def plant_orders(tables: Tables, workload: Workload, under_way: int) -> None:
    """The orders on board, so that a delay has its price: as if sent long ago."""
    rows = []
    for number in range(0, 3 * under_way, ORDERED_EVERY):
        place, sku = workload.key(number % workload.series)
        rows.append({"order_id": order_of(number), "state": "received", "location_id": place, "sku": sku})
    tables.append(ORDERS, pa.Table.from_pylist(rows, schema=ORDERS.schema))


def send(overrides: list[str], workload: Workload, under_way: int, rate: float, seconds: float) -> np.ndarray:
    """The opening as fast as it goes where there is no rate, else events evenly; returns the send times."""
    client, fleet = kafka.producer(load_settings(overrides=overrides)), Fleet(under_way, workload)
    opening = rate <= 0.0
    total = under_way if opening else round(rate * seconds)
    sent, start = np.zeros(total, np.int64), time.monotonic()
    first = iter(fleet.opening())
    for place in range(total):
        ahead = 0.0 if opening else start + place / rate - time.monotonic()
        if ahead > 0.001:
            time.sleep(ahead)
        number, status, delayed = next(first) if opening else fleet.next()
        at = time.time_ns() // 1000
        name = f"{'so' if opening else 'se'}-{place:09d}"
        key, value = event_of(workload, name, at, number, status, delayed)
        while True:
            try:
                client.produce(topics.SHIPMENT_EVENTS, value, key=key)
                break
            except BufferError:
                client.poll(0.1)
        client.poll(0)
        sent[place] = at
    client.flush()
    return sent


# The measurement ---------------------------------------------------------------------------------------


class Watch:
    """Up to which place `gold/shipments` is complete, by time."""

    def __init__(self, at: Scene) -> None:
        self.seen: list[tuple[float, int]] = []
        self.rows = 0
        self._tables, self._version = Tables(at.settings), -1

    def step(self) -> None:
        """Look at the table, if there is a new version of it."""
        version = self._tables.version(SHIPMENTS)
        if version != self._version:
            # A version is read as it is now; a file that upkeep removed meanwhile is in none of the next.
            with suppress(OSError):
                places = self._tables.read(SHIPMENTS, ("sequence",))["sequence"]
                self._version, self.rows = version, len(places)
                self.seen.append((time.time(), pc.max(places).as_py() or 0))
        time.sleep(0.05)


def measure(options: Options) -> dict[str, list[Result]]:
    """One result a repetition."""
    results = []
    for repetition in range(1, options.repetitions + 1):
        result = quietest(options, lambda: one_run(options))
        results.append(result)
        say(f"shipments {repetition}/{options.repetitions}: {line(result)}")
    return {"shipments": results}


def one_run(options: Options) -> Result:
    """One window, from an empty home."""
    with ExitStack() as stack:
        at = stack.enter_context(scene(options, "shipments"))
        plant_orders(at.tables, options.workload, options.under_way)
        process = stack.enter_context(ending(start_form(at, FORM)))
        watch = Watch(at)
        watching = Background(watch.step)
        watching.start()
        progress = progress_of(at, FORM)
        wait_for(lambda: progress(None) >= options.series, process, START_SECONDS, "the opening stock was decided")
        began = time.time()
        stack.enter_context(ending(produce(at, "opening.npy"))).wait()
        wait_for(lambda: watch.rows >= options.under_way, process, START_SECONDS, "the shipments were under way")
        opening = time.time() - began
        seconds = options.warm_up + options.seconds
        stock = stack.enter_context(ending(at.produce("--rate", str(options.rate), "--seconds", str(seconds))))
        rate = ("--rate", str(options.shipment_rate), "--seconds", str(seconds))
        producer = stack.enter_context(ending(produce(at, "shipments.npy", *rate)))
        meter = Meter({"chain": process.pid, "broker": broker.running(at.settings) or 0, "producers": producer.pid})
        time.sleep(options.warm_up)
        meter.start()
        producer.wait()
        ended = time.time()
        meter.stop()
        stock.wait()
        drained = _drain(at, watch, process, round(options.shipment_rate * seconds))
        drain_seconds = time.time() - ended
        batches = stop_form(at, process, FORM)
        watching.finish()
        found = figures(at, watch, ended, options)
        return {
            "opening_seconds": opening,
            "drained": drained,
            "drain_seconds": drain_seconds,
            "cores": meter.cores["chain"],
            "others": meter.others,
            "load": meter.load,
            "queries": batches,
            **found,
            **latencies(at, outbox_arrivals(at.tables), "outbox"),
        }


def produce(at: Scene, times: str, *arguments: str) -> Any:
    """Start the producer of shipment events."""
    options = at.options
    chain = ("--series", str(options.series), "--under-way", str(options.under_way))
    return at.run("bench.shipments", *chain, "--times", str(at.folder / times), *arguments)


def _places(at: Scene) -> dict[str, np.ndarray]:
    """Number and place of each event of the measured stream that was taken in."""
    where = pc.starts_with(pc.field("event_id"), "se-")
    rows = at.tables.read(SHIPMENT_EVENTS, ("event_id", "sequence"), where)
    numbers = pc.cast(pc.utf8_slice_codeunits(rows["event_id"], 3), pa.int64()).to_numpy()
    return {"number": numbers, "place": rows["sequence"].to_numpy()}


def _drain(at: Scene, watch: Watch, process: Any, total: int) -> bool:
    def done() -> bool:
        places = _places(at)["place"]
        return len(places) >= total and bool(watch.seen) and watch.seen[-1][1] >= places.max()

    try:
        wait_for(done, process, DRAIN_SECONDS, "the rest was tracked")
    except RuntimeError:
        return False
    return True


def figures(at: Scene, watch: Watch, ended: float, options: Options) -> Result:
    """Rates and waits of the events that were sent after the warm-up."""
    sent = np.load(at.folder / "shipments.npy") / 1e6
    moments, covered = (np.array(values) for values in zip(*watch.seen, strict=True))
    places = _places(at)
    # The first version that holds an event's place, or none yet.
    first = np.searchsorted(covered, places["place"])
    arrived = np.full(len(sent), np.inf)
    arrived[places["number"]] = np.append(moments, np.inf)[first]
    start = sent[0] + options.warm_up
    waits = (arrived - sent)[sent >= start]
    known = waits[np.isfinite(waits)]
    p50, p99 = np.percentile(known, [50, 99]) if len(known) else (np.nan, np.nan)
    saves = np.diff(moments[(moments >= start) & (moments <= ended)])
    return {
        "events": len(sent),
        "events_per_second": float(((arrived >= start) & (arrived <= ended)).sum() / (ended - start)),
        "sent_per_second": float((sent >= start).sum() / (sent[-1] - start)),
        "behind": int((arrived > ended).sum()),
        "missing": int(np.isinf(arrived).sum()),
        "p50": float(p50),
        "p99": float(p99),
        "max": float(known.max()) if len(known) else np.nan,
        "save_every": float(np.median(saves)) if len(saves) else np.nan,
        "shipments": watch.rows,
    }


def line(result: Result) -> str:
    """A result in one line."""
    return (
        f"{result['events_per_second']:.0f} events/s tracked of {result['sent_per_second']:.0f} sent, "
        f"to gold/shipments p50 {result['p50']:.1f} s, p99 {result['p99']:.1f} s; "
        f"{result['behind']} behind at the end, drained in {result['drain_seconds']:.1f} s; "
        f"orders p50 {result['outbox_p50']:.2f} s, p99 {result['outbox_p99']:.2f} s; "
        f"{result['cores']:.2f} cores, others {result['others']:.2f}, load {result['load']:.1f}"
    )


def section(options: Options, results: dict[str, list[Result]], command: str) -> str:
    """The table."""
    rows = results["shipments"]

    def over(name: str, digits: int = 2) -> str:
        return spread([row[name] for row in rows]).show(digits)

    late = "" if all(row["drained"] and not row["missing"] for row in rows) else "\n**Not all of it was tracked.**\n"
    return f"""
## Shipments: {options.shipment_rate:,.0f} events a second beside the restock stream

{options.shipment_rate:,.0f} shipment events and {options.rate:,.0f} stock events a second for {options.seconds:,.0f} s
after {options.warm_up:,.0f} s of warm-up, into ingest, restock, relay and tracker in one process, the broker and the
producers on the same cores. {options.under_way:,} shipments under way, one in {ORDERED_EVERY} with an order on board;
{DELAYED:.0%} of the events put an arrival off by two days. From an event's sending to the commit of `gold/shipments`
that holds it; behind: events sent and not in it when the last one is sent. Median (smallest–largest) of {len(rows)}.
{late}
| | |
|---|---:|
| shipment events tracked a second | {over("events_per_second", 0)} |
| of those sent a second | {over("sent_per_second", 0)} |
| behind at the end | {over("behind", 0)} |
| until those are in, s | {over("drain_seconds", 1)} |
| to `gold/shipments` p50, s | {over("p50")} |
| p99, s | {over("p99")} |
| largest, s | {over("max")} |
| between two commits, s | {over("save_every")} |
| an order's way to the outbox meanwhile, p50, s | {over("outbox_p50")} |
| p99, s | {over("outbox_p99")} |
| {options.under_way:,} shipments' first events taken in and tracked, s | {over("opening_seconds", 1)} |
| the chain's cores | {over("cores")} |
| others, cores | {over("others")} |

{median_of(rows, "shipments"):,.0f} shipments in the table at the end.

`{command}` · {time.strftime("%Y-%m-%d")} · {environment()}"""


def main() -> None:
    """Send, then save the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--series", type=int, required=True)
    parser.add_argument("--under-way", type=int, required=True)
    parser.add_argument(
        "--rate", type=float, default=0.0, help="events a second; none: the opening, as fast as it goes"
    )
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--times", required=True, help="file for the send times (.npy)")
    options = parser.parse_args()
    workload = Workload(options.series)
    np.save(options.times, send(options.overrides, workload, options.under_way, options.rate, options.seconds))


if __name__ == "__main__":
    main()
