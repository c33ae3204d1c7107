"""What the dashboard follows: the orders that wait, decided wherever it may be; alerts; figures of the moment."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from pipelines.contracts import topics
from pipelines.contracts.alerts import HIGH, Alert
from pipelines.contracts.tables import INGEST_BATCHES, ORDER_AUDIT, ORDER_OUTBOX
from pipelines.errors import OrderConflictError, StockcastError, UsageError
from pipelines.ingestion.bad_share import BAD_SHARE, BAD_SHARE_OVER
from pipelines.restocking.desk import APPROVE, CHANGE, REJECT
from pipelines.serving.api import create_app
from pipelines.serving.dashboard.alerts import ACKNOWLEDGE, ACKNOWLEDGED, OPEN, REOPEN, SNOOZE, SNOOZED, AlertBoard
from pipelines.serving.dashboard.conditions import Facts, conditions
from pipelines.serving.dashboard.counters import Counters
from pipelines.serving.dashboard.desks import NotAllowedError, RemoteDesk, reach
from pipelines.serving.dashboard.health import printable, stream_lines
from pipelines.serving.dashboard.overrides import decision_lines
from pipelines.serving.dashboard.risk import risk_of
from pipelines.serving.dashboard.stock import PolicyShelf
from pipelines.serving.dashboard.store import COUNTERS, WAITING
from pipelines.serving.dashboard.waiting import Waiting
from tests import dashboard_chain
from tests.dashboard_chain import ACCESS, ANNA, RITA, SERIES, SmallChain, running_dashboard

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.fixture
def chain(settings, tables):
    dashboard_chain.plant(tables)
    return SmallChain(settings)


def decide(dashboard, session, key, action, order_id, **body):
    return dashboard.desk.decide(session, key, action, order_id, body)


def wait_for(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_waits_is_ranked_by_money_and_goes_as_soon_as_it_is_decided(chain):
    with running_dashboard(chain, ACCESS) as dashboard:
        store = dashboard.store
        assert (WAITING in store.poll(), store.waiting) == (True, ())
        # given three orders that are decided, the emptiest shelf at the greatest risk
        for series, on_hand in zip(SERIES, (15, 0, 8), strict=False):
            chain.count_stock(series, on_hand)
        assert {WAITING, COUNTERS} <= store.poll()
        assert [line.on_hand for line in store.waiting] == [0, 8, 15]
        assert store.waiting[0].risk.probability == 1.0
        assert store.waiting[0].money > store.waiting[1].money > store.waiting[2].money > 0
        assert store.counters.waiting == 3
        first, second, third = store.waiting
        # when one is approved, it goes before its event has even left
        decide(dashboard, ANNA, "k-1", APPROVE, first.order_id, quantity=first.quantity)
        assert WAITING in store.poll()
        assert [line.order_id for line in store.waiting] == [second.order_id, third.order_id]
        # when one gets another quantity, it goes on waiting with that
        decide(dashboard, ANNA, "k-2", CHANGE, third.order_id, quantity=12, reason="less")
        store.poll()
        assert [(line.quantity, line.proposed) for line in store.waiting if line.order_id == third.order_id] == [
            (12, third.quantity)
        ]
        # when one is rejected, its units are free again and it is gone
        decide(dashboard, ANNA, "k-3", REJECT, second.order_id, reason="closing down")
        wait_for(lambda: len(chain.sent) == 3)
        chain.take_decisions()
        store.poll()
        assert [line.order_id for line in store.waiting] == [third.order_id]
        assert [row["order_id"] for row in chain.tables.read(ORDER_OUTBOX).to_pylist()] == [first.order_id]
        # and a dashboard started now sees the same
        again = Waiting(chain.tables, PolicyShelf(chain.tables))
        again.poll()
        assert [(line.order_id, line.quantity) for line in again.ranked(NOW)] == [(third.order_id, 12)]


def test_a_decision_taken_elsewhere_takes_the_line_away(chain):
    # given a waiting order, and nobody at this dashboard
    chain.count_stock(SERIES[0], 0)
    waiting = Waiting(chain.tables, PolicyShelf(chain.tables))
    assert waiting.poll()
    (line,) = waiting.ranked(NOW)
    assert not waiting.poll()
    # when somebody rejects it at the command line
    at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    event = {"event_id": "x-1", "event_time": at, "order_id": line.order_id, "status": "rejected", "actor": "otto"}
    chain.take(topics.ORDER_STATUS, json.dumps(event).encode(), save=False)
    # then it is gone, though gold/orders was not saved yet
    assert waiting.poll()
    assert waiting.ranked(NOW) == []


def test_a_decision_at_the_dashboard_is_recorded_as_the_order_api_records_it(chain):
    # given two equal orders, one decided through the API and one at the dashboard, by the same person
    for series in SERIES[:2]:
        chain.count_stock(series, 0)
    with running_dashboard(chain, ACCESS) as dashboard:
        dashboard.store.poll()
        first, second = sorted(dashboard.store.waiting, key=lambda line: line.sku)
        app = create_app(dashboard.desk.desk, ACCESS, 65_536)
        headers = {"Authorization": f"Bearer {dashboard_chain.APPROVER}", "Idempotency-Key": "one"}
        body = {"quantity": 42, "reason": "fair"}
        with TestClient(app, base_url="http://127.0.0.1") as client:
            assert client.post(f"/v1/orders/{first.order_id}/approve", json=body, headers=headers).status_code == 202
        decide(dashboard, ANNA, "two", APPROVE, second.order_id, **body)
        # when a click is repeated, nothing more happens
        answers = [decide(dashboard, ANNA, "two", APPROVE, second.order_id, **body) for _ in range(2)]
    assert answers[0] == answers[1]
    rows = chain.tables.read(ORDER_AUDIT).sort_by("sequence").to_pylist()
    assert len(rows) == 2
    for name in ("actor", "action", "reason", "response_status"):
        assert rows[0][name] == rows[1][name], name
    events = [json.loads(row["event"]) for row in rows]
    assert [set(event) for event in events] == [set(events[0])] * 2
    assert [(event["status"], event["quantity"], event["actor"]) for event in events] == [("approved", 42, "anna")] * 2
    # and both leave in the same way
    chain.take_decisions()
    payloads = [json.loads(row["payload"]) for row in chain.tables.read(ORDER_OUTBOX).sort_by("sequence").to_pylist()]
    assert [payload["quantity"] for payload in payloads] == [42, 42]
    assert all("approved by anna (fair)" in payload["explanation"] for payload in payloads)


def test_what_was_decided_is_listed_with_who_and_why(chain):
    for series in SERIES[:2]:
        chain.count_stock(series, 0)
    with running_dashboard(chain, ACCESS) as dashboard:
        dashboard.store.poll()
        first, second = dashboard.store.waiting
        decide(dashboard, ANNA, "k-1", APPROVE, first.order_id, quantity=99, reason="a <b>fair</b>")
        decide(dashboard, ANNA, "k-2", REJECT, second.order_id, reason="closing down")
    newest, oldest = decision_lines(chain.tables, datetime.now(UTC))
    assert (newest.action, newest.actor, newest.proposed, newest.decided) == ("reject", "anna", second.quantity, 0)
    assert (oldest.decided, oldest.reason, oldest.location_id) == (99, "a <b>fair</b>", first.location_id)
    assert {newest.verdict, oldest.verdict} == {"too early"}


@pytest.mark.parametrize(
    ("session", "action", "order_id", "body", "error"),
    [
        (RITA, APPROVE, None, {}, NotAllowedError),
        (RITA, REJECT, None, {"reason": "no"}, NotAllowedError),
        (ANNA, REJECT, None, {"reason": ""}, UsageError),
        (ANNA, CHANGE, None, {"quantity": 0, "reason": "x"}, UsageError),
        (ANNA, APPROVE, None, {"quantity": 1.5}, UsageError),
        (ANNA, APPROVE, None, {"sku": "other"}, UsageError),
        (ANNA, "create", None, {}, UsageError),
        (ANNA, APPROVE, "../../etc", {}, UsageError),
        (ANNA, APPROVE, "o-unknown", {}, StockcastError),
    ],
    ids=["reader", "reader-rejects", "no-reason", "zero", "half", "more", "other-action", "path", "unknown"],
)
def test_what_may_not_be_decided_is_refused_and_leaves_nothing(chain, session, action, order_id, body, error):
    chain.count_stock(SERIES[0], 0)
    with running_dashboard(chain, ACCESS) as dashboard:
        dashboard.store.poll()
        with pytest.raises(error):
            decide(dashboard, session, "k", action, order_id or dashboard.store.waiting[0].order_id, **body)
        assert chain.tables.read(ORDER_AUDIT).num_rows == 0


def test_beside_an_order_api_of_its_own_process_decisions_go_through_that(chain):
    # given an order API that serves the home already
    chain.count_stock(SERIES[0], 0)
    with running_dashboard(chain, ACCESS) as dashboard:
        dashboard.store.poll()
        (line,) = dashboard.store.waiting
        app = create_app(dashboard.desk.desk, ACCESS, 65_536)
        with TestClient(app, base_url="http://127.0.0.1") as client:
            remote = RemoteDesk(client)
            # when somebody decides, then it is under the name of their own token
            answer = remote.decide(ANNA, "k", APPROVE, line.order_id, {"quantity": line.quantity})
            assert (answer["status"], answer["decided_by"]) == ("approved", "anna")
            with pytest.raises(OrderConflictError, match="another request"):
                remote.decide(ANNA, "k", REJECT, line.order_id, {"reason": "changed my mind"})
            with pytest.raises(NotAllowedError):
                remote.decide(RITA, "k-2", APPROVE, line.order_id, {})
            assert remote.unsent() >= 0
        dashboard.store.poll()
        assert dashboard.store.waiting == ()


def test_where_no_order_api_answers_it_is_said_what_to_do():
    with pytest.raises(UsageError, match="stop it: the dashboard then serves the order API itself"):
        reach("http://127.0.0.1:1")
    client = httpx.Client(base_url="http://127.0.0.1:1")
    with pytest.raises(StockcastError, match="may be repeated"):
        RemoteDesk(client).decide(ANNA, "k", APPROVE, "o-1", {})


def policy_row(**more):
    return {
        "cumulative_mean": [6.0 * day for day in range(1, 29)],
        "cumulative_std": [3.0 * day**0.5 for day in range(1, 29)],
        "lead_time_days": 2.0,
        "review_days": 1.0,
        "unit_price": 2.0,
        "as_of": (NOW - timedelta(days=1)).date(),
        **more,
    }


def test_risk_falls_with_stock_and_counts_money():
    risks = [risk_of(on_hand, 0, policy_row(), NOW) for on_hand in (0, 5, 15, 40)]
    assert risks[0].probability == 1.0
    assert [risk.probability for risk in risks] == sorted((risk.probability for risk in risks), reverse=True)
    assert risks[-1].probability < 0.01
    # three days at 6 units and a price of 2
    assert risks[0].money == pytest.approx(36, rel=0.02)
    assert risks[0].runs_out_at == NOW
    assert risks[1].runs_out_at == pytest.approx(NOW + timedelta(days=5 / 6), abs=timedelta(minutes=5))
    # what is under way counts as there
    assert risk_of(0, 40, policy_row(), NOW).money == pytest.approx(risks[-1].money)


def alert(kind, subject, occasion, raised_at=NOW):
    said = Alert(kind, HIGH, subject, f"{kind} of {subject} <img src=x>", raised_at, raised_at, occasion)
    return json.loads(said.encode())


def test_alerts_show_once_and_close_when_they_are_over(tables):
    board = AlertBoard(tables, tables)
    # given an alert that is told twice, and one that lasts until another ends it
    told = [alert("conflicting_event", "pos.sales", "1"), alert(BAD_SHARE, "pos.sales", "2")]
    assert board.poll([*told, told[0], {"not": "an alert"}, {**told[0], "raised_at": "yesterday"}], [], NOW)
    assert sorted(line.kind for line in board.lines) == sorted([BAD_SHARE, "conflicting_event"])
    # when the end is told
    board.poll([alert(BAD_SHARE_OVER, "pos.sales", "3", NOW + timedelta(minutes=1))], [], NOW + timedelta(minutes=1))
    assert [line.kind for line in board.lines] == ["conflicting_event"]
    # and one that tells of a moment closes after a quiet day
    board.poll([], [], NOW + timedelta(hours=25))
    assert board.lines == ()


def test_an_anomaly_stays_until_it_is_over(tables):
    board = AlertBoard(tables, tables)
    board.poll([alert("phantom_stock", "north|s-1", "1"), alert("bottleneck", "hub", "1")], [], NOW)
    later = NOW + timedelta(days=2)
    board.poll([alert("bottleneck_over", "hub", "1", later)], [], later)
    assert [line.kind for line in board.lines] == ["phantom_stock"]
    board.poll([alert("phantom_stock_over", "north|s-1", "1", later)], [], later)
    assert board.lines == ()


def test_an_alert_is_acknowledged_snoozed_and_reopened_and_that_outlives_a_restart(tables):
    board = AlertBoard(tables, tables)
    board.poll([alert("late", "order-1", "1"), alert("late", "order-2", "2")], [], NOW)
    first, second = (line.alert_id for line in board.lines)
    board.say(first, ACKNOWLEDGE, "anna", NOW, reason="known")
    board.say(second, SNOOZE, "anna", NOW, until=NOW + timedelta(hours=1))
    later = AlertBoard(tables, tables)
    later.poll([alert("late", "order-1", "1"), alert("late", "order-2", "2")], [], NOW)
    assert {line.alert_id: (line.state, line.actor) for line in later.lines} == {
        first: (ACKNOWLEDGED, "anna"),
        second: (SNOOZED, "anna"),
    }
    later.poll([], [], NOW + timedelta(hours=2))
    assert {line.alert_id: line.state for line in later.lines} == {first: ACKNOWLEDGED, second: OPEN}
    later.say(first, REOPEN, "anna", NOW)
    later.poll([], [], NOW)
    assert {line.alert_id: line.state for line in later.lines}[first] == OPEN
    with pytest.raises(UsageError, match="closed by itself"):
        later.say("a-gone", ACKNOWLEDGE, "anna", NOW)


WELL = Facts(
    broker_answers=True,
    broker_since=NOW,
    forecasts="f-1",
    forecast_age_hours=5.0,
    policies="p-1",
    policy_age_hours=5.0,
    behind=0,
    backlog=0,
    backlog_since=None,
    parked=(),
    oldest_proposal=None,
    expiry_hours=48.0,
    drift=(),
    unsent_decisions=0,
)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"broker_answers": False}, "broker_away"),
        ({"forecasts": None}, "no_forecasts"),
        ({"forecast_age_hours": 40.0}, "forecasts_stale"),
        ({"policy_age_hours": 40.0}, "policies_stale"),
        ({"behind": 60_000}, "ingest_behind"),
        ({"backlog": 3, "backlog_since": NOW - timedelta(minutes=2)}, "relay_backlog"),
        ({"parked": ("o-1",)}, "orders_parked"),
        ({"oldest_proposal": NOW - timedelta(hours=40)}, "proposal_expires"),
        ({"drift": (("2026-03-01", "all", "bias 0.3"),)}, "forecast_drift"),
        ({"unsent_decisions": 2}, "decisions_unsent"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_condition_holds_as_long_as_what_it_tells_of(tables, change, kind):
    assert conditions(WELL, NOW) == []
    found = conditions(replace(WELL, **change), NOW)
    assert [condition.kind for condition in found] == [kind]
    # it is an alert with the same id for as long, and gone after
    board = AlertBoard(tables, tables)
    board.poll([], found, NOW)
    (line,) = board.lines
    assert line.lasting
    later = conditions(replace(WELL, **change), NOW + timedelta(minutes=3))
    assert [condition.alert_id for condition in later] == [line.alert_id]
    board.poll([], [], NOW)
    assert board.lines == ()


def batch(finished_at, consumed, topic="pos.sales", ends="{}", batch_id=1):
    return {
        "batch_id": batch_id,
        "topic": topic,
        "consumed": consumed,
        "good": consumed,
        "quarantined": 1,
        "duplicates": 0,
        "tombstones": 0,
        "end_offsets": ends,
        "last_sequence": 0,
        "finished_at": finished_at,
    }


def test_the_rate_is_of_the_last_seconds_and_lag_is_what_kafka_has_more(tables):
    rows = [
        batch(NOW - timedelta(hours=5), 10, ends='{"0": 7, "1": 30}'),
        batch(NOW - timedelta(minutes=5), 1_000, ends='{"0": 10}'),
        batch(NOW - timedelta(seconds=3), 400, ends='{"0": 70}'),
    ]
    tables.append(INGEST_BATCHES, pa.Table.from_pylist(rows, schema=INGEST_BATCHES.schema))
    counters = Counters(tables, NOW)
    assert counters.poll()
    assert counters.events_per_second(NOW) == 20.0
    assert not counters.poll()
    ends = {("pos.sales", 0): 100, ("pos.sales", 1): 30, ("inventory.movements", 0): 9}
    lines = {line.topic: line for line in stream_lines(counters.batches, counters.taken, ends, True)}
    assert (lines["pos.sales"].records, lines["pos.sales"].set_aside, lines["pos.sales"].lag) == (1_400, 2, 30)
    # a topic of which nothing was taken in yet is behind by all that it has
    assert lines["inventory.movements"].lag == 9
    assert {line.lag for line in stream_lines(counters.batches, counters.taken, ends, False)} == {None}
    # when the chain goes on, only what is new is added
    tables.append(INGEST_BATCHES, pa.Table.from_pylist([batch(NOW, 200)], schema=INGEST_BATCHES.schema))
    assert counters.poll()
    assert counters.events_per_second(NOW) == 30.0


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (None, ""),
        (b"<b>x</b>", "<b>x</b>"),
        (b"\xff\x00\x1b[31m", "\\xff\\x00\\x1b[31m"),
        ("\u202eabc".encode(), "\\u202eabc"),
        (b"a" * 401, "a" * 400 + "…"),
    ],
    ids=["nothing", "markup", "bytes", "right-to-left", "long"],
)
def test_bytes_are_shown_with_nothing_hidden(raw, shown):
    assert printable(raw) == shown
