"""When too many of a topic's records are set aside: an episode that opens once and closes once.

A fold over finished batches in their order, so that the same batches give the same episodes; neither clock nor
input and output take part.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from pipelines.contracts.alerts import HIGH, INFO, Alert

BAD_SHARE, BAD_SHARE_OVER = "bad_input_share", "bad_input_share_over"


class _Batch(NamedTuple):
    at: datetime
    consumed: int
    bad: int


@dataclass
class _Topic:
    window: deque[_Batch] = field(default_factory=deque)
    consumed: int = 0
    bad: int = 0
    opened_at: datetime | None = None

    def add(self, batch: _Batch) -> None:
        self.window.append(batch)
        self.consumed += batch.consumed
        self.bad += batch.bad

    def drop_first(self) -> None:
        batch = self.window.popleft()
        self.consumed -= batch.consumed
        self.bad -= batch.bad


class BadShareWatch:
    """Follows the share of bad records of each topic.

    Args:
        limit: more than this share opens an episode, half of it or less closes it.
        span: over which the share is taken.
        opened: episodes that are open, by topic, with the time at which they opened.
    """

    def __init__(self, limit: float, span: timedelta, opened: Iterable[tuple[str, datetime]] = ()) -> None:
        self._limit = limit
        self._span = span
        self._topics: dict[str, _Topic] = {}
        for topic, at in opened:
            self._topic(topic).opened_at = at

    def add(self, topic: str, at: datetime, consumed: int, bad: int) -> list[Alert]:
        """A batch was finished at this time, not before any earlier one."""
        state = self._topic(topic)
        alerts = self._expire(topic, state, at)
        state.add(_Batch(at, consumed, bad))
        return [*alerts, *self._judge(topic, state, at)]

    def pass_time(self, now: datetime) -> list[Alert]:
        """Nothing came up to now: episodes end when their records are too long ago."""
        alerts: list[Alert] = []
        for topic, state in self._topics.items():
            alerts += self._expire(topic, state, now)
            if not state.window:
                alerts += self._judge(topic, state, now)
        return alerts

    def _topic(self, topic: str) -> _Topic:
        return self._topics.setdefault(topic, _Topic())

    def _expire(self, topic: str, state: _Topic, now: datetime) -> list[Alert]:
        alerts: list[Alert] = []
        while state.window and (end := state.window[0].at + self._span) <= now:
            while state.window and state.window[0].at + self._span <= end:
                state.drop_first()
            alerts += self._judge(topic, state, end)
        return alerts

    def _judge(self, topic: str, state: _Topic, at: datetime) -> list[Alert]:
        too_many = state.bad > self._limit * state.consumed
        few = state.bad <= self._limit / 2 * state.consumed
        minutes = self._span / timedelta(minutes=1)
        counted = f"{state.bad:,} of {state.consumed:,} records of {topic} were set aside within {minutes:g} minutes"
        facts: dict[str, Any] = {"bad": state.bad, "consumed": state.consumed, "limit": self._limit, "minutes": minutes}
        if too_many and state.opened_at is None:
            state.opened_at = at
            said = f"{counted}, more than {100 * self._limit:g} %: stockcast quarantine list"
            return [Alert(BAD_SHARE, HIGH, topic, said, at, at, at.isoformat(), {"state": "opened", **facts})]
        if few and state.opened_at is not None:
            opened_at, state.opened_at = state.opened_at.isoformat(), None
            said = f"{counted}: no more than {50 * self._limit:g} % again"
            facts |= {"state": "closed", "opened_at": opened_at}
            return [Alert(BAD_SHARE_OVER, INFO, topic, said, at, at, opened_at, facts)]
        return []
