"""What must be true at rest: R1 to R10 of the crash test, and what two more stages promise.

R1 every acknowledged record is in bronze · R2 once · R3 byte for byte · R4 ledger = distinct valid events ·
R5 position = the model's, for every series · R6 every outbox order is on `restock.orders` exactly once and no other
is · R7 no order and no decision with two contents or two ids · R8 the supplier saw one effect per order ·
R9 consumed = good + quarantined + duplicates + tombstones · R10 for every series: position above its reorder point or
an order open, and no order beyond order-up-to plus one pack · R11 each request to the order API that was answered had
its one effect · R12 each order was decided by the levels of the version that it names, and the versions in force are
complete. R0 stands for a chain that does not come to rest at all.

Nothing here imports `pipelines`. What was sent comes from the generator's own record, what the supplier did from the
supplier's, what was decided by hand from the clerk's.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from tests.crash.record import SentRecord, read_record
from tests.crash.stream import BAD, CONFLICT, TOMBSTONE, VALID
from tests.reconciler import INPUT_TOPICS, Record, read_table, read_topics, stock
from tests.stub_supplier import read_effects

PARTS = ("good", "quarantined", "duplicates", "tombstones")
SILVER = {
    "pos.sales": "silver/stock_movements",
    "inventory.movements": "silver/stock_movements",
    "shipments.events": "silver/shipment_events",
    "restock.order_status": "silver/order_status",
}


@dataclass(frozen=True)
class Accounts:
    """All that was seen from outside, read when first asked for.

    Args:
        sent, effects, decisions: records of generator, supplier and clerk; None where there was none.
    """

    home: Path
    bootstrap: str
    sent: Path
    effects: Path | None = None
    decisions: Path | None = None

    @cached_property
    def record(self) -> SentRecord:
        return read_record(self.sent)

    @cached_property
    def held(self) -> list[Record]:
        """What the broker holds of the input topics."""
        return read_topics(self.bootstrap, *INPUT_TOPICS)

    @cached_property
    def bronze(self) -> pd.DataFrame:
        return read_table(self.home, "bronze/events")

    @cached_property
    def ledger(self) -> pd.DataFrame:
        return read_table(self.home, "silver/stock_movements")

    @cached_property
    def positions(self) -> pd.DataFrame:
        return read_table(self.home, "gold/inventory_positions")

    @cached_property
    def policies(self) -> pd.DataFrame:
        rows = read_table(self.home, "gold/inventory_policies")
        return rows.set_index(["policy_version", "location_id", "sku"]).sort_index()

    @cached_property
    def outbox(self) -> pd.DataFrame:
        return read_table(self.home, "gold/order_outbox")

    @cached_property
    def proposals(self) -> pd.DataFrame:
        return read_table(self.home, "gold/order_proposals")

    @cached_property
    def by_hand(self) -> set[str]:
        """Ids of the orders that were placed through the order API."""
        if self.decisions is None:
            return set()
        audit = read_table(self.home, "gold/order_audit")
        return set(audit[audit.action == "create"].order_id)

    @cached_property
    def effects_seen(self) -> list[dict[str, str]]:
        """What the supplier did: order id as `key`, the order as `effect`."""
        return [] if self.effects is None else read_effects(self.effects)

    @cached_property
    def requests(self) -> dict[str, set[tuple[int, str]]]:
        """Requests to the order API that were answered well, with their distinct answers."""
        answers: dict[str, set[tuple[int, str]]] = defaultdict(set)
        if self.decisions is not None and self.decisions.exists():
            for line in map(json.loads, self.decisions.read_text(encoding="utf-8").splitlines()):
                if "status" in line and line["status"] < 300:
                    answers[line["key"]].add((line["status"], line["answer"]))
        return answers

    @cached_property
    def decided(self) -> list[dict[str, Any]]:
        """Orders as the pipeline itself decided them: what was proposed, and what was released without."""
        proposed = [json.loads(payload) for payload in self.proposals.payload]
        known = {order["order_id"] for order in proposed} | self.by_hand
        released = [json.loads(payload) for payload in self.outbox.payload]
        return proposed + [order for order in released if order["order_id"] not in known]


def reconcile(accounts: Accounts) -> list[str]:
    """Violations of R1 to R12, in words; none when all is well."""
    rules = (_bronze, _silver, _positions, _orders, _decisions, _supplier, _levels, _requests)
    return [violation for rule in rules for violation in rule(accounts)]


def rules_of(violations: Iterable[str]) -> list[str]:
    """The rules that were violated."""
    return sorted({violation.partition(":")[0] for violation in violations}, key=lambda rule: int(rule[1:]))


def _bronze(accounts: Accounts) -> Iterator[str]:
    bronze, acknowledged = accounts.bronze, accounts.record.acknowledged
    found = Counter(zip(bronze.topic, bronze.partition, bronze.offset, strict=True))
    held = {(record.topic, record.partition, record.offset): record for record in accounts.held}
    if missing := set(acknowledged) - set(found):
        yield f"R1: {len(missing)} acknowledged records are not in bronze, such as {min(missing)}"
    if missing := set(held) - set(found):
        yield f"R1: {len(missing)} records of the broker are not in bronze, such as {min(missing)}"
    if doubled := [place for place, count in found.items() if count > 1]:
        yield f"R2: {len(doubled)} records are in bronze more than once, such as {min(doubled)}"
    different = []
    for row in bronze.itertuples():
        place, content = (row.topic, row.partition, row.offset), (row.topic, row.key, row.value)
        record = held.get(place)
        if (
            record is None
            or (record.topic, record.key, record.value) != content
            or (place in acknowledged and acknowledged[place] != content)
        ):
            different.append(place)
    if different:
        yield f"R3: {len(different)} records in bronze are not what was sent, such as {different[0]}"


def _silver(accounts: Accounts) -> Iterator[str]:
    """R4 and R9, with what should have become of each record as the generator knows it."""
    expected: dict[str, Counter[str]] = defaultdict(Counter)
    events: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    unknown = 0
    for record in accounts.held:
        known = events[SILVER[record.topic]]
        verdict, event = _verdict(record, accounts.record, known)
        unknown += verdict == ""
        expected[record.topic][verdict] += 1
        if verdict == "good":
            known[event["event_id"]] = event
    if unknown:
        yield f"R3: the broker holds {unknown} records that nobody sent"
    places: list[int] = []
    for name in dict.fromkeys(SILVER.values()):
        rows = accounts.ledger if name == "silver/stock_movements" else read_table(accounts.home, name)
        places += rows["sequence"].tolist()
        yield from _contents(name, rows, events[name])
    if sorted(places) != list(range(1, len(places) + 1)):
        yield f"R4: the ledger's {len(places)} places are not 1 to {len(places)}"
    yield from _identity(accounts, expected, len(places))


def _verdict(record: Record, sent: SentRecord, known: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Which part of R9 a record belongs to, and the event that it is."""
    if record.topic == "restock.order_status":  # sent by the pipeline's own stages, all of it valid
        event = json.loads(record.value or b"")
        first = known.get(event["event_id"])
        return "good" if first is None else "duplicates" if first == event else "quarantined", event
    verdict, event_id = sent.verdicts.get((record.topic, record.key, record.value), ("", None))
    if verdict == VALID and event_id not in known:
        return "good", json.loads(record.value or b"")
    return {VALID: "duplicates", BAD: "quarantined", CONFLICT: "quarantined", TOMBSTONE: "tombstones"}.get(
        verdict, ""
    ), {}


def _contents(name: str, rows: pd.DataFrame, events: dict[str, dict[str, Any]]) -> Iterator[str]:
    found = Counter(rows.event_id)
    if missing := set(events) - set(found):
        yield f"R4: {len(missing)} valid events are not in {name}, such as {min(missing)}"
    if extra := set(found) - set(events):
        yield f"R4: {len(extra)} events in {name} were not sent, such as {min(extra)}"
    if doubled := [event_id for event_id, count in found.items() if count > 1]:
        yield f"R4: {len(doubled)} events are in {name} more than once, such as {min(doubled)}"
    fields = ("kind", "quantity", "location_id", "sku") if name == "silver/stock_movements" else ("status",)
    for row in rows.itertuples():
        event = events.get(row.event_id)
        if event is not None and any(getattr(row, field) != event[field] for field in fields):
            yield f"R4: {row.event_id} in {name} is not what was sent first"
            return


def _identity(accounts: Accounts, expected: dict[str, Counter[str]], good: int) -> Iterator[str]:
    batches = read_table(accounts.home, "silver/ingest_batches").groupby("topic").sum(numeric_only=True)
    for topic, counts in expected.items():
        wanted = {part: counts[part] for part in PARTS}
        there = {part: int(batches[part].get(topic, 0)) for part in PARTS}
        consumed = int(batches.consumed.get(topic, 0))
        if there != wanted or consumed != sum(wanted.values()):
            yield f"R9: of {topic}, {wanted} was sent, {there} was counted, {consumed} consumed"
    quarantined = sum(counts["quarantined"] for counts in expected.values())
    there = (good, len(read_table(accounts.home, "silver/quarantine")))
    wanted_rows = (sum(counts["good"] for counts in expected.values()), quarantined)
    if there != wanted_rows:
        yield f"R9: {wanted_rows} rows (good, quarantined) were expected, {there} are there"


def _positions(accounts: Accounts) -> Iterator[str]:
    found = accounts.positions.set_index(["location_id", "sku"]).on_hand
    expected = stock(accounts.ledger)
    different = [key for key in expected.index if found.get(key) != expected[key]]
    if different:
        key = different[0]
        example = f"{key}: {found.get(key)}, not {expected[key]}"
        yield f"R5: {len(different)} positions differ from the ledger, such as {example}"


def _orders(accounts: Accounts) -> Iterator[str]:
    published = defaultdict(list)
    for record in read_topics(accounts.bootstrap, "restock.orders"):
        published[(record.key or b"").decode()].append(record.value)
    outbox = accounts.outbox
    if doubled := [order_id for order_id, count in Counter(outbox.order_id).items() if count > 1]:
        yield f"R6: {len(doubled)} orders are in the outbox more than once, such as {doubled[0]}"
    payloads = dict(zip(outbox.order_id, outbox.payload, strict=True))
    wrong = {
        order_id: len(published.get(order_id, ())) for order_id in payloads if len(published.get(order_id, ())) != 1
    }
    if wrong:
        example = next(iter(wrong.items()))
        yield f"R6: {len(wrong)} orders of the outbox are not on restock.orders once, such as {example}"
    if unknown := set(published) - set(payloads):
        yield f"R6: {len(unknown)} orders on restock.orders are not in the outbox, such as {min(unknown)}"
    changed = [
        name for name, values in published.items() if name in payloads and {payloads[name].encode()} != set(values)
    ]
    if changed:
        yield f"R7: {len(changed)} orders were published with another content, such as {changed[0]}"
    for name, rows in (("outbox", outbox), ("proposals", accounts.proposals)):
        if sorted(rows["sequence"]) != list(range(1, len(rows) + 1)):
            yield f"R6: the places of the {name} are not 1 to {len(rows)}"
    shown = set(read_table(accounts.home, "gold/orders").order_id)
    if different := shown ^ (set(outbox.order_id) | set(accounts.proposals.order_id)):
        yield f"R6: gold/orders and what was decided differ in {len(different)} orders, such as {min(different)}"


def _decisions(accounts: Accounts) -> Iterator[str]:
    triggers = Counter((order["location_id"], order["sku"], order["trigger_event_id"]) for order in accounts.decided)
    if doubled := [trigger for trigger, count in triggers.items() if count > 1]:
        yield f"R7: {len(doubled)} decisions have two orders, such as {doubled[0]}"


def _supplier(accounts: Accounts) -> Iterator[str]:
    if accounts.effects is None:
        return
    effects = accounts.effects_seen
    counts = Counter(line["key"] for line in effects)
    if doubled := [key for key, count in counts.items() if count > 1]:
        yield f"R8: {len(doubled)} orders had two effects at the supplier, such as {doubled[0]}"
    calls = (
        read_table(accounts.home, "gold/supplier_calls")
        .sort_values("answered_at")
        .drop_duplicates("order_id", keep="last")
    )
    withdrawn = set(calls[calls.outcome == "withdrawn"].order_id)
    payloads = dict(zip(accounts.outbox.order_id, accounts.outbox.payload, strict=True))
    if missing := set(payloads) - set(counts) - withdrawn:
        yield f"R8: {len(missing)} orders had no effect at the supplier, such as {min(missing)}"
    if unknown := set(counts) - set(payloads):
        yield f"R8: the supplier has {len(unknown)} orders that are not in the outbox, such as {min(unknown)}"
    if both := withdrawn & set(counts):
        yield f"R8: {len(both)} orders count as withdrawn and had an effect, such as {min(both)}"
    if changed := [line["key"] for line in effects if payloads.get(line["key"], line["effect"]) != line["effect"]]:
        yield f"R8: {len(changed)} orders reached the supplier with another content, such as {changed[0]}"
    bodies = [json.loads(line["effect"]) for line in effects]
    triggers = Counter((body["location_id"], body["sku"], body["trigger_event_id"]) for body in bodies)
    if repeated := [trigger for trigger, count in triggers.items() if count > 1]:
        yield f"R8: {len(repeated)} decisions had two effects at the supplier, such as {repeated[0]}"


def _levels(accounts: Accounts) -> Iterator[str]:
    policies = accounts.policies
    in_force = read_table(accounts.home, "gold/published").set_index("artefact").version
    sizes = policies.groupby(level="policy_version").size()
    version = in_force["policies"]
    if sizes.get(version) != sizes.max():
        yield f"R12: {version} is in force with {sizes.get(version)} policies of {sizes.max()}"
    current = policies.loc[version]
    for row in accounts.positions.itertuples():
        policy = current.loc[(row.location_id, row.sku)]
        if pd.notna(row.hold_until) or policy.binding_constraint == "no_demand":
            continue
        position = row.on_hand + row.on_order
        if pd.notna(policy.allowance) or pd.notna(policy.maximum_order):
            continue  # what it may buy in a day can be less than what it needs
        if position <= policy.reorder_point and not len(row.open_orders):
            yield f"R10: {row.location_id}|{row.sku} lies at {position}, at or below its reorder point, nothing open"
    for order in accounts.decided:
        policy = policies.loc[(order["policy_version"], order["location_id"], order["sku"])]
        levels = (policy.reorder_point, policy.order_up_to, policy.forecast_version)
        if levels != (order["reorder_point"], order["order_up_to"], order["forecast_version"]):
            yield f"R12: order {order['order_id']} was not decided by the levels of {order['policy_version']}"
        before = order["on_hand"] + order["on_order"]
        reached = before + order["quantity"]
        if order["supplier_id"] == policy.transfer_source and order["quantity"] <= policy.transfer_quantity:
            continue  # what a sibling can spare may be less than what is needed: the rest is bought
        limits = (policy.allowance, policy.maximum_order)
        if before <= policy.reorder_point and any(order["quantity"] <= limit for limit in limits if pd.notna(limit)):
            continue
        if before > policy.reorder_point or not policy.order_up_to <= reached < policy.order_up_to + policy.pack_size:
            yield f"R10: order {order['order_id']} leads from {before} to {reached}: order-up-to {policy.order_up_to}"


def _requests(accounts: Accounts) -> Iterator[str]:
    """R11: what the clerk was told has happened, once."""
    if not accounts.requests:
        return
    audit = Counter(read_table(accounts.home, "gold/order_audit").idempotency_key)
    released, proposed = set(accounts.outbox.order_id), set(accounts.proposals.order_id)
    for key, given in accounts.requests.items():
        if len(given) != 1 or audit[key] != 1:
            yield f"R11: request {key} has {audit[key]} records and {len(given)} answers"
            continue
        ((_, text),) = given
        order_id, what = json.loads(text)["order_id"], key.partition("-")[0]
        if what in {"hand", "approve"} and order_id not in released:
            yield f"R11: {key} was answered and order {order_id} is not in the outbox"
        if what == "reject" and order_id in proposed and order_id in released:
            yield f"R11: {key} was answered and order {order_id} was released"
