"""Where live state lives: an event's way to its order, measured for each form, interleaved and repeated."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import ExitStack
from typing import Any

import numpy as np

from bench import peer as kafka_streams
from bench.arrivals import Arrived, OrderListener, check_orders, outbox_arrivals
from bench.harness import Background, Meter, Options, Scene, ending, quietest, say, scene, wait_for
from bench.workload import event_number
from pipelines.operations import broker

FORMS = ("chained", "second_query", "delta_light", "delta_spark", "state_store")
PEER = "kafka_streams"
START_SECONDS = 240.0
DRAIN_SECONDS = 120.0

Result = dict[str, Any]


def measure(options: Options) -> dict[str, list[Result]]:
    """Results by form, one per repetition."""
    forms = chosen_forms(options, (*FORMS, PEER))
    results: dict[str, list[Result]] = {form: [] for form in forms}
    for repetition in range(1, options.repetitions + 1):
        for form in forms:
            result = quietest(options, lambda form=form: one_run(options, form))
            results[form].append(result)
            say(f"live {form} {repetition}/{options.repetitions}: {line(result)}")
    return results


def chosen_forms(options: Options, default: tuple[str, ...]) -> list[str]:
    """The forms to measure: those asked for, or the part's own; the peer only where it is at hand."""
    return [form for form in options.forms or default if form != PEER or peer_is_ready(options)]


def peer_is_ready(options: Options) -> bool:
    """Whether the peer can be measured; says why not."""
    if options.peer is None:
        say("the Kafka Streams peer is left out: name its folder with --peer or BENCH_PEER")
        return False
    if (reason := kafka_streams.build(options.peer, options.folder / "peer")) is not None:
        say(f"the Kafka Streams peer is left out: {reason}")
        return False
    return True


def one_run(options: Options, form: str) -> Result:
    """One form for one window, from an empty home."""
    total = round(options.rate * (options.warm_up + options.seconds))
    with ExitStack() as stack:
        at = stack.enter_context(scene(options, f"live-{form}"))
        listener = OrderListener(at.settings)
        listening = Background(listener.step)
        listening.start()
        process = stack.enter_context(ending(start_form(at, form)))
        progress = progress_of(at, form)
        wait_for(lambda: progress(None) >= options.series, process, START_SECONDS, "the opening stock was decided")
        command = ("--rate", str(options.rate), "--seconds", str(options.warm_up + options.seconds))
        producer = stack.enter_context(ending(at.produce(*command)))
        meter = Meter({"form": process.pid, "broker": broker.running(at.settings) or 0, "producer": producer.pid})
        time.sleep(options.warm_up)
        meter.start()
        producer.wait()
        ended = time.time()
        meter.stop()
        behind = options.series + total - progress(ended)
        drained = True
        try:
            wait_for(lambda: progress(None) >= options.series + total, process, DRAIN_SECONDS, "the rest was decided")
        except RuntimeError:
            drained = False
        drain_seconds = time.time() - ended
        batches = stop_form(at, process, form)
        time.sleep(0.5)
        listening.finish()
        listener.close()
        arrived = listener.arrived if form == PEER else outbox_arrivals(at.tables)
        result = {
            "form": form,
            "behind": behind,
            "drain_seconds": drain_seconds,
            "drained": drained,
            "events_per_second": sustained(progress, ended - options.seconds, ended),
            "cores": meter.cores["form"],
            "others": meter.others,
            "load": meter.load,
            "queries": batches,
            **latencies(at, arrived, "outbox"),
            **latencies(at, listener.arrived, "kafka"),
        }
        if drained:
            check_orders(options.workload, total, [order for _, order in arrived])
        return result


def start_form(at: Scene, form: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a form's process."""
    if form == PEER:
        if at.options.peer is None:
            raise ValueError("no folder of the peer was given")
        return kafka_streams.start(at, at.options.peer, at.options.folder / "peer")
    return at.run("bench.forms", form, "--folder", str(at.folder), *arguments)


def progress_of(at: Scene, form: str) -> Any:
    """How far a form has come, as a function of time (None: now)."""
    return (lambda moment: kafka_streams.processed(at, moment)) if form == PEER else at.decided


def stop_form(at: Scene, process: subprocess.Popen[bytes], form: str) -> dict[str, Any]:
    """Ask the form to end; returns the durations of its micro-batches."""
    if form == PEER:
        return {}
    (at.folder / "stop").touch()
    process.wait(60)
    found: dict[str, Any] = json.loads((at.folder / "result.json").read_text())["queries"]
    return found


def sustained(progress: Any, start: float, end: float) -> float:
    """Events decided a second between two moments."""
    return float((progress(end) - progress(start)) / (end - start))


def latencies(at: Scene, arrived: Arrived, name: str) -> dict[str, float]:
    """Seconds from an event's sending to its order's arrival, for the events sent after the warm-up."""
    sent = at.times() / 1e6
    first = sent[0] + at.options.warm_up
    triggers = (
        (moment, event_number(order["trigger_event_id"]))
        for moment, order in arrived
        if order["trigger_event_id"].startswith("b-")
    )
    waits = np.array([moment - sent[number] for moment, number in triggers if sent[number] >= first])
    if not len(waits):
        return {f"{name}_orders": 0, f"{name}_p50": np.nan, f"{name}_p99": np.nan, f"{name}_max": np.nan}
    p50, p99 = np.percentile(waits, [50, 99])
    return {
        f"{name}_orders": len(waits),
        f"{name}_p50": float(p50),
        f"{name}_p99": float(p99),
        f"{name}_max": float(waits.max()),
    }


def line(result: Result) -> str:
    """A result in one line."""
    return (
        f"outbox p50 {result['outbox_p50']:.2f} s, p99 {result['outbox_p99']:.2f} s, max {result['outbox_max']:.2f} s "
        f"({result['outbox_orders']} orders); kafka p99 {result['kafka_p99']:.2f} s; "
        f"{result['events_per_second']:.0f} events/s, {result['behind']} behind at the end; "
        f"{result['cores']:.2f} cores, others {result['others']:.2f}, load {result['load']:.1f}"
    )
