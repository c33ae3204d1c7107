"""Following the shipments: owner of `gold/shipments`.

The table is a function of the *set* of events in `silver/shipment_events` up to a place in the order of ingestion.
Events of shipments under way are kept in memory; those of one that has ended are read again should a late one come.
One commit enters all that changed, with the place up to which the table is complete, so that a restart goes on there.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from operator import attrgetter, itemgetter
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import SHIPMENT_EVENTS, SHIPMENTS
from pipelines.ingestion.batches import last_sequence
from pipelines.io.delta import Tables
from pipelines.operations.failpoints import failpoint
from pipelines.operations.settings import ShipmentsSettings
from pipelines.shipments.tracking import TERMINAL, Event, Shipment, Story

log = logging.getLogger("stockcast.shipments")

SAVE_SHARE = 0.2
"""At most this share of the time goes into saving."""
POLL_SECONDS = 0.2

_EVENT_COLUMNS = (
    *("event_id", "event_time", "status", "node", "eta", "order_id", "sku", "quantity"),
    *("supplier_id", "carrier_id", "mode", "origin", "destination", "latitude", "longitude"),
)

Assess = Callable[[dict[str, Shipment], datetime], dict[str, dict[str, Any]]]
"""Chance of being late and expected arrival, by shipment id, of shipments under way: columns of `gold/shipments`."""


Tell = Callable[[list[dict[str, Any]], datetime], None]
"""Told of changed rows of `gold/shipments` before they are saved; notes in `announced` what it has told others."""


class Steering(Protocol):
    """Ways that people sent shipments instead of the planned ones."""

    def resume(self) -> None:
        """Go on from what is known."""

    def news(self) -> set[str]:
        """Shipments that were sent another way since the last time."""

    def amend(self, row: dict[str, Any], eta_time: datetime | None, now: datetime) -> None:
        """Put that into a row of `gold/shipments`; `eta_time`: when its carrier's latest estimate was made."""

    def option(self, shipment_id: str) -> str | None:
        """How a shipment was sent, if it was sent another way."""

    def forget(self, shipment_id: str) -> None:
        """It has ended."""


class AsPlanned:
    """Nobody sends shipments another way."""

    def resume(self) -> None:
        """Nothing is known."""

    def news(self) -> set[str]:
        """None."""
        return set()

    def amend(self, row: dict[str, Any], eta_time: datetime | None, now: datetime) -> None:
        """Leave it."""

    def option(self, shipment_id: str) -> str | None:
        """As planned."""
        return None

    def forget(self, shipment_id: str) -> None:
        """Nothing is known."""


def no_assessment(_: dict[str, Shipment], __: datetime) -> dict[str, dict[str, Any]]:
    """Nothing is known of how late shipments will be."""
    return {}


def tell_nobody(_: list[dict[str, Any]], __: datetime) -> None:
    """Nobody waits."""


class ShipmentTracker:
    """Brings `gold/shipments` forward to what has been taken in.

    Args:
        assess: asked at every save for the changed shipments that are under way.
        tell: told of the changed shipments at every save.
        steer: asked which shipments people sent another way.
        clock: wall time; it is recorded, and shipments are assessed as of then.
        upkeep: called between commits, to keep the table in order.
    """

    def __init__(
        self,
        tables: Tables,
        settings: ShipmentsSettings,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        assess: Assess = no_assessment,
        tell: Tell = tell_nobody,
        steer: Steering | None = None,
        upkeep: Callable[[], None] = lambda: None,
    ) -> None:
        self._tables, self._settings, self._clock = tables, settings, clock
        self._assess, self._tell, self._upkeep = assess, tell, upkeep
        self._steer: Steering = AsPlanned() if steer is None else steer
        self._announced: dict[str, datetime] = {}
        self._under_way: dict[str, Story] = {}
        self._ended: set[str] = set()
        self._changed: set[str] = set()
        self._sequence = 0
        self._saved_at, self._save_cost = time.monotonic(), 0.0

    @property
    def sequence(self) -> int:
        """Place in the order of ingestion up to which all is tracked."""
        return self._sequence

    def resume(self) -> None:
        """Go on from what the table holds."""
        self._tables.ensure(SHIPMENTS)
        self._steer.resume()
        rows = self._tables.read(SHIPMENTS, ("shipment_id", "state", "sequence", "announced", "reroute"))
        self._sequence = pc.max(rows["sequence"]).as_py() or 0
        ended = pc.is_in(rows["state"], pa.array(sorted(TERMINAL)))
        self._ended = set(rows.filter(ended)["shipment_id"].to_pylist())
        under_way = rows.filter(pc.invert(pc.fill_null(ended, False)))
        self._load(under_way["shipment_id"].to_pylist())
        told = under_way.filter(pc.is_valid(under_way["announced"]))
        self._announced = dict(zip(told["shipment_id"].to_pylist(), told["announced"].to_pylist(), strict=True))
        # Approved, and the process died before it was entered here.
        saved = zip(under_way["shipment_id"].to_pylist(), under_way["reroute"].to_pylist(), strict=True)
        self._changed.update(name for name, option in saved if self._steer.option(name) != option)
        log.info(
            "%d shipments under way, %d ended, at ingest place %d",
            *(len(self._under_way), len(self._ended), self._sequence),
        )

    def catch_up(self) -> int:
        """Take in what finished batches have brought; returns the number of events."""
        target, events = last_sequence(self._tables), 0
        while self._sequence < target:
            upto = min(target, self._sequence + self._settings.catch_up_rows)
            events += self._advance(upto)
        self._changed.update(name for name in self._steer.news() if name in self._under_way)
        self._save_if_due()
        return events

    def run(self, stopped: Callable[[float], bool]) -> None:
        """Follow until `stopped(seconds)`, which waits at most so long, says so; then save."""
        version = -1
        while not stopped(POLL_SECONDS):
            if (newest := self._tables.version(SHIPMENT_EVENTS)) != version:
                self.catch_up()
                version = newest
            self._changed.update(name for name in self._steer.news() if name in self._under_way)
            self._save_if_due()
        self.save()

    def save(self) -> None:
        """Enter what changed: one commit."""
        if not self._changed:
            return
        started, now = time.monotonic(), self._clock()
        stories = {name: self._under_way[name] for name in sorted(self._changed)}
        under_way = {name: story.shipment for name, story in stories.items() if _is_under_way(story.shipment)}
        assessed = self._assess(under_way, now)
        rows = [self._row(name, story, now, assessed.get(name, {})) for name, story in stories.items()]
        self._tell(rows, now)
        failpoint("shipments.before_saving")
        self._tables.upsert(SHIPMENTS, _table(rows), keys=("shipment_id",))
        failpoint("shipments.after_saving")
        self._announced.update({row["shipment_id"]: row["announced"] for row in rows if row["announced"]})
        for name in stories.keys() - under_way.keys():
            del self._under_way[name]
            self._announced.pop(name, None)
            self._steer.forget(name)
            self._ended.add(name)
        self._changed.clear()
        self._saved_at = time.monotonic()
        self._save_cost = self._saved_at - started

    def _row(self, name: str, story: Story, now: datetime, assessed: dict[str, Any]) -> dict[str, Any]:
        row = _row(name, story, now, assessed)
        row["announced"] = self._announced.get(name)
        if story.shipment.state not in TERMINAL:
            self._steer.amend(row, story.shipment.eta_time, now)
        return row

    def _save_if_due(self) -> None:
        if time.monotonic() - self._saved_at >= max(self._settings.save_seconds, self._save_cost / SAVE_SHARE):
            self.save()
            self._upkeep()

    def _advance(self, upto: int) -> int:
        where = (pc.field("sequence") > self._sequence) & (pc.field("sequence") <= upto)
        rows = self._tables.read(SHIPMENT_EVENTS, ("shipment_id", "sequence", *_EVENT_COLUMNS), where)
        # A late event of a shipment that has ended: its story is needed again.
        names = rows["shipment_id"].unique().to_pylist()
        self._load([name for name in names if name in self._ended])
        under_way, changed = self._under_way, self._changed
        for name, sequence, event in _events(rows):
            if (story := under_way.get(name)) is None:
                story = under_way[name] = Story()
            story.add(event, sequence)
            changed.add(name)
        self._sequence = upto
        return int(rows.num_rows)

    def _load(self, names: list[str]) -> None:
        """Put the stories of these shipments, up to the present place, into memory."""
        if not names:
            return
        where = pc.field("shipment_id").isin(names) & (pc.field("sequence") <= self._sequence)
        rows = self._tables.read(SHIPMENT_EVENTS, ("shipment_id", "sequence", *_EVENT_COLUMNS), where)
        events, places = defaultdict(list), dict.fromkeys(names, 0)
        for name, sequence, event in _events(rows):
            events[name].append(event)
            places[name] = max(places[name], sequence)
        for name in names:
            story = self._under_way[name] = Story(events[name])
            story.place = places[name]
        self._ended.difference_update(names)


def _is_under_way(shipment: Shipment) -> bool:
    return shipment.state not in TERMINAL


def _events(rows: pa.Table) -> Iterator[tuple[str, int, Event]]:
    columns = [_values(rows[name]) for name in _EVENT_COLUMNS]
    events = map(Event._make, zip(*columns, strict=True))
    return zip(rows["shipment_id"].to_pylist(), rows["sequence"].to_pylist(), events, strict=True)


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Python values; a time that repeats, or a name, is made once (estimates and names repeat often)."""
    if pa.types.is_timestamp(column.type) or pa.types.is_string(column.type):
        encoded = column.combine_chunks().dictionary_encode()
        if len(encoded.dictionary) * 2 < len(encoded):
            known = [*encoded.dictionary.to_pylist(), None]
            return [known[index] for index in encoded.indices.fill_null(len(known) - 1).to_pylist()]
    values: list[Any] = column.to_pylist()
    return values


_COPIED = (
    *("state", "interrupted", "supplier_id", "carrier_id", "mode", "origin", "destination", "node"),
    *("latitude", "longitude", "started", "state_time", "since", "promised", "eta", "delivered"),
)
_copied = attrgetter(*_COPIED)
_EMPTY: dict[str, Any] = dict.fromkeys(SHIPMENTS.schema.names)


def _row(name: str, story: Story, now: datetime, assessed: dict[str, Any]) -> dict[str, Any]:
    shipment = story.shipment
    lines = (
        shipment.lines if len(shipment.lines) < 2 else sorted(shipment.lines, key=lambda line: tuple(map(str, line)))
    )
    return {
        **_EMPTY,
        "shipment_id": name,
        **dict(zip(_COPIED, _copied(shipment), strict=True)),
        "lines": [{"order_id": order_id, "sku": sku, "quantity": quantity} for order_id, sku, quantity in lines],
        "events": len(story),
        "set_aside": [{"event_id": one.event_id, "reason": one.reason} for one in shipment.set_aside],
        **assessed,
        "sequence": story.place,
        "tracked_at": now,
    }


def _table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows of `gold/shipments`, column by column."""
    columns = [pa.array(list(map(itemgetter(field.name), rows)), field.type) for field in SHIPMENTS.schema]
    return pa.table(columns, schema=SHIPMENTS.schema)
