"""Terms that the catalog writes as text: a supplier's order days, and what a unit costs in larger orders."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from pipelines.errors import UsageError
from pipelines.inventory.supplier_calendar import EVERY_DAY, SupplierCalendar

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WINDOW_DAYS = 28
"""So many days ahead the windows are told: longer than policies stay in force."""


def read_weekdays(text: str) -> frozenset[int]:
    """`Mon Wed Fri`: 0 for Monday.

    Raises:
        UsageError: another word, or none.
    """
    words = text.lower().split()
    if not words or not set(words) <= set(WEEKDAYS):
        raise UsageError(f"order days are {text!r}; expected some of {' '.join(name.title() for name in WEEKDAYS)}")
    return frozenset(WEEKDAYS.index(word) for word in words)


def read_cut_off(text: str) -> time:
    """`14:00`.

    Raises:
        UsageError: not a time of day, or with a zone.
    """
    try:
        found = time.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is not None:
        raise UsageError(f"a cut-off is {text!r}; expected a time of day such as 14:00")
    return found


def read_closed_days(text: str) -> frozenset[date]:
    """`2026-12-25 2026-12-26`.

    Raises:
        UsageError: one is no date.
    """
    try:
        return frozenset(date.fromisoformat(word) for word in text.split())
    except ValueError as error:
        raise UsageError(f"days off are {text!r}; expected dates such as 2026-12-25 2026-12-26") from error


def read_quantity_breaks(text: str) -> tuple[tuple[int, float], ...]:
    """`100:9.50 500:9.00`: from how many units in an order a unit costs how much, ascending in units.

    Raises:
        UsageError: not such pairs, or more units do not cost less each.
    """
    try:
        pairs = sorted((int(units), float(price)) for units, price in (word.split(":") for word in text.split()))
    except ValueError as error:
        raise UsageError(f"quantity breaks are {text!r}; expected such as 100:9.50 500:9.00") from error
    fine = all(units > 0 and 0 <= price < float("inf") for units, price in pairs)
    falling = all(first[0] < second[0] and first[1] > second[1] for first, second in pairwise(pairs))
    if not pairs or not fine or not falling:
        raise UsageError(f"quantity breaks are {text!r}; expected more units at a lower price, as 100:9.50 500:9.00")
    return tuple(pairs)


def calendar_of(supplier: Mapping[str, Any]) -> tuple[SupplierCalendar, ZoneInfo] | None:
    """When a supplier of the catalog takes orders, and in which zone; None: always.

    Args:
        supplier: a row of `catalog/suppliers`.
    """
    if not any(supplier[name] for name in ("order_weekdays", "order_cut_off", "closed_days")):
        return None
    return SupplierCalendar(
        weekdays=read_weekdays(supplier["order_weekdays"]) if supplier["order_weekdays"] else EVERY_DAY,
        closed=read_closed_days(supplier["closed_days"] or ""),
        cut_off=read_cut_off(supplier["order_cut_off"]) if supplier["order_cut_off"] else None,
    ), ZoneInfo(supplier["timezone"] or "UTC")


def order_windows(calendar: SupplierCalendar, zone: ZoneInfo, first: date) -> list[datetime]:
    """From when until when orders are taken, in turn, UTC, for `WINDOW_DAYS` days from `first` on.

    A window goes from the order day's midnight to its cut-off.
    """
    out: list[datetime] = []
    for ahead in range(WINDOW_DAYS):
        day = first + timedelta(days=ahead)
        if calendar.takes_orders_on(day):
            begin = datetime.combine(day, time.min, zone)
            end = (
                datetime.combine(day + timedelta(days=1), time.min, zone)
                if calendar.cut_off is None
                else datetime.combine(day, calendar.cut_off, zone)
            )
            out += [begin.astimezone(UTC), end.astimezone(UTC)]
    return out


def longest_wait(calendar: SupplierCalendar, first: date) -> float:
    """The most days from one order day to the next within the coming `WINDOW_DAYS`: what an order may have to last
    beyond its lead time."""
    days = [ahead for ahead in range(WINDOW_DAYS) if calendar.takes_orders_on(first + timedelta(days=ahead))]
    return float(max((after - before for before, after in pairwise(days)), default=WINDOW_DAYS))
