"""The restock stage: owner of positions, orders and outbox; exactly once by the ledger's own order.

State lives in this process, is saved into `gold/inventory_positions` with the place in the ledger that it is
complete up to, and is brought forward from there after a restart by folding the ledger's tail again. Decisions
are functions of the ledger's order and of the recorded policy activations, so the tail decides the same again;
what the outbox already holds is recognised by order id. See docs/live-state.md for why.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.alerts import Alert
from pipelines.contracts.tables import (
    INVENTORY_POSITIONS,
    ORDER_OUTBOX,
    ORDER_PROPOSALS,
    ORDER_STATUS,
    ORDERS,
    POLICY_ACTIVATIONS,
    STOCK_MOVEMENTS,
    TIME,
    Table,
)
from pipelines.errors import OwnershipError
from pipelines.ingestion.batches import last_sequence
from pipelines.ingestion.ingestor import TakenIn
from pipelines.ingestion.times import as_datetime, as_microseconds
from pipelines.io import published
from pipelines.io.delta import Tables
from pipelines.operations.failpoints import failpoint
from pipelines.operations.settings import RestockSettings
from pipelines.restocking import snapshots
from pipelines.restocking.decisions import Record, encode_flag, encode_order
from pipelines.restocking.degradation import too_old_alert
from pipelines.restocking.fold import Fold, Outcome, counts_without_history
from pipelines.restocking.live_policy import DAY
from pipelines.restocking.orders import APPROVED, PROPOSED, OrderChange
from pipelines.restocking.policy_book import PolicyBook, SeriesKey
from pipelines.restocking.positions import Change
from pipelines.restocking.proposals import Approval

log = logging.getLogger("stockcast.restocking")

OWNED = (INVENTORY_POSITIONS, ORDER_OUTBOX, ORDER_PROPOSALS, ORDERS, POLICY_ACTIVATIONS)

APPLICATION = "restock"
SNAPSHOT_SHARE = 0.1
"""At most this share of the time goes into saving positions."""

SendFlags = Callable[[Iterable[tuple[str, bytes]]], None]


class _Decided:
    """An append-only table of decided orders, and what it holds beyond the saved positions."""

    def __init__(self, tables: Tables, table: Table) -> None:
        self._tables = tables
        self._table = table
        self._sequence = 0
        self._beyond: dict[str, str] = {}

    def resume(self, ledger_sequence: int) -> Iterable[str]:
        """Learn what was decided from this place in the ledger on; its ids."""
        where = pc.field("ledger_sequence") >= ledger_sequence
        rows = self._tables.read(self._table, ("order_id", "payload"), where).to_pylist()
        self._beyond = {row["order_id"]: row["payload"] for row in rows}
        self._sequence = self._tables.largest(self._table, "sequence") or 0
        return self._beyond.keys()

    def forget(self) -> None:
        """The positions were saved: nothing behind them is decided again."""
        self._beyond.clear()

    def known(self, order_ids: list[str], ledger_sequence: int) -> frozenset[str]:
        """Which of the orders were decided up to a place in the ledger."""
        where = pc.field("order_id").isin(order_ids) & (pc.field("ledger_sequence") <= ledger_sequence)
        return frozenset(self._tables.read(self._table, ("order_id",), where).column("order_id").to_pylist())

    def append(self, orders: list[tuple[int, Record]], now: datetime) -> None:
        """Enter orders, with their places in the ledger, but for those that it holds."""
        rows: list[Record] = []
        for ledger_sequence, order in orders:
            payload = encode_order(order).decode()
            known = self._beyond.get(order["order_id"])
            if known is not None:
                if known != payload:
                    log.error("order %s was decided differently before; the first stands", order["order_id"])
                continue
            rows.append(
                {
                    "sequence": self._sequence + len(rows) + 1,
                    "order_id": order["order_id"],
                    "payload": payload,
                    "decided_at": now,
                    "ledger_sequence": ledger_sequence,
                }
            )
        if rows:
            self._sequence += len(rows)
            batch = pa.Table.from_pylist(rows, schema=self._table.schema)
            if not self._tables.append(self._table, batch, APPLICATION, self._sequence):
                raise OwnershipError(
                    f"{self._table.name} has a row {self._sequence} that this process did not write: another one owns "
                    "it too; end both, and start one"
                )


@dataclass(frozen=True)
class Activation:
    """A policy version decides from this place in the ledger on; `at` in microseconds since 1970."""

    policy_version: str
    from_sequence: int
    at: int


class RestockEngine:
    """Folds the ledger forward and writes what it decides.

    Args:
        send_flags: publishes (key, message) pairs and returns when the broker has them.
        clock: wall time, recorded but never decided upon.
        approval_value: orders worth more wait for a person; None: none does.
        upkeep: called between commits, to keep the tables in order.
        tell: publishes an alert, some time.
    """

    def __init__(
        self,
        tables: Tables,
        settings: RestockSettings,
        send_flags: SendFlags,
        clock: Callable[[], datetime],
        *,
        approval_value: float | None = None,
        upkeep: Callable[[], None] = lambda: None,
        tell: Callable[[Alert], None] = lambda alert: None,
    ) -> None:
        self._tables = tables
        self._settings = settings
        self._send_flags = send_flags
        self._clock = clock
        self._upkeep = upkeep
        self._tell = tell
        self._told: str | None = None
        self._lock = threading.RLock()
        self._waited: dict[str, bool] = {}
        self._fold = Fold(settings, Approval(approval_value, self._waited))
        self._sequence = 0
        self._released = _Decided(tables, ORDER_OUTBOX)
        self._proposed = _Decided(tables, ORDER_PROPOSALS)
        self._pending: list[Activation] = []
        self._new_orders: list[tuple[Record, str]] = []
        self._changes: list[OrderChange] = []
        self._dirty = False
        self._saved_at = time.monotonic()
        self._save_cost = 0.0

    @property
    def sequence(self) -> int:
        """Place in the ledger up to which all is decided."""
        return self._sequence

    @property
    def policy_version(self) -> str | None:
        """The version that decides; None before the first is in force."""
        return None if self._fold.policies is None else self._fold.policies.version

    def resume(self) -> None:
        """Load the saved positions, the policy in force there, and what the outbox holds beyond."""
        tables = self._tables
        tables.ensure(INVENTORY_POSITIONS, ORDER_OUTBOX, ORDER_PROPOSALS, POLICY_ACTIVATIONS)
        positions, self._sequence = snapshots.load_positions(tables)
        self._fold.restore(positions, snapshots.load_proposals(tables, positions))
        activations = sorted(
            (
                Activation(row["policy_version"], row["from_sequence"], as_microseconds(row["activated_at"]))
                for row in tables.read(POLICY_ACTIVATIONS).to_pylist()
            ),
            key=lambda activation: activation.from_sequence,
        )
        past = [activation for activation in activations if activation.from_sequence <= self._sequence]
        self._pending = activations[len(past) :]
        if past:
            self._fold.policies = PolicyBook.load(tables, past[-1].policy_version)
        released, proposed = self._released.resume(self._sequence), self._proposed.resume(self._sequence)
        self._waited.update(dict.fromkeys(released, False) | dict.fromkeys(proposed, True))
        log.info("%d positions at ledger place %d, %d orders beyond", len(positions), self._sequence, len(self._waited))

    def stage(self, taken: TakenIn) -> None:
        """Follow a finished ingest batch, with its rows at hand."""
        with self._lock:
            if taken.previous_sequence != self._sequence:
                self.catch_up()
                return
            self._check_policies()
            if taken.last_sequence > self._sequence:
                self._advance(taken.ledger, taken.statuses, taken.last_sequence)
            self._save_if_due()

    def catch_up(self) -> None:
        """Follow the ledger, as far as it is complete, from the tables.

        A new policy version comes into force at the end: it looks at every series, so it needs their stock of now.
        """
        with self._lock:
            target = last_sequence(self._tables)
            while self._sequence < target:
                self._apply_pending()
                upto = min(target, self._sequence + self._settings.catch_up_rows)
                if self._pending:
                    upto = min(upto, self._pending[0].from_sequence - 1)
                self._advance(*self._read(self._sequence, upto), upto)
                if target - upto > 0:
                    log.info("decided up to ledger place %d of %d", upto, target)
            self._check_policies()
            self._save_if_due()

    def tick(self) -> None:
        """What is due while no events come: a new policy version, and saving."""
        with self._lock:
            if self._sequence >= last_sequence(self._tables):
                self._check_policies()
            self._save_if_due()

    def save(self) -> None:
        """Save orders and positions: after this a restart begins here."""
        with self._lock:
            if not self._dirty:
                return
            started = time.monotonic()
            snapshots.save_orders(self._tables, self._new_orders, self._changes)
            failpoint("restock.after_orders")
            snapshots.save_positions(self._tables, self._fold.positions.values(), self._sequence)
            self._new_orders, self._changes, self._dirty = [], [], False
            self._released.forget()
            self._proposed.forget()
            self._waited.clear()
            self._saved_at = time.monotonic()
            self._save_cost = self._saved_at - started

    def _save_if_due(self) -> None:
        waited = time.monotonic() - self._saved_at
        if waited >= min(self._settings.snapshot_seconds, self._save_cost / SNAPSHOT_SHARE):
            self.save()
        self._upkeep()

    def _check_policies(self) -> None:
        """Put a newly published policy version into force, here."""
        self._apply_pending()
        pointer = published.in_force(self._tables, published.POLICIES)
        current = self.policy_version
        if self._pending or pointer is None or pointer.version == current:
            return
        now = self._clock()
        activation = Activation(pointer.version, self._sequence + 1, as_microseconds(now))
        policies = PolicyBook.load(self._tables, pointer.version)
        row = {
            "policy_version": activation.policy_version,
            "forecast_version": policies.forecast_version,
            "from_sequence": activation.from_sequence,
            "activated_at": now,
        }
        self._tables.append(POLICY_ACTIVATIONS, pa.Table.from_pylist([row], schema=POLICY_ACTIVATIONS.schema))
        self._activate(activation, policies)

    def _apply_pending(self) -> None:
        """Put versions into force again where an earlier run recorded it."""
        while self._pending and self._pending[0].from_sequence <= self._sequence + 1:
            activation = self._pending.pop(0)
            self._activate(activation, PolicyBook.load(self._tables, activation.policy_version))

    def _activate(self, activation: Activation, policies: PolicyBook) -> None:
        log.info("policy version %s decides from ledger place %d on", policies.version, activation.from_sequence)
        self._publish(self._fold.activate(policies, activation.from_sequence - 1, activation.at))

    def _advance(self, ledger: pa.Table, statuses: pa.Table, upto: int) -> None:
        history = self._history(ledger)
        placed = self._placed_by_hand(statuses)
        outcome = self._fold.advance(ledger, statuses, lambda key, since: history.get(key, ()), placed)
        self._sequence = upto
        self._publish(outcome)
        self._tell_age(ledger)

    def _tell_age(self, ledger: pa.Table) -> None:
        """Tell once that the forecasts in force have become too old to be used."""
        policies = self._fold.policies
        if policies is None or ledger.num_rows == 0 or policies.version == self._told:
            return
        newest = as_microseconds(pc.max(ledger.column("event_time")).as_py())
        age = (newest - policies.in_force_from) / DAY
        if age > self._settings.replace_forecast_after_days:
            self._told = policies.version
            self._tell(too_old_alert(policies.forecast_version, age, self._settings, self._clock()))

    def _publish(self, outcome: Outcome) -> None:
        now = self._clock()
        self._proposed.append(outcome.proposals, now)
        self._released.append(outcome.orders, now)
        failpoint("restock.after_outbox")
        if outcome.flags:
            self._send_flags((f"{flag['location_id']}|{flag['sku']}", encode_flag(flag)) for flag in outcome.flags)
        self._new_orders.extend((order, PROPOSED) for _, order in outcome.proposals)
        self._new_orders.extend((order, APPROVED) for _, order in outcome.orders)
        self._changes.extend(outcome.changes)
        self._dirty = True

    def _placed_by_hand(self, statuses: pa.Table) -> frozenset[str]:
        """Which orders that the statuses place by hand were placed before: a person's event may come again late."""
        by_hand = statuses.filter(statuses.column("sku").is_valid()).column("order_id").unique().to_pylist()
        return self._released.known(by_hand, self._sequence) if by_hand else frozenset()

    def _read(self, after: int, upto: int) -> tuple[pa.Table, pa.Table]:
        where = (pc.field("sequence") > after) & (pc.field("sequence") <= upto)
        return self._tables.read(STOCK_MOVEMENTS, where=where), self._tables.read(ORDER_STATUS, where=where)

    def _history(self, ledger: pa.Table) -> dict[SeriesKey, list[Change]]:
        """Earlier changes of the series whose counts reach further back than we remember: one scan."""
        wanted = counts_without_history(ledger, self._fold.positions)
        if not wanted:
            return {}
        earliest = pa.scalar(as_datetime(min(wanted.values())), TIME)
        rows = self._tables.read(
            STOCK_MOVEMENTS,
            ("location_id", "sku", "event_time", "change"),
            (pc.field("event_time") > earliest)
            & (pc.field("sequence") <= self._sequence)
            & pc.field("change").is_valid()
            & pc.field("location_id").isin([location_id for location_id, _ in wanted])
            & pc.field("sku").isin([sku for _, sku in wanted]),
        )
        history: dict[SeriesKey, list[Change]] = {key: [] for key in wanted}
        times = rows.column("event_time").cast(pa.int64()).to_pylist()
        for location_id, sku, event_time, change in zip(
            rows.column("location_id").to_pylist(),
            rows.column("sku").to_pylist(),
            times,
            rows.column("change").to_pylist(),
            strict=True,
        ):
            if (location_id, sku) in history:
                history[(location_id, sku)].append((event_time, change))
        return history
