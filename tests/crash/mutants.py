"""Faults put into the pipeline, to show that the crash test finds them. Applied by the launcher before anything of the
pipeline is imported; production code knows nothing of them.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.crash.schedule import SECOND, Step


def transactions() -> None:
    """Appends without Delta's transaction identifiers."""
    from pipelines.io.delta import Tables

    append = Tables.append

    def without(self: Tables, table: Any, rows: Any, *_: Any) -> bool:
        return append(self, table, rows)

    Tables.append = without  # type: ignore[method-assign]  # that is the fault


def order_ids() -> None:
    """Order ids by chance."""
    from pipelines.contracts.tables import ORDER_OUTBOX
    from pipelines.operations.failpoints import failpoint
    from pipelines.restocking import decisions, engine

    append = engine._Decided.append

    def noticed(self: Any, orders: Any, now: Any) -> None:
        append(self, orders, now)
        if self._table is ORDER_OUTBOX and orders:
            failpoint("mutant.after_deciding")

    engine._Decided.append = noticed  # type: ignore[method-assign]  # a point that is passed with orders only
    decisions.identifier = lambda prefix, *_: f"{prefix}-{uuid.uuid4().hex[:24]}"


def publish_first() -> None:
    """Orders published where they are decided, before the outbox has them."""
    from confluent_kafka import Producer

    from pipelines.contracts.tables import ORDER_OUTBOX
    from pipelines.operations.failpoints import failpoint
    from pipelines.restocking import engine, relay
    from pipelines.restocking.decisions import encode_order

    found = [part.partition("=")[2] for part in sys.argv if part.startswith("kafka.bootstrap_servers=")]
    producer = Producer({"bootstrap.servers": found[0] if found else "", "enable.idempotence": True})
    append = engine._Decided.append

    def publishing(self: Any, orders: Any, now: Any) -> None:
        if self._table is ORDER_OUTBOX and orders:
            for _, order in orders:
                if order["order_id"] not in self._beyond:
                    producer.produce("restock.orders", encode_order(order), key=order["order_id"])
            producer.flush()
            failpoint("mutant.after_publishing")
        append(self, orders, now)

    engine._Decided.append = publishing  # type: ignore[method-assign]  # that is the fault
    relay.Relay.publish_available = lambda self: 0  # type: ignore[method-assign]  # that is the fault


def deduplication() -> None:
    """Every valid record is a new event."""
    import numpy as np

    from pipelines.ingestion import seen

    seen.first_of_each = lambda keys: np.arange(len(keys))
    seen.SeenIds.look_up = lambda self, keys: (  # type: ignore[method-assign]  # that is the fault
        np.zeros(len(keys), bool),
        np.zeros(len(keys), np.int64),
    )


def two_owners() -> None:
    """No locks: a second process may own the same tables."""
    from pipelines.io import ownership

    @contextmanager
    def nothing(*_: Any) -> Iterator[None]:
        yield

    ownership.ownership = nothing


@dataclass(frozen=True)
class Mutant:
    """A fault, and the kills that it cannot survive."""

    name: str
    apply: Callable[[], None]
    steps: tuple[Step, ...]

    @property
    def title(self) -> str:
        """What is wrong, in words."""
        return (self.apply.__doc__ or "").strip().rstrip(".")


MUTANTS = {
    mutant.name: mutant
    for mutant in (
        Mutant("transactions", transactions, (Step("live", "ingest.after_bronze"),)),
        Mutant("order_ids", order_ids, (Step("live", "mutant.after_deciding"),)),
        Mutant("publish_first", publish_first, (Step("live", "mutant.after_publishing"),)),
        Mutant("deduplication", deduplication, (Step("live", "ingest.after_ledger"),)),
        Mutant("two_owners", two_owners, (Step("api", SECOND),)),
    )
}


def apply(name: str) -> None:
    """Put a fault into this process."""
    MUTANTS[name].apply()
