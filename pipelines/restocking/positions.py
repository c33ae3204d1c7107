"""Stock of one product at one location, folded from the ledger.

On hand is a function of the *set* of ledger rows: the latest count (by event time, then event id) plus the
changes strictly after it. The fold keeps what that needs when rows arrive late: the count in force, and the
changes around it. All times are microseconds since 1970.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import itemgetter

from pipelines.restocking.orders import APPROVED, FREED, PARTLY_RECEIVED, RECEIVED, next_state

Change = tuple[int, int]
"""(event time, signed units)."""

NEVER = -(2**62)


@dataclass(slots=True)
class OpenOrder:
    """An order that is not closed, as its position counts it. Times in microseconds since 1970.

    Attributes:
        quantity: units ordered, or as last confirmed (by event time).
        expected_receipt: as planned, or as last promised (by event time).
        received: units booked in.
        reported_received: when its receipt was first announced; the goods may not be in the ledger yet.
        state: of `pipelines.restocking.orders`.
        released: it is in the outbox; else it waits for a person.
        quantity_time, promised_time: of the events that `quantity` and `expected_receipt` come from.
    """

    quantity: int
    expected_receipt: int
    received: int = 0
    reported_received: int | None = None
    state: str = APPROVED
    released: bool = True
    quantity_time: int = NEVER
    promised_time: int = NEVER

    @property
    def outstanding(self) -> int:
        """Units still to come."""
        return 0 if self.state in FREED else max(0, self.quantity - self.received)

    def confirm(self, quantity: int, at: int) -> None:
        """Another quantity: the newest by event time stands, of two at the same time the larger."""
        if self.quantity_time == NEVER or (at, quantity) > (self.quantity_time, self.quantity):
            self.quantity, self.quantity_time = quantity, at

    def promise(self, expected_receipt: int, at: int) -> None:
        """Another time of receipt: the newest by event time stands, of two at the same time the later."""
        if self.promised_time == NEVER or (at, expected_receipt) > (self.promised_time, self.expected_receipt):
            self.expected_receipt, self.promised_time = expected_receipt, at

    def report_received(self, at: int) -> None:
        """Its receipt was announced: the first announcement counts."""
        self.reported_received = at if self.reported_received is None else min(at, self.reported_received)


@dataclass(slots=True)
class Position:
    """Live state of a series.

    `complete_since`: all changes after this time are in `recent` or `fresh`; older ones only in the ledger.
    `flag_severity`, `flag_chance`: how bad running out before the next possible receipt would be, and how likely it is;
    `lost_units`, `lost_margin`: what is expected to be lost by it; None below the threshold of a flag.
    `fresh` holds the changes of the step under way, `recent` those before it. `offer_taken` is the last offer of a
    transfer that was used. `bought` are units by order that count against the cap of `bought_day` (days since 1970).
    """

    location_id: str
    sku: str
    on_hand: int = 0
    count_time: int = NEVER
    count_event_id: str = ""
    counted: int = 0
    clock: int = NEVER
    open_orders: dict[str, OpenOrder] = field(default_factory=dict)
    flag_severity: str | None = None
    flag_chance: str | None = None
    lost_units: float | None = None
    lost_margin: float | None = None
    hold_until: int = NEVER
    offer_taken: str = ""
    bought_day: int = 0
    bought: dict[str, int] = field(default_factory=dict)
    complete_since: int = NEVER
    recent: list[Change] = field(default_factory=list)
    fresh: list[Change] = field(default_factory=list)

    @property
    def on_order(self) -> int:
        """Units ordered and not yet received."""
        return sum(order.outstanding for order in self.open_orders.values())

    def bought_on(self, day: int) -> int:
        """Units bought on a day (since 1970) that count against a cap; a later day starts anew."""
        if day > self.bought_day:
            self.bought_day = day
            self.bought.clear()
        return sum(self.bought.values())

    def needs_history(self, count_time: int) -> bool:
        """Whether a count at this time can only be placed with changes from the ledger."""
        return count_time < self.complete_since and count_time >= self.count_time

    def apply_change(self, event_time: int, change: int) -> None:
        """Fold in a sale, receipt or other change."""
        if event_time > self.count_time:
            self.on_hand += change
            self.fresh.append((event_time, change))
        self.clock = max(self.clock, event_time)

    def apply_count(
        self, event_time: int, event_id: str, level: int, history: Callable[[int], Iterable[Change]]
    ) -> None:
        """Fold in a counted level.

        Args:
            history: the ledger's changes after a time, up to the step under way; asked for only when the
                remembered changes do not reach back far enough.
        """
        self.clock = max(self.clock, event_time)
        if (event_time, event_id) <= (self.count_time, self.count_event_id):
            return
        earlier = history(event_time) if self.needs_history(event_time) else self.recent
        self.on_hand = level + _sum_after(earlier, event_time) + _sum_after(self.fresh, event_time)
        self.count_time, self.count_event_id, self.counted = event_time, event_id, level

    def receive(self, order_id: str, quantity: int) -> OpenOrder:
        """Take a receipt off its open order, which ends when nothing is outstanding; returns the order."""
        order = self.open_orders[order_id]
        order.received += quantity
        complete = order.received >= order.quantity
        order.state = next_state(order.state, RECEIVED if complete else PARTLY_RECEIVED)
        if complete:
            del self.open_orders[order_id]
        return order

    def settle(self, limit: int) -> None:
        """End a step: remember at most `limit` changes, none older than the count in force."""
        if not self.fresh:
            return
        kept = [change for change in (*self.recent, *self.fresh) if change[0] > self.count_time]
        self.fresh.clear()
        if len(kept) > limit:
            kept.sort(key=itemgetter(0))
            cut = len(kept) - limit
            self.complete_since = max(self.complete_since, kept[cut - 1][0])
            kept = kept[bisect_right(kept, self.complete_since, key=itemgetter(0)) :]
        self.recent = kept


def _sum_after(changes: Iterable[Change], event_time: int) -> int:
    return sum(change for time, change in changes if time > event_time)
