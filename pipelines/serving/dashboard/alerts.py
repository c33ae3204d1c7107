"""Alerts as people see them: each once, acknowledged or snoozed by somebody, gone when what it tells of is over."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from pipelines.anomalies.registry import registered
from pipelines.contracts.tables import ALERT_ACTIONS, INGEST_ALERTS
from pipelines.errors import UsageError
from pipelines.ingestion.bad_share import BAD_SHARE
from pipelines.ingestion.times import as_datetime, parse_time
from pipelines.io.delta import Tables
from pipelines.serving.dashboard.conditions import Condition
from pipelines.serving.dashboard.follow import Tail
from pipelines.shipments.bottleneck_watch import BOTTLENECK

OPEN, ACKNOWLEDGED, SNOOZED = "open", "acknowledged", "snoozed"
ACKNOWLEDGE, SNOOZE, REOPEN = "acknowledge", "snooze", "reopen"

OVER = "_over"
"""Ends the kind of an alert that ends another one of the same subject."""
LASTING = frozenset({BAD_SHARE, BOTTLENECK, *registered()})
"""Kinds that last until their end is told."""

QUIET = timedelta(hours=24)
"""An alert that tells of one moment closes by itself when so much time has passed."""

_RANK = {"critical": 0, "high": 1, "low": 2, "info": 3}
KEPT = 2_000
LONGEST_TEXT = 2_000
_TEXTS = ("alert_id", "kind", "severity", "subject", "message")


@dataclass(frozen=True)
class AlertLine:
    """An alert on the page. `lasting`: it tells of a state that holds now, and closes when that ends."""

    alert_id: str
    kind: str
    severity: str
    subject: str
    message: str
    raised_at: datetime
    lasting: bool
    state: str = OPEN
    actor: str | None = None
    reason: str | None = None
    until: datetime | None = None


class AlertBoard:
    """All alerts that are not over, and what was said of them. The one writer of `gold/alert_actions`.

    Args:
        tables: for `poll`.
        writer: handles of its own for `say`, which other threads call.
    """

    def __init__(self, tables: Tables, writer: Tables) -> None:
        self._writer = writer
        self._lock = threading.Lock()
        self._told: dict[str, AlertLine] = {}
        self._ended: dict[tuple[str, str], datetime] = {}
        self._said: dict[str, dict[str, Any]] = {}
        self._rows = Tail(tables, INGEST_ALERTS, "raised_at", tuple(INGEST_ALERTS.schema.names))
        actions = tables.read(ALERT_ACTIONS).sort_by("at").to_pylist()
        self._said.update({row["alert_id"]: row for row in actions})
        self.lines: tuple[AlertLine, ...] = ()

    def poll(self, messages: Iterable[Mapping[str, Any]], conditions: Sequence[Condition], now: datetime) -> bool:
        """Take in new messages of `alerts`, the table of ingestion's own, and what holds now; whether lines changed."""
        if (rows := self._rows.look()) is not None:
            self._hear(rows.to_pylist())
        self._hear(messages)
        self._forget(now)
        lines = [self._with_said(line, now) for line in (*self._told.values(), *map(_lasting, conditions))]
        lines.sort(key=lambda line: (line.state != OPEN, _RANK.get(line.severity, 9), line.raised_at, line.alert_id))
        changed = tuple(lines) != self.lines
        self.lines = tuple(lines)
        return changed

    def say(
        self, alert_id: str, action: str, actor: str, at: datetime, *, reason: str = "", until: datetime | None = None
    ) -> None:
        """Record that somebody acknowledged, snoozed or reopened an alert.

        Raises:
            UsageError: there is no such alert any more.
        """
        if alert_id not in {line.alert_id for line in self.lines}:
            raise UsageError("this alert has closed by itself meanwhile")
        row = {
            "alert_id": alert_id, "action": action, "actor": actor, "reason": reason or None, "until": until, "at": at,
        }  # fmt: skip
        with self._lock:
            self._writer.append(ALERT_ACTIONS, pa.Table.from_pylist([row], schema=ALERT_ACTIONS.schema))
            self._said[alert_id] = row

    def _hear(self, messages: Iterable[Mapping[str, Any]]) -> None:
        for message in messages:
            if (line := _line(message)) is None:
                continue
            if line.kind.endswith(OVER):
                place = (line.kind.removesuffix(OVER), line.subject)
                self._ended[place] = max(line.raised_at, self._ended.get(place, line.raised_at))
            else:
                self._told.setdefault(line.alert_id, line)

    def _forget(self, now: datetime) -> None:
        for alert_id, line in list(self._told.items()):
            ended = self._ended.get((line.kind, line.subject))
            over = ended is not None and ended >= line.raised_at
            if over or (line.kind not in LASTING and now - line.raised_at > QUIET):
                del self._told[alert_id]
        while len(self._told) > KEPT:
            del self._told[next(iter(self._told))]

    def _with_said(self, line: AlertLine, now: datetime) -> AlertLine:
        said = self._said.get(line.alert_id)
        if said is None or said["action"] == REOPEN:
            return line
        if said["action"] == SNOOZE:
            if said["until"] is None or said["until"] <= now:
                return line
            return replace(line, state=SNOOZED, actor=said["actor"], reason=said["reason"], until=said["until"])
        return replace(line, state=ACKNOWLEDGED, actor=said["actor"], reason=said["reason"])


def _lasting(condition: Condition) -> AlertLine:
    return AlertLine(
        condition.alert_id,
        condition.kind,
        condition.severity,
        condition.subject,
        condition.message,
        condition.since,
        lasting=True,
    )


def _line(message: Mapping[str, Any]) -> AlertLine | None:
    """A message of `alerts`; None for what is none: anybody may write to a topic."""
    alert_id, kind, severity, subject, said = (message.get(name) for name in _TEXTS)
    texts = (alert_id, kind, severity, subject, said)
    if not all(isinstance(text, str) for text in texts):
        return None
    raised = message.get("raised_at")
    try:
        at = as_datetime(parse_time(raised)) if isinstance(raised, str) else raised
    except ValueError:
        return None
    if not isinstance(at, datetime):
        return None
    return AlertLine(str(alert_id), str(kind), str(severity), str(subject), str(said)[:LONGEST_TEXT], at, lasting=False)
