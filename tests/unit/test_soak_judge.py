"""The soak's judgement can fail: whatever grows without bound is found, and what does not is left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.soak.judge import Batch, Plan, batches, judge
from tests.soak.run import plan_of
from tests.soak.samples import Sample

MIB = 2**20
RATE = 500.0
PLAN = plan_of(30, seed=1)


def steady():
    """A run in which nothing grows but what holds events."""
    return [
        Sample(
            at=float(at),
            memory={"python": 300 * MIB + int(24 * RATE * at), "jvm": 900 * MIB, "broker": 400 * MIB},
            disk={"data": int(200 * RATE * at), "broker": int(250 * RATE * at), "logs": 4 * MIB, "checkpoints": MIB},
            files={"silver/stock_movements": (200 + at % 60, 300 + at % 60)},
        )
        for at in range(5, 1800, 5)
    ]


def done(late=1.0):
    """A batch a second, which from the middle on takes so many times longer."""
    return [Batch(float(at), 0.8 * (late if at > 900 else 1.0), 400) for at in range(1, 1800)]


def failed(samples, finished=None):
    return {row.name for row in judge(PLAN, samples, finished or done(), RATE) if not row.passed}


def test_a_steady_run_passes():
    assert failed(steady()) == set()


@pytest.mark.parametrize(("late", "expected"), [(1.15, set()), (1.3, {"batch time, median"})])
def test_a_batch_that_takes_longer_and_longer_is_found(late, expected):
    assert failed(steady(), done(late)) == expected


@pytest.mark.parametrize("role", ["python", "jvm", "broker"])
def test_a_leak_is_found(role):
    # given a process that keeps a kilobyte of every event
    leaking = [
        replace(sample, memory={**sample.memory, role: sample.memory[role] + int(1000 * RATE * sample.at)})
        for sample in steady()
    ]
    assert failed(leaking) == {f"memory, {role}"}


def with_jvm(mib):
    """A run whose live job's JVM takes `mib(life, age)`; restarts as with this seed."""
    starts, out = [0.0, *(at for at, _ in PLAN.restarts)], []
    for sample in steady():
        life = sum(start <= sample.at for start in starts) - 1
        size = round(mib(life, sample.at - starts[life]) * MIB)
        out.append(replace(sample, memory={**sample.memory, "jvm": size}))
    return out


def test_a_heap_that_every_life_fills_alike_is_no_leak():
    start, end = PLAN.early_life
    assert start - 60 == pytest.approx(PLAN.last[0] - PLAN.restarts[-1][0])
    assert end <= PLAN.restarts[1][0]
    assert failed(with_jvm(lambda life, age: min(600 + age, 1100))) == set()
    assert failed(with_jvm(lambda life, age: 800 + 10 * life)) == set()
    assert failed(with_jvm(lambda life, age: 800 + 150 * life)) == {"memory, jvm"}


def test_a_first_life_that_was_too_short_is_judged_by_the_first_stretch():
    plan = Plan(1800.0, 75.0, 195.0, 300.0, ((60.0, "TERM"), (500.0, "KILL"), (700.0, "TERM")))
    assert plan.early_life == plan.first == (195.0, 495.0)


@pytest.mark.parametrize("part", ["data", "broker"])
def test_disk_that_grows_faster_than_the_events_is_found(part):
    # given a part of the disk that grows with the square of the time
    growing = [
        replace(sample, disk={**sample.disk, part: int(sample.disk[part] * sample.at / 100)}) for sample in steady()
    ]
    assert failed(growing) == {f"disk, {part}, for each event"}


@pytest.mark.parametrize("part", ["logs", "checkpoints"])
def test_disk_that_grows_though_it_holds_no_events_is_found(part):
    growing = [replace(sample, disk={**sample.disk, part: int(10_000 * sample.at)}) for sample in steady()]
    assert failed(growing) == {f"disk, {part}"}


@pytest.mark.parametrize(("place", "name"), [(0, "files"), (1, "log entries")])
def test_a_file_for_every_commit_is_found(place, name):
    # given a table that nobody keeps in order
    def counted(sample):
        counts = list(sample.files["silver/stock_movements"])
        counts[place] = int(sample.at)
        return tuple(counts)

    growing = [replace(sample, files={"silver/stock_movements": counted(sample)}) for sample in steady()]
    assert failed(growing) == {f"{name}, silver/stock_movements"}


def test_a_run_without_measurements_is_no_success():
    with pytest.raises(ValueError, match="too short"):
        judge(PLAN, steady()[:10], done(), RATE)
    assert "batch time, median" in failed(steady(), done()[:10])


def test_batches_of_a_process_that_warms_up_do_not_count():
    # given a process that begins at 0 s and one that takes over at 100 s
    ends = [(float(at), 10) for at in range(0, 200, 5)]
    counted = batches(ends, starts=[0.0, 100.0], warm_up=30.0)
    # then the batches of their warm-ups are left out, and the one that spans the restart
    assert {batch.at for batch in counted} == {*range(35, 101, 5), *range(135, 200, 5)}
    assert {batch.seconds for batch in counted} == {5.0}


@pytest.mark.parametrize("minutes", [3, 30, 120])
@pytest.mark.parametrize("seed", range(5))
def test_restarts_disturb_no_measured_stretch(minutes, seed):
    plan = plan_of(minutes, seed)
    assert {how for _, how in plan.restarts} == {"TERM", "KILL"}
    before, *between = plan.restarts
    assert before[0] + plan.warm_up < plan.first[0]
    for at, _ in between:
        assert plan.first[1] < at < plan.last[0] - plan.warm_up
