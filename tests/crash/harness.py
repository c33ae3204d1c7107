"""The crash test: processes are killed while events flow, started again, and what they leave behind must add up."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.crash.clerk import Clerk
from tests.crash.processes import APART, TOGETHER, Place, Processes
from tests.crash.rules import Accounts, reconcile
from tests.crash.schedule import ALL, ANY_TIME, FENCED, SECOND, Step
from tests.crash.watch import Watch

FEED_SECONDS = 1.5
STOPPED_SECONDS = 42.0
"""The relay's transactions time out after 30 s, which the broker looks after every 10 s."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Kill:
    """What came of one kill: `recovery` in seconds from the restart until nothing was left to do."""

    role: str
    point: str
    recovery: float | None


@dataclass
class Report:
    """What came of a run."""

    seed: int
    kills: list[Kill] = field(default_factory=list)
    missed: list[Step] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    deaths: list[tuple[str, int]] = field(default_factory=list)
    events: int = 0
    orders: int = 0
    decisions: int = 0
    effects: int = 0
    reconciliations: int = 0
    seconds: float = 0.0
    loads: list[float] = field(default_factory=list)


@dataclass
class CrashTest:
    """One run on a fresh home.

    Attributes:
        events: messages fed around each kill.
        patience: seconds until rest, after which the run has failed.
        every: kills from one full reconciliation to the next.
        stopped_seconds: how long the relay is stopped.
    """

    place: Place
    say: Say
    events: int = 250
    patience: float = 300.0
    every: int = 25
    stopped_seconds: float = STOPPED_SECONDS
    roles: tuple[str, ...] = TOGETHER

    def __post_init__(self) -> None:
        place = self.place
        self.processes = Processes(place)
        self.report = Report(place.seed)
        self._chance = random.Random(f"kills-{place.seed}")
        self._watch = Watch(place.settings.home_path, place.bootstrap, place.api_port)
        self._clerk = Clerk([place.api_port], place.decisions, place.seed, place.series)
        self._switches = 0

    def run(self, steps: Iterable[Step]) -> Report:
        """Start the chain, go through the steps, end everything; stops at the first violation."""
        started = time.monotonic()
        try:
            self.start()
            if not self.place.mutant:
                self._refuse_second("live", "api")
            for number, step in enumerate(steps, start=1):
                self._step(number, step)
                if number % self.every == 0:
                    self._reconcile()
                if self.report.violations:
                    break
            else:
                self._reconcile()
        except Failed:
            self._reconcile()
        finally:
            self._watch.close()
            self.processes.end_all()
            self.report.deaths = self.processes.deaths
            self.report.seconds = time.monotonic() - started
        return self.report

    def start(self) -> None:
        """A chain at rest, with its first events taken in."""
        self.processes.start("broker")
        self._switches = 1
        assert self.processes.switch(1).wait(60) == 0, "the first forecasts could not be put in force"
        self.processes.end("switch")
        self.processes.start(*self.roles)
        self.processes.wait_for_api(self.place.api_port)
        self._feed(self.events)
        self._rest()

    def _step(self, number: int, step: Step) -> None:
        if step.role == ALL:
            recovery = self._everything()
        elif step.point == FENCED:
            recovery = self._fence()
        elif step.point == SECOND:
            recovery = self._second_owner(step.role)
        elif step.role == "switch":
            recovery = self._switch(step)
        else:
            recovery = self._kill(step)
        self._quick_check()
        kill = Kill(step.role, step.point, recovery)
        self.report.kills.append(kill)
        self.report.loads.append(os.getloadavg()[0])
        self.say(
            f"{number:3d}  {step.role:10s} {step.point:29s} recovered in {recovery:5.1f} s; {self.report.events:6,d} "
            f"events, {self._watch.orders:5,d} orders" + "".join(f"\n     {line}" for line in self.report.violations)
        )

    def _kill(self, step: Step) -> float:
        """Kill one process in mid-flow, and start it again."""
        role = step.role
        self._die(step)
        if role not in {"broker", "generator"}:
            self._feed(self.events // 4, wait=False)
        if step.again:
            self.processes.arm(role, step.point)
            self.processes.start(role)
            if self._wait_for_death(role, 60):
                self.report.kills.append(Kill(role, f"{step.point}, again", None))
            self.processes.end(role)
        started = time.monotonic()
        self.processes.start(role)
        if role == "generator":
            self._feed(self.events // 4)
        self._rest()
        return time.monotonic() - started

    def _die(self, step: Step) -> None:
        role = step.role
        if step.point == ANY_TIME:
            self._feed(self.events, wait=False)
            self._clerk.work()
            time.sleep(self._chance.uniform(0, FEED_SECONDS + 0.5))
            self.processes.end(role)
            if role == "broker":
                time.sleep(self._chance.uniform(0.2, 3))
            return
        self.processes.arm(role, step.point, step.passes)
        deadline = time.monotonic() + self.patience
        while self.processes.armed(role) and time.monotonic() < deadline:
            self._feed(self.events, wait=False)
            self._clerk.work()
            self._wait_for_death(role, 6)
        if self.processes.armed(role):
            self.report.missed.append(step)
        self.processes.end(role)

    def _wait_for_death(self, role: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.processes.armed(role):
                return True
            time.sleep(0.02)
        return False

    def _everything(self) -> float:
        """Kill all processes at once; the chain goes on in its other form."""
        self._feed(self.events, wait=False)
        self._clerk.work()
        time.sleep(self._chance.uniform(0, FEED_SECONDS + 0.5))
        self.processes.end_all()
        self.roles = APART if self.roles == TOGETHER else TOGETHER
        started = time.monotonic()
        self.processes.start("broker", *self.roles)
        self._rest()
        return time.monotonic() - started

    def _switch(self, step: Step) -> float:
        """Put new forecasts and policies in force while events flow; the switch dies on its way and is run again."""
        self._switches += 1
        self.processes.arm("switch", step.point)
        self._feed(self.events, wait=False)
        died = self.processes.switch(self._switches).wait(60) == -signal.SIGKILL
        if not died:
            self.report.missed.append(step)
        self.processes.end("switch")
        self._feed(self.events // 4)
        started = time.monotonic()
        if died:
            assert self.processes.switch(self._switches).wait(60) == 0, "the switch could not be repeated"
            self.processes.end("switch")
        self._rest()
        return time.monotonic() - started

    def _fence(self) -> float:
        """Stop the relay inside a transaction, let a second take over, and let the first go on."""
        role = "live" if "live" in self.roles else "relay"
        self.processes.arm(role, "relay.inside_transaction", number=signal.SIGSTOP)
        deadline = time.monotonic() + self.patience
        while self.processes.armed(role) and time.monotonic() < deadline:
            self._feed(self.events, wait=False)
            self._wait_for_death(role, 6)
        if self.processes.armed(role):
            self.report.missed.append(Step(role, FENCED))
        stopped = time.monotonic()
        self.processes.second("relay")
        while time.monotonic() < stopped + self.stopped_seconds:
            self._feed(self.events // 5)
            time.sleep(2)
        started = time.monotonic()
        first = self.processes.process(role)
        first.send_signal(signal.SIGCONT)
        if role == "relay":
            with contextlib.suppress(subprocess.TimeoutExpired):
                first.wait(30)
            if first.poll() in {None, 0}:
                self.report.violations.append("R6: the relay that was stopped went on beside its successor")
            self.processes.end("second-relay", signal.SIGTERM)
            self.processes.end(role)
            self.processes.start(role)
        self._rest()
        if "second-relay" in self.processes.running():
            self.processes.end("second-relay")
        return time.monotonic() - started

    def _second_owner(self, role: str) -> float:
        """Let a second order API own the audit beside the first for a while, then kill both."""
        place = self.place
        self.processes.second(role)
        self.processes.wait_for_api(place.second_port)
        self._clerk.ports.append(place.second_port)
        for _ in range(10):
            self._feed(self.events // 10)
            self._clerk.work(by_hand=2)
        self._clerk.ports.remove(place.second_port)
        self.processes.end(f"second-{role}")
        self.processes.end(role)
        started = time.monotonic()
        self.processes.start(role)
        self.processes.wait_for_api(place.api_port)
        self._rest()
        return time.monotonic() - started

    def _refuse_second(self, *roles: str) -> None:
        """A second owner of tables must end by itself, at once, and say whose they are."""
        for role in roles:
            second = self.processes.second(role)
            with contextlib.suppress(subprocess.TimeoutExpired):
                second.wait(60)
            if second.poll() != 1:
                self.report.violations.append(f"R2: a second {role} was let in beside the first")
            self.processes.end(f"second-{role}")

    def _feed(self, count: int, *, wait: bool = True) -> None:
        if not self.processes.wait_fed(self.patience):
            self._fail(f"R0: the broker did not take {count} messages within {self.patience:g} s")
        self.processes.feed(count, FEED_SECONDS)
        self.report.events += count
        if wait and not self.processes.wait_fed(self.patience):
            self._fail(f"R0: the broker did not acknowledge {count} messages within {self.patience:g} s")

    def _rest(self) -> None:
        """Wait until nothing is left to do."""
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            self.processes.mend()
            if self.processes.wait_fed(1) and not self._clerk.repeat() and self._watch.at_rest():
                return
            time.sleep(0.25)
        self._fail(f"R0: no rest within {self.patience:g} s: {self._watch.why}")

    def _fail(self, violation: str) -> None:
        self.report.violations.append(violation)
        raise Failed(violation)

    def _quick_check(self) -> None:
        self.report.violations += self._watch.violations()

    def _reconcile(self) -> None:
        accounts, report = self.accounts(), self.report
        report.violations += reconcile(accounts)
        report.reconciliations += 1
        report.events, report.orders = len(accounts.held), len(accounts.outbox)
        report.decisions, report.effects = len(accounts.requests), len(accounts.effects_seen)

    def accounts(self) -> Accounts:
        """What the run left behind."""
        place = self.place
        return Accounts(place.settings.home_path, place.bootstrap, place.sent, place.effects, place.decisions)


class Failed(Exception):
    """The chain did not come to rest."""
