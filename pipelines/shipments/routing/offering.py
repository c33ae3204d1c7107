"""Alternatives for shipments at risk, kept in `gold/reroutes`: thought of anew when a shipment has moved on."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import LOCATIONS, REROUTES, SHIPMENT_EVENTS, TIME
from pipelines.io.delta import Tables
from pipelines.operations.settings import Settings
from pipelines.shipments.routing.alternatives import OFFERED, Case, alternatives, as_offer, going_on, situation_of
from pipelines.shipments.routing.lanes import COLUMNS, Lanes, learn_lanes
from pipelines.shipments.stakes import Row, Waiting

log = logging.getLogger("stockcast.shipments")

REMEMBERED_DAYS = 60.0
"""Older offers are not looked for at a start."""


class Router:
    """Thinks of alternatives. One a home: it writes the offers of `gold/reroutes`."""

    def __init__(self, tables: Tables, settings: Settings) -> None:
        self._tables, self._settings = tables, settings
        self._lanes: Lanes | None = None
        self._learnt_at = 0.0
        self._offers: dict[str, tuple[str, list[Row]]] | None = None

    def lanes(self, now: datetime) -> Lanes:
        """The lanes as learnt when they were last due."""
        due = self._settings.routing.learn_hours * 3600
        if self._lanes is None or time.monotonic() - self._learnt_at >= due:
            self._lanes = lanes_of(self._tables, self._settings, now)
            self._learnt_at = time.monotonic()
            graph = self._lanes.graph
            log.info("%d lanes between %d nodes learnt", graph.number_of_edges(), graph.number_of_nodes())
        return self._lanes

    @property
    def at_once(self) -> int:
        """Shipments that are thought of at one save, at most."""
        return self._settings.routing.thought_at_once

    def is_due(self, row: Row, now: datetime) -> bool:
        """Whether a shipment at risk is where nobody has thought of it yet."""
        known = self._known(now).get(row["shipment_id"])
        return known is None or known[0] != situation_of(row)

    def has_offered_since(self, row: Row, moment: datetime, now: datetime) -> bool:
        """Whether there are offers for where a shipment is that were made after a moment."""
        situation, offers = self._known(now).get(row["shipment_id"], ("", []))
        return situation == situation_of(row) and any(offer["at"] > moment for offer in offers)

    def offers(
        self, rows: Sequence[tuple[Row, Sequence[Waiting]]], arrivals: Mapping[str, datetime], now: datetime
    ) -> dict[str, list[Row]]:
        """The offers of each shipment, the best first; new ones are entered, in one commit. How many are thought of at
        once is for the caller to bound (`at_once`): thousands take minutes.

        Args:
            arrivals: when each is expected if nothing is done.
        """
        known, new = self._known(now), []
        for row, waiting in rows:
            if not self.is_due(row, now):
                continue
            name, routing = row["shipment_id"], self._settings.routing
            found: list[Row] = []
            if waiting:
                case = Case(row, waiting, now, going_on(row, arrivals[name], now, routing))
                thought = alternatives(case, self.lanes(now), routing, self._settings.planning)
                found = [as_offer(one, row, now) for one in thought]
            known[name] = (situation_of(row), found)
            new += found
        if new:
            self._tables.append(REROUTES, pa.Table.from_pylist(new, schema=REROUTES.schema))
        return {row["shipment_id"]: known[row["shipment_id"]][1] for row, _ in rows}

    def forget(self, shipment_id: str) -> None:
        """It has ended."""
        if self._offers is not None:
            self._offers.pop(shipment_id, None)

    def _known(self, now: datetime) -> dict[str, tuple[str, list[Row]]]:
        """What has been offered, so that a restart tells the same."""
        if self._offers is None:
            self._tables.ensure(REROUTES)
            since = pa.scalar(now - timedelta(days=REMEMBERED_DAYS), TIME)
            where = (pc.field("state") == OFFERED) & (pc.field("at") >= since)
            self._offers = {}
            for row in self._tables.read(REROUTES, where=where).sort_by("at").to_pylist():
                situation, offers = self._offers.get(row["shipment_id"], ("", []))
                if situation != row["situation"] or offers[0]["at"] != row["at"]:
                    situation, offers = row["situation"], []
                self._offers[row["shipment_id"]] = (situation, [*offers, row])
        return self._offers


def lanes_of(tables: Tables, settings: Settings, now: datetime) -> Lanes:
    """Lanes of the last year's shipments, as of now."""
    since = pa.scalar(now - timedelta(days=settings.routing.history_days), TIME)
    where = (pc.field("event_time") > since) & (pc.field("event_time") <= pa.scalar(now, TIME))
    events = tables.read(SHIPMENT_EVENTS, COLUMNS, where)
    located = tables.read(LOCATIONS, ("location_id", "latitude", "longitude")).to_pylist()
    places = {
        row["location_id"]: (row["latitude"], row["longitude"])
        for row in located
        if row["latitude"] is not None and row["longitude"] is not None
    }
    return learn_lanes(events, places, settings.routing, now)


def shown(offer: Row) -> dict[str, Any]:
    """An offer as an alert and as programs show it."""
    return {
        "option": offer["option_id"],
        "kind": offer["kind"],
        "description": offer["description"],
        "cost": round(offer["cost"], 2),
        "expected_arrival": offer["arrival"],
        "earliest_arrival": offer["earliest"],
        "latest_arrival": offer["latest"],
        "on_time_probability": round(offer["on_time_probability"], 3),
        "in_stock_probability": round(offer["in_stock_probability"], 3),
        "avoided_units": round(offer["avoided_units"], 2),
        "avoided_loss": None if offer["avoided_loss"] is None else round(offer["avoided_loss"], 2),
        "net_benefit": None if offer["net_benefit"] is None else round(offer["net_benefit"], 2),
        "command": command(offer),
    }


def command(offer: Row) -> str:
    """What approves it."""
    return f"stockcast shipments reroute {offer['shipment_id']} {offer['option_id']} --reason 'it is late'"
