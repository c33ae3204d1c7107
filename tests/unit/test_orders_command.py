"""`stockcast orders`: the same decisions as the order API's, as the same events."""

from __future__ import annotations

import json

import pytest

from tests.chain import plant_catalog
from tests.command import runner
from tests.unit.test_order_api import plant_orders


@pytest.fixture
def stockcast(settings, tables, monkeypatch, capsys):
    """Runs the command; see `command.runner`."""
    plant_catalog(tables, [("store-0", "item-0")])
    return runner("orders", settings, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["approve", "o-1"], {"status": "approved"}),
        (["approve", "o-1", "--quantity", "6"], {"status": "approved", "quantity": 6}),
        (["change", "o-1", "--quantity", "6", "--reason", "r"], {"status": "proposed", "quantity": 6, "reason": "r"}),
        (["reject", "o-1", "--reason", "r"], {"status": "rejected", "reason": "r"}),
    ],
)
def test_a_decision_is_an_event(stockcast, tables, arguments, expected):
    plant_orders(tables, ("o-1", "proposed", 12))
    code, _, ((key, event),) = stockcast(*arguments)
    assert (code, key, event["order_id"]) == (0, "o-1", "o-1")
    assert expected.items() <= event.items()
    assert event["actor"]


@pytest.mark.parametrize(
    ("state", "arguments", "said"),
    [
        ("approved", ["approve", "o-1", "--quantity", "6"], "went out with 12 units"),
        ("approved", ["change", "o-1", "--quantity", "6", "--reason", "r"], "only a proposal can be changed"),
        ("received", ["reject", "o-1", "--reason", "r"], "nothing can be decided"),
        ("shipped", ["reject", "o-1", "--reason", "r"], "call it off at the supplier"),
        ("approved", ["approve", "o-9"], "there is no order o-9"),
        ("approved", ["create", "--location", "store-0", "--sku", "x", "--quantity", "6", "--reason", "r"], "no sku x"),
    ],
)
def test_what_cannot_be_decided_says_why_and_sends_nothing(stockcast, tables, state, arguments, said):
    plant_orders(tables, ("o-1", state, 12))
    code, shown, sent = stockcast(*arguments)
    assert (code, sent) == (1, [])
    assert said in " ".join(shown.split())


def test_an_order_by_hand_has_one_id_for_each_key(stockcast, tables):
    arguments = ["create", "--location", "store-0", "--sku", "item-0", "--quantity", "6", "--reason", "r", "--key", "k"]
    _, shown, ((order_id, event),) = stockcast(*arguments)
    assert order_id in shown
    assert (event["status"], event["location_id"], event["sku"], event["quantity"]) == (
        "approved",
        "store-0",
        "item-0",
        6,
    )
    plant_orders(tables, (order_id, "approved", 6))
    code, shown, sent = stockcast(*arguments)
    assert (code, sent) == (0, [])
    assert "placed before" in shown


def test_orders_are_listed_by_state_location_and_product(stockcast, tables):
    plant_orders(tables, ("o-1", "proposed", 12), ("o-2", "approved", 12), ("o-3", "proposed", 12, "store-1"))
    code, shown, _ = stockcast("list", "--state", "proposed", "--location", "store-0", "--sku", "item-0", "--json")
    assert code == 0
    assert [order["order_id"] for order in json.loads(shown)] == ["o-1"]
    code, shown, _ = stockcast("explain", "o-1")
    assert "Position 3 is low" in shown
