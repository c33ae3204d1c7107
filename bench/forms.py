"""One form of the live side, in a process of its own: `python -m bench.forms FORM --set home=... --folder ...`.

It writes `progress.jsonl` (time, ledger rows decided) into the folder, and when the file `stop` appears there,
or all that `--expect` asks for is decided, it ends and leaves `result.json`: how long its micro-batches took.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from bench import state_store
from bench.delta_state import DeltaStateRestock, LightPositions, SparkPositions
from pipelines.contracts import topics
from pipelines.contracts.tables import INGEST_BATCHES
from pipelines.ingestion.batches import last_sequence
from pipelines.ingestion.stream import start_ingest
from pipelines.io import kafka
from pipelines.io.delta import Tables
from pipelines.operations.session import open_session
from pipelines.operations.settings import Settings, load_settings
from pipelines.restocking.relay import Relay
from pipelines.restocking.stream import running_engine, start_restock
from pipelines.shipments.following import follow_shipments


@dataclass
class Running:
    """Started queries, and how far the decisions have come, as a place in the ledger."""

    queries: list[StreamingQuery]
    decided: Callable[[], int]


@dataclass
class Bench:
    """What a form is started with."""

    spark: SparkSession
    settings: Settings
    tables: Tables
    stack: ExitStack = field(default_factory=ExitStack)

    def send_flags(self) -> Callable[[Iterable[tuple[str, bytes]]], None]:
        """Sends flags as the engine does."""
        producer = kafka.producer(self.settings)
        return lambda messages: kafka.send(producer, topics.STOCKOUT_FLAGS, messages)

    def ingest(self, **options: Any) -> StreamingQuery:
        """The ingest query."""
        return start_ingest(self.spark, self.settings, self.tables, once=False, **options)


def chained(bench: Bench) -> Running:
    """State in the owner's process, right behind the ledger's commit."""
    engine = bench.stack.enter_context(running_engine(bench.settings, bench.tables))
    return Running([bench.ingest(then=engine.stage)], lambda: engine.sequence)


def with_shipments(bench: Bench) -> Running:
    """As chained, with the shipments followed in a thread, as in the live job."""
    stop = threading.Event()
    settings = bench.settings
    thread = threading.Thread(target=follow_shipments, args=(settings, Tables(settings), stop), name="track-shipments")
    thread.start()
    bench.stack.callback(thread.join)
    bench.stack.callback(stop.set)
    return chained(bench)


def second_query(bench: Bench) -> Running:
    """The same engine, following the ledger as a query of its own."""
    engine = bench.stack.enter_context(running_engine(bench.settings, bench.tables))
    query = start_restock(bench.spark, bench.settings, bench.tables, engine, once=False)
    return Running([bench.ingest(), query], lambda: engine.sequence)


def delta_state(bench: Bench, positions: SparkPositions | LightPositions) -> Running:
    """State in a Delta table."""
    restock = DeltaStateRestock(bench.tables, bench.settings, positions, bench.send_flags())
    source = bench.tables.stream(bench.spark, INGEST_BATCHES, ignoreChanges="true")
    query = (
        source.writeStream.queryName("restock")
        .option("checkpointLocation", bench.settings.under_home("checkpoints", "restock"))
        .foreachBatch(restock.follow)
        .start()
    )
    return Running([bench.ingest(), query], lambda: restock.sequence)


def state_store_form(bench: Bench, api: str) -> Running:
    """State in Spark's state store."""
    query = state_store.start(bench.spark, bench.settings, bench.tables, bench.send_flags(), api)
    rows: dict[int, int] = {}

    def decided() -> int:
        rows.update({progress["batchId"]: progress["numInputRows"] for progress in query.recentProgress})
        return sum(rows.values())

    return Running([bench.ingest(), query], decided)


def ingest_only(bench: Bench) -> Running:
    """No decisions: Kafka to the ledger."""
    return Running([bench.ingest()], lambda: last_sequence(bench.tables))


FORMS: dict[str, Callable[[Bench], Running]] = {
    "chained": chained,
    "with_shipments": with_shipments,
    "second_query": second_query,
    "delta_light": lambda bench: delta_state(bench, LightPositions(bench.tables)),
    "delta_spark": lambda bench: delta_state(bench, SparkPositions(bench.spark, bench.tables)),
    "state_store": lambda bench: state_store_form(bench, "transformWithState"),
    "state_store_pandas": lambda bench: state_store_form(bench, "applyInPandasWithState"),
    "ingest_only": ingest_only,
}


@contextmanager
def relaying(settings: Settings) -> Iterator[None]:
    """The relay in a thread, as in the live job."""
    stop = threading.Event()
    relay = Relay(settings, Tables(settings))

    def run() -> None:
        relay.run(stop.wait)
        relay.publish_available()
        relay.close()

    thread = threading.Thread(target=run, name="relay")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def watch(running: Running, folder: Path, expect: int | None) -> dict[str, Any]:
    """Note the progress until asked to stop, or done; returns the micro-batches' durations by query."""
    batches: dict[str, dict[int, dict[str, Any]]] = {query.name: {} for query in running.queries}
    with open(folder / "progress.jsonl", "w", buffering=1) as progress:
        while not (folder / "stop").exists():
            for query in running.queries:
                if (failure := query.exception()) is not None:
                    raise failure
                for report in query.recentProgress:
                    if "addBatch" in report["durationMs"]:
                        batches[query.name][report["batchId"]] = report
            decided = running.decided()
            progress.write(json.dumps([time.time(), decided]) + "\n")
            if expect is not None and decided >= expect:
                break
            time.sleep(0.1)
    return {name: durations(list(reports.values())) for name, reports in batches.items()}


def durations(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Median milliseconds of each part of the micro-batches, the first few left out."""
    reports = reports[5:] or reports
    parts = sorted({part for report in reports for part in report["durationMs"]})
    return {
        "batches": len(reports),
        "rows": statistics.median(report["numInputRows"] for report in reports) if reports else 0,
        **{part: statistics.median(report["durationMs"].get(part, 0) for report in reports) for part in parts},
    }


def main() -> None:
    """Run a form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("form", choices=FORMS)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--expect", type=int, help="end when so many ledger rows are decided")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s  %(message)s")
    logging.getLogger("py4j").setLevel(logging.WARNING)
    settings = load_settings(overrides=options.overrides)
    spark, tables = open_session(f"bench-{options.form}"), Tables(settings)
    bench = Bench(spark, settings, tables)
    with bench.stack:
        if options.expect is None:
            bench.stack.enter_context(relaying(settings))
        started = time.time()
        running = FORMS[options.form](bench)
        try:
            result = watch(running, options.folder, options.expect)
        finally:
            ended = time.time()
            for query in running.queries:
                query.stop()
    (options.folder / "result.json").write_text(json.dumps({"seconds": ended - started, "queries": result}))
    spark.stop()


if __name__ == "__main__":
    main()
