"""What every measurement needs: a fresh home with its broker, processes that are surely ended, and the noise."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench.workload import Workload, opening_messages, plant
from pipelines.contracts import topics
from pipelines.io import kafka
from pipelines.io.delta import Tables
from pipelines.operations import broker
from pipelines.operations.settings import Settings, load_settings

ROOT = Path(__file__).parents[1]
SUBMIT = "--master local[2] --driver-memory 2g --conf spark.ui.enabled=false pyspark-shell"


@dataclass(frozen=True)
class Options:
    """How to measure: chosen on the command line."""

    folder: Path
    port: int = 19304
    series: int = 1000
    rate: float = 1000.0
    warm_up: float = 15.0
    seconds: float = 40.0
    repetitions: int = 3
    events: int = 300_000
    forms: tuple[str, ...] = ()
    peer: Path | None = None
    data: Path | None = None
    forecast_series: int = 5000
    stock_series: int = 80
    quiet: float = 2.0
    attempts: int = 1
    tracked: int = 10_000
    single_runs: int = 100
    shipment_rate: float = 2000.0
    under_way: int = 100_000

    @property
    def workload(self) -> Workload:
        """The chain."""
        return Workload(self.series)


@dataclass
class Scene:
    """A fresh home: broker running, policies planted, opening stock sent."""

    options: Options
    folder: Path
    overrides: list[str]
    settings: Settings
    tables: Tables

    def run(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start one of the bench's own modules in a process group of its own."""
        sets = [word for override in self.overrides for word in ("--set", override)]
        own = {"PYSPARK_SUBMIT_ARGS": SUBMIT, "PYTHONPATH": str(ROOT), "SPARK_LOCAL_IP": "127.0.0.1"}
        log = open(self.folder / f"{module}.log", "ab")  # noqa: SIM115 - closed with this process
        return subprocess.Popen(
            [sys.executable, "-m", module, *sets, *arguments],
            cwd=ROOT, env={**os.environ, **own}, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip

    def produce(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the producer."""
        series, times = str(self.options.series), str(self.folder / "times.npy")
        return self.run("bench.producer", "--series", series, "--times", times, *arguments)

    def times(self) -> np.ndarray:
        """Send times in microseconds, by event number."""
        return np.load(self.folder / "times.npy")

    def progress(self) -> list[tuple[float, int]]:
        """Ledger rows decided by time, by the form's own notes."""
        path = self.folder / "progress.jsonl"
        return [tuple(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []

    def decided(self, at: float | None = None) -> int:
        """Ledger rows decided, by the form's own progress, up to a time (now)."""
        return max((place for moment, place in self.progress() if at is None or moment <= at), default=0)


@contextmanager
def scene(options: Options, name: str) -> Iterator[Scene]:
    """A fresh scene below the options' folder; its broker is stopped, and its data removed, at the end."""
    folder = options.folder / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    overrides = [f"home={folder / 'home'}", f"kafka.bootstrap_servers=127.0.0.1:{options.port}"]
    settings = load_settings(overrides=overrides)
    tables = Tables(settings)
    broker.start(settings)
    try:
        plant(tables, options.workload)
        messages = ((key.decode(), value) for key, value in opening_messages(options.workload, now_us()))
        kafka.send(kafka.producer(settings), topics.INVENTORY_MOVEMENTS, messages)
        yield Scene(options, folder, overrides, settings, tables)
    finally:
        broker.stop(settings)
        shutil.rmtree(folder / "home", ignore_errors=True)


@contextmanager
def ending(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The process and what it started are gone afterwards, whatever happens."""
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], timeout: float, what: str) -> None:
    """Wait until a condition holds.

    Raises:
        RuntimeError: the process ended first, or it took too long.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if process.poll() is not None and not condition():
            raise RuntimeError(f"the process ended (exit code {process.returncode}) before {what}; see its log")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {timeout:.0f} s")
        time.sleep(0.1)


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


@dataclass
class Meter:
    """Processor time of some process trees, and of everything else on the machine, between two marks.

    Attributes:
        cores: by name, how many cores the tree kept busy.
        others: how many cores were kept busy by nobody of ours.
        load: the machine's load average over the last minute, at the end.
    """

    trees: dict[str, int]
    cores: dict[str, float] = field(default_factory=dict)
    others: float = 0.0
    load: float = 0.0

    def start(self) -> None:
        """First mark."""
        self._at, self._before = time.monotonic(), self._used()
        self._own, self._machine = _own_seconds(), busy_seconds()

    def stop(self) -> None:
        """Second mark."""
        elapsed, after = time.monotonic() - self._at, self._used()
        self.cores = {name: (after[name] - self._before[name]) / elapsed for name in self.trees}
        own = sum(self.cores.values()) + (_own_seconds() - self._own) / elapsed
        self.others = max(0.0, (busy_seconds() - self._machine) / elapsed - own)
        self.load = os.getloadavg()[0]

    def _used(self) -> dict[str, float]:
        return {name: _tree_seconds(pid) for name, pid in self.trees.items()}


def _tree_seconds(pid: int) -> float:
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _own_seconds() -> float:
    times = psutil.Process().cpu_times()
    return float(times.user + times.system)


def busy_seconds() -> float:
    """Processor time that the whole machine has used."""
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice + times.irq + times.softirq)


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of repetitions."""

    median: float
    least: float
    most: float

    def show(self, digits: int = 2) -> str:
        """As `median (least–most)`."""
        return f"{self.median:,.{digits}f} ({self.least:,.{digits}f}–{self.most:,.{digits}f})"


def spread(values: Sequence[float]) -> Spread:
    """Summarise repetitions."""
    return Spread(statistics.median(values), min(values), max(values))


def environment() -> str:
    """Versions and machine class, in one line."""
    java = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr.split('"')
    packages = ("pyspark", "delta-spark", "deltalake", "pyarrow", "confluent-kafka", "numpy", "numba", "prophet")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    memory = round(psutil.virtual_memory().total / 2**30)
    return (
        f"{os.cpu_count()} cores, {memory} GiB, {platform.system()}; Python {platform.python_version()}, "
        f"Java {java[1] if len(java) > 1 else '?'}, {versions}"
    )


class Background(threading.Thread):
    """Runs a function until told to stop, and hands on what it raised."""

    def __init__(self, step: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._step, self._halt, self._failure = step, threading.Event(), None

    def run(self) -> None:
        """Step until stopped."""
        try:
            while not self._halt.is_set():
                self._step()
        except BaseException as error:
            self._failure: BaseException | None = error

    def finish(self) -> None:
        """Stop, wait, and raise what went wrong."""
        self._halt.set()
        self.join()
        if self._failure is not None:
            raise self._failure


def quietest(options: Options, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Measure again, up to so many attempts, while others keep more cores busy than is allowed.

    The choice looks at the noise alone: the first run that is quiet enough counts, else the quietest.
    """
    tried: list[dict[str, Any]] = []
    for _ in range(options.attempts):
        await_quiet(options)
        tried.append(run())
        if tried[-1]["others"] <= options.quiet:
            break
        say(f"a noisy run: others kept {tried[-1]['others']:.2f} cores busy")
    return {**min(tried, key=lambda result: result["others"]), "attempts": len(tried)}


def await_quiet(options: Options, limit: float = 300.0, watched: float = 5.0) -> None:
    """Wait a while for the others to be quiet; goes on all the same when they are not."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        before = busy_seconds()
        time.sleep(watched)
        if (busy_seconds() - before) / watched <= options.quiet:
            return


def say(text: str) -> None:
    """A line for the person who waits."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def median_of(results: Sequence[dict[str, Any]], name: str) -> float:
    """Median of one figure over repetitions."""
    return statistics.median(result[name] for result in results)
