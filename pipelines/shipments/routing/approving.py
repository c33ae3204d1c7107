"""Approving another way for a shipment: what may be approved, and the event that carries it.

The command line, the order API and the dashboard approve alike: none of them writes a table of the tracker's, all send
one `restock.order_status` event. For a way of the shipment itself it tells an order on board its new arrival (the
tracker, which hears of it by the ledger, tells the others); for a transfer it orders by hand what the sibling spares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import pyarrow.compute as pc

from pipelines.contracts.identifiers import identifier
from pipelines.contracts.tables import ORDER_STATUS, REROUTES, SHIPMENTS
from pipelines.errors import RerouteConflictError, UnknownOrderError, UnknownShipmentError
from pipelines.ingestion.times import as_datetime, as_microseconds, format_time, parse_time
from pipelines.io.delta import Tables
from pipelines.restocking.desk import find_order
from pipelines.restocking.orders import APPROVED as ORDER_APPROVED
from pipelines.restocking.orders import TERMINAL as ORDER_ENDED
from pipelines.shipments.routing.alternatives import APPROVED, OFFERED, TRANSFER, situation_of
from pipelines.shipments.routing.steering import PREFIX, approval_id, option_of
from pipelines.shipments.stakes import Row, spare_units
from pipelines.shipments.tracking import CREATED, TERMINAL

REROUTE = "reroute"
"""The action, as audits name it."""

MOMENT = timedelta(milliseconds=1)

Events = list[dict[str, Any]]
Pending = Callable[[str], Events]
"""Events about an order that are decided and may not be in the ledger yet."""


def nothing_pending(_: str) -> Events:
    """All that was decided is in the ledger."""
    return []


@dataclass(frozen=True)
class Reroute:
    """An approval to be recorded and sent. `event` is the `restock.order_status` event."""

    option: Row
    order_id: str
    event: dict[str, Any]
    before: dict[str, Any]
    after: dict[str, Any]
    response: dict[str, Any]


def find_shipment(tables: Tables, shipment_id: str) -> Row:
    """A row of `gold/shipments`.

    Raises:
        UnknownShipmentError: there is none.
    """
    for row in tables.read(SHIPMENTS, where=pc.field("shipment_id") == shipment_id).to_pylist():
        return dict(row)
    raise UnknownShipmentError(f"there is no shipment {shipment_id}; `stockcast shipments list` shows those at risk")


def options_of(tables: Tables, shipment_id: str) -> list[Row]:
    """Its options, the newest offers first and the best of them first; `approved` is the row of the approval."""
    rows = tables.read(REROUTES, where=pc.field("shipment_id") == shipment_id).sort_by("at").to_pylist()
    approved = {row["option_id"]: row for row in rows if row["state"] == APPROVED}
    offers: dict[str, Row] = {row["option_id"]: row for row in rows if row["state"] == OFFERED}
    found = [{**row, "approved": approved.get(name)} for name, row in offers.items()]
    return sorted(found, key=lambda row: (-row["at"].timestamp(), -_worth(row), row["option_id"]))


def _worth(row: Row) -> float:
    return float(-row["cost"] if row["net_benefit"] is None else row["net_benefit"])


def prepare(
    tables: Tables,
    shipment_id: str,
    option_id: str,
    said: tuple[str, str | None],
    now: datetime,
    pending: Pending = nothing_pending,
) -> Reroute:
    """An approval, checked.

    Args:
        said: who approves, and why.
        now: when; the way begins then.

    Raises:
        UnknownShipmentError: no such shipment or option. RerouteConflictError: nothing was done; says why.
    """
    shipment = find_shipment(tables, shipment_id)
    options = options_of(tables, shipment_id)
    option = next((row for row in options if row["option_id"] == option_id), None)
    if option is None:
        known = ", ".join(row["option_id"] for row in options) or "none"
        raise UnknownShipmentError(f"shipment {shipment_id} has no option {option_id}; it has {known}")
    _check_under_way(shipment)
    _check_approvals(tables, shipment, options, option, pending)
    if option["kind"] == TRANSFER:
        _check_spare(tables, option, pending)
    else:
        _check_situation(shipment, option)
    # It answers the newest word of the carrier's, whatever the clocks say.
    return _reroute(shipment, option, said, max(now, shipment["state_time"] + MOMENT))


def _check_under_way(shipment: Row) -> None:
    name, state = shipment["shipment_id"], shipment["state"]
    if state in TERMINAL:
        when = "" if shipment["delivered"] is None else f" since {shipment['delivered']:%Y-%m-%d %H:%M}"
        raise RerouteConflictError(f"shipment {name} is {state}{when}: there is nothing to send another way")


def _check_situation(shipment: Row, option: Row) -> None:
    if situation_of(shipment) != option["situation"]:
        name = shipment["shipment_id"]
        raise RerouteConflictError(
            f"shipment {name} is {shipment['state']} at {shipment['node']}, and the option was for {option['node']}; "
            f"`stockcast shipments show {name}` shows what can be done now"
        )


def _check_approvals(tables: Tables, shipment: Row, options: list[Row], option: Row, pending: Pending) -> None:
    """Approving twice does no harm, and two ways at once cannot be gone."""
    name = shipment["shipment_id"]
    for other in options:
        alike = other["option_id"] == option["option_id"]
        both = option["kind"] != TRANSFER != other["kind"] and other["situation"] == option["situation"]
        if not (alike or both):
            continue
        if (event := _approval(tables, other, pending)) is not None:
            by = f"by {event['actor'] or 'unknown'} on {event['event_time']:%Y-%m-%d %H:%M}"
            what = "this option was approved" if alike else f"it was sent another way ({other['description']})"
            raise RerouteConflictError(f"shipment {name}: {what} {by}; nothing was done now")


def _approval(tables: Tables, option: Row, pending: Pending) -> Row | None:
    """The event that approved an option: entered, in the ledger, or on its way there."""
    if (entered := option["approved"]) is not None:
        return {"actor": entered["actor"], "event_time": entered["at"]}
    order_id = order_of(option)
    where = pc.field("order_id") == order_id
    known = tables.read(ORDER_STATUS, ("event_id", "event_time", "actor"), where).to_pylist()
    for event in (*known, *pending(order_id)):
        if event["event_id"].startswith(PREFIX) and option_of(event["event_id"]) == option["option_id"]:
            at = event["event_time"]
            moment = as_datetime(parse_time(at)) if isinstance(at, str) else at
            return {"actor": event.get("actor"), "event_time": moment}
    return None


def _check_spare(tables: Tables, option: Row, pending: Pending) -> None:
    """A sibling never gives more than it has to spare, transfers that it has not sent yet counted in."""
    where = (pc.field("source") == option["source"]) & (pc.field("sku") == option["sku"])
    rows = tables.read(REROUTES, where=where & (pc.field("state") == OFFERED)).sort_by("at").to_pylist()
    others = {row["option_id"]: row for row in rows if row["option_id"] != option["option_id"]}
    promised = sum(row["units"] for row in others.values() if _is_under_way(tables, order_of(row), pending))
    spare = spare_units(tables, option["source"], option["sku"]) - promised
    if spare < option["units"]:
        raise RerouteConflictError(
            f"{option['source']} can spare {max(spare, 0)} units of {option['sku']} now"
            f"{f' ({promised} are promised to others)' if promised else ''}, not {option['units']}; nothing was done"
        )


def _is_under_way(tables: Tables, order_id: str, pending: Pending) -> bool:
    try:
        return find_order(tables, order_id)["state"] not in ORDER_ENDED
    except UnknownOrderError:
        return bool(pending(order_id))


def order_of(option: Row) -> str:
    """The order that an option's approval is about: for a transfer a new one, whose id follows from the option."""
    return identifier("m", option["option_id"]) if option["kind"] == TRANSFER else str(option["order_id"])


def _reroute(shipment: Row, option: Row, said: tuple[str, str | None], now: datetime) -> Reroute:
    actor, reason = said
    at, order_id = as_microseconds(now), order_of(option)
    arrival = now + timedelta(hours=option["hours"])
    eta = format_time(as_microseconds(arrival))
    key = sha256(f"{actor}|{at}".encode()).hexdigest()
    event: dict[str, Any] = {
        "event_id": approval_id(option["option_id"], key),
        "event_time": format_time(at),
        "order_id": order_id,
        "eta": eta,
        "actor": actor,
        **_what(shipment, option, reason),
    }
    response = {
        "shipment_id": shipment["shipment_id"],
        "option": option["option_id"],
        "kind": option["kind"],
        "order_id": order_id,
        "eta": eta,
        "quantity": event.get("quantity"),
        "event_id": event["event_id"],
        "decided_at": event["event_time"],
        "decided_by": actor,
    }
    names = ("shipment_id", "state", "node", "carrier_id", "mode", "eta", "expected_arrival")
    before = {name: shipment[name] for name in names}
    told = {"option": option["option_id"], "description": option["description"], "cost": option["cost"], "eta": eta}
    after = {**told, **_series(shipment, option)}
    return Reroute(option, order_id, event, before, after, {n: v for n, v in response.items() if v is not None})


def _series(shipment: Row, option: Row) -> dict[str, Any]:
    """Whose order the approval is about, and of how much."""
    lines = [line for line in shipment["lines"] if line["order_id"] == option["order_id"]]
    line: dict[str, Any] = lines[0] if lines else {}
    sku, units = option["sku"] or line.get("sku"), option["units"] or line.get("quantity")
    said = {"location_id": option["location_id"] or shipment["destination"], "sku": sku, "quantity": units}
    return {name: value for name, value in said.items() if value is not None}


def _what(shipment: Mapping[str, Any], option: Row, reason: str | None) -> dict[str, Any]:
    because = f": {reason}" if reason else ""
    if option["kind"] == TRANSFER:
        return {
            "status": ORDER_APPROVED,
            "location_id": option["location_id"],
            "sku": option["sku"],
            "supplier_id": option["source"],
            "quantity": option["units"],
            "reason": f"transfer from {option['source']} while shipment {shipment['shipment_id']} is late{because}",
        }
    by = option["carrier_id"] if option["kind"] != "expedite" else "an express carrier"
    return {
        "status": "acknowledged" if shipment["state"] == CREATED else "shipped",
        "reason": f"shipment {shipment['shipment_id']} goes on with {by} by {option['mode']}{because}",
    }
