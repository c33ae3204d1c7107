"""How long orders really took: lead times by supplier and lane, each drawn towards what is known of the wider group.

A lane (a supplier's way to one location) with few orders is drawn towards its supplier, the supplier towards the
mean and deviation that its sourcing states: a mixture of the distributions, weighted by the orders seen against a
prior number of orders (Efron and Morris 1975; Dirichlet weights). Orders that are still open are not left out, for
then only the fast ones of the last days would count: each says that it takes longer than its age so far (Kaplan and
Meier 1958).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import gammaincinv

from pipelines.inventory.forecast_distribution import FloatArray

POINTS = 64
"""Equally likely lead times that stand for a distribution."""
LANE_PRIOR = 10.0
"""A lane's own orders count half when there are so many of them; else its supplier's."""
SUPPLIER_PRIOR = 5.0
"""A supplier's orders count half when there are so many; else what its sourcing states."""
LOOK_BACK_DAYS = 365
DAY_SECONDS = 86_400.0

TextArray = npt.NDArray[np.object_]


@dataclass(frozen=True)
class LeadTimeRecords:
    """m orders: from whom, to where, and how long they took.

    Attributes:
        supplier, location: (m,) names. days: (m,) from order to first receipt; so far, where `arrived` is false.
        arrived: (m,) whether anything of it was received.
    """

    supplier: TextArray
    location: TextArray
    days: FloatArray
    arrived: npt.NDArray[np.bool_]

    @classmethod
    def none(cls) -> LeadTimeRecords:
        """No orders at all."""
        nothing = np.empty(0, object)
        return cls(nothing, nothing, np.empty(0), np.empty(0, np.bool_))


def records_of(orders: pa.Table, receipts: pa.Table, as_of: date) -> LeadTimeRecords:
    """Orders and their first receipts as they were known at the end of `as_of` (UTC).

    Args:
        orders: order_id, supplier_id, location_id, created_at, state of `gold/orders`. Those that came to nothing
            (rejected, cancelled, expired, or only proposed) are left out.
        receipts: order_id and event_time of the ledger's receipts; those of no order are ignored.
    """
    end = datetime.combine(as_of + timedelta(days=1), datetime.min.time(), UTC)
    instant, since = pa.scalar(end, pa.timestamp("us", "UTC")), end - timedelta(days=LOOK_BACK_DAYS)
    created = orders["created_at"].cast(pa.timestamp("us", "UTC"))
    nothing = pc.is_in(orders["state"], value_set=pa.array(["proposed", "expired", "cancelled", "rejected"]))
    wanted = pc.and_(pc.less(created, instant), pc.greater_equal(created, pa.scalar(since, created.type)))
    usable = pc.and_(pc.and_(wanted, pc.invert(nothing)), pc.is_valid(orders["supplier_id"]))
    placed = orders.filter(usable)
    known = receipts.filter(pc.and_(pc.is_valid(receipts["order_id"]), pc.less(receipts["event_time"], instant)))
    firsts = known.group_by("order_id").aggregate([("event_time", "min")])
    arrival = {
        name: when.timestamp()
        for name, when in zip(firsts["order_id"].to_pylist(), firsts["event_time_min"].to_pylist(), strict=True)
    }
    came = np.array([arrival.get(name, np.nan) for name in placed["order_id"].to_pylist()], np.float64)
    began = np.array([when.timestamp() for when in placed["created_at"].to_pylist()], np.float64)
    arrived = np.isfinite(came)
    days = np.where(arrived, came, end.timestamp()) - began
    return LeadTimeRecords(
        np.array(placed["supplier_id"].to_pylist(), object),
        np.array(placed["location_id"].to_pylist(), object),
        np.maximum(days / DAY_SECONDS, 0.0),
        arrived,
    )


@dataclass(frozen=True)
class Stated:
    """What the sourcing of n series says of lead times; arrays of shape (n,).

    Attributes:
        supplier, location: names. mean, deviation: days.
    """

    supplier: TextArray
    location: TextArray
    mean: FloatArray
    deviation: FloatArray

    def take(self, rows: npt.NDArray[np.int64]) -> Stated:
        """The named rows."""
        return Stated(self.supplier[rows], self.location[rows], self.mean[rows], self.deviation[rows])


def lead_time_points(records: LeadTimeRecords, stated: Stated, points: int = POINTS) -> FloatArray:
    """(n, points) ascending, equally likely lead times of each series' lane.

    Without any record of a supplier they are the stated gamma distribution's.
    """
    middle = (np.arange(points) + 0.5) / points
    keys = list(zip(stated.supplier, stated.location, stated.mean.tolist(), stated.deviation.tolist(), strict=True))
    made: dict[tuple[object, object, float, float], FloatArray] = {}
    for key in keys:
        if key not in made:
            supplier, location, mean, deviation = key
            made[key] = _lane(records, supplier, location, _gamma(mean, deviation, middle), middle)
    return np.array([made[key] for key in keys]).reshape(len(keys), points)


def _lane(
    records: LeadTimeRecords, supplier: object, location: object, prior: FloatArray, middle: FloatArray
) -> FloatArray:
    of_supplier = records.supplier == supplier
    if not of_supplier.any():
        return prior
    values, weights = prior, np.full(prior.size, 1.0 / prior.size)
    of_lane = of_supplier & (records.location == location)
    for rows, strength in ((of_supplier, SUPPLIER_PRIOR), (of_lane, LANE_PRIOR)):
        atoms, shares, count = _kaplan_meier(records.days[rows], records.arrived[rows])
        own = count / (count + strength)
        values = np.concatenate([values, atoms])
        weights = np.concatenate([(1 - own) * weights, own * shares])
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weights[order])
    places = np.searchsorted(cumulative / cumulative[-1], middle)
    return np.asarray(values[order][np.minimum(places, values.size - 1)], np.float64)


def _gamma(mean: float, deviation: float, middle: FloatArray) -> FloatArray:
    if deviation <= 1e-6 * mean or mean <= 0:
        return np.full(middle.size, max(mean, 0.0))
    shape = (mean / deviation) ** 2
    return np.asarray(gammaincinv(shape, middle) * mean / shape, np.float64)


def _kaplan_meier(days: FloatArray, arrived: npt.NDArray[np.bool_]) -> tuple[FloatArray, FloatArray, float]:
    """Distinct lead times, their probabilities, and how many orders they rest on.

    What is left over beyond the longest one that is known, because older orders are still open, goes to the age of
    the oldest: it takes at least that long.
    """
    if not arrived.any():
        return np.empty(0), np.empty(0), 0.0
    values, counts = np.unique(days[arrived], return_counts=True)
    at_risk = (days[None, :] >= values[:, None]).sum(axis=1)
    survival = np.cumprod(1.0 - counts / at_risk)
    shares = -np.diff(survival, prepend=1.0)
    if survival[-1] > 1e-12:
        values, shares = np.append(values, days.max()), np.append(shares, survival[-1])
    return values, shares, float(arrived.sum())
