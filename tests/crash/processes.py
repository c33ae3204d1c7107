"""The processes of a crash test: each in a group of its own, killed by the id that was recorded when it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from pipelines.operations import broker
from pipelines.operations.settings import Settings
from tests.short_spark import SHORT_LIVED
from tests.stub_supplier import SECRET

ROOT = Path(__file__).parents[2]
SPARK = (
    "--master local[2] --driver-memory 900m --conf spark.ui.enabled=false --conf spark.sql.shuffle.partitions=2"
    " --conf spark.default.parallelism=2 --conf spark.sql.codegen.wholeStage=false"
    " --conf spark.sql.adaptive.enabled=false"
    f" {SHORT_LIVED} pyspark-shell"
)
JOBS = {
    "live": "live",
    "ingest": "ingest_events",
    "restock": "restock",
    "relay": "relay_orders",
    "sender": "send_orders",
}

TOGETHER = ("supplier", "generator", "live", "sender", "api")
"""Everything but the broker, with ingestion, restocking and relay in one process."""
APART = ("supplier", "generator", "ingest", "restock", "relay", "sender", "api")
"""The same with a process for each."""


@dataclass(frozen=True)
class Place:
    """Where a crash test runs.

    Attributes:
        settings: of the chain; its home is fresh.
        supplier_port, api_port, second_port: on loopback; the last for a second order API.
        mutant: a fault to put into every process of the pipeline; empty for none.
    """

    settings: Settings
    seed: int
    series: int
    supplier_port: int
    api_port: int
    second_port: int
    trouble: float = 0.1
    mutant: str = ""

    @property
    def folder(self) -> Path:
        """What the test itself writes down."""
        return self.settings.home_path / "crash"

    @property
    def bootstrap(self) -> str:
        return self.settings.kafka.bootstrap_servers

    @property
    def sent(self) -> Path:
        """The generator's record."""
        return self.folder / "sent.jsonl"

    @property
    def effects(self) -> Path:
        """The supplier's record."""
        return self.folder / "effects.jsonl"

    @property
    def decisions(self) -> Path:
        """The clerk's record."""
        return self.folder / "decisions.jsonl"


@dataclass
class Processes:
    """Starts, kills and watches the processes of one crash test, the broker among them.

    Attributes:
        deaths: processes that ended by themselves, as (role, exit code).
    """

    place: Place
    deaths: list[tuple[str, int]] = field(default_factory=list)
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _fed: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._fed.set()

    def start(self, *roles: str) -> None:
        """Start what does not run; does not wait until it works."""
        for role in roles:
            if role == "broker":
                broker.start(self.place.settings)
            elif role not in self._running:
                self._running[role] = self._launch(role, self._command(role))

    def second(self, role: str) -> subprocess.Popen[bytes]:
        """One more of a role beside the first; the caller ends it with `end`."""
        name = f"second-{role}"
        self._running[name] = self._launch(name, self._command(role, second=True))
        return self._running[name]

    def switch(self, number: int) -> subprocess.Popen[bytes]:
        """Put the n-th forecasts and policies in force."""
        place = self.place
        command = ["tests.crash.switch", str(place.settings.home_path), str(place.series), str(number)]
        self._running["switch"] = self._launch("switch", command)
        return self._running["switch"]

    def process(self, role: str) -> subprocess.Popen[bytes]:
        """The process of a role."""
        return self._running[role]

    def running(self) -> list[str]:
        """The roles that were started and not ended by us."""
        return list(self._running)

    def end(self, role: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to a process and whatever it started, and wait for its end; returns its exit code."""
        if role == "broker":
            pid = broker.running(self.place.settings)
            assert pid is not None, "the broker does not run"
            process = psutil.Process(pid)
            process.send_signal(number)
            process.wait(60)
            return -number
        process = self._running.pop(role)
        self.disarm(role)
        if role == "generator":
            self._fed.set()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        return process.wait(60)

    def end_all(self, number: int = signal.SIGKILL) -> None:
        """End everything that was started, the broker too, at one stroke."""
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        for role in self.running():
            self.end(role, number)
        if broker.running(self.place.settings) is not None:
            self.end("broker", number)

    def mend(self) -> None:
        """Start again what ended by itself, as a supervisor would."""
        for role, process in list(self._running.items()):
            if (code := process.poll()) is not None and not role.startswith(("second-", "switch")):
                self.deaths.append((role, code))
                self.end(role)
                self.start(role)

    def arm(self, role: str, failpoint: str, count: int = 1, number: int = signal.SIGKILL) -> None:
        """Let a process send itself a signal at a named point, when it passes it for the n-th time from now on."""
        path = self._armed(role)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        draft.write_text(f"{failpoint} {count} {int(number)}")
        draft.rename(path)

    def disarm(self, role: str) -> None:
        """Take back what was armed."""
        self._armed(role).unlink(missing_ok=True)

    def armed(self, role: str) -> bool:
        """Whether the point was not reached yet."""
        return self._armed(role).exists()

    def feed(self, count: int, seconds: float) -> None:
        """Let the generator send so many messages over a time; returns at once."""
        generator = self._running["generator"]
        assert generator.stdin is not None
        self._fed.clear()
        generator.stdin.write(f"feed {count} {seconds}\n".encode())
        generator.stdin.flush()

    def wait_fed(self, timeout: float) -> bool:
        """Whether the broker acknowledged, in time, all that was to be sent."""
        return self._fed.wait(timeout)

    def wait_for_api(self, port: int, timeout: float = 60.0) -> None:
        """Wait until an order API answers."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{port}/health")
                return
            time.sleep(0.1)

    def _armed(self, role: str) -> Path:
        return self.place.folder / "armed" / role

    def _launch(self, role: str, command: list[str]) -> subprocess.Popen[bytes]:
        own = command[0] in {"tests.crash.generator", "tests.stub_supplier"}
        started = [sys.executable, "-m", *(command if own else ("tests.crash.launcher", role, *command))]
        environment = os.environ | {
            "PYSPARK_SUBMIT_ARGS": SPARK,
            "CRASH_FOLDER": str(self.place.folder),
            "CRASH_MUTANT": self.place.mutant,
            "STOCKCAST__SUPPLIER_API__SECRET": SECRET,
        }
        self.place.folder.mkdir(parents=True, exist_ok=True)
        with open(self.place.folder / f"{role}.log", "ab") as log:
            process = subprocess.Popen(
                started,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE if role == "generator" else subprocess.DEVNULL,
                stdout=subprocess.PIPE if role == "generator" else log,
                stderr=log,
                start_new_session=True,
            )
        with open(self.place.folder / "pids", "a", encoding="ascii") as pids:
            pids.write(f"{process.pid} {role}\n")
        if role == "generator":
            threading.Thread(target=self._listen, args=(process,), daemon=True).start()
        return process

    def _listen(self, generator: subprocess.Popen[bytes]) -> None:
        for line in generator.stdout or ():
            if line.startswith(b"fed"):
                self._fed.set()

    def _command(self, role: str, *, second: bool = False) -> list[str]:
        place = self.place
        if role == "generator":
            return ["tests.crash.generator", "--bootstrap", place.bootstrap, "--record", str(place.sent),
                    "--seed", str(place.seed), "--series", str(place.series)]  # fmt: skip
        if role == "supplier":
            return ["tests.stub_supplier", "--port", str(place.supplier_port), "--record", str(place.effects),
                    "--seed", str(place.seed), "--trouble", str(place.trouble)]  # fmt: skip
        options = self._options(role)
        if role == "api":
            options["api.port"] = place.second_port if second else place.api_port
        program = ["stockcast", "api"] if role == "api" else [str(ROOT / "jobs" / f"{JOBS[role]}.py")]
        return [*program, *(part for name, value in options.items() for part in ("--set", f"{name}={value}"))]

    def _options(self, role: str) -> dict[str, object]:
        place = self.place
        options: dict[str, object] = {
            "home": place.settings.home,
            "kafka.bootstrap_servers": place.bootstrap,
            "ingest.max_offsets_per_trigger": 400,
            "restock.snapshot_seconds": 0.5,
            "totals.trigger_seconds": 5,
            "orders.approval_value": 60,
            "maintenance.commits": 20,
            "maintenance.small_files": 6,
            "maintenance.clean_minutes": 0.1,
            "maintenance.retention_minutes": 0.5,
        }
        if role == "sender":
            options |= {
                "supplier_api.url": f"http://127.0.0.1:{place.supplier_port}/orders",
                "supplier_api.allowed_private_hosts": "[127.0.0.1]",
                "supplier_api.timeout_seconds": 1,
                "supplier_api.first_pause_seconds": 0.1,
                "supplier_api.largest_pause_seconds": 1,
            }
        return options
