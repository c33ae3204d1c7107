"""The demo: a simulated chain from its first event to forecasts, flags and orders, on one machine."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pyarrow.compute as pc
from confluent_kafka import Consumer, TopicPartition
from pyspark.sql import SparkSession
from rich.console import Console

from pipelines.contracts import topics
from pipelines.contracts.tables import INGEST_BATCHES, ORDER_OUTBOX, QUARANTINE
from pipelines.errors import StockcastError, UsageError
from pipelines.ingestion.catalog import load_catalog
from pipelines.ingestion.stream import start_ingest
from pipelines.inventory.stock_health import SEVERITIES
from pipelines.io import kafka
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.operations import broker
from pipelines.operations.live import run_live
from pipelines.operations.nightly import NightlyReport, run_nightly
from pipelines.operations.session import open_session
from pipelines.operations.settings import Settings
from pipelines.simulation import store
from pipelines.simulation.history import simulate_history
from pipelines.simulation.live import LiveOptions, simulate_live
from pipelines.simulation.plan import Plan
from pipelines.simulation.showing import shown_progress

MARKER = "demo"
LIVE_RATE = 150.0
SETTLE_SECONDS = 120.0
SHOWN_ORDERS = 3


@dataclass(frozen=True)
class ReadBack:
    """What a plain consumer found on the output topics."""

    orders: list[dict[str, Any]]
    flags: list[dict[str, Any]]


def run_demo(settings: Settings, *, keep_broker: bool = False) -> None:
    """Run the demo in a fresh home and say what came of it.

    Raises:
        UsageError: the home holds something else than an earlier demo.
        StockcastError: orders or flags did not arrive on Kafka, or not as decided.
    """
    console, started = Console(highlight=False), time.monotonic()
    with _running_broker(settings, console, fresh=True, keep=keep_broker):
        spark = _quiet_session(console)
        tables = Tables(settings)
        try:
            nightly = _prepare(spark, settings, tables, console)
            _step(console, "Live: the chain sells on, orders are answered and delivered")
            with _live_pipeline(settings):
                _simulate_until_now(settings, console, LIVE_RATE)
                _wait_until_taken_in(settings, tables)
            found = read_back(settings)
            check_arrival(tables, found)
        finally:
            spark.stop()
    _summary(console, settings, tables, nightly, found, time.monotonic() - started)


def run_live_demo(
    settings: Settings, rate: float, dashboard: Callable[[], AbstractContextManager[str]] | None = None
) -> None:
    """Keep the demo's chain running until Ctrl-C; prepares it first where the home is empty.

    Args:
        dashboard: runs one beside the chain while it is entered, and gives its address.
    """
    console = Console(highlight=False)
    prepared = (settings.home_path / MARKER).exists()
    with _running_broker(settings, console, fresh=not prepared, keep=False):
        spark = _quiet_session(console)
        tables = Tables(settings)
        try:
            if not prepared:
                _prepare(spark, settings, tables, console)
            _step(console, f"Live at {rate:g} events a second; Ctrl-C ends it. `stockcast status` in another terminal")
            with _live_pipeline(settings) as stop, ExitStack() as beside, shown_progress(console) as progress:
                if dashboard is not None:
                    console.print(f"  the dashboard: [bold]{beside.enter_context(dashboard())}[/]", soft_wrap=True)
                simulate_live(settings, None, LiveOptions(rate=rate), progress, stop)
        except KeyboardInterrupt:
            console.print("stopping ...")
        finally:
            spark.stop()


def read_back(settings: Settings, timeout: float = 20.0) -> ReadBack:
    """Everything on `restock.orders` and `stockout.flags`, read as an outsider would."""
    client: Consumer = kafka.consumer(settings, "stockcast-demo")
    names = (topics.RESTOCK_ORDERS, topics.STOCKOUT_FLAGS)
    ends = {place: end for place, end in kafka.end_offsets(settings, names).items() if end > 0}
    messages: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    try:
        client.assign([TopicPartition(name, partition, 0) for name, partition in ends])
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            message = client.poll(0.5)
            if message is not None and message.error() is None:
                messages[message.topic()].append(orjson.loads(message.value()))
            elif message is None and all(
                place.offset >= ends[place.topic, place.partition] for place in client.position(client.assignment())
            ):
                break
    finally:
        client.close()
    return ReadBack(messages[topics.RESTOCK_ORDERS], messages[topics.STOCKOUT_FLAGS])


def check_arrival(tables: Tables, found: ReadBack) -> None:
    """Whether the topics hold what was decided.

    Raises:
        StockcastError: says what is missing or doubled.
    """
    decided = Counter(tables.read(ORDER_OUTBOX, ("order_id",)).column("order_id").to_pylist())
    arrived = Counter(order["order_id"] for order in found.orders)
    if arrived != decided:
        raise StockcastError(
            f"{topics.RESTOCK_ORDERS} holds {arrived.total()} orders and the outbox {decided.total()}; missing: "
            f"{list(decided - arrived)[:5]}, too many: {list(arrived - decided)[:5]}"
        )
    if not found.orders or not found.flags:
        raise StockcastError(
            f"expected orders and flags on Kafka, found {len(found.orders)} orders and {len(found.flags)} flags"
        )


def _prepare(spark: SparkSession, settings: Settings, tables: Tables, console: Console) -> NightlyReport:
    plan = Plan.before(datetime.now(UTC).date(), live_days=2)
    title = f"History: {plan.stores} stores × {plan.products} products, {plan.days} days, through Kafka"
    _step(console, title)
    with shown_progress(console) as progress:
        simulate_history(settings, plan, progress)
    rows = load_catalog(settings, tables, store.catalog_folder(settings))
    console.print("  catalog: " + ", ".join(f"{count} {name}" for name, count in rows.items()))
    _step(console, "Ingest: Kafka to bronze, ledger and quarantine")
    _take_in(spark, settings, tables, console)
    _step(console, "Night: demand, Prophet forecasts tracked in MLflow, inventory policies")

    def progress_line(done: int, total: int) -> None:
        console.print(f"  {done} of {total} series trained")

    as_of = plan.cutoff - timedelta(days=1)
    nightly = run_nightly(spark, settings, tables, as_of, lambda: datetime.now(UTC), progress_line)
    console.print(f"  {nightly.training.summary}")
    (settings.home_path / MARKER).touch()
    return nightly


def _take_in(spark: SparkSession, settings: Settings, tables: Tables, console: Console) -> None:
    total = sum(kafka.end_offsets(settings, topics.INPUT_TOPICS).values())
    with ownership(settings, "ingest_events"):
        query = start_ingest(spark, settings, tables, once=True)
        shown = -1
        while not (ended := query.awaitTermination(1)) or shown < total:
            if (consumed := _consumed(tables)) != shown:
                shown = consumed
                console.print(f"  {consumed:,} of {total:,} records")
            elif ended:
                break


def _simulate_until_now(settings: Settings, console: Console, rate: float) -> None:
    with shown_progress(console) as progress:
        simulate_live(settings, None, LiveOptions(rate=rate, until=datetime.now(UTC)), progress)


@contextmanager
def _live_pipeline(settings: Settings) -> Iterator[threading.Event]:
    """All live streams in a thread; what stopped them is raised at the end."""
    stop, failure = threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            run_live(settings, stop=stop)
        except BaseException as error:
            failure.append(error)
            stop.set()

    thread = threading.Thread(target=run, name="live")
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join()
        if failure:
            raise failure[0]


def _consumed(tables: Tables) -> int:
    return pc.sum(tables.read(INGEST_BATCHES, ("consumed",)).column("consumed")).as_py() or 0


def _wait_until_taken_in(settings: Settings, tables: Tables) -> None:
    """Until everything sent is in the tables, answers to orders included."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while _consumed(tables) < sum(kafka.end_offsets(settings, topics.INPUT_TOPICS).values()):
        if time.monotonic() > deadline:
            raise StockcastError(f"the live streams did not catch up within {SETTLE_SECONDS:.0f} s")
        time.sleep(0.5)


@contextmanager
def _running_broker(settings: Settings, console: Console, *, fresh: bool, keep: bool) -> Iterator[None]:
    home = settings.home_path
    if fresh:
        others = [path.name for path in home.iterdir() if path.name != "broker"] if home.exists() else []
        if others and not (home / MARKER).exists() and not (home / "simulation").exists():
            raise UsageError(f"{home} holds other data; name another folder: STOCKCAST_HOME=FOLDER make demo")
        broker.stop(settings)
        shutil.rmtree(home, ignore_errors=True)
    _step(console, "Kafka: one real broker on this machine")
    broker.start(settings)
    console.print(f"  {broker.describe(settings)}")
    try:
        yield
    finally:
        if not keep:
            broker.stop(settings)


def _quiet_session(console: Console) -> SparkSession:
    for name in ("stockcast", "py4j", "cmdstanpy", "mlflow", "alembic", "prophet"):
        logging.getLogger(name).setLevel(logging.ERROR)
    console.print("  starting Spark ...")
    spark = open_session("stockcast-demo")
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def _step(console: Console, title: str) -> None:
    console.print(f"\n[bold cyan]{title}[/]")


def _summary(
    console: Console, settings: Settings, tables: Tables, nightly: NightlyReport, found: ReadBack, seconds: float
) -> None:
    batches = tables.read(INGEST_BATCHES)

    def total(name: str) -> int:
        return pc.sum(batches.column(name)).as_py() or 0

    reasons = Counter(tables.read(QUARANTINE, ("reason",)).column("reason").to_pylist())
    training = nightly.training.summary
    severities = Counter(flag["severity"] for flag in found.flags)
    _step(console, "What came of it")
    lines = [
        (
            "events",
            f"{total('good'):,} taken in, {total('duplicates'):,} duplicates, {total('tombstones'):,} tombstones",
        ),
        ("quarantined", f"{total('quarantined'):,}: " + ", ".join(f"{n} {why}" for why, n in reasons.most_common())),
        ("series", ", ".join(f"{count} {name}" for name, count in training.status.items())),
        ("forecast error", f"WAPE {training.wape:.3f}; seasonal naive {training.baseline_wape:.3f}"),
        ("80 % interval", f"covers {training.coverage:.0%}"),
        (
            "policies",
            f"{nightly.planning.policies}, reorder point covers {nightly.planning.median_cover_days:.1f} days",
        ),
        ("flags", f"{len(found.flags)}: " + ", ".join(f"{severities[name]} {name}" for name in reversed(SEVERITIES))),
        ("orders", f"{len(found.orders)} on {topics.RESTOCK_ORDERS}, each exactly once"),
    ]
    for name, text in lines:
        console.print(f"  [bold]{name:<15}[/]{text}", soft_wrap=True)
    for order in found.orders[:SHOWN_ORDERS]:
        console.print(
            f"\n  {order['location_id']} {order['sku']}: {order['quantity']} units", style="bold", markup=False
        )
        console.print(f"  {order['explanation']}", markup=False)
    _step(console, "Where to look next")
    for command, what in (
        ("stockcast status", "everything at a glance"),
        ("stockcast orders list", "the orders; then show, explain, approve, reject"),
        ("stockcast quarantine list", "what was set aside, and why"),
        (f"mlflow ui --backend-store-uri sqlite:///{settings.under_home('mlflow.db')}", "the training run"),
        ("notebooks/04_one_series.ipynb", "one series with its forecast and its orders (kernel: .venv)"),
        ("make live", "the same chain, kept running"),
    ):
        program = command.startswith(("stockcast", "mlflow"))
        console.print(f"  .venv/bin/{command}" if program else f"  {command}", soft_wrap=True)
        console.print(f"      {what}", style="dim")
    console.print(f"\ndone in {seconds / 60:.1f} minutes")
