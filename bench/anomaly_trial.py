"""A simulated chain with planted troubles, watched as it goes: what is found, after how long, and what is said in
vain. The rules see only what has happened by then; forecasts are made anew every day from the days before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import numpy as np
import orjson
import pandas as pd

from pipelines.anomalies.gathering import COUNT_DAYS, DEMAND_DAYS
from pipelines.anomalies.history import LedgerHistory, brought_with
from pipelines.anomalies.registry import create, registered
from pipelines.anomalies.view import COUNT_COLUMNS, DAY, DemandDays, Floats, Usual, View, empty
from pipelines.anomalies.watch import Episodes
from pipelines.contracts import topics
from pipelines.contracts.tables import QUANTILES
from pipelines.forecasting.engines import EngineOptions
from pipelines.forecasting.engines import create as create_engine
from pipelines.forecasting.series import SeriesBatch
from pipelines.inventory.forecast_distribution import day_moments, quantile_knots
from pipelines.shipments.bottlenecks import LOOK_BACK, changes, node_states, stays
from pipelines.simulation.plan import HOUR_MS, HOURS_PER_DAY, NO_FAULTS, Plan
from pipelines.simulation.troubles import (
    BLOCKED_HUB,
    PHANTOM_STOCK,
    PRICE_ERROR,
    SHRINKAGE,
    SLOW_SUPPLIER,
    UNIT_ERROR,
    Trouble,
    TroubledWorld,
)

BOTTLENECK = "bottleneck"
WARM_UP_DAYS = 70
"""Two months in which the rules get to know the chain."""
QUIET_DAYS = 60
EVERY_HOURS = 6
ENGINE = "moving_average"
LEDGER_NAMES = ["location_id", "sku", "event_time", "kind", "quantity", "unit_price"]
SHIPMENT_NAMES = ["shipment_id", "event_time", "node", "status", "supplier_id", "eta"]

FINDS = {
    BLOCKED_HUB: (BOTTLENECK,),
    SLOW_SUPPLIER: ("supplier_slowdown",),
    SHRINKAGE: ("count_shrinkage",),
    UNIT_ERROR: ("quantity_error",),
    PRICE_ERROR: ("price_error",),
    PHANTOM_STOCK: ("phantom_stock",),
}
"""Which rules are to find a trouble."""
STATED_HOURS = {
    BLOCKED_HUB: 72,
    SLOW_SUPPLIER: 14 * 24,
    SHRINKAGE: 14 * 24,
    UNIT_ERROR: 24,
    PRICE_ERROR: 24,
    PHANTOM_STOCK: 5 * 24,
}
"""Within how many hours."""


@dataclass(frozen=True)
class Alarm:
    """Something that was told: when (hours since 1970), by which rule, of what; `true`: a phantom stock that is one,
    for the simulated shelf is empty."""

    hour: int
    rule: str
    subject: str
    message: str
    true: bool = False


@dataclass
class Outcome:
    """What a trial came to."""

    alarms: list[Alarm]
    troubles: tuple[Trouble, ...]
    quiet: tuple[int, int]
    look_seconds: list[float] = field(default_factory=list)

    @property
    def false_alarms(self) -> list[Alarm]:
        """Those of the quiet days that are not true."""
        return [one for one in self.alarms if self.quiet[0] <= one.hour < self.quiet[1] and not one.true]

    def found(self, trouble: Trouble) -> Alarm | None:
        """The alarm that tells of a trouble, the first one."""
        return next((alarm for alarm in self.alarms if _tells(alarm, trouble)), None)

    @property
    def recall(self) -> float:
        """Share of the troubles that were told within the stated time."""
        in_time = [
            (alarm := self.found(one)) is not None and alarm.hour - one.begin <= STATED_HOURS[one.kind]
            for one in self.troubles
        ]
        return sum(in_time) / max(len(in_time), 1)

    def precision(self) -> float:
        """Share of the alarms, quiet days included, that tell of a trouble or of what it does to its own subject."""
        told = [alarm for alarm in self.alarms if alarm.hour >= self.quiet[0]]
        right = [alarm for alarm in told if alarm.true or any(_follows(alarm, trouble) for trouble in self.troubles)]
        return len(right) / max(len(told), 1)


def _tells(alarm: Alarm, trouble: Trouble) -> bool:
    return alarm.rule in FINDS[trouble.kind] and _follows(alarm, trouble)


def _follows(alarm: Alarm, trouble: Trouble) -> bool:
    """Whether an alarm is about a trouble's subject, or a part of it, in its time or soon after."""
    about = alarm.subject == trouble.subject or alarm.subject.startswith(f"{trouble.subject}|")
    whole = trouble.kind == PHANTOM_STOCK and alarm.subject == trouble.subject.split("|", maxsplit=1)[0]
    return (about or whole) and trouble.begin <= alarm.hour < trouble.end + DEMAND_DAYS * HOURS_PER_DAY


def planted(plan: Plan, first: int) -> tuple[Trouble, ...]:
    """One trouble of each kind, a few days apart, the first at hour `first`; each at another place."""
    world = TroubledWorld(plan, ())
    chain = world.chain
    stores = [store.location_id for store in chain.stores]
    _, hub, _ = _far_route(world)
    suppliers = pd.Series([row.supplier_id for row in chain.sourcing]).value_counts()
    busiest = int(np.argmax(world.model.level))
    phantom = f"{chain.store(busiest).location_id}|{chain.product(busiest).sku}"
    others = [store for store in stores if store != phantom.split("|", maxsplit=1)[0]]
    day = HOURS_PER_DAY
    return (
        Trouble(UNIT_ERROR, others[0], first, first + 2 * day),
        Trouble(PRICE_ERROR, others[1], first + 4 * day, first + 5 * day),
        Trouble(PHANTOM_STOCK, phantom, first + 6 * day, first + 16 * day),
        Trouble(BLOCKED_HUB, hub, first + 8 * day, first + 12 * day),
        Trouble(SHRINKAGE, others[2], first + 10 * day, first + 38 * day),
        Trouble(SLOW_SUPPLIER, str(suppliers.index[0]), first + 16 * day, first + 38 * day),
    )


def _far_route(world: TroubledWorld) -> tuple[str, str, str]:
    """The route that passes a hub which most series' deliveries pass and none of them starts from."""
    from pipelines.simulation.shipping import route

    routes = [route(world.chain, series) for series in range(world.chain.size)]
    far = pd.Series([hub for origin, hub, _ in routes if origin != hub]).value_counts()
    return next(one for one in routes if one[1] == far.index[0] and one[0] != one[1])


def run_trial(
    seed: int,
    *,
    stores: int = 6,
    products: int = 20,
    quiet_days: int = QUIET_DAYS,
    trouble_days: int = 40,
    a_day: float = 1.0,
    every_hours: int = EVERY_HOURS,
    progress: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Watch a chain from its opening to the end of its troubles.

    Args:
        a_day: the budget of false alarms. every_hours: between two looks; divides a day.
    """
    days = WARM_UP_DAYS + quiet_days + trouble_days
    cutoff = date(2025, 1, 6) + timedelta(days=days + 1)
    plan = Plan(cutoff, seed=seed, stores=stores, products=products, days=days + 1, low_stock=0, faults=NO_FAULTS)
    quiet = tuple(plan.start_hour + HOURS_PER_DAY * count for count in (WARM_UP_DAYS, WARM_UP_DAYS + quiet_days))
    troubles = planted(plan, quiet[1])
    chain = Watched(TroubledWorld(plan, troubles), every_hours)
    episodes = Episodes(create(registered()), a_day)
    outcome = Outcome([], troubles, (quiet[0], quiet[1]))
    stuck: set[str] = set()
    for view in chain.views(days):
        started = time.perf_counter()
        begun, _ = episodes.look(view)
        nodes, ended = changes(node_states(chain.stays(view.now), view.now), stuck)
        outcome.look_seconds.append(time.perf_counter() - started)
        stuck = (stuck | {node.node for node in nodes}) - set(ended)
        hour = round(view.now.timestamp() / 3600)
        told = [(row["rule"], row["subject"], row["message"]) for row, _ in begun]
        told += [(BOTTLENECK, node.node, node.tell()) for node in nodes]
        for rule, subject, message in told:
            true = rule == "phantom_stock" and chain.is_empty(subject)
            outcome.alarms.append(Alarm(hour, rule, subject, message, true))
            if hour >= quiet[0]:
                progress(f"{view.now:%Y-%m-%d %H:%M} {rule} {subject}: {message}")
    return outcome


class Watched:
    """A world as it becomes known, hour by hour."""

    def __init__(self, world: TroubledWorld, every_hours: int = EVERY_HOURS) -> None:
        self._world, self._every = world, every_hours
        chain = world.chain
        self._keys = np.array(
            [f"{chain.store(n).location_id}|{chain.product(n).sku}" for n in range(chain.size)], object
        )
        self._categories = tuple(chain.product(number).category for number in range(chain.size))
        self._zones = tuple(chain.store(number).timezone for number in range(chain.size))
        self._products = {product.sku: (product.unit_cost, product.unit_price) for product in chain.products}
        self._engine = create_engine(ENGINE, EngineOptions())
        self._ledger: list[pd.DataFrame] = []
        self._shipments: list[pd.DataFrame] = []
        self._demand: list[Floats] = []
        self._in_stock: list[Floats] = []
        self._mean: list[Floats] = []
        self._variance: list[Floats] = []

    def views(self, days: int) -> Iterator[View]:
        """A view every few hours."""
        world, size = self._world, self._world.chain.size
        for day in range(days):
            self._forecast()
            self._counts, self._usual, self._brought = self._history()
            demand_days = self._demand_days()
            there = np.zeros(size)
            for _ in range(0, HOURS_PER_DAY, self._every):
                world.advance(self._every)
                there += (world.stock.book > 0) * self._every / HOURS_PER_DAY
                self._take(list(world.outbox.until(world.now_ms)))
                if day >= DEMAND_DAYS:
                    yield self._view(demand_days)
            sales = pd.concat(self._ledger[-(HOURS_PER_DAY // self._every) :])
            sales = sales[sales.kind == "sale"]
            units = sales.quantity.groupby(sales.location_id + "|" + sales.sku).sum()
            self._demand.append(units.reindex(self._keys).fillna(0).to_numpy(float))
            self._in_stock.append(there)

    def is_empty(self, subject: str) -> bool:
        """Whether nothing lies on a series' shelf, whatever the books say; of several series: of any."""
        shelves = [place for place, key in enumerate(self._keys) if key == subject or key.startswith(f"{subject}|")]
        return bool((self._world.stock.physical[shelves] <= 0).any())

    def stays(self, now: datetime) -> pd.DataFrame:
        """Of the shipments, as far as they are known."""
        events = self._shipment_events()
        recent = events[events.event_time > now - LOOK_BACK]
        return stays(recent) if len(recent) else pd.DataFrame(columns=["shipment_id", "node", "entered", "left"])

    def _shipment_events(self) -> pd.DataFrame:
        if len(self._shipments) > 1:
            self._shipments = [pd.concat(self._shipments, ignore_index=True)]
        return self._shipments[0] if self._shipments else _framed([], SHIPMENT_NAMES, ["event_time", "eta"])

    def _take(self, messages: Sequence[object]) -> None:
        ledger, shipments = [], []
        for message in messages:
            payload = orjson.loads(message.value)  # type: ignore[attr-defined]
            topic = message.topic  # type: ignore[attr-defined]
            if topic == topics.SHIPMENT_EVENTS:
                shipments.append(payload)
            elif topic in {topics.POS_SALES, topics.INVENTORY_MOVEMENTS}:
                ledger.append(payload)
        self._ledger.append(_framed(ledger, LEDGER_NAMES, ["event_time"]))
        if shipments:
            self._shipments.append(_framed(shipments, SHIPMENT_NAMES, ["event_time", "eta"]))

    def _ledger_rows(self, begin_ms: int, end_ms: int) -> pd.DataFrame:
        if len(self._ledger) > COUNT_DAYS:
            rows = pd.concat(self._ledger, ignore_index=True)
            oldest = pd.Timestamp(self._world.now_ms - (COUNT_DAYS + 1) * 24 * HOUR_MS, unit="ms", tz="UTC")
            self._ledger = [rows[rows.event_time >= oldest]]
        rows = pd.concat(self._ledger) if self._ledger else _framed([], LEDGER_NAMES, ["event_time"])
        begin, end = (pd.Timestamp(moment, unit="ms", tz="UTC") for moment in (begin_ms, end_ms))
        return rows[(rows.event_time >= begin) & (rows.event_time < end)].reset_index(drop=True)

    def _history(self) -> tuple[pd.DataFrame, Usual, Mapping[str, datetime]]:
        now = self._world.now_ms
        rows = self._ledger_rows(now - COUNT_DAYS * 24 * HOUR_MS, now) if self._ledger else None
        start = datetime.fromtimestamp(now / 1000, UTC) - COUNT_DAYS * DAY
        if rows is None:
            return empty(COUNT_COLUMNS), Usual(), {}
        history = LedgerHistory(rows[rows.kind == "count"], start)
        sign = rows.kind.map({"sale": -1, "write_off": -1, "transfer_out": -1}).fillna(1)
        rows = rows.assign(change=(rows.quantity * sign).where(rows.kind != "count"))
        old = rows.event_time < pd.Timestamp(start + (COUNT_DAYS - DEMAND_DAYS) * DAY)
        history.add(rows[old], usual=False)
        history.add(rows[~old])
        return history.counts(), history.usual(), history.brought()

    def _forecast(self) -> None:
        """Of the day that begins, from the days before."""
        size = len(self._keys)
        if len(self._demand) < DEMAND_DAYS:
            self._mean.append(np.full(size, np.nan))
            self._variance.append(np.full(size, np.nan))
            return
        known = np.column_stack(self._demand[-90:])
        known = np.where(np.column_stack(self._in_stock[-90:]) >= 1, known, np.nan)
        end = datetime.fromtimestamp(self._world.now_ms / 1000, UTC).date() - DAY
        locations, skus = zip(*(key.split("|") for key in self._keys), strict=True)
        batch = SeriesBatch(
            locations, skus, self._categories, self._zones, end, known, np.zeros_like(known), np.zeros(size, int)
        )
        forecast = self._engine.fit_forecast(batch, 1, QUANTILES)
        mean, deviation = day_moments(quantile_knots(forecast.yhat[:, 0], forecast.quantiles[:, 0]))
        failed = np.array([reason is not None for reason in forecast.failures])
        self._mean.append(np.where(failed, np.nan, mean))
        self._variance.append(np.where(failed, np.nan, deviation**2))

    def _demand_days(self) -> DemandDays:
        count = min(len(self._demand), DEMAND_DAYS)
        today = datetime.fromtimestamp(self._world.now_ms / 1000, UTC).date()
        if not count:
            return DemandDays.none(today)
        mean, variance = (np.column_stack(part[-count - 1 : -1]) for part in (self._mean, self._variance))
        demand, in_stock = (np.column_stack(part[-count:]) for part in (self._demand, self._in_stock))
        first = today - count * DAY
        return DemandDays(self._keys, first, demand, mean, variance, in_stock, self._mean[-1], self._variance[-1])

    def _view(self, demand: DemandDays) -> View:
        world = self._world
        # A moment before the full hour, so that at midnight the day that ends is still today.
        now = datetime.fromtimestamp(world.now_ms / 1000, UTC) - timedelta(minutes=1)
        recent = pd.concat(self._ledger[-(HOURS_PER_DAY // self._every) - 1 :])
        lines = recent[recent.event_time > now - DAY].reset_index(drop=True)
        return View(
            now=now,
            demand=demand,
            lines=lines,
            counts=self._counts,
            stock=dict(zip(self._keys.tolist(), world.stock.book.tolist(), strict=True)),
            brought=brought_with(self._brought, lines),
            shipments=self._shipment_rows(),
            products=self._products,
            usual=self._usual,
        )

    def _shipment_rows(self) -> pd.DataFrame:
        events = self._shipment_events().sort_values("event_time", kind="stable")
        rows = events.groupby("shipment_id").agg(
            supplier_id=("supplier_id", "last"),
            state=("status", "last"),
            started=("event_time", "first"),
            promised=("eta", "first"),
        )
        delivered = events[events.status == "delivered"].groupby("shipment_id").event_time.max()
        return rows.assign(delivered=delivered.reindex(rows.index)).reset_index()


def _framed(rows: list[dict[str, object]], names: list[str], times: list[str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows).reindex(columns=names)
    for name in times:
        frame[name] = pd.to_datetime(frame[name], utc=True, format="ISO8601")
    return frame
