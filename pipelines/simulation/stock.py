"""Stock of every series, hour by hour: what is on the shelf limits what is sold.

Two levels are kept per series. `physical` is what is there; `book` is what the events say. They differ by
losses that nobody saw, until a count finds them.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np

from pipelines.simulation.demand import DemandModel, expected_demand
from pipelines.simulation.plan import HOUR_MS, HOURS_PER_DAY, STOCK, random_stream

COUNT_EVERY_DAYS = 30
SAFETY_FACTOR = 1.1
"""Standard deviations of safety stock in the chain's own replenishment: low enough for some stockouts."""

_MINUTE = 60_000
_RATE_MEMORY = 0.93
_FEW_DAYS = 14
_HOURLY_CHANCES = {"write_off": 1 / 240, "adjustment": 1 / 1440, "loss": 1 / 600, "transfer": 1 / 2400}
_RETURN_PER_UNIT = 0.01
_TRIM_HOURS_BEFORE_CUTOFF = 6


@dataclass(frozen=True)
class Movement:
    """One movement of a series' stock; `on_hand` is the book level after it."""

    series: int
    kind: str
    quantity: int
    at_ms: int
    on_hand: int
    order_id: str | None = None


@dataclass(frozen=True, order=True)
class Arrival:
    """A delivery under way; it is received in `due_hour` (hours since 1970)."""

    due_hour: int
    order_id: str
    series: int
    quantity: int


@dataclass(frozen=True)
class Hour:
    """What happened in one hour: units sold and returned by series, movements, and series to reorder."""

    hour: int
    sold: np.ndarray
    returned: np.ndarray
    movements: list[Movement]
    reorders: list[tuple[int, int]]


@dataclass
class Stock:
    """The state of all series; arrays by series, in units.

    Attributes:
        on_order: ordered by the chain itself and not yet received.
        rate: smoothed daily demand, what the chain's own replenishment goes by.
        today: demand since midnight UTC.
        sold: units sold since the launch; returns never exceed them.
        arrivals: heap of deliveries under way.
    """

    physical: np.ndarray
    book: np.ndarray
    on_order: np.ndarray
    rate: np.ndarray
    today: np.ndarray
    sold: np.ndarray
    arrivals: list[Arrival] = field(default_factory=list)


class Warehouse:
    """The rules by which a chain's stock moves."""

    def __init__(self, model: DemandModel) -> None:
        chain = model.chain
        self.chain = chain
        self.launch_hour = model.launch_hour
        self.lead = np.array([row.lead_time_days for row in chain.sourcing])
        self.lead_std = np.array([row.lead_time_std_days for row in chain.sourcing])
        self.pack = np.array([row.pack_size for row in chain.sourcing])
        self.minimum = np.array([row.minimum_order for row in chain.sourcing])
        shelf_lives = [product.shelf_life_days for product in chain.products]
        self.shelf_life = np.array([np.inf if days is None else days for days in shelf_lives])[chain.product_of]
        midnight = np.array([round(store.longitude / 15) for store in chain.stores])[chain.store_of]
        self.count_hour = (5 - midnight) % HOURS_PER_DAY
        self.review_hour = (6 - midnight) % HOURS_PER_DAY
        self.low_stock = _low_stock_series(model, self.lead)

    def opening(self, model: DemandModel) -> Stock:
        """Stock before the first hour: nothing anywhere; the opening counts bring it in."""
        size = self.chain.size
        zeros = [np.zeros(size, dtype=np.int64) for _ in range(5)]
        days = _FEW_DAYS * HOURS_PER_DAY
        rate = np.empty(size)
        for launch in np.unique(model.launch_hour):
            mean = expected_demand(model, int(launch), days).sum(axis=0) / _FEW_DAYS
            rate = np.where(model.launch_hour == launch, mean, rate)
        return Stock(zeros[0], zeros[1], zeros[2], np.maximum(rate, 0.05), zeros[3], zeros[4])

    def order_levels(self, rate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reorder point and order-up-to level of the chain's own periodic (s, S) policy, review once a day."""
        exposure = self.lead + 1
        deviation = np.sqrt(rate * exposure * (1 + rate / 8) + (rate * self.lead_std) ** 2)
        reorder_point = np.ceil(rate * exposure + SAFETY_FACTOR * deviation)
        cycle = np.clip(self.shelf_life / 3, 2, 6)
        return reorder_point, np.ceil(reorder_point + np.maximum(rate * cycle, 1))

    def step(self, stock: Stock, hour: int, demand: np.ndarray, replenish: bool) -> Hour:
        """Let one hour pass; changes `stock`.

        Within the hour receipts come first, then transfers, write-offs, adjustments and counts, all within the
        first ten minutes, then sales: so the level never falls below zero at any moment.
        """
        chances, sizes, returns = random_stream(self.chain.plan, STOCK, hour).random((3, self.chain.size))
        movements = [*self._open(stock, hour), *self._receive(stock, hour)]
        movements += self._disturb(stock, hour, chances, sizes)
        if hour == self.chain.plan.cutoff_hour - _TRIM_HOURS_BEFORE_CUTOFF:
            movements += self._trim(stock, hour)
        movements += self._count(stock, hour)
        sold = np.minimum(demand, stock.physical)
        returned = ((returns < _RETURN_PER_UNIT * demand) & (stock.sold > 0)).astype(np.int64)
        stock.sold += sold - returned
        stock.physical += returned - sold
        stock.book += returned - sold
        stock.today += demand
        if hour % HOURS_PER_DAY == HOURS_PER_DAY - 1:
            known = self.launch_hour <= hour
            smoothed = _RATE_MEMORY * stock.rate + (1 - _RATE_MEMORY) * stock.today
            stock.rate = np.where(known, smoothed, stock.rate)
            stock.today = np.zeros_like(stock.today)
        return Hour(hour, sold, returned, movements, self._review(stock, hour) if replenish else [])

    def lead_time_hours(self, series: int, rng: np.random.Generator) -> float:
        """A lead time drawn from the gamma law with the sourcing's mean and standard deviation; at least 3 h."""
        mean, std = self.lead[series], self.lead_std[series]
        days = rng.gamma((mean / std) ** 2, std**2 / mean) if std > 0 else mean
        return float(max(3.0, days * HOURS_PER_DAY))

    def _open(self, stock: Stock, hour: int) -> list[Movement]:
        opening = np.flatnonzero(self.launch_hour == hour)
        if not opening.size:
            return []
        _, up_to = self.order_levels(stock.rate)
        for series in opening.tolist():
            stock.physical[series] = stock.book[series] = int(up_to[series]) + int(self.pack[series])
        return [self._counted(stock, series, hour * HOUR_MS) for series in opening.tolist()]

    def _receive(self, stock: Stock, hour: int) -> list[Movement]:
        due = []
        while stock.arrivals and stock.arrivals[0].due_hour <= hour:
            due.append(heapq.heappop(stock.arrivals))
        movements = []
        for arrival in sorted(due, key=received_at):
            series, quantity = arrival.series, arrival.quantity
            stock.on_order[series] = max(0, stock.on_order[series] - quantity)
            at_ms = received_at(arrival) + (hour - arrival.due_hour) * HOUR_MS
            movements.append(_move(stock, series, "receipt", quantity, at_ms, arrival.order_id))
        return movements

    def _disturb(self, stock: Stock, hour: int, chances: np.ndarray, sizes: np.ndarray) -> list[Movement]:
        """At most one rare thing per series and hour; `chances` decides which, `sizes` how large.

        At most one transfer an hour, before everything else, so that reported levels follow the order of time.
        """
        total = sum(_HOURLY_CHANCES.values())
        candidates = np.flatnonzero((chances < total) & (stock.physical > 0) & (self.launch_hour < hour))
        drawn = [(_pick(chances[series]), int(series), float(sizes[series])) for series in candidates]
        movements = next(
            filter(None, (self._rebalance(stock, hour, *draw[1:]) for draw in drawn if draw[0] == "transfer")),
            [],
        )
        for what, series, size in drawn:
            level, start = int(stock.physical[series]), hour * HOUR_MS + int(size * _MINUTE)
            if what == "loss":
                stock.physical[series] -= min(level, 1 + int(2 * size))
            elif what == "write_off" and np.isfinite(self.shelf_life[series]):
                quantity = 1 + int(size * 0.15 * (level - 1))
                movements.append(_move(stock, series, what, quantity, start + 5 * _MINUTE))
            elif what == "adjustment":
                quantity = 1 if size > 0.5 else -min(level, 1 + int(4 * size))
                movements.append(_move(stock, series, what, quantity, start + 6 * _MINUTE))
        return movements

    def _rebalance(self, stock: Stock, hour: int, series: int, size: float) -> list[Movement]:
        """A store with more than enough gives a third away."""
        level = int(stock.physical[series])
        if level <= max(4, 6 * stock.rate[series]):
            return []
        return self._give_away(stock, series, level // 3, hour * HOUR_MS + int((3 + size) * _MINUTE))

    def _give_away(self, stock: Stock, series: int, quantity: int, at_ms: int) -> list[Movement]:
        """To the store with the shortest cover, in the same region where it has another store."""
        others = self._same_product(series)
        region = self.chain.store(series).region
        near = [other for other in others if self.chain.store(other).region == region]
        if not others or quantity < 1:
            return []
        target = min(near or others, key=lambda other: stock.physical[other] / stock.rate[other])
        return _hand_over(stock, series, target, quantity, at_ms)

    def _same_product(self, series: int) -> list[int]:
        products = len(self.chain.products)
        return [other for other in range(series % products, self.chain.size, products) if other != series]

    def _trim(self, stock: Stock, hour: int) -> list[Movement]:
        """Shortly before the live phase the chosen series are brought to what will not last a lead time."""
        movements: list[Movement] = []
        for offset, series in enumerate(self.low_stock):
            keep = int(np.ceil((0.25 + 0.6 * self.lead[series]) * stock.rate[series]))
            surplus = int(stock.physical[series]) - keep
            at_ms = hour * HOUR_MS + 7 * _MINUTE + offset
            if surplus > 0:
                moved = self._give_away(stock, series, surplus, at_ms)
                movements += moved or [_move(stock, series, "write_off", surplus, at_ms)]
            elif others := self._same_product(series):
                giver = max(others, key=lambda other: stock.physical[other])
                if (quantity := min(-surplus, int(stock.physical[giver]) // 2)) > 0:
                    movements += _hand_over(stock, giver, series, quantity, at_ms)
        return movements

    def _count(self, stock: Stock, hour: int) -> list[Movement]:
        day, hour_of_day = divmod(hour, HOURS_PER_DAY)
        turn = (day + 7 * np.arange(self.chain.size)) % COUNT_EVERY_DAYS == 0
        due = np.flatnonzero(turn & (self.count_hour == hour_of_day) & (self.launch_hour < hour))
        movements = []
        for series in due.tolist():
            stock.book[series] = stock.physical[series]
            movements.append(self._counted(stock, series, hour * HOUR_MS + 9 * _MINUTE + series % 60_000))
        return movements

    def _counted(self, stock: Stock, series: int, at_ms: int) -> Movement:
        level = int(stock.physical[series])
        return Movement(series, "count", level, at_ms, level)

    def _review(self, stock: Stock, hour: int) -> list[tuple[int, int]]:
        reorder_point, up_to = self.order_levels(stock.rate)
        position = stock.book + stock.on_order
        due = (self.review_hour == hour % HOURS_PER_DAY) & (position <= reorder_point)
        due &= self.launch_hour <= hour
        for series in self.low_stock:  # what they order from here on would arrive in the live phase
            longest = self.lead[series] + 2 * self.lead_std[series]
            due[series] &= hour < self.chain.plan.cutoff_hour - HOURS_PER_DAY * longest
        packs = np.ceil(np.maximum(up_to - position, self.minimum) / self.pack)
        quantity = (packs * self.pack).astype(np.int64)
        return [(int(series), int(quantity[series])) for series in np.flatnonzero(due)]


def received_at(arrival: Arrival) -> int:
    """When within its hour a delivery is booked, in milliseconds since 1970."""
    return arrival.due_hour * HOUR_MS + _MINUTE + (arrival.series * 7919 + arrival.quantity * 104_729) % (2 * _MINUTE)


def _move(stock: Stock, series: int, kind: str, quantity: int, at_ms: int, order_id: str | None = None) -> Movement:
    change = -quantity if kind in ("write_off", "transfer_out") else quantity
    stock.physical[series] += change
    stock.book[series] += change
    return Movement(series, kind, quantity, at_ms, int(stock.book[series]), order_id)


def _hand_over(stock: Stock, source: int, target: int, quantity: int, at_ms: int) -> list[Movement]:
    return [
        _move(stock, source, "transfer_out", quantity, at_ms),
        _move(stock, target, "transfer_in", quantity, at_ms + _MINUTE),
    ]


def _pick(chance: float) -> str:
    for what, probability in _HOURLY_CHANCES.items():
        if chance < probability:
            return what
        chance -= probability
    return "none"


def _low_stock_series(model: DemandModel, lead: np.ndarray) -> tuple[int, ...]:
    """The best-selling series with short lead times, one of each product."""
    chain = model.chain
    chosen: dict[int, int] = {}
    stores_used: dict[int, int] = {}
    products = len(chain.products)
    for series in np.argsort(-model.level).tolist():
        store, product = divmod(series, products)
        fresh = product not in chosen and stores_used.get(store, 0) <= len(chosen) // len(chain.stores)
        if len(chosen) < chain.plan.low_stock and fresh and lead[series] < 4:
            chosen[product] = series
            stores_used[store] = stores_used.get(store, 0) + 1
    return tuple(chosen.values())
