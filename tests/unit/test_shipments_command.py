"""`stockcast shipments` and the order API's shipments: what is shown, and the one event that an approval sends."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest

from tests.command import runner
from tests.unit.test_dashboard_reroute import OPTION
from tests.unit.test_dashboard_reroute import chain as held_up  # noqa: F401
from tests.unit.test_order_api import ACCESS, APPROVER, READER, Api, audit, key, sent_by


@pytest.fixture
def stockcast(settings, held_up, monkeypatch, capsys):  # noqa: F811
    """Runs the command; see `command.runner`."""
    return runner("shipments", settings, monkeypatch, capsys)


def test_shipments_with_other_ways_are_listed_and_shown(stockcast):
    code, said, _ = stockcast("list", "--json")
    (row,) = json.loads(said)
    assert (code, row["shipment_id"], row["option"], row["worth"]) == (0, "h-1", OPTION, 70.0)
    code, said, _ = stockcast("list")
    assert (code, "h-1" in said) == (0, True)
    code, said, _ = stockcast("show", "h-1", "--json")
    (option,) = json.loads(said)["options"]
    assert (code, option["option"], option["net_benefit"]) == (0, OPTION, 70.0)
    code, said, _ = stockcast("show", "h-1")
    assert f"stockcast shipments reroute h-1 {OPTION} --reason" in said


def test_an_approval_is_one_event_about_an_order_on_board(stockcast):
    code, said, ((order_id, event),) = stockcast("reroute", "h-1", OPTION, "--reason", "the fair", "--json")
    response = json.loads(said)
    assert (code, order_id, event["order_id"], event["status"]) == (0, "o-1", "o-1", "shipped")
    assert event["eta"] == response["eta"] > event["event_time"]
    assert event["event_id"].startswith(f"rr-{OPTION.removeprefix('r-')}")
    assert "the fair" in event["reason"]
    assert event["actor"] == response["decided_by"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("h-9", OPTION), "there is no shipment h-9"), (("h-1", "r-9"), f"has no option r-9; it has {OPTION}")],
)
def test_what_is_not_there_is_refused_with_what_is(stockcast, arguments, said):
    code, told, sent = stockcast("reroute", *arguments, "--reason", "r")
    assert (code, sent) == (1, [])
    assert said in told


def test_over_http_a_key_has_one_effect_and_a_reader_may_only_look(settings, tables, held_up):  # noqa: F811
    with ExitStack() as stack:
        api = Api(settings, stack)
        client = api.start(ACCESS)
        where, body = "/v1/shipments/h-1/reroute", {"option": OPTION, "reason": "the fair"}
        shown = client.get("/v1/shipments/h-1", headers={"Authorization": f"Bearer {READER}"}).json()
        assert [one["option_id"] for one in shown["options"]] == [OPTION]
        assert client.post(where, json=body, headers=key("k", READER)).status_code == 403
        assert client.post(where, json=body, headers={"Authorization": f"Bearer {APPROVER}"}).status_code == 400
        assert client.post(where, json={**body, "cost": 1}, headers=key("k", APPROVER)).status_code == 422
        # when it is approved and repeated, with the key and with another
        first = client.post(where, json=body, headers=key("k", APPROVER))
        again = client.post(where, json=body, headers=key("k", APPROVER))
        other = client.post(where, json=body, headers=key("k-2", APPROVER))
        # then there is one decision, one event and one row
        assert (first.status_code, again.status_code, other.status_code) == (202, 202, 409)
        assert (again.json(), again.headers["Idempotency-Replayed"]) == (first.json(), "true")
        assert "approved by anna" in other.json()["detail"]
        ((order_id, event),) = sent_by(client, api, 1)
        assert (order_id, event["event_id"]) == ("o-1", first.json()["event_id"])
        (row,) = audit(tables)
        assert (row["actor"], row["action"], json.loads(row["after"])["option"]) == ("anna", "reroute", OPTION)
        assert client.get("/v1/shipments/h-9", headers=key("k", APPROVER)).status_code == 404
