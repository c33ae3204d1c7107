"""Orders from `restock.orders` to the supplier's API, behind the relay; what came of each is kept in a table.

An order is done when its answer is in `gold/supplier_calls` and the status event that follows from it is sent; only
then does the consumer's place move past it. A stage that died goes on from there: an order whose answer was not
stored is called again with the same key, one whose answer was stored only sends its event again, which has the same
id. Orders wait for their retries side by side, so one that does not get through holds up none of the others.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from tenacity import Retrying, stop_after_delay, wait_fixed

from pipelines.contracts import topics
from pipelines.contracts.identifiers import identifier
from pipelines.contracts.tables import LOCATIONS, ORDER_OUTBOX, ORDER_STATUS, SUPPLIER_CALLS, SUPPLIERS
from pipelines.errors import StockcastError
from pipelines.ingestion.times import as_datetime, as_microseconds, format_time
from pipelines.io import kafka
from pipelines.io.delta import Tables
from pipelines.operations.failpoints import failpoint
from pipelines.operations.maintenance import TableKeeper
from pipelines.operations.settings import Settings
from pipelines.restocking.consumed import Place, Places
from pipelines.restocking.orders import ACKNOWLEDGED, CANCELLED, REJECTED, SENT
from pipelines.restocking.supplier import (
    INTERNAL,
    PARKED,
    RETRY,
    WITHDRAWN,
    Answer,
    NotNowError,
    SupplierApi,
    newest_calls,
    parked_orders,
)

log = logging.getLogger("stockcast.suppliers")

GROUP = "stockcast-suppliers"
WINDOW = 1_000
"""Orders under way at most; more are left in Kafka meanwhile."""

Row = dict[str, Any]
Publish = Callable[[str, Iterable[tuple[str, bytes]]], None]

NEW_PARTITIONS_SECONDS = 10.0
SAVING_SECONDS = 30.0


@dataclass(frozen=True)
class _Underway:
    """An order that is being sent, and where it stands in Kafka (nowhere: it came from the outbox)."""

    answer: Future[Answer]
    places: list[Place]


class OrderSender:
    """The one writer of `gold/supplier_calls`; the caller holds the ownership of `send_orders`.

    Args:
        clock: wall time, recorded.
        once: gives up on an order after `supplier_api.retry_seconds`, and says so at the end.

    Raises:
        UsageError: the URL or the secret is not fit.
    """

    def __init__(
        self, settings: Settings, tables: Tables, clock: Callable[[], datetime], *, once: bool = False
    ) -> None:
        self._settings = settings
        self._tables = tables
        self._keeper = TableKeeper(tables, settings, (SUPPLIER_CALLS,))
        self._clock = clock
        self._loop = asyncio.new_event_loop()
        self._api = SupplierApi(settings.supplier_api, clock, self._delayed, patient=not once)
        self._underway: dict[str, _Underway] = {}
        self._places = Places()
        self._at_end: set[int] = set()
        self._given_up: list[str] = []
        kafka.prepare(settings, read=(topics.RESTOCK_ORDERS,), write=(topics.ORDER_STATUS, topics.ALERTS))
        tables.ensure(SUPPLIER_CALLS)
        self._known, waiting = self._outcomes()
        self._producer = kafka.producer(settings)
        self._alerts = kafka.producer(settings)
        self._thread = threading.Thread(target=self._loop.run_forever, name="supplier-calls", daemon=True)
        self._thread.start()
        for order_id, payload in self._payloads(waiting).items():
            self._start(order_id, payload, [])
        # Assigned by hand: as the one member of a group we would wait for our killed predecessor to be given up.
        self._consumer: Consumer = kafka.consumer(settings, GROUP, **{"enable.partition.eof": True})
        self._partitions: set[int] = set()
        self._begun: dict[int, int] = {}
        self._looked_at = 0.0

    def run(self, stopped: Callable[[float], bool]) -> None:
        """Send until `stopped(seconds)`, which waits at most so long, says so."""
        while not stopped(0.0):
            self.step(0.2)

    def run_once(self, patience: float = 60.0) -> None:
        """Send what there is.

        Raises:
            StockcastError: some could not be sent in time; a later run goes on with them.
        """
        deadline = time.monotonic() + patience
        while self._underway or not self._partitions or self._at_end < self._partitions:
            if self.step(0.2):
                deadline = time.monotonic() + patience
            if not self._underway and time.monotonic() > deadline:
                raise StockcastError(f"{topics.RESTOCK_ORDERS} could not be read to its end within {patience:g} s")
        if self._given_up:
            raise StockcastError(
                f"{len(self._given_up)} orders could not be sent, such as {self._given_up[0]}; run this again when the "
                "supplier's API answers"
            )

    def step(self, timeout: float) -> int:
        """Take in orders that have come and enter answers that have come; returns how many there were of both."""
        self._assign_new_partitions()
        room = WINDOW - len(self._underway)
        if room <= 0:
            time.sleep(timeout)
        orders = []
        for message in self._consumer.consume(room, timeout) if room > 0 else ():
            if (error := message.error()) is None:
                self._at_end.discard(message.partition())
                orders.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._at_end.add(message.partition())
            else:
                log.warning("%s cannot be read just now: %s", topics.RESTOCK_ORDERS, error.str())
        self._take(orders)
        return len(orders) + self._enter()

    def retry_parked(self) -> int:
        """Send parked orders again, after whatever stopped them was mended; returns their number."""
        parked = parked_orders(self._tables)
        now = self._clock()
        self._store([{"order_id": order_id, "outcome": RETRY, "answered_at": now} for order_id in parked])
        self._known.difference_update(parked)
        for order_id, payload in self._payloads(parked).items():
            self._start(order_id, payload, [])
        return len(parked)

    def close(self) -> None:
        """Break off what is under way: the next start goes on with it."""
        for order in self._underway.values():
            order.answer.cancel()
        asyncio.run_coroutine_threadsafe(self._api.close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._alerts.flush(10)
        self._consumer.close()

    def _assign_new_partitions(self) -> None:
        """Read every partition from its saved place on; those added meanwhile are noticed within seconds."""
        if time.monotonic() < self._looked_at + NEW_PARTITIONS_SECONDS:
            return
        self._looked_at = time.monotonic()
        try:
            found = self._consumer.list_topics(topics.RESTOCK_ORDERS, timeout=15).topics[topics.RESTOCK_ORDERS]
            new = sorted(set(found.partitions) - self._partitions)
            if not new:
                return
            saved = self._consumer.committed([TopicPartition(topics.RESTOCK_ORDERS, number) for number in new], 15)
        except KafkaException as error:
            log.warning("%s cannot be read just now: %s", topics.RESTOCK_ORDERS, error.args[0].str())
            self._looked_at = 0.0
            return
        for place in saved:
            self._begun[place.partition] = int(place.metadata or 0)
            place.offset = place.offset if place.offset >= 0 else OFFSET_BEGINNING
        self._consumer.incremental_assign(saved)
        self._partitions.update(new)

    def _take(self, messages: list[Any]) -> None:
        found = []
        for message in messages:
            place = (message.partition(), message.offset())
            self._places.begin(place)
            order_id = (message.key() or b"").decode("utf-8", "replace")
            if not order_id or not message.value():
                log.warning("%s[%d]@%d is no order; it is left", topics.RESTOCK_ORDERS, *place)
                self._places.end(place)
                continue
            found.append((order_id, message.value(), place))
        if not found:
            return
        called_off = self._called_off([order_id for order_id, *_ in found])
        inside = self._locations()
        repeated: list[tuple[str, Place]] = []
        withdrawn: list[tuple[Answer, list[Place]]] = []
        new: list[tuple[str, bytes, Place]] = []
        for order_id, payload, place in found:
            if order_id in self._underway:
                self._underway[order_id].places.append(place)
            elif order_id in self._known:
                repeated.append((order_id, place))
            elif order_id in called_off and place[1] >= self._begun.get(place[0], 0):
                why = f"{called_off[order_id]} before it was sent"
                withdrawn.append((Answer(order_id, WITHDRAWN, 0, "", why, 0), [place]))
            elif (source := _source_of(payload)) in inside:
                withdrawn.append((Answer(order_id, INTERNAL, 0, "", f"transfer from {source}", 0), [place]))
            else:
                new.append((order_id, payload, place))
        self._finish(withdrawn)
        if repeated:
            rows = self._tables.read(SUPPLIER_CALLS, where=pc.field("order_id").isin([name for name, _ in repeated]))
            self._tell(list(newest_calls(rows.to_pylist()).values()))
            self._end(place for _, place in repeated)
        if new:
            self._begin(place for *_, place in new)
        for order_id, payload, place in new:
            self._start(order_id, payload, [place])

    def _begin(self, places: Iterable[Place]) -> None:
        """Save, before they are called, up to where orders were called: one that was called off while we were dead may
        be with the supplier, so it is called again to learn that.

        Raises:
            KafkaException: the broker does not take it; nothing was called.
        """
        for partition, offset in places:
            self._begun[partition] = max(offset + 1, self._begun.get(partition, 0))
        for attempt in Retrying(stop=stop_after_delay(SAVING_SECONDS), wait=wait_fixed(0.5), reraise=True):
            with attempt:
                self._save(self._places.done())

    def _start(self, order_id: str, payload: bytes, places: list[Place]) -> None:
        answer = asyncio.run_coroutine_threadsafe(self._api.send(order_id, payload), self._loop)
        self._underway[order_id] = _Underway(answer, places)

    def _enter(self) -> int:
        """Enter the answers that have come: the table, then the events, then the place in Kafka."""
        done = {order_id: order for order_id, order in self._underway.items() if order.answer.done()}
        answers = []
        for order_id, order in done.items():
            del self._underway[order_id]
            try:
                answers.append((order.answer.result(), order.places))
            except NotNowError as error:
                log.warning("order %s could not be sent: %s", order_id, error)
                self._given_up.append(order_id)
            except Exception as error:
                log.exception("order %s cannot be sent", order_id)
                why = f"it cannot be sent: {type(error).__name__}: {error}"
                answers.append((Answer(order_id, PARKED, 0, "", why, 1), order.places))
        self._finish(answers)
        return len(done)

    def _finish(self, answers: list[tuple[Answer, list[Place]]]) -> None:
        if not answers:
            return
        rows = [_row(answer, self._clock()) for answer, _ in answers]
        self._store(rows)
        self._known.update(row["order_id"] for row in rows)
        failpoint("supplier.after_storing")
        self._tell(rows)
        self._end(place for _, places in answers for place in places)

    def _tell(self, rows: list[Row]) -> None:
        """The events that follow from stored answers; the same rows always give the same events."""
        events = [(row["order_id"], _status_event(row)) for row in rows if row["outcome"] in {ACKNOWLEDGED, SENT}]
        if events:
            kafka.send(self._producer, topics.ORDER_STATUS, events)
        for row in rows:
            if row["outcome"] == PARKED:
                log.error("order %s is parked: %s", row["order_id"], row["reason"])
                said = f"Order {row['order_id']} was not taken by the supplier: {row['reason']}"
                self._alert("order_parked", "critical", row["order_id"], said, row["answered_at"])

    def _delayed(self, order_id: str, why: str) -> None:
        said = f"Order {order_id} does not get through to the supplier ({why}); it is tried on"
        log.warning(said)
        self._alert("order_delayed", "high", order_id, said, self._clock())

    def _alert(self, kind: str, severity: str, order_id: str, message: str, at: datetime) -> None:
        stamp = format_time(as_microseconds(at))
        alert = {
            "alert_id": identifier("a", kind, order_id),
            "kind": kind,
            "severity": severity,
            "subject": order_id,
            "message": message,
            "event_time": stamp,
            "raised_at": stamp,
            "details": {},
        }
        self._alerts.produce(topics.ALERTS, orjson.dumps(alert), key=order_id)
        self._alerts.poll(0)

    def _end(self, places: Iterable[Place]) -> None:
        for place in places:
            self._places.end(place)
        moved = self._places.moved()
        if moved:
            try:
                self._save(moved)
            except KafkaException as error:
                log.warning("the place in %s was not saved: %s", topics.RESTOCK_ORDERS, error.args[0].str())

    def _save(self, places: list[Place]) -> None:
        """Places go into the group's offsets; up to where orders were called goes into their metadata."""
        saved = [
            TopicPartition(topics.RESTOCK_ORDERS, partition, offset, metadata=str(self._begun.get(partition, 0)))
            for partition, offset in places
        ]
        self._consumer.commit(offsets=saved, asynchronous=False)

    def _store(self, rows: list[Row]) -> None:
        if rows:
            self._tables.append(SUPPLIER_CALLS, pa.Table.from_pylist(rows, schema=SUPPLIER_CALLS.schema))
            self._keeper.tick()

    def _outcomes(self) -> tuple[set[str], list[str]]:
        """The orders that need no call any more, and those that are to be sent again."""
        newest = newest_calls(self._tables.read(SUPPLIER_CALLS, ("order_id", "outcome", "answered_at")).to_pylist())
        waiting = [order_id for order_id, row in newest.items() if row["outcome"] == RETRY]
        return set(newest) - set(waiting), waiting

    def _payloads(self, order_ids: list[str]) -> dict[str, bytes]:
        if not order_ids:
            return {}
        rows = self._tables.read(ORDER_OUTBOX, ("order_id", "payload"), pc.field("order_id").isin(order_ids))
        return {row["order_id"]: row["payload"].encode() for row in rows.to_pylist()}

    def _locations(self) -> set[str]:
        """Locations that are no suppliers: what is asked of them is a transfer, which they see on `restock.orders`."""
        there = self._tables.read(LOCATIONS, ("location_id",))["location_id"].to_pylist()
        return set(there) - set(self._tables.read(SUPPLIERS, ("supplier_id",))["supplier_id"].to_pylist())

    def _called_off(self, order_ids: list[str]) -> dict[str, str]:
        where = pc.field("order_id").isin(order_ids) & pc.field("status").isin([REJECTED, CANCELLED])
        rows = self._tables.read(ORDER_STATUS, ("order_id", "status"), where).to_pylist()
        return {row["order_id"]: row["status"] for row in rows}


def _source_of(payload: bytes) -> str | None:
    try:
        source = orjson.loads(payload)["supplier_id"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return source if isinstance(source, str) else None


def _row(answer: Answer, now: datetime) -> Row:
    return {
        "order_id": answer.order_id,
        "outcome": answer.outcome,
        "status_code": answer.status_code or None,
        "answer": answer.text or None,
        "reason": answer.reason,
        "attempts": answer.attempts,
        "quantity": answer.quantity,
        "eta": None if answer.eta is None else as_datetime(answer.eta),
        "answered_at": now,
    }


def _status_event(row: Row) -> bytes:
    event = {
        "event_id": identifier("s", row["order_id"], row["outcome"]),
        "event_time": format_time(as_microseconds(row["answered_at"])),
        "order_id": row["order_id"],
        "status": row["outcome"],
        "quantity": row["quantity"],
        "eta": None if row["eta"] is None else format_time(as_microseconds(row["eta"])),
        "actor": "supplier_api",
    }
    return orjson.dumps({name: value for name, value in event.items() if value is not None})
