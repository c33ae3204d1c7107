"""Day by day through history: the stock of many series under many policies, as compiled array code.

A day runs like this: what arrived over night is there in the morning; demand takes what is there, the rest is lost;
in the evening, where a review is due, the inventory position is compared with the reorder point and an order is
placed. An order of the evening of day t with a lead time of L days serves day t + L + 1 first, so that order and next
review together have to last L + review days (Silver, Pyke and Thomas, chapter 6).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.forecasting.compiled import compiled

Counts = npt.NDArray[np.int64]

TOTALS = (
    "days",
    "demand",
    "sold",
    "on_hand",
    "short_days",
    "cycles",
    "served_cycles",
    "orders",
    "ordered",
    "received",
    "on_order",
    "highest_position",
)
"""What is added up over the measured days of a series under a policy."""

_COLUMN = {name: place for place, name in enumerate(TOTALS)}


class Buying(NamedTuple):
    """What orders must keep to; arrays of shape (n,), whole units and days.

    Attributes:
        pack_size: at least 1. minimum_order: 0 for none. maximum_order: 0 for none, else at least a pack.
        review: days between reviews, at least 1.
    """

    pack_size: Counts
    minimum_order: Counts
    maximum_order: Counts
    review: Counts


class Days(NamedTuple):
    """History of n series over T days.

    Attributes:
        demand: (n, T) units that were wanted. lead_time: (n, T) days that an order placed on this day takes.
        open: (n, T) whether orders can be placed on this evening.
        first: the first day that is measured; those before it let the stock settle.
    """

    demand: Counts
    lead_time: Counts
    open: npt.NDArray[np.bool_]
    first: int


def run(
    days: Days, buying: Buying, reorder_point: Counts, order_up_to: Counts, opening: Counts
) -> tuple[dict[str, Counts], Counts]:
    """Replay P policies on n series.

    Args:
        reorder_point, order_up_to: (P, n, T), the levels in force on the evening of each day.
        opening: (P, n) units on hand before the first day.

    Returns:
        Each of `TOTALS` as (P, n): sums over the measured days (`on_hand`: of the evenings' stock; a cycle goes from
        a receipt to the next and is served if no demand was lost in it). Then the units ordered on each day by each
        policy, all series together, (P, T).
    """
    policies, series, length = reorder_point.shape
    totals = np.zeros((policies, series, len(TOTALS)), np.int64)
    ordered = np.zeros((policies, length), np.int64)
    horizon = length + int(days.lead_time.max(initial=0)) + 2
    _run(days, buying, reorder_point, order_up_to, opening, np.zeros(horizon, np.int64), totals, ordered)
    return {name: totals[:, :, place] for name, place in _COLUMN.items()}, ordered


@compiled
def _run(
    days: Days,
    buying: Buying,
    reorder_point: Counts,
    order_up_to: Counts,
    opening: Counts,
    arrivals: Counts,
    totals: Counts,
    ordered: Counts,
) -> None:
    for policy in range(reorder_point.shape[0]):
        for row in range(days.demand.shape[0]):
            arrivals[:] = 0
            on_hand, on_order, short = opening[policy, row], 0, False
            pack, review = buying.pack_size[row], buying.review[row]
            smallest = -(-buying.minimum_order[row] // pack) * pack
            largest = buying.maximum_order[row] // pack * pack
            out = totals[policy, row]
            for day in range(days.demand.shape[1]):
                received = arrivals[day]
                served = received > 0 and not short
                if received > 0:
                    short = False
                on_hand += received
                on_order -= received
                wanted = days.demand[row, day]
                sold = min(wanted, on_hand)
                on_hand -= sold
                short = short or sold < wanted
                quantity = 0
                position = on_hand + on_order
                if days.open[row, day] and day % review == 0 and position <= reorder_point[policy, row, day]:
                    needed = order_up_to[policy, row, day] - position
                    quantity = max(-(-needed // pack) * pack, smallest)
                    if largest > 0:
                        quantity = min(quantity, largest)
                    arrivals[day + days.lead_time[row, day] + 1] += quantity
                    on_order += quantity
                    ordered[policy, day] += quantity
                if day < days.first:
                    continue
                # In the order of TOTALS.
                out[0] += 1
                out[1] += wanted
                out[2] += sold
                out[3] += on_hand
                out[4] += 1 if sold < wanted else 0
                out[5] += 1 if received > 0 else 0
                out[6] += 1 if served else 0
                out[7] += 1 if quantity > 0 else 0
                out[8] += quantity
                out[9] += received
                out[10] += on_order
                out[11] = max(out[11], on_hand + on_order)
