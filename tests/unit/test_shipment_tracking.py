"""A shipment's state depends on the set of its events alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.contracts.events import SHIPMENT_STATUSES
from pipelines.shipments.tracking import LEGAL, Event, fold

START = datetime(2024, 3, 1, tzinfo=UTC)


def event(hour: float, status: str, node: str = "n1", eta_hour: float | None = None, event_id: str = "") -> Event:
    eta = None if eta_hour is None else START + timedelta(hours=eta_hour)
    return Event(event_id or f"{hour}-{status}", START + timedelta(hours=hour), status, node, eta, "o1", "sku", 5)


EVENTS = st.lists(
    st.builds(
        event,
        st.integers(0, 6),
        st.sampled_from(sorted(SHIPMENT_STATUSES)),
        st.sampled_from(["n1", "n2"]),
        st.none() | st.integers(0, 9),
        st.sampled_from(["", "e1", "e2"]),
    ),
    max_size=9,
)


@given(EVENTS, st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(events, chance):
    shuffled = events + chance.choices(events, k=3) if events else []
    chance.shuffle(shuffled)
    assert fold(shuffled) == fold(events)


@given(EVENTS)
def test_every_event_counts_or_is_set_aside(events):
    shipment = fold(events)
    ids = {one.event_id for one in events}
    assert {one.event_id for one in shipment.set_aside} <= ids
    assert (shipment.state is None) == (len(shipment.set_aside) == len(ids))


def test_every_status_has_its_transitions():
    assert set(LEGAL) - {None} == SHIPMENT_STATUSES - {"exception"}


def test_a_way_from_door_to_shelf():
    """Given a shipment whose estimate is put off at an exception, when it goes on, then its figures say so."""
    way = [
        event(0, "created", "supplier", eta_hour=20),
        event(2, "departed", "supplier", eta_hour=20),
        event(8, "arrived", "hub"),
        event(10, "exception", "hub", eta_hour=31),
    ]
    held = fold(way)
    assert (held.state, held.interrupted, held.node) == ("exception", "arrived", "hub")
    assert held.dwell_hours(START + timedelta(hours=14)) == pytest.approx(6)
    assert held.hours_behind(START + timedelta(hours=14)) == pytest.approx(11)
    assert held.waiting == {("o1", "sku", 5)}
    done = fold([*way, event(15, "departed", "hub"), event(33, "delivered", "store")])
    assert (done.state, done.delivered, done.waiting) == ("delivered", START + timedelta(hours=33), frozenset())
    assert done.hours_behind(START + timedelta(hours=90)) == pytest.approx(13)
    assert done.set_aside == ()


def test_an_estimate_that_has_passed_is_behind():
    assert fold([event(0, "created", eta_hour=5)]).hours_behind(START + timedelta(hours=9)) == pytest.approx(4)


def test_the_latest_estimate_is_by_event_time():
    late_arrival = [event(3, "arrived", eta_hour=9), event(1, "departed", eta_hour=6)]
    assert fold(late_arrival).eta == START + timedelta(hours=9)
    assert fold(late_arrival).promised == START + timedelta(hours=6)


@pytest.mark.parametrize(
    ("statuses", "state", "reason"),
    [
        (("created", "delivered"), "created", "delivered cannot follow created"),
        (("created", "departed", "delivered", "departed"), "delivered", "departed cannot follow delivered"),
        (("cancelled",), None, "cancelled cannot be the first that is heard of a shipment"),
        (("created", "cancelled", "picked_up"), "cancelled", "picked_up cannot follow cancelled"),
        (("created", "exception", "delivered"), "exception", "delivered cannot follow created"),
    ],
)
def test_illegal_ones_are_set_aside(statuses, state, reason):
    shipment = fold(event(hour, status) for hour, status in enumerate(statuses))
    assert shipment.state == state
    assert [one.reason for one in shipment.set_aside] == [reason]


def test_a_missing_event_that_comes_late_makes_the_others_legal():
    early = [event(0, "created"), event(9, "delivered")]
    assert fold(early).state == "created"
    healed = fold([*early, event(4, "departed")])
    assert (healed.state, healed.set_aside) == ("delivered", ())
