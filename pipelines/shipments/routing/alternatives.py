"""What can be done about a shipment at risk, from where it is now, and what each of it is worth.

The worth is the margin that would be lost if the shipment goes on as it does, less the margin still lost with the
alternative, both over the plan's own demand and over the spread of the arrivals. What the present way has cost is
spent, so an alternative's cost counts in full.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from statistics import fmean
from typing import Any

from scipy.special import ndtri

from pipelines.contracts.identifiers import identifier
from pipelines.inventory.stockout import expected_lost_units, stockout_probability
from pipelines.operations.settings import PlanningSettings, RoutingSettings
from pipelines.shipments.routing.durations import Arrival, Duration
from pipelines.shipments.routing.lanes import ROAD, Key, Lanes, Way
from pipelines.shipments.stakes import Row, Waiting
from pipelines.shipments.tracking import ARRIVED, CREATED, EXCEPTION, PICKED_UP

LANE, CARRIER, MODE, TRANSFER, EXPEDITE = "lane", "carrier", "mode", "transfer", "expedite"
EXPRESS = "express"

OFFERED, APPROVED = "offered", "approved"
"""States of a row of `gold/reroutes`."""

MOVABLE = frozenset({CREATED, PICKED_UP, ARRIVED})
"""States in which goods can be handed to somebody else; on the road, in customs or on the last way they cannot."""

_EIGHTY = 2 * float(ndtri(0.9))
"""Width of an 80 % interval in standard deviations."""


@dataclass(frozen=True)
class Alternative:
    """One thing that can be done.

    Attributes:
        kind: another lane, carrier or mode, a transfer from a sibling, or an express carrier.
        via: nodes between; carrier_id, mode: of each leg, joined by `+` where they differ.
        waiting: a transfer's series; None: all that waits for the shipment is helped.
        source, units: a transfer's.
        on_time: chance to arrive by the promise. in_stock: that no series on board misses a unit before.
        avoided_units, avoided_loss: not lost in comparison with going on; the loss None without prices.
    """

    kind: str
    via: tuple[str, ...]
    carrier_id: str
    mode: str
    arrival: Arrival
    cost: float
    on_time: float
    in_stock: float
    avoided_units: float
    avoided_loss: float | None
    waiting: Waiting | None = None
    source: str | None = None
    units: int | None = None
    proposed: bool = False

    @property
    def net_benefit(self) -> float | None:
        """Money that it is worth; None without prices."""
        return None if self.avoided_loss is None else self.avoided_loss - self.cost

    def option_id(self, row: Row) -> str:
        """The same for the same thing done about the same shipment, promise and place."""
        series = "" if self.waiting is None else self.waiting.order_id
        via = " ".join(self.via)
        names = (row["shipment_id"], row["promised"].isoformat(), row["node"] or "", self.kind, self.carrier_id)
        return identifier("r", *names, self.mode, via, self.source or "", series)

    def tell(self) -> str:
        """For a planner."""
        if self.waiting is not None:
            what = f"transfer {self.units} units of {self.waiting.sku} from {self.source} to {self.waiting.location_id}"
        elif self.kind == EXPEDITE:
            what = "expedite with an express carrier"
        else:
            via = f" via {', '.join(self.via)}" if self.via else ""
            what = f"send with {self.carrier_id} by {self.mode}{via}"
        money = "" if self.avoided_loss is None else f", saves {self.avoided_loss:,.0f} of margin"
        early, late = self.arrival.quantile(0.1), self.arrival.quantile(0.9)
        return (
            f"{what}: there {self.arrival.expected:%Y-%m-%d %H:%M} ({early:%d %b %H:%M} to {late:%d %b %H:%M} with "
            f"80 %), before the shelf is empty with {self.in_stock:.0%}, costs {self.cost:,.0f}{money}"
        )


@dataclass(frozen=True)
class Case:
    """A shipment at risk and those who wait for it: what every alternative is compared with."""

    row: Row
    waiting: Sequence[Waiting]
    now: datetime
    going_on: Arrival

    @property
    def units(self) -> int:
        """On board."""
        return sum(line["quantity"] or 0 for line in self.row["lines"])

    @cached_property
    def missed(self) -> list[float]:
        """Units that each of those who wait misses if nothing is done, in expectation."""
        return [_prospect(one, self.going_on)[0] for one in self.waiting]


def _prospect(one: Waiting, arrival: Arrival) -> tuple[float, float]:
    """Units that a series misses until an arrival, in expectation, and the chance that it misses none."""
    demands = [one.demand(moment) for moment in arrival.points()]
    return (
        fmean([expected_lost_units(one.on_hand, *demand) for demand in demands]),
        fmean([1.0 - stockout_probability(one.on_hand, *demand) for demand in demands]),
    )


def going_on(row: Row, arrival: datetime, now: datetime, settings: RoutingSettings) -> Arrival:
    """The arrival if nothing is done: as forecast, its spread by the forecast's interval, else by what is usual."""
    hours = max((arrival - now) / timedelta(hours=1), 1.0)
    early, late = row.get("earliest_arrival"), row.get("latest_arrival")
    std = settings.variation * hours
    if early is not None and late is not None and late > early:
        std = (late - early) / timedelta(hours=1) / _EIGHTY
    return Arrival(now, Duration(hours, std**2))


def alternatives(case: Case, lanes: Lanes, settings: RoutingSettings, planning: PlanningSettings) -> list[Alternative]:
    """All of them that avoid a loss, the most worth first; the best that is worth more than it costs is proposed."""
    found = [*_other_ways(case, lanes, settings), *_expedited(case, lanes, settings)]
    found += [one for series in case.waiting for one in _transfers(case, series, lanes, settings, planning)]
    useful = [one for one in found if one.avoided_units > 0.005]
    useful.sort(key=lambda one: (-(one.net_benefit if one.net_benefit is not None else -one.cost), one.tell()))
    best = useful[: settings.shown_options]
    if best and (best[0].net_benefit or 0.0) > 0.0:
        best[0] = replace(best[0], proposed=True)
    return best


def _is_movable(row: Row) -> bool:
    state = row["interrupted"] if row["state"] == EXCEPTION else row["state"]
    # One that was held up at a node stands there, whatever it was doing before.
    return state in MOVABLE or row["state"] == EXCEPTION


def _other_ways(case: Case, lanes: Lanes, settings: RoutingSettings) -> Iterator[Alternative]:
    row, present = case.row, Key(case.row["carrier_id"], case.row["mode"] or "unknown")
    if not _is_movable(row) or row["node"] is None or row["destination"] is None:
        return
    wait = Duration(settings.rebooking_hours, (settings.variation * settings.rebooking_hours) ** 2)
    as_planned = True
    for way in lanes.ways(row["node"], row["destination"]):
        if set(way.keys) == {present} and as_planned:
            # The quickest of its own carrier and mode is the way that it is on.
            as_planned = False
            continue
        kind = LANE
        if any(key.carrier_id != present.carrier_id for key in way.keys):
            kind = CARRIER
        if any(key.mode != present.mode for key in way.keys):
            kind = MODE
        cost = _freight(way, case.units, settings)
        carrier_id, mode = ("+".join(dict.fromkeys(names)) for names in zip(*way.keys, strict=True))
        yield _worth(case, Arrival(case.now, wait + way.takes), cost, kind, way.via, carrier_id, mode)


def _expedited(case: Case, lanes: Lanes, settings: RoutingSettings) -> Iterator[Alternative]:
    row = case.row
    if not _is_movable(row) or row["node"] is None or row["node"] == row["destination"]:
        return
    km = lanes.km(row["node"], row["destination"])
    if km is None:
        return
    hours = settings.expedite_rebooking_hours
    takes = Duration(hours, (settings.variation * hours) ** 2) + lanes.by_distance(km, settings.expedite_kmh)
    cost = _leg_cost(ROAD, km, case.units * settings.expedite_factor, settings) + settings.expedite_surcharge
    yield _worth(case, Arrival(case.now, takes), cost, EXPEDITE, (), EXPRESS, ROAD)


def _worth(
    case: Case, arrival: Arrival, cost: float, kind: str, via: tuple[str, ...], carrier_id: str, mode: str
) -> Alternative:
    units, money, known, in_stock = 0.0, 0.0, True, 1.0
    for one, missed in zip(case.waiting, case.missed, strict=True):
        lost, without_loss = _prospect(one, arrival)
        avoided = missed - lost
        units += avoided
        known &= one.margin is not None
        money += avoided * (one.margin or 0.0)
        in_stock = min(in_stock, without_loss)
    on_time = arrival.chance_by(case.row["promised"])
    loss = money if known and case.waiting else None
    return Alternative(kind, via, carrier_id, mode, arrival, cost, on_time, in_stock, units, loss)


def _transfers(
    case: Case, one: Waiting, lanes: Lanes, settings: RoutingSettings, planning: PlanningSettings
) -> Iterator[Alternative]:
    """From each sibling with units to spare: as many as are worth their freight, never more than it can spare."""
    for source, spare in one.siblings:
        takes, km = _transfer_way(source, one.location_id, lanes, settings, planning)
        arrival = Arrival(case.now, takes)
        helped = _Transfer(case, one, arrival)
        margin = one.margin or 0.0
        unit_cost = planning.transfer_unit_cost + _unit_cost(ROAD, km, settings)
        units = helped.best_units(spare, margin, unit_cost)
        if units < 1:
            continue
        avoided = helped.avoided(units)
        cost = _fixed_cost(ROAD, settings) + units * unit_cost
        yield Alternative(
            kind=TRANSFER,
            via=(),
            carrier_id="own",
            mode=ROAD,
            arrival=arrival,
            cost=cost,
            on_time=arrival.chance_by(case.row["promised"]),
            in_stock=helped.in_stock(units),
            avoided_units=avoided,
            avoided_loss=None if one.margin is None else avoided * margin,
            waiting=one,
            source=source,
            units=units,
        )


class _Transfer:
    """Some units that come before the shipment: until then the shelf has what it has, afterwards so many more."""

    def __init__(self, case: Case, one: Waiting, arrival: Arrival) -> None:
        self._on_hand = one.on_hand
        self._moments = [(min(soon, late), late) for soon in arrival.points() for late in case.going_on.points()]
        self._demand = {moment: one.demand(moment) for pair in self._moments for moment in pair}
        self._before = self._until(0)
        self._lost: dict[int, float] = {}

    def lost(self, units: int) -> float:
        """Units that are missed until the shipment comes."""
        if units not in self._lost:
            before, after = self._before, self._until(units)
            self._lost[units] = fmean([before[soon] + after[late] - after[soon] for soon, late in self._moments])
        return self._lost[units]

    def _until(self, units: int) -> dict[datetime, float]:
        available = self._on_hand + units
        return {moment: expected_lost_units(available, *demand) for moment, demand in self._demand.items()}

    def avoided(self, units: int) -> float:
        """Units that are not missed."""
        return self.lost(0) - self.lost(units)

    def in_stock(self, units: int) -> float:
        """Chance that nothing is missed until the shipment comes: taken as its less likely part's."""

        def in_stock(available: int, moment: datetime) -> float:
            return 1.0 - stockout_probability(available, *self._demand[moment])

        have, more = self._on_hand, self._on_hand + units
        return fmean([min(in_stock(have, soon), in_stock(more, late)) for soon, late in self._moments])

    def best_units(self, spare: int, margin: float, unit_cost: float) -> int:
        """The most that are each worth it: what a further unit avoids falls with their number."""
        if margin <= 0.0:
            # Without prices: what would be missed.
            return min(spare, round(self.lost(0)))
        low, high = 0, spare
        while low < high:
            middle = (low + high + 1) // 2
            if margin * (self.lost(middle - 1) - self.lost(middle)) > unit_cost:
                low = middle
            else:
                high = middle - 1
        return low


def _transfer_way(
    source: str, location_id: str, lanes: Lanes, settings: RoutingSettings, planning: PlanningSettings
) -> tuple[Duration, float]:
    """By road as far as it is; where the places are not known, as long as transfers are planned to take."""
    km = lanes.km(source, location_id)
    if km is None:
        hours = planning.transfer_days * 24.0
        return Duration(hours, (settings.variation * hours) ** 2), 0.0
    wait = Duration(settings.rebooking_hours, (settings.variation * settings.rebooking_hours) ** 2)
    return wait + lanes.by_distance(km, lanes.speed(ROAD)), km


def _freight(way: Way, units: int, settings: RoutingSettings) -> float:
    legs = zip(way.keys, way.km, strict=True)
    return sum(_leg_cost(key.mode, km, units, settings) for key, km in legs)


def _leg_cost(mode: str, km: float, units: float, settings: RoutingSettings) -> float:
    return _fixed_cost(mode, settings) + units * _unit_cost(mode, km, settings)


def _fixed_cost(mode: str, settings: RoutingSettings) -> float:
    return settings.fixed_costs.get(mode, settings.fixed_costs.get(ROAD, 0.0))


def _unit_cost(mode: str, km: float, settings: RoutingSettings) -> float:
    return km * settings.unit_km_costs.get(mode, settings.unit_km_costs.get(ROAD, 0.0))


def as_offer(one: Alternative, row: Row, now: datetime) -> dict[str, Any]:
    """A row of `gold/reroutes`."""
    orders = sorted(line["order_id"] for line in row["lines"] if line["order_id"])
    option_id, series = one.option_id(row), one.waiting
    return {
        "shipment_id": row["shipment_id"],
        "option_id": option_id,
        "state": OFFERED,
        "kind": one.kind,
        "situation": situation_of(row),
        "node": row["node"],
        "via": list(one.via),
        "carrier_id": one.carrier_id,
        "mode": one.mode,
        "order_id": orders[0] if series is None else series.order_id,
        "location_id": row["destination"] if series is None else series.location_id,
        "sku": None if series is None else series.sku,
        "source": one.source,
        "units": one.units,
        "hours": one.arrival.takes.hours,
        "std_hours": one.arrival.takes.std,
        "arrival": one.arrival.expected,
        "earliest": one.arrival.quantile(0.1),
        "latest": one.arrival.quantile(0.9),
        "on_time_probability": one.on_time,
        "in_stock_probability": one.in_stock,
        "cost": one.cost,
        "avoided_units": one.avoided_units,
        "avoided_loss": one.avoided_loss,
        "net_benefit": one.net_benefit,
        "proposed": one.proposed,
        "description": one.tell(),
        "promised": row["promised"],
        "at": now,
    }


def situation_of(row: Row) -> str:
    """What must still hold for an offer to stand: the place where the goods are, and that they can be taken there."""
    return f"{row['node']} {'held' if _is_movable(row) else 'moving'} {row['promised'].isoformat()}"
