"""The order API over its HTTP surface, with tables on disk and events caught before Kafka."""

from __future__ import annotations

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pyarrow as pa
import pytest
import uvicorn
from fastapi.testclient import TestClient
from pydantic import SecretStr
from standardwebhooks import Webhook

from pipelines.contracts.tables import ORDER_AUDIT, ORDER_PROPOSALS, ORDERS
from pipelines.errors import BrokerError, UsageError
from pipelines.operations.settings import ApiSettings
from pipelines.restocking.webhooks import Signer
from pipelines.serving.access import APPROVE, READ, Access, Caller, load_access
from pipelines.serving.server import order_app
from tests.chain import plant_catalog

NOW = datetime.now(UTC).replace(microsecond=0)
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
READER, APPROVER = "reader-token-0123456789", "approver-token-0123456789"
ACCESS = Access([(READER, Caller("rita", READ)), (APPROVER, Caller("anna", APPROVE))])
OPEN = Access([])


def plant_orders(tables, *rows):
    """Rows (order_id, state, quantity[, location_id]) of gold/orders, a minute apart."""
    orders = [
        {
            "order_id": order_id,
            "state": state,
            "state_time": NOW,
            "received": 0,
            "location_id": location[0] if location else "store-0",
            "sku": "item-0",
            "supplier_id": "sup-1",
            "quantity": quantity,
            "on_hand": 3,
            "on_order": 0,
            "created_at": NOW - timedelta(minutes=place),
            "expected_receipt": NOW + timedelta(days=2),
            "explanation": f"Position 3 is low <b>; {order_id}",
        }
        for place, (order_id, state, quantity, *location) in enumerate(rows)
    ]
    tables.ensure(ORDERS)
    tables.upsert(ORDERS, pa.Table.from_pylist(orders, schema=ORDERS.schema), keys=("order_id",))


class Caught(list):
    """The events that would have gone to Kafka."""

    def __call__(self, messages):
        self.extend((key, json.loads(value)) for key, value in messages)


def wall_clock():
    return datetime.now(UTC)


class Api:
    def __init__(self, settings, stack):
        self._settings, self._stack = settings, stack
        self.sent = Caught()

    def start(self, access=OPEN, send=None, clock=lambda: NOW):
        app = self._stack.enter_context(
            order_app(self._settings, access, Signer(SECRET, "test"), send or self.sent, clock)
        )
        return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)


@pytest.fixture
def api(settings, tables):
    plant_catalog(tables, [("store-0", "item-0"), ("store-1", "item-0")])
    with ExitStack() as stack:
        yield Api(settings, stack)


def key(name="k-1", token=None):
    headers = {"Idempotency-Key": name}
    return headers if token is None else headers | {"Authorization": f"Bearer {token}"}


def audit(tables):
    return tables.read(ORDER_AUDIT).sort_by("sequence").to_pylist()


def sent_by(client, api, count):
    """The events sent, once there are so many."""
    for _ in range(200):
        if len(api.sent) >= count and client.get("/health").json()["unsent_decisions"] == 0:
            break
        threading.Event().wait(0.01)
    return api.sent


NEW = {"location_id": "store-0", "sku": "item-0", "quantity": 12, "reason": "fair in town"}


def test_orders_are_listed_newest_first_filtered_and_in_pages(api, tables):
    plant_orders(tables, *((f"o-{n}", "proposed" if n % 2 else "approved", 6, f"store-{n % 3}") for n in range(9)))
    client = api.start()
    whole = client.get("/v1/orders").json()
    assert [order["order_id"] for order in whole["orders"]] == [f"o-{n}" for n in range(9)]
    assert (whole["matching"], whole["next_cursor"]) == (9, None)
    some = client.get("/v1/orders", params={"state": "proposed", "location_id": "store-1", "sku": "item-0"}).json()
    assert [order["order_id"] for order in some["orders"]] == ["o-1", "o-7"]
    seen, cursor = [], None
    while True:
        page = client.get("/v1/orders", params={"limit": 4} | ({"cursor": cursor} if cursor else {})).json()
        seen += [order["order_id"] for order in page["orders"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == [f"o-{n}" for n in range(9)]


@pytest.mark.parametrize("query", ["state=open", "limit=0", "limit=9999", "shop=store-1", "cursor=xyz", "sku=../x"])
def test_a_wrong_query_is_refused_and_says_what_was_expected(api, query):
    answer = api.start().get(f"/v1/orders?{query}")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert query.partition("=")[0] in answer.json()["detail"]


def test_an_order_is_shown_and_explained(api, tables):
    plant_orders(tables, ("o-1", "approved", 6))
    client = api.start()
    assert client.get("/v1/orders/o-1").json()["quantity"] == 6
    assert client.get("/v1/orders/o-1/explanation").json()["explanation"].startswith("Position 3")
    missing = client.get("/v1/orders/o-2")
    assert (missing.status_code, missing.json()["status"]) == (404, 404)
    assert "o-2" in missing.json()["detail"]


def test_a_proposal_decided_a_moment_ago_is_found_before_it_is_saved(api, tables):
    payload = json.dumps({"order_id": "o-1", "quantity": 6, "location_id": "store-0", "sku": "item-0"})
    row = {"sequence": 1, "order_id": "o-1", "payload": payload, "decided_at": NOW, "ledger_sequence": 1}
    tables.append(ORDER_PROPOSALS, pa.Table.from_pylist([row], schema=ORDER_PROPOSALS.schema))
    client = api.start()
    assert client.get("/v1/orders/o-1").json()["state"] == "proposed"
    assert client.post("/v1/orders/o-1/approve", headers=key()).status_code == 202


def test_an_approval_is_recorded_sent_and_audited(api, tables):
    plant_orders(tables, ("o-1", "proposed", 24))
    client = api.start(ACCESS)
    body = {"quantity": 12, "reason": "space for 12"}
    answer = client.post("/v1/orders/o-1/approve", json=body, headers=key(token=APPROVER))
    assert answer.status_code == 202
    ((kafka_key, event),) = sent_by(client, api, 1)
    assert kafka_key == "o-1"
    assert {name: event[name] for name in ("order_id", "status", "quantity", "actor", "reason")} == {
        "order_id": "o-1",
        "status": "approved",
        "quantity": 12,
        "actor": "anna",
        "reason": "space for 12",
    }
    (row,) = audit(tables)
    assert (row["actor"], row["action"], row["reason"], row["idempotency_key"]) == (
        "anna",
        "approve",
        body["reason"],
        "k-1",
    )
    assert json.loads(row["before"])["quantity"] == 24
    assert json.loads(row["after"]) | {"explanation": ""} == {
        "state": "approved",
        "quantity": 12,
        "location_id": "store-0",
        "sku": "item-0",
        "explanation": "",
    }
    shown = client.get("/v1/orders/o-1", headers=key(token=READER)).json()
    assert (shown["state"], shown["pending"]) == ("proposed", {"state": "approved", "quantity": 12})


def test_a_change_and_then_an_approval_go_out_in_this_order(api, tables):
    plant_orders(tables, ("o-1", "proposed", 24))
    client = api.start()
    change = {"quantity": 18, "reason": "pallet"}
    assert client.post("/v1/orders/o-1/change", json=change, headers=key("k-1")).json()["quantity"] == 18
    assert client.post("/v1/orders/o-1/approve", headers=key("k-2")).json()["quantity"] == 18
    late = client.post("/v1/orders/o-1/change", json=change | {"quantity": 6}, headers=key("k-3"))
    assert late.status_code == 409
    assert "approved" in late.json()["detail"]
    assert [event["status"] for _, event in sent_by(client, api, 2)] == ["proposed", "approved"]


@pytest.mark.parametrize(
    ("state", "action", "body", "status"),
    [
        ("approved", "approve", {}, 202),
        ("approved", "approve", {"quantity": 7}, 409),
        ("approved", "reject", {"reason": "r"}, 202),
        ("approved", "change", {"quantity": 7, "reason": "r"}, 409),
        ("acknowledged", "reject", {"reason": "r"}, 202),
        ("shipped", "reject", {"reason": "r"}, 409),
        ("expired", "approve", {}, 409),
        ("rejected", "approve", {}, 409),
        ("received", "reject", {"reason": "r"}, 409),
        ("cancelled", "change", {"quantity": 7, "reason": "r"}, 409),
    ],
)
def test_what_may_be_decided_depends_on_the_state(api, tables, state, action, body, status):
    plant_orders(tables, ("o-1", state, 6))
    answer = api.start().post(f"/v1/orders/o-1/{action}", json=body, headers=key())
    assert answer.status_code == status
    assert len(audit(tables)) == (status == 202)


def test_two_decisions_that_cross_do_not_both_hold(api, tables):
    plant_orders(tables, ("o-1", "proposed", 6))
    client = api.start()
    assert client.post("/v1/orders/o-1/reject", json={"reason": "no"}, headers=key("k-1")).status_code == 202
    assert client.post("/v1/orders/o-1/approve", headers=key("k-2")).status_code == 409


def test_the_same_key_and_body_give_the_same_answer_and_one_effect_over_restarts(api, settings, tables):
    client = api.start()
    first = client.post("/v1/orders", json=NEW, headers=key())
    assert first.status_code == 201
    again = client.post(
        "/v1/orders", content=json.dumps(NEW, indent=3), headers=key() | {"Content-Type": "application/json"}
    )
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["Idempotency-Replayed"] == "true"
    sent_by(client, api, 1)
    with order_app(settings, OPEN, None, api.sent, lambda: NOW + timedelta(days=400)) as app:
        later = TestClient(app, base_url="http://127.0.0.1").post("/v1/orders", json=NEW, headers=key())
    assert later.content == first.content
    assert len(audit(tables)) == len(api.sent) == 1


def test_the_same_key_with_another_body_is_refused(api, tables):
    client = api.start()
    client.post("/v1/orders", json=NEW, headers=key())
    other = client.post("/v1/orders", json=NEW | {"quantity": 13}, headers=key())
    assert other.status_code == 422
    assert "k-1" in other.json()["detail"]
    assert len(audit(tables)) == 1


def test_a_refused_request_leaves_its_key_free(api, tables):
    client = api.start()
    assert client.post("/v1/orders", json=NEW | {"sku": "item-9"}, headers=key()).status_code == 404
    assert client.post("/v1/orders", json=NEW, headers=key()).status_code == 201


def test_a_thousand_requests_at_once_with_fifty_for_each_key_give_one_order_for_each_key(settings, tables, api):
    # given a server on loopback
    with order_app(settings, OPEN, None, api.sent) as app, serving(app) as address:
        limits = httpx.Limits(max_connections=200)
        with httpx.Client(base_url=address, limits=limits, timeout=60) as client, ThreadPoolExecutor(200) as pool:

            def order(number):
                return client.post(
                    "/v1/orders", json=NEW | {"quantity": 1 + number % 20}, headers=key(f"k-{number % 20}")
                )

            # when a thousand requests come at once
            answers = list(pool.map(order, range(1_000)))
            assert len(sent_by(client, api, 20)) == 20
    # then each key has one order, and every request got its key's answer
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 20
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 20
    assert len({event["order_id"] for _, event in api.sent}) == len(audit(tables)) == 20


@contextmanager
def serving(app):
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False, timeout_keep_alive=60))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        threading.Event().wait(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def test_while_kafka_is_away_decisions_are_recorded_and_a_restart_sends_them(api, settings, tables):
    plant_orders(tables, ("o-1", "proposed", 6))

    def broken(messages):
        raise BrokerError("nobody there")

    with order_app(settings, OPEN, None, broken, lambda: NOW) as app:
        client = TestClient(app, base_url="http://127.0.0.1")
        assert client.post("/v1/orders/o-1/approve", headers=key()).status_code == 202
        assert client.get("/health").json() == {"status": "degraded", "unsent_decisions": 1}
    client = api.start()
    ((_, event),) = sent_by(client, api, 1)
    assert (event["order_id"], event["event_id"]) == ("o-1", audit(tables)[0]["event_id"])


@pytest.mark.parametrize(
    ("token", "read", "approve"), [(None, 401, 401), ("wrong", 401, 401), (READER, 200, 403), (APPROVER, 200, 202)]
)
def test_roles(api, tables, token, read, approve):
    plant_orders(tables, ("o-1", "proposed", 6))
    client = api.start(ACCESS)
    headers = key() if token is None else key(token=token)
    assert client.get("/v1/orders", headers=headers).status_code == read
    answer = client.post("/v1/orders/o-1/approve", headers=headers)
    assert answer.status_code == approve
    assert client.get("/health").status_code == 200


def test_without_tokens_a_page_under_a_name_of_its_own_is_not_answered(api):
    client = api.start()
    assert client.get("/v1/orders", headers={"Host": "evil.example"}).status_code == 403
    assert (
        client.post("/v1/orders", content=json.dumps(NEW), headers=key() | {"Content-Type": "text/plain"}).status_code
        == 422
    )


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"sku": "item-9"}, 404),
        ({"location_id": "store-9"}, 404),
        ({"sku": "../../etc"}, 422),
        ({"quantity": 0}, 422),
        ({"quantity": "6"}, 422),
        ({"quantity": 5.0}, 422),
        ({"quantity": 5.5}, 422),
        ({"quantity": None}, 422),
        ({"reason": ""}, 422),
        ({"unit": "crate"}, 422),
    ],
)
def test_bad_orders_are_refused(api, tables, change, status):
    answer = api.start().post("/v1/orders", json=NEW | change, headers=key())
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert audit(tables) == []


def test_more_that_is_refused(api):
    client = api.start()
    assert client.post("/v1/orders", json=NEW).status_code == 400
    assert client.post("/v1/orders", json=NEW, headers=key("a b")).status_code == 400
    assert (
        client.post("/v1/orders", content=b"{", headers=key() | {"Content-Type": "application/json"}).status_code == 400
    )
    assert client.get("/v2/orders").status_code == 404
    assert client.delete("/v1/orders/o-1").status_code == 405


def test_an_oversized_body_is_refused_whether_or_not_its_length_is_announced(api):
    client = api.start()
    large = json.dumps(NEW | {"reason": "x" * 70_000}).encode()
    for content in (large, iter([large[:40_000], large[40_000:]])):
        answer = client.post("/v1/orders", content=content, headers=key() | {"Content-Type": "application/json"})
        assert answer.status_code == 413
        assert "65536" in answer.json()["detail"]


def report(body, message_id="msg-1", at=None, secret=SECRET, **changes):
    data = json.dumps(body)
    at = at or datetime.now(UTC)
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, at, data),
    }
    return {"content": data, "headers": headers | changes}


SHIPPED = {"order_id": "o-1", "status": "shipped", "quantity": 5}


def test_a_suppliers_signed_report_becomes_a_status_event_once(api, tables):
    plant_orders(tables, ("o-1", "approved", 6))
    client = api.start(ACCESS, clock=wall_clock)
    first = client.post("/v1/order-status", **report(SHIPPED))
    again = client.post("/v1/order-status", **report(SHIPPED, at=datetime.now(UTC) + timedelta(seconds=2)))
    assert (first.status_code, again.content) == (202, first.content)
    ((_, event),) = sent_by(client, api, 1)
    assert (event["status"], event["quantity"], event["actor"]) == ("shipped", 5, "supplier")
    other = client.post("/v1/order-status", **report(SHIPPED | {"quantity": 4}))
    assert other.status_code == 422


OTHER_SECRET = "whsec_" + base64.b64encode(b"x" * 32).decode()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (lambda: report(SHIPPED, secret=OTHER_SECRET), 401),
        (lambda: report(SHIPPED, **{"webhook-signature": "v1,AAAA"}), 401),
        (lambda: report(SHIPPED, **{"webhook-signature": "nonsense"}), 401),
        (lambda: report(SHIPPED, **{"webhook-id": "msg-2"}), 401),
        (lambda: report(SHIPPED) | {"content": json.dumps(SHIPPED | {"quantity": 6})}, 401),
        (lambda: report(SHIPPED, at=datetime.now(UTC) - timedelta(minutes=6)), 401),
        (lambda: report(SHIPPED, at=datetime.now(UTC) + timedelta(minutes=6)), 401),
        (lambda: {"content": json.dumps(SHIPPED)}, 401),
        (lambda: report(SHIPPED | {"order_id": "o-9"}), 404),
        (lambda: report(SHIPPED | {"status": "approved"}), 422),
        (lambda: report(SHIPPED | {"quantity": -1}), 422),
        (lambda: report([1]), 422),
    ],
    ids=["secret", "signature", "form", "id", "body", "stale", "early", "unsigned", "order", "status", "units", "list"],
)
def test_reports_that_are_refused(api, tables, request_, status):
    plant_orders(tables, ("o-1", "approved", 6))
    answer = api.start(clock=wall_clock).post("/v1/order-status", **request_())
    assert (answer.status_code, audit(tables)) == (status, [])


def test_an_address_that_others_reach_needs_a_token(tmp_path):
    with pytest.raises(UsageError, match="no token is set") as caught:
        load_access(ApiSettings(host="0.0.0.0"))
    assert caught.value.exit_code == 2
    assert not load_access(ApiSettings(host="0.0.0.0", approve_token=SecretStr(APPROVER))).is_open
    assert load_access(ApiSettings(host="::1")).is_open


def test_tokens_from_a_file_that_only_its_owner_can_read(tmp_path):
    file = tmp_path / "tokens"
    file.write_text(f"# who\nread rita {READER}\napprove anna {APPROVER}\n")
    file.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        load_access(ApiSettings(tokens_file=str(file)))
    file.chmod(0o600)
    access = load_access(ApiSettings(tokens_file=str(file)))
    assert (access.caller(APPROVER), access.caller("x")) == (Caller("anna", APPROVE), None)


def test_short_tokens_are_refused_without_showing_them():
    with pytest.raises(UsageError, match="fewer than") as caught:
        load_access(ApiSettings(read_token=SecretStr("hunter2")))
    assert "hunter2" not in str(caught.value)
