"""A soak's judgement: what grows with the age of a process is no leak, what grows from life to life is."""

from __future__ import annotations

import pytest

from tests.soak.judge import Batch, Plan, judge
from tests.soak.samples import Sample

MIB = 2**20
PLAN = Plan(1800.0, 75.0, 195.0, 300.0, ((60.0, "TERM"), (620.0, "KILL"), (1225.0, "TERM")))
STEADY = [Batch(float(at), 1.0, 500) for at in range(200, 1800)]


def samples(jvm, tables=10):
    """Of a run whose live job's JVM takes `jvm(life, age)` MiB."""
    starts, out = [0.0, *(at for at, _ in PLAN.restarts)], []
    for at in range(0, 1800, 5):
        life = sum(start <= at for start in starts) - 1
        memory = {"python": 500 * MIB, "jvm": round(jvm(life, at - starts[life]) * MIB), "broker": 400 * MIB}
        disk = {"data": 100 * 500 * (at + 1), "broker": 100 * 500 * (at + 1), "logs": MIB, "checkpoints": MIB}
        out.append(Sample(float(at), memory, disk, {"gold/orders": (tables, tables)}))
    return out


def verdicts(seen, done=STEADY):
    return {row.name: row.passed for row in judge(PLAN, seen, done, 500.0)}


def test_a_heap_that_every_life_fills_alike_is_bounded():
    # the last five minutes are the ages 275 to 575 s; the first life was as old from 335 to 620 s
    assert PLAN.early_life == (335.0, 620.0)
    found = verdicts(samples(lambda life, age: min(600 + age, 1100)))
    assert all(found.values())


@pytest.mark.parametrize(("more", "passed"), [(50, True), (150, False)])
def test_memory_that_grows_from_life_to_life_is_not(more, passed):
    assert verdicts(samples(lambda life, age: 800 + more * life))["memory, jvm"] is passed


def test_slower_batches_are_found():
    slow = [Batch(batch.at, 1.25 if batch.at > 1500 else 1.0, 500) for batch in STEADY]
    found = verdicts(samples(lambda life, age: 800.0), slow)
    assert [name for name, passed in found.items() if not passed] == ["batch time, median"]


def test_a_short_first_life_is_judged_by_the_first_stretch():
    plan = Plan(1800.0, 75.0, 195.0, 300.0, ((60.0, "TERM"), (500.0, "KILL"), (700.0, "TERM")))
    assert plan.early_life == plan.first == (195.0, 495.0)
