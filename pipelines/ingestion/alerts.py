"""The alerts of ingestion: entered into `silver/ingest_alerts`, then told on `alerts`, at least once each.

What was entered and perhaps not told before a crash is told again, under the same id.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.alerts import HIGH, Alert
from pipelines.contracts.tables import INGEST_ALERTS, INGEST_BATCHES, QUARANTINE, TIME
from pipelines.ingestion.bad_share import BAD_SHARE, BAD_SHARE_OVER, BadShareWatch
from pipelines.io.delta import Tables
from pipelines.operations.settings import IngestSettings

log = logging.getLogger("stockcast.ingestion")

CONFLICT = "conflicting_event"
EXAMPLES = 5

Send = Callable[[Sequence[Alert]], None]


class IngestAlerts:
    """Tells of contradicting events, of topics with too much bad input, and of what it is asked to tell.

    Args:
        tables: handles of its own: it is called from more than one thread.
        send: publishes alerts and returns when the broker has them.
    """

    def __init__(self, tables: Tables, settings: IngestSettings, send: Send) -> None:
        self._tables = tables
        self._settings = settings
        self._send = send
        self._span = timedelta(minutes=settings.alert_window_minutes)
        self._watch = BadShareWatch(settings.alert_bad_share, self._span)
        self._lock = threading.Lock()
        self._newest: datetime | None = None

    def resume(self) -> None:
        """Go on after a restart: tell again what was entered last, and what the last batch has left untold."""
        with self._lock:
            self._tables.ensure(INGEST_ALERTS, INGEST_BATCHES, QUARANTINE)
            last = self._tables.largest(INGEST_ALERTS, "raised_at")
            if last is not None:
                # Statistics of times are cut to whole milliseconds.
                self._newest = _utc(self._tables.largest(INGEST_ALERTS, "event_time")) + timedelta(milliseconds=1)
                rows = self._tables.read(INGEST_ALERTS, where=pc.field("raised_at") >= pa.scalar(_utc(last), TIME))
                self._send([_alert(row) for row in rows.to_pylist()])
            self._watch = BadShareWatch(self._settings.alert_bad_share, self._span, self._open_episodes().items())
            finished = self._tables.largest(INGEST_BATCHES, "finished_at")
            if finished is None:
                return
            since = pa.scalar(_utc(finished) - self._span, TIME)
            rows = self._tables.read(INGEST_BATCHES, where=pc.field("finished_at") > since).sort_by("finished_at")
            alerts = self._follow(rows.to_pylist())
            finished = pc.max(rows["finished_at"]).as_py()  # to the microsecond, as quarantine has it
            newest = pc.field("quarantined_at") == pa.scalar(finished, TIME)
            alerts += conflict_alerts(self._tables.read(QUARANTINE, where=newest), finished)
            self._tell(alerts)

    def after(self, batches: pa.Table, quarantine: pa.Table) -> None:
        """A batch was finished: its rows of `silver/ingest_batches` and of quarantine."""
        with self._lock:
            rows = batches.to_pylist()
            alerts = self._follow(rows)
            if quarantine.num_rows and rows:
                alerts += conflict_alerts(quarantine, rows[0]["finished_at"])
            if alerts:
                self._tell(alerts)

    def tick(self, now: datetime) -> None:
        """No batch came: episodes end all the same."""
        with self._lock:
            if alerts := self._watch.pass_time(now):
                self._tell(alerts)

    def tell(self, alerts: Sequence[Alert]) -> None:
        """Enter and publish alerts, but for those that were entered before."""
        with self._lock:
            self._tell(alerts)

    def _follow(self, rows: list[dict[str, Any]]) -> list[Alert]:
        return [
            alert
            for row in rows
            for alert in self._watch.add(row["topic"], row["finished_at"], row["consumed"], row["quarantined"])
        ]

    def _tell(self, alerts: Sequence[Alert]) -> None:
        if not alerts:
            return
        known = self._entered(alerts)
        new = [alert for alert in alerts if alert.alert_id not in known]
        if not new:
            return
        for alert in new:
            log.warning("%s", alert.message)
        self._tables.append(INGEST_ALERTS, pa.Table.from_pylist([_row(alert) for alert in new], INGEST_ALERTS.schema))
        times = [alert.event_time for alert in new]
        self._newest = max(times if self._newest is None else [self._newest, *times])
        self._send(new)

    def _entered(self, alerts: Sequence[Alert]) -> set[str]:
        """Which of them are in the table. One of a later time than all that are there is not, so it is not looked for:
        a look costs as much as the table has files."""
        perhaps = [alert.alert_id for alert in alerts if self._newest is None or alert.event_time <= self._newest]
        if not perhaps:
            return set()
        where = pc.field("alert_id").isin(perhaps)
        return set(self._tables.read(INGEST_ALERTS, ("alert_id",), where).column("alert_id").to_pylist())

    def _open_episodes(self) -> dict[str, datetime]:
        rows = self._tables.read(INGEST_ALERTS, where=pc.field("kind").isin([BAD_SHARE, BAD_SHARE_OVER]))
        episodes: dict[str, datetime] = {}
        for row in rows.sort_by([("event_time", "ascending"), ("kind", "descending")]).to_pylist():
            if row["kind"] == BAD_SHARE:
                episodes[row["subject"]] = row["event_time"]
            else:
                episodes.pop(row["subject"], None)
        return episodes


def conflict_alerts(quarantine: pa.Table, at: datetime) -> list[Alert]:
    """An alert for each topic of which a batch held events that contradict earlier ones.

    Args:
        quarantine: the batch's rows.
        at: when the batch was taken in.
    """
    rows = quarantine.filter(pc.equal(quarantine.column("reason"), CONFLICT)).to_pylist()
    by_topic: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_topic.setdefault(row["topic"], []).append(row)
    alerts = []
    for topic, found in by_topic.items():
        places = [f"{topic}/{row['partition']}/{row['offset']}" for row in found]
        said = (
            f"{len(found)} events of {topic} repeat an event id with another content, such as {places[0]}; the first "
            f"content stands, the others are in quarantine: stockcast quarantine list --reason {CONFLICT}"
        )
        facts = {"events": len(found), "places": places[:EXAMPLES], "first": found[0]["detail"]}
        alerts.append(Alert(CONFLICT, HIGH, topic, said, at, at, places[0], facts))
    return alerts


def _row(alert: Alert) -> dict[str, Any]:
    return {
        "alert_id": alert.alert_id,
        "kind": alert.kind,
        "severity": alert.severity,
        "subject": alert.subject,
        "message": alert.message,
        "event_time": alert.event_time,
        "raised_at": alert.raised_at,
        "occasion": alert.occasion,
        "details": json.dumps(alert.details),
    }


def _alert(row: dict[str, Any]) -> Alert:
    fields = {name: value for name, value in row.items() if name not in {"alert_id", "details"}}
    return Alert(details=json.loads(row["details"]), **fields)


def _utc(instant: datetime) -> datetime:
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
