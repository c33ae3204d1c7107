"""Decisions taken through the order API: each recorded once by its idempotency key, then sent to Kafka.

A decision is one row of `gold/order_audit`: what makes it unique, the answer that was given, the audit, and the
event that carries it. The row is committed before the answer is given; the event follows, and follows again after
a restart unless the ledger has it: its id is derived from the key, so a repeated one has no effect.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import ORDER_AUDIT, ORDER_STATUS, TIME
from pipelines.errors import BrokerError, KeyReusedError
from pipelines.io.delta import Tables
from pipelines.operations.failpoints import failpoint

log = logging.getLogger("stockcast.orders")

APPLICATION = "order_api"
AT_ONCE = 500
RETRY_SECONDS = 5.0
RESENT_DAYS = 7
"""Events of older decisions are not looked for in the ledger at a start."""

Item = TypeVar("Item")
SendEvents = Callable[[Iterable[tuple[str, bytes]]], None]


@dataclass(frozen=True)
class Draft:
    """A decision to be recorded. `before` and `after` are what the audit keeps of the order."""

    actor: str
    action: str
    order_id: str
    event: dict[str, Any]
    status: int
    response: dict[str, Any]
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Answer:
    """What is answered to a request; `replayed`: it was answered before, and nothing was done now."""

    status: int
    body: bytes
    replayed: bool


@dataclass
class _Entry:
    """A key that was seen: the request that used it, and its answer when that is recorded."""

    request_hash: str
    answer: Future[tuple[int, bytes]] = field(default_factory=Future)


class Journal:
    """The one writer of `gold/order_audit`. Its methods may be called from many threads.

    Args:
        tables: its own handles.
        send: publishes (key, event) pairs and returns when the broker has them; called from one thread.
        clock: wall time, recorded.
        upkeep: called by the writing thread between commits, to keep the table in order.
    """

    def __init__(
        self,
        tables: Tables,
        send: SendEvents,
        clock: Callable[[], datetime],
        upkeep: Callable[[], None] = lambda: None,
    ) -> None:
        self._tables = tables
        self._send = send
        self._clock = clock
        self._upkeep = upkeep
        self._lock = threading.Lock()
        self._deciding = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._events: dict[str, list[dict[str, Any]]] = {}
        self._sequence = 0
        self._to_write: queue.Queue[tuple[str, str, Draft, Future[tuple[int, bytes]]] | None] = queue.Queue()
        self._to_send: queue.Queue[tuple[str, bytes] | None] = queue.Queue()
        self._unsent = 0
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=target, name=f"order-api-{name}", daemon=True)
            for name, target in (("writer", self._keep_writing), ("sender", self._keep_sending))
        ]

    def start(self) -> None:
        """Load every key ever used, send what may not have been sent, and begin to work."""
        self._tables.ensure(ORDER_AUDIT)
        rows = self._tables.read(ORDER_AUDIT).sort_by("sequence").to_pylist()
        for row in rows:
            entry = self._entries[row["idempotency_key"]] = _Entry(row["request_hash"])
            entry.answer.set_result((row["response_status"], row["response"].encode()))
            self._events.setdefault(row["order_id"], []).append(orjson.loads(row["event"]))
        self._sequence = rows[-1]["sequence"] if rows else 0
        for row in self._not_in_ledger(rows):
            self._enqueue_event(row["order_id"], row["event"].encode())
        log.info("%d decisions recorded so far, %d of them to be sent", len(rows), self._unsent)
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Record what was accepted, try to send it, and end."""
        self._to_write.put(None)
        self._threads[0].join()
        self._stopping.set()
        self._to_send.put(None)
        self._threads[1].join()

    @property
    def unsent(self) -> int:
        """Recorded decisions that Kafka does not have yet."""
        return self._unsent

    def events_of(self, order_id: str) -> list[dict[str, Any]]:
        """The events of all decisions on an order, oldest first."""
        return list(self._events.get(order_id, ()))

    def once(self, key: str, request_hash: str, decide: Callable[[], Draft]) -> Answer:
        """Decide, unless the key was used before: then give the answer of that time.

        Decisions are taken one at a time, so each sees those before it. One that raises leaves no trace: the key
        stays free.

        Raises:
            KeyReusedError: the key was used with another request.
        """
        while True:
            with self._lock:
                entry = self._entries.get(key)
                mine = entry is None
                if entry is None:
                    entry = self._entries[key] = _Entry(request_hash)
            if mine:
                return self._decide(key, entry, decide)
            if entry.request_hash != request_hash:
                raise KeyReusedError(
                    f"the idempotency key {key!r} was used before with another request; nothing was done. A new "
                    "request needs a new key"
                )
            try:
                status, body = entry.answer.result()
            except Exception:
                log.debug("the request that held key %r failed; this one takes its turn", key)
                continue
            return Answer(status, body, replayed=True)

    def _decide(self, key: str, entry: _Entry, decide: Callable[[], Draft]) -> Answer:
        draft = None
        try:
            with self._deciding:
                draft = decide()
                self._events.setdefault(draft.order_id, []).append(draft.event)
            written: Future[tuple[int, bytes]] = Future()
            self._to_write.put((key, entry.request_hash, draft, written))
            status, body = written.result()
        except BaseException as error:
            with self._lock:
                del self._entries[key]
            if draft is not None:
                self._events[draft.order_id].remove(draft.event)
            entry.answer.set_exception(error)
            raise
        entry.answer.set_result((status, body))
        return Answer(status, body, replayed=False)

    def _keep_writing(self) -> None:
        while batch := _next_batch(self._to_write):
            self._write(batch)
            self._upkeep()

    def _write(self, batch: list[tuple[str, str, Draft, Future[tuple[int, bytes]]]]) -> None:
        now = self._clock()
        rows = [
            _row(self._sequence + place, key, request_hash, draft, now)
            for place, (key, request_hash, draft, _) in enumerate(batch, start=1)
        ]
        try:
            self._tables.append(
                ORDER_AUDIT,
                pa.Table.from_pylist(rows, schema=ORDER_AUDIT.schema),
                APPLICATION,
                self._sequence + len(rows),
            )
        except Exception as error:
            log.exception("%d decisions could not be recorded", len(rows))
            for *_, written in batch:
                written.set_exception(error)
            return
        self._sequence += len(rows)
        failpoint("order_api.after_recording")
        for row, (*_, written) in zip(rows, batch, strict=True):
            self._enqueue_event(row["order_id"], row["event"].encode())
            written.set_result((row["response_status"], row["response"].encode()))

    def _enqueue_event(self, order_id: str, event: bytes) -> None:
        with self._lock:
            self._unsent += 1
        self._to_send.put((order_id, event))

    def _keep_sending(self) -> None:
        while batch := _next_batch(self._to_send):
            while not self._try_to_send(batch):
                if self._stopping.wait(RETRY_SECONDS):
                    log.warning("%d decisions are recorded and not sent yet; the next start sends them", len(batch))
                    return

    def _try_to_send(self, batch: list[tuple[str, bytes]]) -> bool:
        try:
            self._send(batch)
        except BrokerError as error:
            log.warning("decisions cannot be sent just now, they are recorded: %s", error)
            return False
        with self._lock:
            self._unsent -= len(batch)
        return True

    def _not_in_ledger(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        since = self._clock() - timedelta(days=RESENT_DAYS)
        recent = [row for row in rows if row["recorded_at"] >= since]
        if not recent:
            return []
        where = pc.field("ingested_at") >= pa.scalar(since, TIME)
        known = set(self._tables.read(ORDER_STATUS, ("event_id",), where).column("event_id").to_pylist())
        return [row for row in recent if row["event_id"] not in known]


def _next_batch(waiting: queue.Queue[Item | None]) -> list[Item]:
    """What waits, at least one item and at most `AT_ONCE`; empty at the end, which None marks."""
    batch: list[Item] = []
    while len(batch) < AT_ONCE and (not batch or not waiting.empty()):
        if (item := waiting.get()) is None:
            if batch:
                waiting.put(None)
            break
        batch.append(item)
    return batch


def _row(sequence: int, key: str, request_hash: str, draft: Draft, now: datetime) -> dict[str, Any]:
    return {
        "sequence": sequence,
        "recorded_at": now,
        "actor": draft.actor,
        "action": draft.action,
        "order_id": draft.order_id,
        "before": _json(draft.before),
        "after": _json(draft.after),
        "reason": draft.reason,
        "idempotency_key": key,
        "request_hash": request_hash,
        "response_status": draft.status,
        "response": _json(draft.response),
        "event_id": draft.event["event_id"],
        "event": _json(draft.event),
    }


def _json(document: dict[str, Any] | None) -> str | None:
    return None if document is None else orjson.dumps(document, option=orjson.OPT_UTC_Z).decode()
