"""A late shipment is sent another way: proposed, approved once, and seen in the order, the arrival and the ledger."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from datetime import timedelta

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from pipelines.contracts.tables import INVENTORY_POSITIONS, LOCATIONS, SHIPMENT_EVENTS
from pipelines.errors import KeyReusedError, RerouteConflictError, UnknownShipmentError
from pipelines.operations.settings import RoutingSettings
from pipelines.serving.server import order_desk
from tests.chain import plant_catalog, plant_policies
from tests.unit.test_late_shipment_plan import START, Chain

TEA, MATE = ("s-1", "tea"), ("s-1", "mate")
DUE = START + timedelta(days=2)
LATE = DUE + timedelta(days=4)
PLACES = {"hub": (50.0, 8.0), "s-1": (51.0, 8.0), "s-2": (51.0, 9.0)}
CHEAP = RoutingSettings(fixed_costs={"road": 2.0}, expedite_surcharge=400.0)


def micros(moment) -> int:
    return round(moment.timestamp() * 1_000_000)


def locate(tables):
    rows = [
        {"location_id": name, "kind": "store", "region": "north", "timezone": "UTC", "latitude": lat, "longitude": lon}
        for name, (lat, lon) in PLACES.items()
    ]
    tables.overwrite(LOCATIONS, pa.Table.from_pylist(rows, schema=LOCATIONS.schema))


def past_legs(tables, carrier: str, hours: float, count: int = 12):
    """Legs from the hub to the store in the weeks before, which took so long."""
    rows = []
    for number in range(count):
        left = START - timedelta(days=3 + number)
        for step, (node, status, at) in enumerate(
            (("hub", "departed", left), ("s-1", "delivered", left + timedelta(hours=hours + number % 3 - 1)))
        ):
            rows.append(
                {
                    **{"event_id": f"p-{carrier}-{number}-{step}", "shipment_id": f"p-{carrier}-{number}"},
                    "event_time": at,
                    **{"carrier_id": carrier, "mode": "road", "node": node, "status": status, "sequence": 0},
                }
            )  # fmt: skip
    tables.append(SHIPMENT_EVENTS, pa.Table.from_pylist(rows, schema=SHIPMENT_EVENTS.schema))


@pytest.fixture
def chain(tables, settings):
    """Two orders for s-1 in one shipment of carrier slow, held up at the hub; swift takes eight hours from there."""
    series = [TEA, MATE, ("s-2", "tea")]
    plant_catalog(tables, series)
    locate(tables)
    plant_policies(tables, series, as_of=START.date() - timedelta(days=1))
    past_legs(tables, "swift", 8.0)
    past_legs(tables, "slow", 30.0)
    made = Chain(tables, settings.model_copy(update={"routing": CHEAP}))
    for place, sku, units in ((*TEA, 18), (*MATE, 18), ("s-2", "tea", 90)):
        made.happens("inventory.movements", 0, kind="count", quantity=units, location_id=place, sku=sku,
                     event_id=f"c-{place}-{sku}")  # fmt: skip
    return made


def ship(chain, hour, status, node, eta=None, series=TEA, **more):
    order_id, order = chain.order(series)
    event = {
        **{"shipment_id": "h", "supplier_id": "u", "carrier_id": "slow", "mode": "road", "origin": "hub"},
        **{"destination": "s-1", "node": node, "status": status, "order_id": order_id, "sku": series[1]},
        **{"quantity": order.quantity, "event_id": f"h-{hour}-{series[1]}-{status}"},
    }
    chain.happens("shipments.events", hour, **event, **({} if eta is None else {"eta": eta.isoformat()}), **more)


def hold_up(chain):
    """On the way in time, then held up at the hub while ten of each are left on the shelf."""
    for series in (TEA, MATE):
        ship(chain, 2, "departed", "u", DUE, series)
    for place, sku in (TEA, MATE):
        chain.happens("pos.sales", 36, kind="sale", quantity=8, location_id=place, sku=sku, event_id=f"sold-{sku}")
    flags = len(chain.flags)
    # Nobody is worried until then: the chance of running out is below what is flagged.
    assert [flag for flag in chain.flags if flag["on_hand"] == 10] == []
    ship(chain, 37, "exception", "hub", LATE)
    return chain.flags[flags:]


@contextmanager
def desk_of(chain):
    with order_desk(chain._settings, None, chain.tell_orders, lambda: chain.now) as desk:
        yield desk


def wait_until_sent(desk):
    for _ in range(500):
        if desk.journal.unsent == 0:
            return
        time.sleep(0.01)
    raise AssertionError("the decision was not sent")


def approve(chain, option, key="k-1", actor="anna"):
    with desk_of(chain) as desk:
        answer = desk.reroute(key, actor, "h", {"option": option, "reason": "the fair is on"})
        wait_until_sent(desk)
    return json.loads(answer.body), answer.replayed


def rows(chain, name):
    return DeltaTable(f"{chain._settings.home}/tables/gold/{name}").to_pyarrow_table().to_pylist()


def alternative(chain, kind):
    (found,) = [one for one in chain.alerts[0].details["alternatives"] if one["kind"] == kind]
    return found


def test_a_late_shipment_is_flagged_proposed_another_way_and_the_approved_one_moves_order_and_arrival(chain):
    # when it is held up for four days
    flags = hold_up(chain)
    # then both series are flagged before their shelves are empty
    assert {(flag["sku"], flag["on_hand"]) for flag in flags} == {("tea", 10), ("mate", 10)}
    assert all(flag["stockout_probability"] > 0.2 for flag in flags)
    for series in (TEA, MATE):
        assert chain.order(series)[1].expected_receipt == micros(LATE)
    # and one alert proposes the carrier that is quick from there, not the slow one that holds it
    (alert,) = chain.alerts
    best = alternative(chain, "carrier")
    assert alert.details["proposal"] == best["option"]
    assert alert.details["command"].startswith(f"stockcast shipments reroute h {best['option']} ")
    assert "swift" in best["description"]
    assert best["on_time_probability"] < 0.5 < best["in_stock_probability"]
    hours = (best["expected_arrival"] - chain.now) / timedelta(hours=1)
    # four hours until it has the goods, and its own eight drawn towards those of all on that lane
    assert 4.0 + 8.0 < hours < 4.0 + 12.0
    assert best["earliest_arrival"] < best["expected_arrival"] < best["latest_arrival"]
    # worth: almost all of what is at stake for both series, at one of money a unit, less two a leg and the freight
    assert best["avoided_loss"] == pytest.approx(alert.details["margin_at_risk"], rel=0.25)
    units = sum(chain.order(series)[1].quantity for series in (TEA, MATE))
    assert best["cost"] == pytest.approx(2.0 + units * 0.0005 * 111.2, rel=0.01)
    assert best["net_benefit"] == pytest.approx(best["avoided_loss"] - best["cost"], abs=0.02)
    # an express carrier that costs more than it saves is no proposal
    assert alternative(chain, "expedite")["net_benefit"] < 0
    # when that is approved, with a repetition of the request
    response, replayed = approve(chain, best["option"])
    again, repeated = approve(chain, best["option"])
    assert (replayed, repeated, again) == (False, True, response)
    chain.decided()
    # then both orders on board are expected then, and the shipment too
    arrival = chain.now + timedelta(hours=hours)
    for series in (TEA, MATE):
        assert chain.order(series)[1].expected_receipt == pytest.approx(micros(arrival), abs=2_000)
    (shipment,) = [row for row in rows(chain, "shipments") if row["shipment_id"] == "h"]
    assert shipment["reroute"] == best["option"]
    assert micros(shipment["expected_arrival"]) == pytest.approx(micros(arrival), abs=2_000)
    # who decided is kept: in the audit, and with the option
    (audit,) = rows(chain, "order_audit")
    assert (audit["actor"], audit["action"], audit["reason"]) == ("anna", "reroute", "the fair is on")
    (approved,) = [row for row in rows(chain, "reroutes") if row["state"] == "approved"]
    assert (approved["actor"], approved["option_id"]) == ("anna", best["option"])


def test_approving_twice_after_the_arrival_or_what_nobody_offered_does_no_harm_and_says_so(chain):
    hold_up(chain)
    option, other = alternative(chain, "carrier")["option"], alternative(chain, "expedite")["option"]
    with pytest.raises(UnknownShipmentError, match="has no option r-none; it has"):
        approve(chain, "r-none")
    with desk_of(chain) as desk, pytest.raises(UnknownShipmentError, match="there is no shipment h-9"):
        desk.reroute("k-0", "anna", "h-9", {"option": option, "reason": "r"})
    approve(chain, option)
    # before the ledger has it, and after
    for key in ("k-2", "k-3"):
        with pytest.raises(RerouteConflictError, match="approved by anna"):
            approve(chain, option, key)
        with pytest.raises(RerouteConflictError, match="sent another way"):
            approve(chain, other, key)
        chain.decided()
    with pytest.raises(KeyReusedError):
        approve(chain, other, "k-1")
    order = chain.order(MATE)[1].expected_receipt
    assert len([row for row in rows(chain, "reroutes") if row["state"] == "approved"]) == 1
    # when it has moved on, an offer for another place is void; when it has come, all are
    ship(chain, 45, "out_for_delivery", "hub")
    with pytest.raises(RerouteConflictError, match="approved by anna"):
        approve(chain, option, "k-4")
    ship(chain, 49, "delivered", "s-1")
    with pytest.raises(RerouteConflictError, match="is delivered since"):
        approve(chain, other, "k-5")
    assert chain.order(MATE)[1].expected_receipt == order


def test_an_offer_is_void_where_the_goods_have_moved_on(chain):
    hold_up(chain)
    ship(chain, 38, "departed", "hub")
    with pytest.raises(RerouteConflictError, match="shows what can be done now"):
        approve(chain, alternative(chain, "carrier")["option"])


def test_a_transfer_is_ordered_from_the_sibling_and_never_more_than_it_can_spare(chain):
    hold_up(chain)
    transfer = alternative(chain, "transfer")
    (spare,) = [one["spare"]["s-2"] for one in chain.alerts[0].details["orders"] if one["sku"] == "tea"]
    # 90 on hand, 50 of them its order-up-to level
    assert spare == 40
    # when what it has sells meanwhile, then there is not enough
    chain.happens("inventory.movements", 38, kind="count", quantity=51, location_id="s-2", sku="tea")
    with pytest.raises(RerouteConflictError, match="can spare 1 units of tea now"):
        approve(chain, transfer["option"])
    # when it is back, the transfer is an order of its own from there, and the shipment goes on as it did
    chain.happens("inventory.movements", 39, kind="count", quantity=90, location_id="s-2", sku="tea")
    response, _ = approve(chain, transfer["option"], "k-2")
    chain.decided()
    placed = {row["order_id"]: row for row in rows(chain, "orders")}[response["order_id"]]
    assert (placed["supplier_id"], placed["location_id"], placed["sku"]) == ("s-2", *TEA)
    assert 1 <= placed["quantity"] == response["quantity"] <= spare
    assert "transfer from s-2" in placed["explanation"]
    assert chain.order(MATE)[1].expected_receipt == micros(LATE)
    (stock,) = [
        row for row in chain.tables.read(INVENTORY_POSITIONS).to_pylist() if (row["location_id"], row["sku"]) == TEA
    ]
    assert stock["on_order"] == chain.order(TEA)[1].quantity + placed["quantity"]
    with pytest.raises(RerouteConflictError, match="approved by anna"):
        approve(chain, transfer["option"], "k-3")


def test_what_the_carrier_says_later_counts_but_not_without_a_word(chain):
    hold_up(chain)
    approve(chain, alternative(chain, "carrier")["option"])
    chain.decided()
    rerouted = chain.order(MATE)[1].expected_receipt
    # when events of the way come without an estimate, or with one that was made before, the decision stands
    ship(chain, 40, "departed", "hub")
    chain.track()
    ship(chain, 41, "exception", "hub", LATE + timedelta(days=1), event_time=(START + timedelta(hours=36)).isoformat())
    assert chain.order(MATE)[1].expected_receipt == rerouted
    assert [alert.kind for alert in chain.alerts].count("reroute_overtaken") == 0
    # when the new carrier is late itself, then orders hear of it and people too
    ship(chain, 44, "exception", "hub", DUE + timedelta(days=2))
    assert chain.order(MATE)[1].expected_receipt == micros(DUE + timedelta(days=2))
    (said,) = [alert for alert in chain.alerts if alert.kind == "reroute_overtaken"]
    assert "was rerouted" in said.message


def test_told_again_after_a_crash_an_alert_is_the_same_and_nothing_is_offered_twice(chain):
    hold_up(chain)
    offered = rows(chain, "reroutes")
    chain.track()
    ship(chain, 39, "exception", "hub", LATE)
    first, second = chain.alerts
    assert second.alert_id == first.alert_id
    assert (
        json.loads(second.encode())["details"]["alternatives"] == json.loads(first.encode())["details"]["alternatives"]
    )
    assert rows(chain, "reroutes") == offered
