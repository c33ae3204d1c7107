"""Alerts of ingestion: opened once an episode, closed once, told again after a restart under the same id."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pipelines.contracts.tables import INGEST_ALERTS
from pipelines.ingestion.alerts import IngestAlerts
from pipelines.ingestion.bad_share import BadShareWatch
from pipelines.ingestion.ingestor import Ingestor
from pipelines.operations.settings import IngestSettings
from tests.bad_input import SALES
from tests.unit.test_bad_input import CASES, plant_catalog, records

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
SPAN = timedelta(minutes=5)


def minutes(number):
    return START + timedelta(minutes=number)


def follow(watch, batches):
    return [alert for at, consumed, bad in batches for alert in watch.add(SALES, minutes(at), consumed, bad)]


def test_an_episode_opens_above_one_percent_and_closes_when_it_is_over():
    watch = BadShareWatch(0.01, SPAN)
    # given exactly one percent, then more, then much good input
    alerts = follow(watch, [(0, 1000, 10), (1, 100, 2), (2, 100, 2), (3, 10_000, 0), (4, 10, 10)])
    # then one alert opens at the first batch above, and one closes at the first far below
    assert [(alert.kind, alert.event_time) for alert in alerts] == [
        ("bad_input_share", minutes(1)),
        ("bad_input_share_over", minutes(3)),
    ]
    assert "12 of 1,100 records of pos.sales were set aside within 5 minutes, more than 1 %" in alerts[0].message


def test_an_episode_ends_by_time_alone():
    watch = BadShareWatch(0.01, SPAN)
    (opened,) = follow(watch, [(0, 10, 10), (2, 10, 10)])
    assert watch.pass_time(minutes(6.9)) == []
    (closed,) = watch.pass_time(minutes(60))
    # the end is when the last bad record left the window, whenever that is noticed
    assert (closed.kind, closed.event_time) == ("bad_input_share_over", minutes(7))
    assert closed.details["opened_at"] == opened.event_time.isoformat()
    assert watch.pass_time(minutes(90)) == []


@pytest.mark.parametrize("cut", range(1, 6))
def test_the_same_batches_give_the_same_alerts_whenever_time_is_looked_at(cut):
    batches = [(0, 100, 5), (1, 100, 0), (7, 100, 0), (8, 50, 50), (20, 10, 0)]
    whole = [alert.alert_id for alert in follow(BadShareWatch(0.01, SPAN), batches)]
    watch = BadShareWatch(0.01, SPAN)
    alerts = follow(watch, batches[:cut])
    for at in range(batches[cut - 1][0], batches[cut][0] if cut < len(batches) else batches[cut - 1][0]):
        alerts += watch.pass_time(minutes(at))
    alerts += follow(watch, batches[cut:])
    assert [alert.alert_id for alert in alerts] == whole
    assert len(set(whole)) == len(whole) == 4


def take_in(tables, sent, cases, batch=0, fail=False):
    """A process that takes a batch in and tells; `fail`: it dies before it has told."""
    plant_catalog(tables, [("s-1", "p-1"), ("s-1", "p-2")])
    # A time that statistics of the tables, which are of whole milliseconds, cannot hold.
    ingestor = Ingestor(tables, IngestSettings(), "test", lambda: START.replace(microsecond=123_456))
    ingestor.resume(new_stream=False)
    alerts = IngestAlerts(tables, IngestSettings(), sent.extend)
    alerts.resume()
    taken = ingestor.take_in(batch, records(cases))
    if not fail:
        alerts.after(taken.batches, taken.quarantine)


def test_what_a_dying_process_left_untold_is_told_once_by_the_next(tables):
    # given a process that dies between a batch with contradictions and its alerts
    sent, repeats = [], [case for case in CASES if case.name == "an event" or "repeated" in case.name]
    take_in(tables, sent, repeats, fail=True)
    assert sent == []
    # when the next takes the batch again
    take_in(tables, sent, repeats)
    # then contradictions and share are told, and a third process repeats the same ids only
    first = [alert.alert_id for alert in sent]
    assert sorted(alert.kind for alert in sent) == ["bad_input_share", "conflicting_event"]
    take_in(tables, sent, repeats)
    assert {alert.alert_id for alert in sent} == set(first)
    # and the table has each once, also where a process goes on from it and is told of them again
    again = IngestAlerts(tables, IngestSettings(), sent.extend)
    again.resume()
    again.tell(sent[:2])
    assert sorted(tables.read(INGEST_ALERTS, ("alert_id",))["alert_id"].to_pylist()) == sorted(first)


def test_good_input_is_no_alert(tables):
    sent = []
    take_in(tables, sent, [case for case in CASES if case.outcome == "good" and case.topic == SALES])
    assert sent == []
