"""What is killed, where and in which order: a deck of steps, shuffled by the seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

ANY_TIME = "any time"
FENCED = "stopped, fenced"
SECOND = "a second owner beside it"
ALL = "everything"


@dataclass(frozen=True)
class Step:
    """One kill.

    Attributes:
        role: the process; `everything`: all of them at once, after which the chain goes on in its other form.
        point: a failpoint, or `any time`, or `stopped, fenced`: the relay is stopped inside a transaction for longer
            than its timeout, a second one takes over, and the first goes on.
        passes: the failpoint kills when it is passed for the n-th time.
        again: kill at the same point once more while the process recovers.
    """

    role: str
    point: str = ANY_TIME
    passes: int = 1
    again: bool = False


COMMON = (
    Step("sender", "supplier.after_call"),
    Step("sender", "supplier.after_storing"),
    Step("supplier"),
    Step("api", "order_api.after_recording"),
    Step("broker"),
)
TOGETHER = (
    Step("live", "ingest.after_bronze"),
    Step("live", "ingest.after_ledger", 2),
    Step("live", "restock.after_outbox", 2),
    Step("live", "restock.after_orders"),
    Step("live", "relay.inside_transaction"),
    Step("live", "relay.after_transaction"),
    Step("live", "totals-sent"),
    Step("live", "maintenance.inside_compaction"),
    Step("live"),
    Step("switch", "train.before_switch"),
    Step("switch", "plan.before_switch"),
    Step("generator"),
)
APART = (
    Step("ingest", "ingest.after_ledger", again=True),
    Step("ingest", "maintenance.inside_vacuum"),
    Step("restock", "maintenance.after_compaction"),
    Step("restock"),
    Step("relay", "relay.inside_transaction", again=True),
    Step("relay", FENCED),
)
LATER_TOGETHER = (Step("live", FENCED), Step("live", "ingest.after_ledger", again=True))
LATER_APART = (
    Step("ingest"),
    Step("restock", "restock.after_outbox", again=True),
    Step("relay", "relay.after_transaction"),
    Step("relay"),
    Step("sender"),
    Step("api"),
)
"""Kills that the second deck and those after it have besides."""
DECK = len(COMMON) + len(TOGETHER) + len(APART) + 2
"""Kills in the first deck: every point at least once, and everything at once between the two forms of the chain."""


def schedule(seed: int, kills: int) -> Iterator[Step]:
    """The kills of a run, in decks that go through both forms of the chain."""
    chance = random.Random(f"schedule-{seed}")
    steps = _decks(chance)
    for _ in range(kills):
        yield next(steps)


def _decks(chance: random.Random) -> Iterator[Step]:
    together, apart = TOGETHER, APART
    while True:
        common = list(COMMON)
        chance.shuffle(common)
        half = len(common) // 2
        for own, shared in ((together, common[:half]), (apart, common[half:])):
            steps = [*own, *shared]
            chance.shuffle(steps)
            yield from steps
            yield Step(ALL)
        together, apart = (*TOGETHER, *LATER_TOGETHER), (*APART, *LATER_APART)
