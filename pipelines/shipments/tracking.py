"""Where each shipment is: a state machine over the set of its events.

Events are put in the order of their own time (ties by status, then event id), so the order of arrival, repetitions and
restarts never matter. An event that the state before it does not allow is set aside with a reason and changes nothing;
when an event that was missing arrives late, the shipment is folded again and what was illegal may become legal.

| from | to |
|---|---|
| (nothing) | any state but cancelled and exception: events before the first one seen may be lost |
| created | picked_up, departed, exception, cancelled |
| picked_up | departed, arrived, customs, out_for_delivery, exception, cancelled |
| departed | arrived, customs, out_for_delivery, delivered, exception, cancelled |
| arrived | departed, arrived, customs, out_for_delivery, delivered, exception, cancelled |
| customs | departed, arrived, out_for_delivery, exception, cancelled |
| out_for_delivery | delivered, arrived, exception, cancelled |
| exception | whatever the state before it allowed, and that state again |
| delivered, cancelled | nothing |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

CREATED, PICKED_UP, DEPARTED, ARRIVED = "created", "picked_up", "departed", "arrived"
CUSTOMS, OUT_FOR_DELIVERY, DELIVERED = "customs", "out_for_delivery", "delivered"
EXCEPTION, CANCELLED = "exception", "cancelled"

_TROUBLE = frozenset({EXCEPTION, CANCELLED})
LEGAL: Mapping[str | None, frozenset[str]] = {
    None: frozenset({CREATED, PICKED_UP, DEPARTED, ARRIVED, CUSTOMS, OUT_FOR_DELIVERY, DELIVERED}),
    CREATED: _TROUBLE | {PICKED_UP, DEPARTED},
    PICKED_UP: _TROUBLE | {DEPARTED, ARRIVED, CUSTOMS, OUT_FOR_DELIVERY},
    DEPARTED: _TROUBLE | {ARRIVED, CUSTOMS, OUT_FOR_DELIVERY, DELIVERED},
    ARRIVED: _TROUBLE | {DEPARTED, ARRIVED, CUSTOMS, OUT_FOR_DELIVERY, DELIVERED},
    CUSTOMS: _TROUBLE | {DEPARTED, ARRIVED, OUT_FOR_DELIVERY},
    OUT_FOR_DELIVERY: _TROUBLE | {DELIVERED, ARRIVED},
    DELIVERED: frozenset(),
    CANCELLED: frozenset(),
}
"""What may follow each state; `exception` interrupts a state instead of following it."""

TERMINAL = frozenset({DELIVERED, CANCELLED})
_RANK = {status: rank for rank, status in enumerate((*LEGAL, EXCEPTION))}


class Event(NamedTuple):
    """One row of `silver/shipment_events`, as far as tracking looks at it."""

    event_id: str
    event_time: datetime
    status: str
    node: str
    eta: datetime | None = None
    order_id: str | None = None
    sku: str | None = None
    quantity: int | None = None
    supplier_id: str | None = None
    carrier_id: str | None = None
    mode: str | None = None
    origin: str | None = None
    destination: str | None = None
    latitude: float | None = None
    longitude: float | None = None


class SetAside(NamedTuple):
    """An event that its shipment's state did not allow."""

    event_id: str
    reason: str


class Shipment(NamedTuple):
    """What a shipment's events come to.

    Attributes:
        state: the last legal status; `exception` while one is open.
        interrupted: the state that an open exception interrupted.
        supplier_id to destination: as the newest event has them; one that is rerouted changes its destination.
        node, since: where it is, and from when on; latitude and longitude, where the catalog knows them.
        promised: the first estimate by event time; `eta`: the latest one, `eta_time`: of the event that made it.
        waiting: (order, sku, quantity) that wait for it; those of a shipment that has come or was called off, none.
        set_aside: the events that were not legal, in order of time.
    """

    state: str | None = None
    interrupted: str | None = None
    state_time: datetime | None = None
    started: datetime | None = None
    supplier_id: str | None = None
    carrier_id: str | None = None
    mode: str | None = None
    origin: str | None = None
    destination: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    node: str | None = None
    since: datetime | None = None
    promised: datetime | None = None
    eta: datetime | None = None
    eta_time: datetime | None = None
    delivered: datetime | None = None
    lines: frozenset[tuple[str | None, str | None, int | None]] = frozenset()
    set_aside: tuple[SetAside, ...] = ()

    @property
    def waiting(self) -> frozenset[tuple[str | None, str | None, int | None]]:
        """What is still to come with it."""
        return frozenset() if self.state in TERMINAL else self.lines

    def dwell_hours(self, now: datetime) -> float | None:
        """Hours at the present node; None where it has arrived for good or nothing is known."""
        if self.since is None or self.state in TERMINAL:
            return None
        return max((now - self.since).total_seconds(), 0.0) / 3600

    def hours_behind(self, now: datetime) -> float | None:
        """Hours behind the promise (below 0: ahead), by the delivery, else by the estimate or now if that passed."""
        if self.promised is None or self.state == CANCELLED:
            return None
        end = self.delivered or max(self.eta or self.promised, now)
        return (end - self.promised).total_seconds() / 3600


NOTHING = Shipment()
"""Before anything is heard of it."""


class Story:
    """The events of one shipment as they become known, and what they come to."""

    __slots__ = ("_events", "_newest", "place", "shipment")

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._events: dict[str, Event] = {}
        self._newest: tuple[datetime, int, str] | None = None
        self.place = 0
        self.shipment = NOTHING
        for event in sorted(events, key=_order):
            self.add(event)

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: Event, place: int = 0) -> None:
        """Take in an event: one that is newer than all others in one step, another by telling the story anew.

        Args:
            place: in the order of ingestion; the story remembers the newest.
        """
        self.place = max(self.place, place)
        known = self._events.get(event.event_id)
        order = _order(event)
        if known is None and (self._newest is None or order > self._newest):
            self._events[event.event_id] = event
            self._newest, self.shipment = order, _after(self.shipment, event)
            return
        # Of two events under one id the same one must stand whichever came first.
        first = event if known is None else min(known, event, key=lambda one: (_order(one), repr(one)))
        if first is known:
            return
        self._events[event.event_id] = first
        events = sorted(self._events.values(), key=_order)
        self._newest, self.shipment = _order(events[-1]), NOTHING
        for one in events:
            self.shipment = _after(self.shipment, one)


def fold(events: Iterable[Event]) -> Shipment:
    """The shipment that a set of events describes, in whatever order and however often they come."""
    return Story(events).shipment


def why_not(shipment: Shipment, event: Event) -> str | None:
    """Why an event cannot follow; None where it can."""
    state = shipment.interrupted if shipment.state == EXCEPTION else shipment.state
    again = shipment.state == EXCEPTION and event.status in {state, EXCEPTION}
    if again or event.status in LEGAL[state]:
        return None
    if state is None:
        return f"{event.status} cannot be the first that is heard of a shipment"
    return f"{event.status} cannot follow {state}"


def _after(shipment: Shipment, event: Event) -> Shipment:
    if (reason := why_not(shipment, event)) is not None:
        return shipment._replace(set_aside=(*shipment.set_aside, SetAside(event.event_id, reason)))
    before = shipment.interrupted if shipment.state == EXCEPTION else shipment.state
    lines = shipment.lines
    if event.order_id or event.sku:
        line = (event.order_id, event.sku, event.quantity)
        lines = lines if line in lines else lines | {line}
    return Shipment(
        event.status,
        before if event.status == EXCEPTION else None,
        event.event_time,
        shipment.started or event.event_time,
        event.supplier_id or shipment.supplier_id,
        event.carrier_id or shipment.carrier_id,
        event.mode or shipment.mode,
        event.origin or shipment.origin,
        event.destination or shipment.destination,
        event.latitude,
        event.longitude,
        event.node,
        event.event_time if event.node != shipment.node else shipment.since,
        shipment.promised or event.eta,
        event.eta or shipment.eta,
        event.event_time if event.eta else shipment.eta_time,
        event.event_time if event.status == DELIVERED else None,
        lines,
        shipment.set_aside,
    )


def _order(event: Event) -> tuple[datetime, int, str]:
    return event.event_time, _RANK[event.status], event.event_id
