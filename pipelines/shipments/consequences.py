"""What a shipment's arrival means for those who wait: orders are told of it, people where it will cost money.

An order learns of its arrival by an event on `restock.order_status`, like from any other source, so that the plan
moves by the ledger's own order and a replay decides the same. Events and alerts have ids that follow from what they
say: told again after a crash, they are recognised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
import pyarrow.compute as pc

from pipelines.contracts.alerts import CRITICAL, HIGH, Alert
from pipelines.contracts.identifiers import identifier
from pipelines.contracts.tables import INVENTORY_POLICIES, INVENTORY_POSITIONS, ORDERS
from pipelines.ingestion.times import as_microseconds, format_time
from pipelines.inventory.stockout import demand_between, expected_lost_units
from pipelines.io.delta import Tables
from pipelines.io.published import POLICIES, in_force
from pipelines.operations.settings import ShipmentsSettings
from pipelines.shipments.tracking import CREATED, TERMINAL

DAY = timedelta(days=1)
ACTOR = "shipments"
SIBLINGS = 3

_SETTLED = TERMINAL | {None}

Row = dict[str, Any]
Messages = Iterable[tuple[str, bytes]]


def arrival_of(row: Mapping[str, Any]) -> datetime | None:
    """When a shipment is expected: by the model of lateness, by its carrier, or as promised; whichever is later of the
    first two, for a carrier that owns up to a delay knows more."""
    promised: datetime | None = row["promised"]
    return max((moment for moment in (row.get("expected_arrival"), row["eta"]) if moment is not None), default=promised)


def is_news(row: Mapping[str, Any], told: datetime | None, hours: float) -> bool:
    """Whether the orders on board should hear of the arrival: for the first time, or when it has moved by so much."""
    arrival = arrival_of(row)
    if arrival is None or row["state"] in _SETTLED or not any(line["order_id"] for line in row["lines"]):
        return False
    return told is None or abs(arrival - told) >= timedelta(hours=hours)


def arrival_events(row: Mapping[str, Any]) -> list[tuple[str, bytes]]:
    """The (key, message) of each order on board."""
    arrival, status = arrival_of(row), "acknowledged" if row["state"] == CREATED else "shipped"
    if arrival is None:
        return []
    eta = format_time(as_microseconds(arrival))
    return [
        (
            order_id,
            orjson.dumps(
                {
                    "event_id": identifier("h", row["shipment_id"], order_id, status, eta),
                    "event_time": format_time(as_microseconds(row["state_time"])),
                    "order_id": order_id,
                    "status": status,
                    "eta": eta,
                    "actor": ACTOR,
                    "reason": f"shipment {row['shipment_id']}",
                }
            ),
        )
        for order_id in sorted({line["order_id"] for line in row["lines"] if line["order_id"]})
    ]


@dataclass(frozen=True)
class Stake:
    """What an order's delay costs its series.

    Attributes:
        lost_units: expected to be missed until the late arrival, beyond those missed anyway until the promised one.
        margin: of those units; None where price or cost is unknown.
        siblings: (location, units above its order-up-to level) of others that have too much of the product.
    """

    order_id: str
    location_id: str
    sku: str
    on_hand: int
    lost_units: float
    margin: float | None
    siblings: tuple[tuple[str, int], ...]

    def tell(self) -> str:
        """For a planner."""
        money = "" if self.margin is None else f" ({self.margin:,.0f} of margin)"
        helped = ", ".join(f"{units} at {name}" for name, units in self.siblings)
        return (
            f"{self.location_id}|{self.sku}: {self.on_hand} on hand, {self.lost_units:.1f} units likely lost{money}; "
            f"{f'could spare: {helped}' if helped else 'nobody has any to spare'}"
        )


def stake(order: Row, policy: Row, position: Row, promised: datetime, arrival: datetime, now: datetime) -> Stake:
    """What it costs when an order comes at `arrival` instead of `promised`: by the plan's own distribution of demand.

    Args:
        policy: its row of `gold/inventory_policies`. position: of `gold/inventory_positions`.
    """
    begin = datetime.combine(policy["as_of"], datetime.min.time(), now.tzinfo) + DAY

    def lost(until: datetime) -> float:
        ends = ((now - begin) / DAY, (max(until, now) - begin) / DAY)
        curves = (policy["cumulative_mean"], policy["cumulative_std"])
        correlation = {} if policy["correlation"] is None else {"correlation": policy["correlation"]}
        mean, deviation = demand_between(*curves, *ends, **correlation)
        return expected_lost_units(position["on_hand"], mean, deviation)

    units = max(lost(arrival) - lost(promised), 0.0)
    known = policy["unit_price"] is not None and policy["unit_cost"] is not None
    margin = units * (policy["unit_price"] - policy["unit_cost"]) if known else None
    return Stake(order["order_id"], order["location_id"], order["sku"], position["on_hand"], units, margin, ())


class Consequences:
    """Tells orders and people of arrivals.

    Args:
        send_statuses, send_alerts: publish and return when the broker has them.
    """

    def __init__(
        self,
        tables: Tables,
        settings: ShipmentsSettings,
        send_statuses: Callable[[Messages], None],
        send_alerts: Callable[[Sequence[Alert]], None],
    ) -> None:
        self._tables, self._settings = tables, settings
        self._send_statuses, self._send_alerts = send_statuses, send_alerts
        self._alerted: set[str] = set()

    def __call__(self, rows: Sequence[Row], now: datetime) -> None:
        """Tell of these rows of `gold/shipments`, and note in them (`announced`) what was told."""
        news = [row for row in rows if is_news(row, row["announced"], self._settings.announce_hours)]
        messages = [message for row in news for message in arrival_events(row)]
        if messages:
            self._send_statuses(messages)
        for row in news:
            row["announced"] = arrival_of(row)
        self._send_alerts(self.alerts(rows, now))

    def alerts(self, rows: Sequence[Row], now: datetime) -> list[Alert]:
        """An alert for each shipment that will be late and that somebody waits for: one a shipment and promise."""
        late = [row for row in rows if self._is_late(row)]
        fresh = {row["shipment_id"]: row for row in late if self._occasion(row) not in self._alerted}
        if not fresh:
            return []
        self._alerted.update(self._occasion(row) for row in fresh.values())
        stakes = self._stakes(list(fresh.values()), now)
        return [_alert(row, stakes.get(name, []), self._occasion(row), now) for name, row in fresh.items()]

    def _is_late(self, row: Row) -> bool:
        arrival, promised = arrival_of(row), row["promised"]
        if row["state"] in _SETTLED or arrival is None or promised is None or not row["lines"]:
            return False
        likely = row.get("late_probability")
        behind = (arrival - promised) >= timedelta(hours=self._settings.late_hours)
        return behind or (likely is not None and likely >= self._settings.late_probability)

    def _occasion(self, row: Row) -> str:
        return f"{row['shipment_id']} {row['promised'].isoformat()}"

    def _stakes(self, rows: list[Row], now: datetime) -> dict[str, list[Stake]]:
        """By shipment; nothing for orders whose series has no policy or no position."""
        shipment_of = {line["order_id"]: row for row in rows for line in row["lines"] if line["order_id"]}
        pointer = in_force(self._tables, POLICIES)
        if not shipment_of or pointer is None:
            return {}
        columns = ("order_id", "location_id", "sku")
        orders = self._tables.read(ORDERS, columns, pc.field("order_id").isin(list(shipment_of))).to_pylist()
        if not orders:
            # Orders that were placed elsewhere: nobody here waits for them.
            return {}
        of_product = pc.field("sku").isin(sorted({order["sku"] for order in orders}))
        where = of_product & (pc.field("policy_version") == pointer.version)
        policies = {_series(row): row for row in self._tables.read(INVENTORY_POLICIES, where=where).to_pylist()}
        stocks = self._tables.read(INVENTORY_POSITIONS, ("location_id", "sku", "on_hand"), of_product).to_pylist()
        positions = {_series(row): row for row in stocks}
        found: dict[str, list[Stake]] = {}
        for order in orders:
            row, key = shipment_of[order["order_id"]], _series(order)
            if key in policies and key in positions:
                arrival = arrival_of(row) or row["promised"]
                one = stake(order, policies[key], positions[key], row["promised"], arrival, now)
                siblings = _spare(order, policies, positions)
                found.setdefault(row["shipment_id"], []).append(Stake(**{**vars(one), "siblings": siblings}))
        return found


def _series(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["location_id"], row["sku"]


def _spare(
    order: Row, policies: Mapping[tuple[str, str], Row], positions: Mapping[tuple[str, str], Row]
) -> tuple[tuple[str, int], ...]:
    """Who has more of the product than its order-up-to level, the most first."""
    spare = [
        (location_id, int(position["on_hand"] - policies[(location_id, sku)]["order_up_to"]))
        for (location_id, sku), position in positions.items()
        if sku == order["sku"] and location_id != order["location_id"] and (location_id, sku) in policies
    ]
    return tuple(sorted((one for one in spare if one[1] > 0), key=lambda one: (-one[1], one[0]))[:SIBLINGS])


def _alert(row: Row, stakes: list[Stake], occasion: str, now: datetime) -> Alert:
    arrival = arrival_of(row) or row["promised"]
    margin = sum(one.margin or 0.0 for one in stakes)
    lost = sum(one.lost_units for one in stakes)
    likely = row.get("late_probability")
    chance = "" if likely is None else f", late with {likely:.0%}"
    told = "; ".join(one.tell() for one in sorted(stakes, key=lambda one: -(one.margin or 0.0))[:SIBLINGS])
    message = (
        f"shipment {row['shipment_id']} from {row['supplier_id']} is at {row['node']} and expected "
        f"{arrival:%Y-%m-%d %H:%M} instead of {row['promised']:%Y-%m-%d %H:%M}{chance}"
        f"{f'. {told}' if told else ''}"
    )
    return Alert(
        kind="late_shipment",
        severity=CRITICAL if lost >= 1 else HIGH,
        subject=row["shipment_id"],
        message=message,
        event_time=row["state_time"],
        raised_at=now,
        occasion=occasion,
        details={
            "expected_arrival": arrival,
            "promised": row["promised"],
            "late_probability": likely,
            "reasons": row.get("reasons") or [],
            "lost_units": round(lost, 2),
            "margin_at_risk": round(margin, 2),
            "orders": [
                {
                    **{"order_id": one.order_id, "location_id": one.location_id, "sku": one.sku},
                    **{"lost_units": round(one.lost_units, 2), "spare": dict(one.siblings)},
                    "command": f"stockcast orders create --location {one.location_id} --sku {one.sku} --quantity "
                    f"{max(round(one.lost_units), 1)} --reason 'shipment {row['shipment_id']} is late'",
                }
                for one in stakes
            ],
        },
    )
