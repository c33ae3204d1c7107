"""Anomalies as they begin and end: entered into `gold/anomalies`, told on `alerts`."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.anomalies.budget import MEMORY, Score, threshold
from pipelines.anomalies.registry import CERTAIN, Finding, Rule, create
from pipelines.anomalies.view import View
from pipelines.contracts.alerts import INFO, Alert
from pipelines.contracts.tables import ANOMALIES, ANOMALY_SCORES
from pipelines.io.delta import Tables
from pipelines.operations.settings import AnomaliesSettings

log = logging.getLogger("stockcast.anomalies")

OVER = "_over"
"""Ends the kind of an alert that tells that another one is over."""
KEPT = 50
"""Scores of a rule that are kept a day: the largest."""
MANY = 4
"""Of a location's series under one rule at once: one finding of the location."""
CLOSES = 0.6
"""Of the surprise that opens an episode: below it, the episode is over."""


@dataclass
class Episodes:
    """Which findings are told, and which are over: the part of the watch without tables.

    Attributes:
        held: open episodes by (rule, subject), rows of `gold/anomalies`.
        scores: by rule, what was seen on which day, today's largest included.
    """

    rules: Sequence[Rule]
    a_day: float
    held: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    scores: dict[str, dict[tuple[date, str], float]] = field(default_factory=dict)

    def look(self, view: View) -> tuple[list[tuple[dict[str, Any], Finding]], list[dict[str, Any]]]:
        """Episodes that begin, with their findings, and those that end. A rule that fails costs its own findings."""
        begun: list[tuple[dict[str, Any], Finding]] = []
        ended: list[dict[str, Any]] = []
        share = self.a_day / max(len(self.rules), 1)
        for rule in self.rules:
            try:
                seen = rule.look(view)
            except Exception:  # a rule is a plug-in: whatever it throws is its own loss
                log.exception("the rule %s failed; the others go on", rule.name)
                continue
            today = view.now.date()
            least = threshold(seen.tested, share, self._past(rule.name, today), today)
            self._note(rule.name, today, seen.findings)
            for finding in together([one for one in seen.findings if one.surprise >= least]):
                if not self._is_held(rule.name, finding.subject):
                    row = _row(rule.name, finding, least, view.now)
                    self.held[rule.name, finding.subject] = row
                    begun.append((row, finding))
            for key in [key for key in self.held if key[0] == rule.name]:
                limit = CLOSES * min(least, self.held[key]["threshold"])
                if not any(one.surprise >= limit for one in seen.findings if _about(one.subject, key[1])):
                    ended.append({**self.held.pop(key), "closed_at": view.now})
        return begun, ended

    def _is_held(self, rule: str, subject: str) -> bool:
        return any((rule, held) in self.held for held in (subject, subject.split("|", maxsplit=1)[0]))

    def _past(self, rule: str, today: date) -> list[Score]:
        known = self.scores.setdefault(rule, {})
        for key in [key for key in known if key[0] < today - MEMORY]:
            del known[key]
        return [(day, subject, surprise) for (day, subject), surprise in known.items() if day < today]

    def _note(self, rule: str, today: date, findings: Sequence[Finding]) -> None:
        """Remember the day's largest; a rule that saw nothing has a day, too."""
        known = self.scores[rule]
        known.setdefault((today, ""), 0.0)
        chance = [finding for finding in findings if finding.surprise < CERTAIN]
        for finding in sorted(chance, key=lambda one: -one.surprise)[:KEPT]:
            key = (today, finding.subject)
            known[key] = max(known.get(key, 0.0), finding.surprise)


def together(findings: Sequence[Finding]) -> list[Finding]:
    """Many products of a location that are unusual at once have one cause: told as one, the strangest first."""
    by_location: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_location[finding.subject.split("|", maxsplit=1)[0]].append(finding)
    told = []
    for location, found in by_location.items():
        if len(found) < MANY:
            told += found
            continue
        found.sort(key=lambda one: -one.surprise)
        first = found[0]
        details = {"subjects": [one.subject for one in found[:20]], "first": first.details}
        message = f"{len(found)} products at {location} at once, such as: {first.message}"
        told.append(replace(first, subject=location, message=message, details=details))
    return told


def _about(subject: str, held: str) -> bool:
    return subject == held or subject.startswith(f"{held}|")


class AnomalyWatch:
    """Looks for anomalies with the rules of `anomalies.rules`. What was told is entered afterwards, so that after a
    crash it is told again, alike.

    Args:
        gather: what is known at a moment.
        send: publishes alerts and returns when the broker has them.

    Raises:
        UsageError: the settings name a rule that does not exist.
    """

    def __init__(
        self,
        tables: Tables,
        settings: AnomaliesSettings,
        gather: Callable[[datetime], View],
        send: Callable[[Sequence[Alert]], None],
    ) -> None:
        self._tables, self._gather, self._send = tables, gather, send
        self._episodes = Episodes(create(settings.rules), settings.false_alarms_per_day)

    def resume(self) -> None:
        """Go on from what the tables hold."""
        self._tables.ensure(ANOMALIES, ANOMALY_SCORES)
        rows = self._tables.read(ANOMALIES, where=pc.field("closed_at").is_null()).to_pylist()
        self._episodes.held = {(row["rule"], row["subject"]): row for row in rows}
        self._episodes.scores = {}
        for row in self._tables.read(ANOMALY_SCORES).to_pylist():
            self._episodes.scores.setdefault(row["rule"], {})[row["day"], row["subject"]] = row["surprise"]

    def look(self, now: datetime) -> list[Alert]:
        """Open and close what has changed; returns the alerts that were sent."""
        begun, ended = self._episodes.look(self._gather(now))
        alerts = [_begins(row, finding, now) for row, finding in begun] + [_is_over(row, now) for row in ended]
        self._send(alerts)
        rows = [*(row for row, _ in begun), *ended]
        self._tables.upsert(
            ANOMALIES, pa.Table.from_pylist(rows, schema=ANOMALIES.schema), keys=("rule", "subject", "opened_at")
        )
        self._save_scores()
        for alert in alerts:
            log.info("%s", alert.message)
        return alerts

    def _save_scores(self) -> None:
        rows = [
            {"rule": rule, "day": day, "subject": subject, "surprise": surprise}
            for rule, known in self._episodes.scores.items()
            for (day, subject), surprise in known.items()
        ]
        self._tables.overwrite(ANOMALY_SCORES, pa.Table.from_pylist(rows, schema=ANOMALY_SCORES.schema))


def _row(rule: str, finding: Finding, least: float, now: datetime) -> dict[str, Any]:
    # An episode is named by the hour in which it began: told twice, it is the same.
    hour = now.replace(minute=0, second=0, microsecond=0)
    return {
        **{"rule": rule, "subject": finding.subject, "opened_at": hour, "closed_at": None},
        **{"surprise": min(finding.surprise, 300.0), "threshold": least, "severity": finding.severity},
        **{"message": finding.message, "details": json.dumps(finding.details)},
    }


def _begins(row: dict[str, Any], finding: Finding, now: datetime) -> Alert:
    facts = {**finding.details, "surprise": round(row["surprise"], 2), "threshold": round(row["threshold"], 2)}
    return Alert(
        row["rule"], row["severity"], row["subject"], row["message"], row["opened_at"], now, _occasion(row), facts
    )


def _is_over(row: dict[str, Any], now: datetime) -> Alert:
    what = row["rule"].replace("_", " ")
    message = f"{row['subject']}: the {what} since {row['opened_at']:%Y-%m-%d %H:%M} is over"
    facts = {"rule": row["rule"], "opened_at": row["opened_at"]}
    return Alert(f"{row['rule']}{OVER}", INFO, row["subject"], message, now, now, _occasion(row), facts)


def _occasion(row: dict[str, Any]) -> str:
    return str(row["opened_at"].isoformat())
