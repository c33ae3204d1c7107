"""The simulator against the real broker, read back by a plain consumer."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta

import orjson
import pandas as pd
import pytest
import simulation_oracle as oracle
from confluent_kafka import Consumer, Producer, TopicPartition

from pipelines.contracts.topics import INPUT_TOPICS, RESTOCK_ORDERS
from pipelines.errors import BrokerError, UsageError
from pipelines.io import kafka
from pipelines.operations.settings import Settings
from pipelines.simulation import store
from pipelines.simulation.chain import build_chain
from pipelines.simulation.history import simulate_history
from pipelines.simulation.live import LiveOptions, simulate_live
from pipelines.simulation.plan import NO_FAULTS, Faults, Plan
from pipelines.simulation.sending import Sender

FAULTS = Faults(duplicates=0.05, late=0.05, malformed=0.03, conflicts=0.01)


@pytest.fixture
def home(broker: Settings, tmp_path) -> Settings:
    """The run's broker with a home of the test's own."""
    return broker.model_copy(update={"home": str(tmp_path / "home")})


class Reader:
    """What arrives on the input topics from now on."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.start = kafka.end_offsets(settings, INPUT_TOPICS)

    def read(self) -> list:
        end = kafka.end_offsets(self.settings, INPUT_TOPICS)
        servers = self.settings.kafka.bootstrap_servers
        client = Consumer({"bootstrap.servers": servers, "group.id": "plain", "enable.auto.commit": False})
        client.assign([TopicPartition(*place, offset) for place, offset in self.start.items()])
        wanted = sum(end.values()) - sum(self.start.values())
        records = []
        deadline = time.monotonic() + 30
        while len(records) < wanted and time.monotonic() < deadline:
            records += [record for record in client.consume(5000, timeout=0.5) if record.error() is None]
        client.close()
        assert len(records) == wanted
        return records

    def events(self) -> list[dict]:
        return [orjson.loads(record.value()) for record in self.read()]


def test_the_broker_holds_exactly_what_the_manifest_says(home: Settings) -> None:
    plan = Plan(date(2026, 2, 1), seed=101, stores=3, products=5, days=30, faults=FAULTS)
    chain = build_chain(plan)
    skus = {product.sku for product in chain.products}
    locations = {place.location_id for place in (*chain.stores, *chain.warehouses)}
    reader, shown = Reader(home), []

    manifest = simulate_history(home, plan, shown.append)

    seen: Counter[tuple[str, str]] = Counter()
    payloads: dict[str, bytes] = {}
    first_events: list[dict] = []
    for record in reader.read():
        topic, value = record.topic(), record.value()
        event = oracle.read_event(topic, value, skus, locations, "2026-02-01")
        seen[topic, "messages"] += 1
        if value is None:
            seen[topic, "tombstones"] += 1
        elif event is None:
            seen[topic, "malformed"] += 1
        elif event["event_id"] not in payloads:
            payloads[event["event_id"]] = value
            first_events.append(event)
            seen[topic, "valid"] += 1
        else:
            same = payloads[event["event_id"]] == value
            seen[topic, "exact_duplicates" if same else "conflicting_duplicates"] += 1
    expected = {
        (topic, name): count
        for topic, counts in manifest.topics.items()
        for name, count in asdict(counts).items()
        if name not in ("late", "malformed_kinds") and count
    }
    assert expected == dict(seen)
    assert store.load_manifest(home) == manifest
    written = orjson.loads(store.manifest_path(home).read_bytes())
    assert oracle.on_hand(oracle.ledger(first_events)) == written["on_hand"]
    assert written["unsent"] == 0
    assert shown[-1].fraction == 1.0
    assert (store.catalog_folder(home) / "sourcing.csv").exists()
    assert len(pd.read_parquet(store.true_demand_path(home))) == 15 * 30 * 24


def test_a_history_that_was_sent_is_not_sent_again_and_a_home_holds_one_chain(home: Settings) -> None:
    plan = Plan(date(2026, 2, 1), seed=102, stores=1, products=2, days=5)
    first = simulate_history(home, plan)
    reader = Reader(home)

    assert simulate_history(home, plan) == first
    assert reader.read() == []
    with pytest.raises(UsageError, match="already holds the chain of seed 102"):
        simulate_history(home, Plan(date(2026, 2, 1), seed=103, stores=1, products=2, days=5))


def _order(chain, series: int, order_id: str, quantity: int) -> dict:
    return {
        "order_id": order_id,
        "location_id": chain.store(series).location_id,
        "sku": chain.product(series).sku,
        "supplier_id": chain.sourcing[series].supplier_id,
        "quantity": quantity,
    }


def _place(home: Settings, *orders: dict) -> None:
    client = Producer({"bootstrap.servers": home.kafka.bootstrap_servers})
    for order in orders:
        client.produce(RESTOCK_ORDERS, orjson.dumps(order), key=order["order_id"].encode())
    assert client.flush(20) == 0


def test_live_answers_orders_with_statuses_shipments_and_a_receipt(home: Settings) -> None:
    # Given a history, an order from before it that is not for now, and two orders after it
    plan = Plan(date(2026, 2, 1), seed=104, stores=2, products=4, days=20, faults=NO_FAULTS)
    chain = build_chain(plan)
    _place(home, _order(chain, 0, "before-104", 6))
    simulate_history(home, plan)
    orders = [_order(chain, series, f"order-104-{series}", 12 + series) for series in (1, 6)]
    _place(home, *orders, orders[0], {"order_id": "nonsense-104"})
    reader = Reader(home)

    # When simulated time passes until long after the lead times
    until = datetime(2026, 2, 21, tzinfo=UTC)
    manifest = simulate_live(home, options=LiveOptions(rate=None, until=until))

    # Then each order is answered once, in order, and its goods arrive as stock
    events = reader.events()
    assert manifest.orders_accepted == 2
    assert not [event for event in events if event.get("order_id") == "before-104"]
    for order in orders:
        mine = [event for event in events if event.get("order_id") == order["order_id"]]
        statuses = [e for e in mine if "status" in e and "shipment_id" not in e]
        shipment = [event["status"] for event in mine if "shipment_id" in event]
        (receipt,) = [event for event in mine if event.get("kind") == "receipt"]
        in_time = sorted(statuses, key=lambda event: event["event_time"])
        assert [event["status"] for event in in_time] == ["acknowledged", "shipped", "received"]
        assert shipment[0] == "created"
        assert shipment[-1] == "delivered"
        assert [receipt[name] for name in ("location_id", "sku", "quantity")] == [
            order[name] for name in ("location_id", "sku", "quantity")
        ]
        assert in_time[0]["event_time"] < receipt["event_time"] < in_time[2]["event_time"]
    assert all("2026-02-01T00" <= event["event_time"] < "2026-02-21T00" for event in events)


def test_live_in_two_parts_adds_up_to_the_stock_that_the_manifest_reports(home: Settings) -> None:
    plan = Plan(date(2026, 2, 1), seed=105, stores=2, products=5, days=15, faults=Faults(late=0.2))
    chain = build_chain(plan)
    skus = {product.sku for product in chain.products}
    locations = {place.location_id for place in (*chain.stores, *chain.warehouses)}
    reader = Reader(home)

    simulate_history(home, plan)
    simulate_live(home, plan, LiveOptions(rate=None, until=datetime(2026, 2, 2, 9, 30, tzinfo=UTC)))
    simulate_live(home, plan, LiveOptions(rate=None, until=datetime(2026, 2, 4, tzinfo=UTC)))

    read = [
        oracle.read_event(record.topic(), record.value(), skus, locations, "2026-02-04") for record in reader.read()
    ]
    written = orjson.loads(store.manifest_path(home).read_bytes())
    assert written["simulated_until"] == "2026-02-04T00:00:00+00:00"
    assert written["unsent"] == 0
    assert oracle.on_hand(oracle.ledger(event for event in read if event)) == written["on_hand"]
    assert len(pd.read_parquet(store.true_demand_path(home))) == 10 * 24 * (15 + 3)


def test_live_keeps_to_its_rate_and_ends_after_so_many_messages(home: Settings) -> None:
    plan = Plan(date(2026, 2, 1), seed=106, stores=2, products=5, days=5)
    simulate_history(home, plan)
    reader, started = Reader(home), time.monotonic()

    simulate_live(home, plan, LiveOptions(rate=100, max_events=150))

    assert 1.2 < time.monotonic() - started < 6
    assert len(reader.read()) == 150


def test_live_waits_for_the_wall_clock_and_stops_when_told(home: Settings) -> None:
    # Given a clock that says one hour after the cutoff
    plan = Plan(date(2026, 2, 1), seed=107, stores=3, products=8, days=5, faults=NO_FAULTS)
    simulate_history(home, plan)
    at = datetime(2026, 2, 1, 12, 30, tzinfo=UTC)
    reader, stop = Reader(home), threading.Event()
    threading.Timer(1.5, stop.set).start()

    # When it runs without an end
    simulate_live(home, plan, LiveOptions(rate=None), stop=stop, clock=at.timestamp)

    # Then everything up to now was sent, and nothing from the future
    times = [event["event_time"] for event in reader.events()]
    assert max(times) <= "2026-02-01T12:30:00.000Z"
    assert max(times) > "2026-02-01T11:00"
    # And an order is not acknowledged before it came, though its hour was begun
    soon = at + timedelta(minutes=1)
    _place(home, _order(build_chain(plan), 0, "order-107", 12))
    simulate_live(home, plan, LiveOptions(rate=None, until=soon), clock=soon.timestamp)
    (status,) = [event for event in reader.events() if event.get("order_id") == "order-107" and "actor" in event]
    assert status["status"] == "acknowledged"
    assert "2026-02-01T12:30" <= status["event_time"] <= "2026-02-01T12:31:00.000Z"
    # And the rest of the hour goes out in the next phase, once its time has come
    simulate_live(home, plan, LiveOptions(rate=None, until=at + timedelta(minutes=30)))
    events = reader.events()
    assert len({event["event_id"] for event in events}) == len(events)
    assert max(event["event_time"] for event in events) > "2026-02-01T12:30"


def test_a_message_that_the_broker_refuses_is_an_error(home: Settings) -> None:
    sender = Sender(kafka.producer(home, **{"message.timeout.ms": 3000, "topic.metadata.propagation.max.ms": 1}))
    sender.send("no-such-topic", b"key", b"value")

    with pytest.raises(BrokerError, match="1 messages were not delivered"):
        sender.flush()
