"""A hub that lets nothing through is found soon, named once, and closed by itself; quiet weeks stay quiet."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from pipelines.contracts.tables import SHIPMENT_EVENTS
from pipelines.shipments.bottleneck_watch import BottleneckWatch
from pipelines.shipments.bottlenecks import changes, node_states, stays

START = datetime(2024, 1, 1, tzinfo=UTC)
QUIET_DAYS = 60
BLOCKED = START + timedelta(days=QUIET_DAYS)
FREE_AGAIN = BLOCKED + timedelta(days=3)
HUBS = ("hub-1", "hub-2", "hub-3")


def traffic(days: int, seed: int = 8, blocked: str | None = "hub-2") -> pd.DataFrame:
    """Events of shipments through one of three hubs: about eight hours there, half as long again at weekends; from
    `BLOCKED` to `FREE_AGAIN` nothing leaves the blocked one."""
    chance, rows = np.random.default_rng(seed), []
    for number, hour in enumerate(np.cumsum(chance.exponential(1 / 1.5, int(1.5 * 24 * days)))):
        hub, entered = HUBS[number % 3], START + timedelta(hours=float(hour))
        hours = float(np.exp(chance.normal(np.log(8), 0.4))) * (1.5 if entered.weekday() >= 5 else 1.0)
        left = entered + timedelta(hours=hours)
        if hub == blocked and BLOCKED <= left < FREE_AGAIN:
            left = FREE_AGAIN + timedelta(hours=float(chance.uniform(0, 4)))
        for node, at, status in (
            ("plant", entered - timedelta(hours=3), "departed"),
            (hub, entered, "arrived"),
            ("store", left, "delivered"),
        ):
            rows.append({"shipment_id": f"h-{number}", "event_time": at, "node": node, "status": status})
    return pd.DataFrame(rows)


def seen(events: pd.DataFrame, now: datetime) -> pd.DataFrame:
    """What has happened by then."""
    return stays(events[events.event_time <= now])


def test_a_stay_begins_with_arrival_and_ends_elsewhere():
    at = [START + timedelta(hours=hour) for hour in range(5)]
    events = pd.DataFrame(
        {
            "shipment_id": ["a", "a", "a", "b", "a"],
            "event_time": [at[2], at[0], at[1], at[1], at[3]],
            "node": ["hub", "plant", "hub", "plant", "store"],
            "status": ["customs", "departed", "arrived", "departed", "delivered"],
        }
    )
    found = stays(events).set_index(["shipment_id", "node"])
    assert (found.entered["a", "hub"], found.left["a", "hub"]) == (at[1], at[3])
    assert found.left["a", "store"] == at[3]
    assert pd.isna(found.left["b", "plant"])


def test_quiet_weeks_give_at_most_one_false_alarm_and_a_blocked_hub_is_found_within_a_day():
    # given 60 quiet days after two weeks of history, looked at four times a day
    found, lasting, alarms = stays(traffic(QUIET_DAYS + 8)), set(), []
    now, found_at, closed_at = START + timedelta(days=14), None, None
    while now < FREE_AGAIN + timedelta(days=4):
        begun, ended = changes(node_states(found, now), lasting)
        alarms += [(now, state.node) for state in begun]
        lasting = (lasting | {state.node for state in begun}) - set(ended)
        if "hub-2" in {state.node for state in begun} and now >= BLOCKED:
            found_at = found_at or now
        if "hub-2" in ended and found_at:
            closed_at = now
        now += timedelta(hours=6)
    # then at most one node was named without a reason
    assert len([alarm for alarm in alarms if alarm[0] < BLOCKED]) <= 1
    # and the blocked one within a day, once, until it was free again
    assert found_at is not None
    assert found_at - BLOCKED <= timedelta(hours=24)
    assert len([alarm for alarm in alarms if alarm[1] == "hub-2" and alarm[0] >= BLOCKED]) == 1
    assert closed_at is not None
    assert FREE_AGAIN <= closed_at <= FREE_AGAIN + timedelta(days=1)


def test_what_happens_later_is_not_looked_at():
    events, now = traffic(QUIET_DAYS + 8), BLOCKED + timedelta(days=1)
    assert node_states(seen(events, now), now) == node_states(stays(events), now)


def test_queue_and_arrivals_agree_with_littles_law():
    states = {state.node: state for state in node_states(stays(traffic(40, blocked=None)), START + timedelta(days=35))}
    for hub in HUBS:
        assert states[hub].implied_hours == pytest.approx(states[hub].usual_hours, rel=0.6)


def test_it_is_told_once_entered_and_closed(tables, settings):
    # given events in the table, up to a day after the hub was blocked
    sent, now = [], BLOCKED + timedelta(days=1)
    events = traffic(QUIET_DAYS + 8)

    def arrive(part):
        rows = part.assign(event_id=part.index.astype(str)).to_dict("records")
        tables.append(SHIPMENT_EVENTS, pa.Table.from_pylist(rows, schema=SHIPMENT_EVENTS.schema))

    arrive(events[events.event_time <= now])
    watch = BottleneckWatch(tables, sent.extend)
    # when looked at twice, the second time by a watch that has just started
    assert [alert.kind for alert in watch.look(now)] == ["bottleneck"]
    assert BottleneckWatch(tables, sent.extend).look(now + timedelta(minutes=5)) == []
    # and again when all has moved on
    later = FREE_AGAIN + timedelta(days=2)
    arrive(events[(events.event_time > now) & (events.event_time <= later)])
    assert [alert.kind for alert in watch.look(later)] == ["bottleneck_over"]
    # then the table has one episode, and both alerts name it
    rows = DeltaTable(f"{settings.home}/tables/gold/bottlenecks").to_pyarrow_table().to_pylist()
    assert [(row["node"], row["opened_at"], row["closed_at"]) for row in rows] == [("hub-2", now, later)]
    first, second = (json.loads(alert.encode()) for alert in sent)
    assert first["subject"] == second["subject"] == "hub-2"
    assert first["details"]["queue"] >= 3
    assert "shipments left hub-2 lately where" in first["message"] or "at hub-2 have stayed longer" in first["message"]
