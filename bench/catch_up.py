"""Catching up: events that wait in Kafka, to the ledger and to decided orders, as fast as each form can."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from typing import Any

from bench import peer as kafka_streams
from bench.arrivals import check_orders, outbox_arrivals
from bench.harness import Meter, Options, Scene, ending, quietest, say, scene, wait_for
from bench.live_state import FORMS, PEER, Result, chosen_forms, progress_of, start_form
from pipelines.operations import broker

LIMIT_SECONDS = 900.0


def measure(options: Options) -> dict[str, list[Result]]:
    """Results by form, one per repetition."""
    forms = chosen_forms(options, ("ingest_only", *FORMS, PEER))
    results: dict[str, list[Result]] = {form: [] for form in forms}
    for repetition in range(1, options.repetitions + 1):
        for form in forms:
            result = quietest(options, lambda form=form: one_run(options, form))
            results[form].append(result)
            say(f"catch-up {form} {repetition}/{options.repetitions}: {line(result)}")
    return results


def one_run(options: Options, form: str) -> Result:
    """Let a form work off what waits, from an empty home and a cold start."""
    everything = options.series + options.events
    with ExitStack() as stack:
        at = stack.enter_context(scene(options, f"catch-up-{form}"))
        with ending(at.produce("--events", str(options.events))) as producer:
            producer.wait()
        process = stack.enter_context(ending(start_form(at, form, "--expect", str(everything))))
        meter = Meter({"form": process.pid, "broker": broker.running(at.settings) or 0})
        meter.start()
        progress = progress_of(at, form)
        if form == PEER:
            wait_for(lambda: progress(None) > 0, process, LIMIT_SECONDS, "the first event was processed")
            started = time.time()
            wait_for(lambda: progress(None) >= everything, process, LIMIT_SECONDS, "all events were processed")
            seconds = time.time() - started
            meter.stop()
        else:
            while process.poll() is None:
                wait_for(lambda: progress(None) >= everything, process, LIMIT_SECONDS, "all events were decided")
                meter.stop()
                process.wait(60)
            found: dict[str, Any] = json.loads((at.folder / "result.json").read_text())
            seconds = found["seconds"]
            if form != "ingest_only":
                check_orders(options.workload, options.events, [order for _, order in outbox_arrivals(at.tables)])
        return {
            "form": form,
            "seconds": seconds,
            "events_per_second": everything / seconds,
            "warm_events_per_second": warm_rate(at, form),
            "cores": meter.cores["form"],
            "others": meter.others,
            "load": meter.load,
        }


def warm_rate(at: Scene, form: str) -> float:
    """Events a second between the first sign of progress and the last: what is left without the cold start."""
    places = kafka_streams.progress(at) if form == PEER else at.progress()
    moving = [(moment, place) for moment, place in places if place > 0]
    (first, done), (last, end) = moving[0], next(point for point in moving if point[1] == moving[-1][1])
    return (end - done) / (last - first) if last > first else float("nan")


def line(result: Result) -> str:
    """A result in one line."""
    return (
        f"{result['events_per_second']:,.0f} events/s ({result['seconds']:.1f} s), once warm "
        f"{result['warm_events_per_second']:,.0f}; {result['cores']:.2f} cores, "
        f"others {result['others']:.2f} cores, load {result['load']:.1f}"
    )
