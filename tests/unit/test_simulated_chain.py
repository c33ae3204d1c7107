"""Sixty days of a simulated chain, kept in a second set of books that shares no code with the decisions."""

from __future__ import annotations

import json
import math
import shutil
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta

import pandas as pd
import pytest

from pipelines.contracts.tables import ORDER_OUTBOX, ORDER_PROPOSALS
from pipelines.io.delta import Tables
from pipelines.operations.settings import load_settings
from pipelines.restocking.engine import RestockEngine
from tests.chain_days import ChainDays
from tests.reconciler import read_table

DAYS, BUDGET, APPROVAL = 60, 3000.0, 120.0
NEVER = pd.Timestamp("1970-01-01", tz="UTC")
SIGNS = {"sale": -1, "return": 1, "receipt": 1, "adjustment": 1, "transfer_in": 1, "transfer_out": -1, "write_off": -1}


@dataclass
class Book:
    """A series: what is there, what is still to come, whether ordering is held."""

    changes: list = field(default_factory=list)
    counted: tuple = (NEVER, "", 0)
    coming: dict = field(default_factory=dict)
    clock: pd.Timestamp = NEVER
    held_until: pd.Timestamp = NEVER
    taken: set = field(default_factory=set)
    bought: dict = field(default_factory=dict)

    @property
    def on_hand(self) -> int:
        return self.counted[2] + sum(change for at, change in self.changes if at > self.counted[0])

    @property
    def on_order(self) -> int:
        return sum(max(0, quantity) for quantity in self.coming.values())


@dataclass
class Books:
    """All series, moved on event by event; `wrong` in words, `seen` how often each thing happened."""

    home: str
    wrong: list = field(default_factory=list)
    seen: dict = field(default_factory=lambda: defaultdict(int))
    spent: dict = field(default_factory=lambda: defaultdict(float))

    def audit(self) -> Books:
        read = lambda name: read_table(self.home, name)  # noqa: E731
        proposals, outbox = read("gold/order_proposals"), read("gold/order_outbox")
        first = pd.concat([proposals, outbox[~outbox.order_id.isin(proposals.order_id)]])
        decided = defaultdict(list)
        for row in first.sort_values("sequence").itertuples():
            order = json.loads(row.payload)
            decided[row.ledger_sequence, order["trigger_event_id"]].append(order)
        for orders in decided.values():
            # Two orders of one event may stand in two tables; the later one counts the first as on order.
            orders.sort(key=lambda order: order["on_order"])
        self.stores = set(read("catalog/locations").location_id)
        policies = {version: rows.set_index(["location_id", "sku"]).to_dict("index")
                    for version, rows in read("gold/inventory_policies").groupby("policy_version")}  # fmt: skip
        activated = defaultdict(list)
        for row in read("gold/policy_activations").itertuples():
            activated[row.from_sequence - 1].append(row.policy_version)
        events = pd.concat(
            [read(f"silver/{name}") for name in ("stock_movements", "order_status", "shipment_events")]
        ).sort_values("sequence")
        self.books: dict = defaultdict(Book)
        self.series_of: dict = {}
        self.begun: dict = {}
        in_force: dict = {}
        used = 0
        for event in events.to_dict("records"):
            key = self._enter(event)
            if key in in_force:
                orders = decided.get((event["sequence"], event["event_id"]), [])
                used += len(orders)
                self._check(key, in_force[key], orders, event["event_id"])
            for version in activated.get(event["sequence"], ()):
                in_force = policies[version]
                trigger = decided.get((event["sequence"], f"policy-{version}"), [])
                used += len(trigger)
                for one in sorted(in_force):
                    mine = [order for order in trigger if (order["location_id"], order["sku"]) == one]
                    if one in self.books:
                        self._check(one, in_force[one], mine, f"policy-{version}", comes_into_force=True)
        if used != len(first):
            self.wrong.append(f"{len(first) - used} orders follow from no event")
        return self

    def _enter(self, event: dict) -> tuple | None:
        if isinstance(event["shipment_id"], str):
            return None
        if isinstance(event["status"], str):
            return self._status(event)
        key = (event["location_id"], event["sku"])
        book = self.books[key]
        book.clock = max(book.clock, event["event_time"])
        if event["kind"] == "count":
            book.counted = max(book.counted, (event["event_time"], event["event_id"], event["quantity"]))
        else:
            book.changes.append((event["event_time"], SIGNS[event["kind"]] * event["quantity"]))
        if event["kind"] == "receipt" and event["order_id"] in book.coming:
            book.coming[event["order_id"]] -= event["quantity"]
        return key

    def _status(self, event: dict) -> tuple | None:
        key = self.series_of.get(event["order_id"])
        if key is None or book_of(self.books[key], event) <= 0:
            return None
        book, order_id, status = self.books[key], event["order_id"], event["status"]
        book.clock = max(book.clock, event["event_time"])
        self.seen[status] += 1
        if status in {"cancelled", "rejected", "expired"}:
            book.coming[order_id] = 0
            if status != "expired":
                book.bought.pop(order_id, None)
            self.spent.pop(order_id, None)
            if status == "rejected":
                book.held_until = max(book.held_until, book.clock + timedelta(hours=24))
        elif status in {"approved", "acknowledged", "shipped"} and pd.notna(event["quantity"]):
            book.coming[order_id] += int(event["quantity"]) - self.begun[order_id]
            self.begun[order_id] = int(event["quantity"])
        return key

    def _check(self, key: tuple, policy: dict, orders: list, trigger: str, *, comes_into_force: bool = False) -> None:
        """A policy looks at its series when it comes into force, as of the day after its last; a late event of a day
        before that is none that it decides about."""
        book = self.books[key]
        begin = pd.Timestamp(policy["as_of"], tz="UTC") + timedelta(days=1)
        now = max(book.clock, begin) if comes_into_force else book.clock
        expected = self._expected(book, policy, now) if now >= begin else []
        found = [(order["supplier_id"], order["quantity"]) for order in orders]
        if found != expected:
            self.wrong.append(
                f"{key} at {book.on_hand} + {book.on_order} after {trigger} (s {policy['reorder_point']}, S "
                f"{policy['order_up_to']}): ordered {found}, expected {expected}"
            )
        for order in orders:
            if (order["on_hand"], order["on_order"]) != (book.on_hand, book.on_order):
                self.wrong.append(f"{order['order_id']} was decided at {order['on_hand']} + {order['on_order']}")
            inside = order["supplier_id"] in self.stores
            if inside:
                self._give(order, policy)
                book.taken.add(policy["transfer_offer"])
            else:
                book.bought[order["order_id"]] = order["quantity"]
                self.spent[order["order_id"]] = (order["created_at"][:10], order["quantity"] * policy["unit_cost"])
            if ("by its share of the day's budget" in order["explanation"]) != (
                not inside and order["quantity"] < self.needed(book, policy)
            ):
                self.wrong.append(f"{order['order_id']} is not explained: {order['explanation']}")
            if not inside and order["quantity"] < self.needed(book, policy):
                self.seen["cut by the budget"] += 1
            book.coming[order["order_id"]] = self.begun[order["order_id"]] = order["quantity"]
            self.series_of[order["order_id"]] = key

    def _give(self, order: dict, policy: dict) -> None:
        """The source must have it beside all else that it promised, and the explanation must say who gives."""
        source = self.books[order["supplier_id"], order["sku"]]
        self.seen["transfers"] += 1
        if source.on_hand < order["quantity"] or order["quantity"] > policy["transfer_quantity"]:
            self.wrong.append(f"{order['order_id']} asks for more than {order['supplier_id']} has")
        if f"transfer of {order['quantity']} from {order['supplier_id']}" not in order["explanation"]:
            self.wrong.append(f"{order['order_id']} does not say where it comes from: {order['explanation']}")

    @staticmethod
    def needed(book: Book, policy: dict) -> int:
        gap = policy["order_up_to"] - book.on_hand - book.on_order
        pack = policy["pack_size"]
        return max(math.ceil(gap / pack) * pack, math.ceil(policy["minimum_order"] / pack) * pack)

    def _expected(self, book: Book, policy: dict, now: pd.Timestamp) -> list:
        """(from whom, how much), by a planner's rule: order at or below s, a sibling's offer first, up to S in packs,
        no more than the day's allowance."""
        position = book.on_hand + book.on_order
        if position > policy["reorder_point"] or now < book.held_until:
            return []
        out = []
        offer = policy["transfer_offer"]
        if isinstance(offer, str) and offer not in book.taken:
            given = min(int(policy["transfer_quantity"]), policy["order_up_to"] - position)
            out.append((policy["transfer_source"], given))
            position += given
        if position > policy["reorder_point"]:
            return out
        pack = policy["pack_size"]
        smallest = math.ceil(policy["minimum_order"] / pack) * pack
        quantity = max(math.ceil((policy["order_up_to"] - position) / pack) * pack, smallest)
        if not math.isnan(policy["allowance"]):
            today = now.date()
            if book.bought.get("day") != today:
                book.bought = {"day": today}
            left = int(policy["allowance"]) - sum(units for name, units in book.bought.items() if name != "day")
            if left < quantity:
                quantity = left // pack * pack if left // pack * pack >= smallest else 0
        return [*out, (policy["supplier_id"], quantity)] if quantity > 0 else out


def book_of(book: Book, event: dict) -> int:
    """What is still to come of the order that a status is about; nothing for one that is over."""
    return book.coming.get(event["order_id"], 0)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chain")
    settings = load_settings(
        overrides=[
            f"home={folder / 'home'}", "kafka.bootstrap_servers=127.0.0.1:1", "planning.paths=128",
            "planning.versions_kept=1000", f"planning.daily_budget={BUDGET}", "planning.transfer_cost=2",
            "planning.transfer_unit_cost=0.02", "planning.transfer_days=0.75", f"orders.approval_value={APPROVAL}",
        ]
    )  # fmt: skip
    days = ChainDays(settings, folder / "catalog")
    days.run(DAYS)
    return days


@pytest.fixture(scope="module")
def books(chain):
    return Books(chain.settings.home).audit()


def test_every_order_is_the_one_that_a_second_set_of_books_calls_for(books):
    # then none is doubled, missed, or of another size, after whatever befell the orders before it
    assert books.wrong[:5] == []


def test_everything_that_can_befall_an_order_did(chain, books):
    for what in ("cancelled", "postponed", "confirmed less", "in parts", "late", "rejected", "expired", "cut"):
        assert chain.met[what] >= 3, (what, chain.met)
    for what in ("cancelled", "rejected", "expired", "transfers", "cut by the budget"):
        assert books.seen[what] >= 3, (what, dict(books.seen))


def test_a_day_costs_no_more_than_its_budget(books):
    by_day = defaultdict(float)
    for day, money in books.spent.values():
        by_day[day] += money
    assert max(by_day.values()) <= BUDGET + 1e-6
    assert books.seen["cut by the budget"] >= 3, "a budget that never bound shows nothing"


def test_a_transfer_saves_more_than_it_costs(chain):
    policies = read_table(chain.settings.home, "gold/inventory_policies")
    offers = policies[policies.transfer_offer.notna()]
    assert len(offers) >= 5
    region = read_table(chain.settings.home, "catalog/locations").set_index("location_id").region
    for row in offers.itertuples():
        assert region[row.location_id] == region[row.transfer_source]
        assert row.location_id != row.transfer_source
        assert row.transfer_days <= row.lead_time_days
        assert row.transfer_cost == pytest.approx(2 + 0.02 * row.transfer_quantity)
        buying = row.transfer_reason.split(" costs ")[-1]
        saved = sum(float(word) for word in buying.split() if word.replace(".", "").isdigit() and "." in word)
        assert saved > row.transfer_cost, row.transfer_reason


def test_the_ledger_replayed_gives_the_same_orders_byte_for_byte(chain, tmp_path):
    # given the same ledger and nothing of what was decided, but from where each policy version decided
    home = tmp_path / "again"
    shutil.copytree(chain.settings.home, home)
    for name in ("inventory_positions", "order_outbox", "order_proposals", "orders"):
        shutil.rmtree(home / "tables" / "gold" / name)
    tables = Tables(chain.settings.model_copy(update={"home": str(home)}))
    # when another process decides on it, in steps of its own
    restock = chain.settings.restock.model_copy(update={"catch_up_rows": 1700})
    again = RestockEngine(
        tables, restock, lambda flags: None, lambda: chain.now, approval_value=chain.settings.orders.approval_value
    )
    again.resume()
    again.catch_up()
    # then it comes to the same orders, transfers and proposals among them
    for table in (ORDER_OUTBOX, ORDER_PROPOSALS):
        first, second = (
            one.read(table, ("order_id", "payload")).sort_by("order_id").to_pylist() for one in (chain.tables, tables)
        )
        assert first == second
        assert len(first) > 50 or table is ORDER_PROPOSALS
