"""When a supplier takes orders: weekdays, days off, and the hour after which an order counts as the next day's."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta

import numpy as np
import numpy.typing as npt

from pipelines.errors import UsageError

EVERY_DAY = frozenset(range(7))
_FARTHEST_DAYS = 366


@dataclass(frozen=True)
class SupplierCalendar:
    """Order days of a supplier, in its own local time.

    Attributes:
        weekdays: 0 for Monday. closed: days off. cut_off: orders from this time on count as of the next order day;
            None: the whole day.
    """

    weekdays: Collection[int] = EVERY_DAY
    closed: Collection[date] = field(default_factory=frozenset)
    cut_off: time | None = None

    def __post_init__(self) -> None:
        if not self.weekdays or not set(self.weekdays) <= EVERY_DAY:
            raise UsageError(f"a supplier's order days are {sorted(self.weekdays)}; expected some of 0 (Monday) to 6")

    def takes_orders_on(self, day: date) -> bool:
        """Whether that day is an order day."""
        return day.weekday() in self.weekdays and day not in self.closed

    def counts_as_of(self, moment: datetime) -> date:
        """The order day that an order placed at this local time counts for.

        Raises:
            UsageError: there is no order day within a year.
        """
        day = moment.date()
        if self.cut_off is not None and moment.time() >= self.cut_off:
            day += timedelta(days=1)
        for ahead in range(_FARTHEST_DAYS):
            if self.takes_orders_on(day + timedelta(days=ahead)):
                return day + timedelta(days=ahead)
        raise UsageError(f"the supplier takes no orders within a year after {moment:%Y-%m-%d}; mend its days off")

    def review_days(self, moment: datetime) -> int:
        """Days from the order day of an order placed now until the next one: what this order must last beyond its
        lead time (the review period of the protection interval)."""
        today = self.counts_as_of(moment)
        following = self.counts_as_of(datetime.combine(today + timedelta(days=1), time.min))
        return (following - today).days

    def open_days(self, first: date, days: int) -> npt.NDArray[np.bool_]:
        """(days,) whether each day from `first` on is an order day."""
        return np.array([self.takes_orders_on(first + timedelta(days=ahead)) for ahead in range(days)], np.bool_)
