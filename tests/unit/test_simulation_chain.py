"""The simulated chain: repeatable, balanced to the unit, and as faulty as asked."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, date, datetime, timedelta

import numpy as np
import orjson
import pandas as pd
import pytest
import simulation_oracle as oracle

from pipelines.errors import UsageError
from pipelines.ingestion.validation import Limits, Rejected, validate
from pipelines.simulation.chain import build_chain, write_catalog
from pipelines.simulation.demand import build_model, expected_demand, promotions, true_demand, write_true_demand
from pipelines.simulation.history import history
from pipelines.simulation.messages import CONFLICT, DUPLICATE, TOMBSTONE, VALID, Message
from pipelines.simulation.plan import HOURS_PER_DAY, NO_FAULTS, Faults, Plan
from pipelines.simulation.world import Order, World

CUTOFF = date(2026, 3, 1)
PLAN = Plan(CUTOFF, seed=11, stores=4, products=8, days=120, faults=Faults(0.02, 0.03, 0.02, 0.005))


@pytest.fixture(scope="module")
def world() -> World:
    """A world whose history has passed, with its messages in `.sent`."""
    world = World(PLAN)
    world.sent = [message for day in history(world) for message in day]
    return world


@pytest.fixture(scope="module")
def events(world: World) -> list[dict]:
    return [orjson.loads(message.value) for message in world.sent if message.label == VALID]


@pytest.fixture(scope="module")
def demand(world: World) -> np.ndarray:
    return true_demand(world.model, PLAN.start_hour, PLAN.days * HOURS_PER_DAY)


def names(world: World) -> tuple[set[str], set[str]]:
    chain = world.chain
    return (
        {product.sku for product in chain.products},
        {place.location_id for place in (*chain.stores, *chain.warehouses)},
    )


# The chain and its catalog ----------------------------------------------------------------------------


def test_the_same_plan_gives_the_same_messages_and_another_seed_others(world: World) -> None:
    again = World(PLAN)
    other = World(Plan(CUTOFF, seed=12, stores=4, products=8, days=120))

    assert [message for day in history(again) for message in day] == world.sent
    assert other.chain.products != world.chain.products


def test_catalog_references_are_whole(tmp_path) -> None:
    write_catalog(tmp_path, Plan(CUTOFF, stores=7, products=30))

    products, locations, suppliers, sourcing = (
        pd.read_csv(tmp_path / f"{name}.csv") for name in ("products", "locations", "suppliers", "sourcing")
    )
    stores = locations[locations["kind"] == "store"]
    assert len(stores) == 7
    assert len(products) == 30
    assert set(locations["kind"]) == {"store", "warehouse"}
    assert len(sourcing) == 7 * 30
    assert not sourcing.duplicated(["location_id", "sku"]).any()
    assert set(sourcing["sku"]) == set(products["sku"])
    assert set(sourcing["location_id"]) == set(stores["location_id"])
    assert set(sourcing["supplier_id"]) <= set(suppliers["supplier_id"])
    for frame, key in ((products, "sku"), (locations, "location_id"), (suppliers, "supplier_id")):
        assert frame[key].is_unique
        assert frame[key].str.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}").all()
    assert (sourcing[["lead_time_days", "pack_size", "minimum_order", "review_days"]] > 0).all(axis=None)
    assert (sourcing["minimum_order"] % sourcing["pack_size"] == 0).all()
    assert (products["unit_price"] > products["unit_cost"]).all()
    assert products["shelf_life_days"].notna().any()
    assert products["substitute_group"].notna().any()
    assert locations["timezone"].map(lambda zone: pd.Timestamp("2026-01-01", tz=zone)).notna().all()


# Demand -----------------------------------------------------------------------------------------------


def test_demand_of_a_day_does_not_depend_on_the_span_that_is_asked_for(world: World, demand) -> None:
    first = PLAN.start_hour + 30 * HOURS_PER_DAY

    part = true_demand(world.model, first, 3 * HOURS_PER_DAY)

    np.testing.assert_array_equal(part, demand[30 * HOURS_PER_DAY : 33 * HOURS_PER_DAY])
    assert part.sum() > 0


@pytest.mark.parametrize("day", [date(2025, 10, 26), date(2025, 11, 2), date(2026, 3, 8), date(2026, 3, 29)], ids=str)
def test_shops_sell_in_local_opening_hours_on_days_when_clocks_change(day: date) -> None:
    model = build_model(build_chain(Plan(date(2026, 6, 1), stores=6, products=6, days=300)))
    first = (day - date(1970, 1, 1)).days * HOURS_PER_DAY - HOURS_PER_DAY

    demand = true_demand(model, first, 3 * HOURS_PER_DAY)

    utc = pd.date_range(pd.Timestamp(day, tz="UTC") - pd.Timedelta(days=1), periods=72, freq="h")
    for number, store in enumerate(model.chain.stores):
        local = utc.tz_convert(store.timezone).hour
        sold = demand[:, number * 6 : (number + 1) * 6].sum(axis=1)
        assert sold[(local < 8) | (local > 21)].sum() == 0
        assert sold[(local >= 11) & (local <= 18)].sum() > 0


def test_promotions_lift_demand_and_holidays_close_shops() -> None:
    plan = Plan(date(2026, 6, 1), stores=3, products=12, days=728)
    model = build_model(build_chain(plan))
    demand = true_demand(model, plan.start_hour, 728 * HOURS_PER_DAY)
    by_store = demand.reshape(-1, 3, 12)
    day = plan.start_hour // 24 + np.arange(len(by_store)) // 24
    uplift = np.array([promotions(model.chain, int((number + 3) // 7)).uplift for number in day])

    promoted = [by_store[uplift[:, p] > 1][:, :, p].mean() for p in range(12) if (uplift[:, p] > 1).any()]
    usual = [by_store[uplift[:, p] == 1][:, :, p].mean() for p in range(12) if (uplift[:, p] > 1).any()]

    assert 1.3 < np.sum(promoted) / np.sum(usual) < 2.4
    berlin = 0
    christmas = pd.date_range("2025-12-25", periods=24, freq="h", tz="Europe/Berlin")
    rows = ((christmas - pd.Timestamp(plan.start, tz="UTC")) // pd.Timedelta(hours=1)).to_numpy()
    assert demand[rows, berlin * 12 : (berlin + 1) * 12].sum() == 0


def test_shops_are_busy_before_a_public_holiday_and_quiet_on_it() -> None:
    plan = Plan(date(2026, 6, 1), stores=1, products=6, days=364)
    model = build_model(build_chain(plan))
    hours = pd.date_range(plan.start, periods=364 * 24, freq="h", tz="UTC").tz_convert("Europe/Berlin")
    mean = pd.Series(expected_demand(model, plan.start_hour, 364 * 24).sum(axis=1), index=hours)
    daily = mean.groupby(hours.date).sum()

    # German Unity Day 2025, a Friday, and the days around it against the same weekdays a week later
    before, on, after = (daily[date(2025, 10, day)] / daily[date(2025, 10, day + 7)] for day in (2, 3, 6))
    assert before > after * 1.1
    assert on < after * 0.75


def test_demand_is_noisier_than_poisson_and_has_slow_movers_and_a_new_product() -> None:
    plan = Plan(date(2026, 6, 1), stores=3, products=20, days=364)
    model = build_model(build_chain(plan))
    daily = true_demand(model, plan.start_hour, 364 * 24).reshape(364, 24, -1).sum(axis=1)
    mean = expected_demand(model, plan.start_hour, 364 * 24).reshape(364, 24, -1).sum(axis=1)
    fast = mean.mean(axis=0) > 5
    excess = ((daily - mean) ** 2 / np.maximum(mean, 1e-9))[:, fast].mean()

    assert excess == pytest.approx(1 + mean[:, fast].mean() / 14, rel=0.25)
    assert (daily.mean(axis=0) < 0.8).sum() >= 3
    new = [series for series in range(60) if daily[: 364 - 46, series].sum() == 0]
    assert [model.chain.product(series).sku for series in new] == [model.chain.products[19].sku] * 3
    assert all(daily[-45:, series].sum() > 0 for series in new)


def test_true_demand_file_holds_every_series_and_hour(tmp_path, world: World, demand) -> None:
    path = tmp_path / "true_demand.parquet"

    write_true_demand(path, world.model, PLAN.start_hour, PLAN.cutoff_hour)

    frame = pd.read_parquet(path)
    assert list(frame.columns) == ["location_id", "sku", "hour", "demand"]
    assert len(frame) == demand.size
    assert frame["hour"].min() == pd.Timestamp(PLAN.start, tz="UTC")
    one = frame[(frame["location_id"] == world.chain.store(9).location_id)]
    one = one[one["sku"] == world.chain.product(9).sku].sort_values("hour")
    np.testing.assert_array_equal(one["demand"], demand[:, 9])


# Stock ------------------------------------------------------------------------------------------------


def test_events_add_up_to_the_simulated_stock(world: World, events: list[dict]) -> None:
    assert oracle.on_hand(oracle.ledger(events)) == world.on_hand()


def test_stock_is_never_negative_and_reported_levels_are_right(events: list[dict]) -> None:
    frame = oracle.ledger(events)
    frame["level"] = oracle.balances(frame)

    assert frame["level"].notna().all(), "each series begins with a count"
    assert frame["level"].min() >= 0
    reported = frame[frame["on_hand"].notna()]
    assert len(reported) > 100
    assert (reported["on_hand"] == reported["level"]).all()
    assert set(frame["kind"]) == {
        *("sale", "return", "receipt", "adjustment", "transfer_in", "transfer_out", "write_off", "count")
    }


def test_sales_never_exceed_true_demand_and_stockouts_censor_some(world, events, demand) -> None:
    frame = oracle.ledger(events)
    sales = frame[frame["kind"] == "sale"]
    hour = sales["event_time"].dt.floor("h")
    sold = sales.groupby([sales["location_id"], sales["sku"], hour])["quantity"].sum()
    index = pd.MultiIndex.from_tuples(
        [
            (world.chain.store(s).location_id, world.chain.product(s).sku, at)
            for at in pd.date_range(PLAN.start, periods=PLAN.days * 24, freq="h", tz="UTC")
            for s in range(world.chain.size)
        ],
        names=sold.index.names,
    )
    lost = pd.Series(demand.ravel(), index=index) - sold.reindex(index, fill_value=0)

    assert set(sold.index) <= set(index)
    assert lost.min() == 0
    assert 0.002 < lost.sum() / demand.sum() < 0.15


def test_promoted_sales_are_marked_and_cheaper_and_tickets_hold_several_products(world, events) -> None:
    sales = pd.DataFrame([event for event in events if event.get("kind") == "sale"])
    listed = sales["sku"].map({product.sku: product.unit_price for product in world.chain.products})

    cheaper = sales["unit_price"] < listed - 0.005
    assert sales["promotion"].any()
    assert (cheaper[listed > 0.5] == sales["promotion"][listed > 0.5]).all()
    tickets = sales.groupby("ticket_id")
    assert (tickets["sku"].nunique() > 1).mean() > 0.05
    assert (tickets["location_id"].nunique() == 1).all()


def test_the_live_phase_begins_short_of_stock(world: World) -> None:
    assert len(world.rules.low_stock) == PLAN.low_stock
    for series in world.rules.low_stock:
        on_its_way = sum(arrival.quantity for arrival in world.stock.arrivals if arrival.series == series)
        exposure = world.chain.sourcing[series].lead_time_days + 1
        assert world.stock.book[series] + on_its_way < world.stock.rate[series] * exposure


def test_shipments_tell_one_story_each(world: World, events: list[dict]) -> None:
    steps = pd.DataFrame([event for event in events if "shipment_id" in event])
    steps["event_time"] = pd.to_datetime(steps["event_time"], format="ISO8601")
    receipts = {event["order_id"]: event for event in events if event.get("kind") == "receipt"}

    for _, one in steps.sort_values("event_time").groupby("shipment_id"):
        statuses = list(one["status"])
        assert statuses[0] == "created"
        assert statuses.count("delivered") <= 1
        if "delivered" in statuses:
            assert statuses[-1] == "delivered"
            delivered = one.iloc[-1]
            receipt = receipts[delivered["order_id"]]
            assert (receipt["sku"], receipt["location_id"]) == (delivered["sku"], delivered["destination"])
            assert receipt["quantity"] == delivered["quantity"]
            assert pd.Timestamp(receipt["event_time"]) >= delivered["event_time"]
    assert {"customs", "exception"} <= set(steps["status"])


# Faults -----------------------------------------------------------------------------------------------


def test_faults_have_the_shares_that_were_asked_for(world: World) -> None:
    labels = Counter(message.label.split(":")[0] for message in world.sent)
    valid = labels[VALID]
    late = sum(message.late for message in world.sent if message.label == VALID)
    malformed = labels["malformed"] + labels[TOMBSTONE]

    assert labels[DUPLICATE] / valid == pytest.approx(0.02, rel=0.15)
    assert late / valid == pytest.approx(0.03, rel=0.15)
    assert malformed / valid == pytest.approx(0.02, rel=0.15)
    assert labels[CONFLICT] > 0
    assert len({message.label for message in world.sent if message.label.startswith("malformed")}) > 20


def test_valid_events_meet_the_contract_and_malformed_ones_do_not(world: World) -> None:
    skus, locations = names(world)
    latest = f"{CUTOFF}T00:00:00"

    for message in world.sent:
        event = oracle.read_event(message.topic, message.value, skus, locations, latest)
        is_event = message.label in (VALID, DUPLICATE, CONFLICT)
        assert (event is not None) == is_event, (message.label, message.value)
        if event is not None:
            assert message.key.decode() == expected_key(message.topic, event)


def expected_key(topic: str, event: dict) -> str:
    if topic == "shipments.events":
        return event["shipment_id"]
    return event["order_id"] if "status" in event else f"{event['location_id']}|{event['sku']}"


def test_ingest_agrees_on_what_is_valid(world: World) -> None:
    skus, locations = names(world)
    limits = Limits(0, 300_000_000, 10_000_000, 262_144, skus, locations)
    arrival = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1_000_000)

    def judged(message: Message) -> str:
        try:
            event = validate(message.topic, message.key, message.value, arrival, limits)
        except Rejected:
            return "malformed"
        return TOMBSTONE if event is None else "event"

    for message in world.sent:
        label = message.label.split(":")[0]
        assert judged(message) == ("event" if label in (VALID, DUPLICATE, CONFLICT) else label)


def test_duplicates_are_byte_for_byte_and_contradictions_come_second(world: World) -> None:
    first: dict[str, Message] = {}
    for message in world.sent:
        if message.label == VALID:
            event_id = orjson.loads(message.value)["event_id"]
            assert event_id not in first
            first[event_id] = message
        elif message.label == DUPLICATE:
            original = first[_id(message)]
            assert (message.key, message.value) == (original.key, original.value)
        elif message.label == CONFLICT:
            original = first[_id(message)]
            assert (message.key, message.topic) == (original.key, original.topic)
            assert message.value != original.value


def _id(message: Message) -> str:
    return json.loads(message.value)["event_id"]


def test_messages_leave_in_rough_order_of_time(world: World) -> None:
    at = np.array([message.event_at for message in world.sent if not message.late])
    behind = np.maximum.accumulate(at) - at

    assert behind.max() <= 48 * 3_600_000 + 10 * 60_000
    assert (behind == 0).mean() > 0.9
    assert at.max() < PLAN.cutoff_hour * 3_600_000


# State ------------------------------------------------------------------------------------------------


def test_a_saved_world_goes_on_as_if_it_had_never_stopped() -> None:
    plan = Plan(CUTOFF, stores=2, products=6, days=20)

    def live(world: World) -> list[Message]:
        order = Order("order-1", 3, 24)
        messages = []
        for hour in range(72):
            if hour == 5:
                assert world.accept(order, world.now_ms)
                assert not world.accept(order, world.now_ms), "an order is taken once"
            world.advance()
            messages += world.outbox.until(world.now_ms)
        return messages

    through, halted = World(plan), World(plan)
    for world in (through, halted):
        for _ in history(world):
            pass
    resumed = World.from_dict(json.loads(json.dumps(halted.as_dict())))

    assert live(resumed) == live(through)
    assert resumed.on_hand() == through.on_hand()


def test_an_accepted_order_is_acknowledged_shipped_and_received() -> None:
    world = World(Plan(CUTOFF, stores=2, products=6, days=20, faults=NO_FAULTS))
    for _ in history(world):
        pass
    world.accept(Order("order-1", 3, 24), world.now_ms)
    for _ in range(30 * 24):
        world.advance()
    events = [orjson.loads(message.value) for message in world.outbox.until(world.now_ms)]
    mine = [event for event in events if event.get("order_id") == "order-1"]

    statuses = [event["status"] for event in mine if "shipment_id" not in event and "status" in event]
    receipts = [event for event in mine if event.get("kind") == "receipt"]
    assert statuses == ["acknowledged", "shipped", "received"]
    assert [receipt["quantity"] for receipt in receipts] == [24]
    assert receipts[0]["location_id"] == world.chain.store(3).location_id
    assert {event["status"] for event in mine if "shipment_id" in event} >= {"created", "delivered"}
    # Nothing else comes in once history's own orders have arrived: the chain leaves ordering to others.
    later = [event for event in events if event.get("kind") == "receipt" and event["order_id"] != "order-1"]
    assert all(event["event_time"] < (CUTOFF + timedelta(days=20)).isoformat() for event in later)
    assert not world.stock.arrivals


# Plans ------------------------------------------------------------------------------------------------


def test_a_plan_survives_json_and_its_run_names_it() -> None:
    again = Plan.from_dict(json.loads(json.dumps(PLAN.as_dict())))

    assert again == PLAN
    assert again.run == PLAN.run != Plan(CUTOFF, seed=12).run


def test_history_leaves_the_asked_for_days_to_the_live_phase() -> None:
    assert Plan.before(date(2026, 5, 10)).cutoff == date(2026, 5, 9)
    assert Plan.before(date(2026, 5, 10), live_days=1, days=30).start == date(2026, 4, 10)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Plan(CUTOFF, stores=0), "stores is 0"),
        (lambda: Plan.before(CUTOFF, live_days=0), "live_days is 0"),
        (lambda: Faults(late=0.9), "late is 0.9"),
        (lambda: Faults.parse("lost=0.1"), "unknown fault 'lost'"),
        (lambda: Faults.parse("late=much"), "'much' is not a share"),
    ],
    ids=["no stores", "no live day", "share too large", "unknown fault", "not a share"],
)
def test_impossible_plans_are_refused(make, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make()


def test_faults_are_read_from_text() -> None:
    assert Faults.parse("late=0.1,malformed=0") == Faults(late=0.1, malformed=0.0)
    assert Faults.parse("none") == NO_FAULTS
