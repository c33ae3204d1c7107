"""One soak: broker, live job and generator, restarts, samples; then everything is brought to rest and reconciled."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.io.delta import Tables
from pipelines.operations import broker
from pipelines.operations.settings import Settings, load_settings
from tests.chain import plant_catalog, plant_policies
from tests.crash.rules import Accounts, reconcile
from tests.crash.stream import series_of
from tests.reconciler import read_table
from tests.soak.judge import Batch, Plan, Row, batches, judge
from tests.soak.samples import Others, Sample, disk, resident

ROOT = Path(__file__).parents[2]
SPARK = "--master local[2] --driver-memory 1g --conf spark.ui.port=0 pyspark-shell"
OWN = {"PYSPARK_SUBMIT_ARGS": SPARK, "PYTHONPATH": str(ROOT)}
SERIES = 200
SAMPLE_SECONDS = 5.0
START_SECONDS = 240.0
STOP_SECONDS = 60.0
REST_SECONDS = 300.0

Say = Callable[[str], None]


@dataclass
class Report:
    """What came of a soak.

    Attributes:
        restarts: (seconds from the start of the run, signal, seconds until it worked again).
        violations: of the crash test's rules, at rest, and whatever else must not happen.
        behind: records sent and not yet taken in, at the end of the load.
    """

    plan: Plan
    rate: float = 0.0
    events: int = 0
    orders: int = 0
    rows: list[Row] = field(default_factory=list)
    done: list[Batch] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    restarts: list[tuple[float, str, float]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    behind: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether everything was bounded and adds up."""
        return not self.violations and all(row.passed for row in self.rows)


def plan_of(minutes: float, seed: int) -> Plan:
    """The restarts: one before the first measured stretch, so that it is as old as a restarted process in the last one,
    and the others at random times and by random signals in between, so that they disturb neither."""
    total = 60 * minutes
    prelude, settling = min(60.0, total / 12), total / 30
    warm_up, window = min(75.0, total / 8), total / 6
    begin = prelude + settling + warm_up
    chance = random.Random(f"soak-{seed}")
    free_from, free_to = begin + window, total - window - warm_up - settling
    count = max(2, round(minutes / 6))
    # One in each stretch of equal length, so that each life lasts a while.
    stretch = (free_to - free_from) / count
    signals = ["TERM", "KILL", *(chance.choice(("TERM", "KILL")) for _ in range(count - 2))]
    chance.shuffle(signals)
    times = [free_from + stretch * (place + 0.8 * chance.random()) for place in range(count)]
    return Plan(total, warm_up, begin, window, ((prelude, "TERM"), *zip(times, signals, strict=True)))


def settings_of(home: Path, port: int, minutes: float) -> Settings:
    """Defaults, but for upkeep at a pace that a run of this length can show."""
    keep = max(0.5, minutes / 10)
    return load_settings(
        overrides=[
            f"home={home}",
            f"kafka.bootstrap_servers=127.0.0.1:{port}",
            f"maintenance.retention_minutes={keep}",
            f"maintenance.log_retention_minutes={keep}",
            f"maintenance.clean_minutes={keep / 3}",
        ]
    )


class Soak:
    """A run in a folder of its own.

    Args:
        folder: for the home, the logs and the generator's record; does not exist yet or is empty.
        port: of the broker.
    """

    def __init__(self, folder: Path, port: int, minutes: float, rate: float, seed: int, say: Say) -> None:
        self._folder, self._rate, self._seed, self._say = folder, rate, seed, say
        self._settings = settings_of(folder / "home", port, minutes)
        self._record = folder / "sent.jsonl"
        self._report = Report(plan_of(minutes, seed))
        self._live: subprocess.Popen[bytes] | None = None
        self._starts: list[float] = []
        self._others = Others()
        self._generator: subprocess.Popen[bytes] | None = None

    def run(self) -> Report:
        """Run it all; whatever was started is ended."""
        self._folder.mkdir(parents=True, exist_ok=True)
        broker.start(self._settings)
        try:
            self._plant()
            self._start_live()
            self._wait_for_work(0)
            self._load()
            self._judge()
            return self._report
        finally:
            for process in (self._generator, self._live):
                end(process, signal.SIGKILL)
            broker.stop(self._settings)

    def _plant(self) -> None:
        tables, series = Tables(self._settings), [series_of(number) for number in range(SERIES)]
        plant_catalog(tables, series)
        plant_policies(tables, series, reorder_point=40, order_up_to=120)

    def _load(self) -> None:
        """The time under load, from its start to its end."""
        report, plan = self._report, self._report.plan
        self._generator = self._start_generator()
        begin = self._begin = time.time()
        restarts = list(plan.restarts)
        next_sample = 0.0
        while (now := time.time() - begin) < plan.total:
            if restarts and now >= restarts[0][0]:
                self._restart(restarts.pop(0)[1])
                continue
            if self._live is not None and self._live.poll() is not None:
                report.violations.append(f"the live job ended by itself (exit code {self._live.returncode})")
                self._start_live()
            if now >= next_sample:
                report.samples.append(self._sample(now))
                next_sample = now + SAMPLE_SECONDS
            time.sleep(0.2)
        report.behind = self._acknowledged() - self._consumed()
        end(self._generator, signal.SIGTERM)
        report.events = self._acknowledged()
        report.rate = report.events / (time.time() - begin)

    def _sample(self, now: float) -> Sample:
        live = None if self._live is None else self._live.pid
        pids = [pid for pid in (live, broker.running(self._settings), self._generator and self._generator.pid) if pid]
        parts, files = disk(self._settings.home_path)
        memory = resident(live, broker.running(self._settings))
        return Sample(now, memory, parts, files, self._others.look(now, pids))

    def _restart(self, how: str) -> None:
        at = time.time() - self._begin
        self._say(f"{at:.0f} s: SIG{how} to the live job")
        if not end(self._live, signal.SIGTERM if how == "TERM" else signal.SIGKILL):
            self._report.violations.append(f"the live job did not end within {STOP_SECONDS:.0f} s of SIGTERM")
        before = self._batches()
        down = time.time()
        self._start_live()
        self._wait_for_work(before)
        self._report.restarts.append((at, how, time.time() - down))

    def _start_live(self, *arguments: str) -> None:
        command = [sys.executable, str(ROOT / "jobs" / "live.py"), *arguments]
        upkeep = self._settings.maintenance
        for name, value in {
            "home": self._settings.home,
            "kafka.bootstrap_servers": self._settings.kafka.bootstrap_servers,
            "maintenance.retention_minutes": upkeep.retention_minutes,
            "maintenance.log_retention_minutes": upkeep.log_retention_minutes,
            "maintenance.clean_minutes": upkeep.clean_minutes,
        }.items():
            command += ["--set", f"{name}={value}"]
        with open(self._folder / "live.log", "ab") as log:
            self._live = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **OWN}, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._starts.append(time.time())

    def _start_generator(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.soak.generator"]
        for name, value in {
            "bootstrap": self._settings.kafka.bootstrap_servers,
            "record": self._record,
            "seed": self._seed,
            "series": SERIES,
            "rate": self._rate,
        }.items():
            command += [f"--{name}", str(value)]
        with open(self._folder / "generator.log", "ab") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", (self._folder / "generator.log").read_text()[-2000:]
        return process

    def _wait_for_work(self, before: int) -> None:
        """Until the live job works: its query has begun, or under load has finished a batch."""
        deadline = time.time() + START_SECONDS
        offsets = self._settings.home_path / "checkpoints" / "ingest" / "offsets"
        while time.time() < deadline:
            if (self._batches() > before) if before else offsets.is_dir():
                return
            assert self._live is not None
            assert self._live.poll() is None, (self._folder / "live.log").read_text()[-2000:]
            time.sleep(0.2)
        raise AssertionError(f"the live job did no work within {START_SECONDS:.0f} s")

    def _batches(self) -> int:
        """Batches of the ingest query that were begun."""
        offsets = self._settings.home_path / "checkpoints" / "ingest" / "commits"
        return max((int(path.name) for path in offsets.glob("[0-9]*")), default=0)

    def _acknowledged(self) -> int:
        if not self._record.exists():
            return 0
        with open(self._record, "rb") as lines:
            return sum(line.startswith(b'{"ack"') for line in lines)

    def _consumed(self) -> int:
        return int(read_table(self._settings.home_path, "silver/ingest_batches").consumed.sum())

    def _judge(self) -> None:
        """Stop the load's live job, take in the rest, and look at everything."""
        report, home = self._report, self._settings.home_path
        if not end(self._live, signal.SIGTERM):
            report.violations.append(f"the live job did not end within {STOP_SECONDS:.0f} s of SIGTERM")
        self._start_live("--once")
        assert self._live is not None
        if (code := self._live.wait(REST_SECONDS)) != 0:
            report.violations.append(f"the live job with --once ended with {code}")
        rows = read_table(home, "silver/ingest_batches").groupby("batch_id")
        ends = rows.finished_at.first().map(lambda time: time.timestamp() - self._begin)
        finished = list(zip(ends, rows.consumed.sum(), strict=True))
        starts = [start - self._begin for start in self._starts]
        report.done = batches(finished, starts, report.plan.warm_up)
        report.rows = judge(report.plan, report.samples, report.done, report.rate)
        report.orders = len(read_table(home, "gold/order_outbox"))
        self._say("at rest; reconciling")
        bootstrap = self._settings.kafka.bootstrap_servers
        report.violations += reconcile(Accounts(home, bootstrap, self._record))


def end(process: subprocess.Popen[bytes] | None, number: int) -> bool:
    """Send a signal to a process of ours and wait; what is left of its group is killed. Whether it ended in time."""
    if process is None:
        return True
    in_time = True
    if process.poll() is None:
        if number == signal.SIGTERM:
            process.terminate()
        else:
            os.killpg(process.pid, number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            in_time = False
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOP_SECONDS)
    return in_time
