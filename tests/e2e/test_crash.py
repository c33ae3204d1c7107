"""The crash test in small: `make crash-test` runs the whole of it."""

from __future__ import annotations

import pytest

from tests.crash.harness import CrashTest
from tests.crash.processes import APART
from tests.crash.runs import place, run_mutant
from tests.crash.schedule import ALL, FENCED, Step

TOGETHER_STEPS = (
    Step("live", "restock.after_outbox", 2),
    Step("broker"),
    Step("live", FENCED),
    Step(ALL),
)
APART_STEPS = (
    Step("relay", "relay.inside_transaction"),
    Step("sender", "supplier.after_call"),
    Step("api", "order_api.after_recording"),
)


def test_nothing_is_lost_doubled_or_changed_by_kills(tmp_path):
    # given the whole chain, from generator to supplier, as processes
    lines: list[str] = []
    test = CrashTest(place(tmp_path / "home", 11, 60), lines.append, events=200, stopped_seconds=6)
    # when they are killed one after the other, and all at once, while events flow
    report = test.run((*TOGETHER_STEPS, *APART_STEPS))
    # then all of it adds up, for readers that share no code with the pipeline
    assert report.violations == [], "\n".join(lines)
    assert (report.missed, test.roles) == ([], APART)
    assert len(report.kills) == len(TOGETHER_STEPS) + len(APART_STEPS)
    assert report.orders > 50
    assert report.effects > 50


@pytest.mark.parametrize("name", ["transactions", "order_ids"])
def test_it_finds_a_fault_that_is_put_in(tmp_path, name):
    caught = run_mutant(tmp_path, name, 12, lambda line: None)
    assert {"transactions": "R2", "order_ids": "R7"}[name] in caught
