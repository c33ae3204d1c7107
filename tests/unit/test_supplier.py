"""One order over HTTP to a supplier that misbehaves in every way: one effect, or a reason why not."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import httpx
import pytest
from pydantic import SecretStr

from pipelines.errors import UsageError
from pipelines.io.outgoing import AddressRefused, check_url, guarded_client, is_public
from pipelines.operations.settings import SupplierApiSettings
from pipelines.restocking.supplier import NotNowError, SupplierApi
from tests.stub_supplier import SECRET, supplier_running

BODY = b'{"order_id":"o-1","quantity":24}'


@pytest.fixture(scope="module")
def running():
    with supplier_running() as supplier:
        yield supplier


@pytest.fixture
def supplier(running):
    for record in (running.effects, running.calls, running.script):
        record.clear()
    running.unsigned = 0
    return running


def settings_for(supplier, **changes):
    values = {
        "url": supplier.address,
        "secret": SecretStr(SECRET),
        "timeout_seconds": 0.5,
        "first_pause_seconds": 0.01,
        "largest_pause_seconds": 0.05,
        "retry_seconds": 5.0,
        "allowed_private_hosts": ("127.0.0.1",),
    }
    return SupplierApiSettings(**(values | changes))


def send(supplier, order_id="o-1", body=BODY, on_delay=lambda *_: None, patient=True, **changes):
    async def run():
        api = SupplierApi(settings_for(supplier, **changes), lambda: datetime.now(UTC), on_delay, patient=patient)
        try:
            return await api.send(order_id, body)
        finally:
            await api.close()

    return asyncio.run(asyncio.wait_for(run(), 20))


def test_an_order_goes_out_signed_with_its_id_as_key_and_byte_for_byte(supplier):
    answer = send(supplier)
    assert (answer.outcome, answer.status_code, answer.attempts) == ("acknowledged", 200, 1)
    ((key, headers, body),) = supplier.calls
    assert (key, headers["webhook-id"], body) == ("o-1", "o-1", BODY)
    assert supplier.unsigned == 0
    assert supplier.effects == {"o-1": BODY}


@pytest.mark.parametrize(
    "steps", [[503], [500, 502], [408], [409], [429], ["hang"], ["lost"], ["lost", "lost", 500]], ids=str
)
def test_what_passes_is_tried_again_with_the_same_key(supplier, steps):
    supplier.script["o-1"] = list(steps)
    answer = send(supplier)
    assert (answer.outcome, answer.attempts) == ("acknowledged", len(steps) + 1)
    assert {key for key, *_ in supplier.calls} == {"o-1"}
    assert supplier.effects == {"o-1": BODY}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413, 422])
def test_what_does_not_pass_is_parked_after_one_call(supplier, status):
    supplier.script["o-1"] = [(status, '{"error":"no such product"}', {})]
    answer = send(supplier)
    assert (answer.outcome, answer.attempts, len(supplier.calls)) == ("parked", 1, 1)
    assert str(status) in answer.reason
    assert "no such product" in answer.text


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(supplier, status):
    supplier.script["o-1"] = [(status, "", {"Location": supplier.address})]
    answer = send(supplier)
    assert (answer.outcome, len(supplier.calls), supplier.effects) == ("parked", 1, {})
    assert "redirect" in answer.reason


def test_an_order_taken_to_be_confirmed_later_is_sent(supplier):
    supplier.script["o-1"] = [202]
    assert send(supplier).outcome == "sent"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"quantity": 18, "eta": "2026-03-04T05:00:00Z"}', (18, 1_772_600_400_000_000)),
        ('{"quantity": -1, "eta": "soon"}', (None, None)),
        ('{"quantity": true, "eta": 5}', (None, None)),
        ("[1]", (None, None)),
        ("<html>", (None, None)),
        ("x" * 200_000, (None, None)),
    ],
    ids=["both", "wrong", "types", "list", "html", "large"],
)
def test_what_the_answer_confirms_is_taken_and_the_rest_does_no_harm(supplier, text, expected):
    supplier.script["o-1"] = [(200, text, {})]
    answer = send(supplier)
    assert (answer.outcome, (answer.quantity, answer.eta)) == ("acknowledged", expected)
    assert len(answer.text) <= 2_000


def test_the_pause_that_the_supplier_asks_for_is_kept(supplier):
    supplier.script["o-1"] = [(429, "", {"Retry-After": "1"})]
    started = datetime.now(UTC)
    send(supplier, largest_pause_seconds=2.0)
    assert (datetime.now(UTC) - started).total_seconds() >= 1.0


def test_an_order_that_does_not_get_through_is_told_of_once_and_goes_on(supplier):
    told = []
    supplier.script["o-1"] = [503] * 12
    answer = send(supplier, on_delay=lambda *what: told.append(what), retry_seconds=0.1)
    assert answer.outcome == "acknowledged"
    assert [order_id for order_id, _ in told] == ["o-1"]
    assert "503" in told[0][1]


def test_an_impatient_call_gives_up(supplier):
    supplier.script["o-1"] = [503] * 1_000
    with pytest.raises(NotNowError, match="503"):
        send(supplier, patient=False, retry_seconds=0.2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": None}, "supplier_api.url is not set"),
        ({"url": "ftp://example.com/x"}, "http"),
        ({"url": "https://user:pw@example.com/x"}, "no place for a password"),
        ({"allowed_private_hosts": ()}, "allowed_private_hosts"),
        ({"secret": None}, "STOCKCAST__SUPPLIER_API__SECRET"),
        ({"secret": SecretStr("hunter2")}, "whsec_"),
    ],
    ids=["no url", "scheme", "password", "private", "no secret", "secret"],
)
def test_what_is_not_fit_is_refused_before_anything_is_sent(supplier, changes, message):
    with pytest.raises(UsageError, match=message) as caught:
        send(supplier, **changes)
    assert "hunter2" not in str(caught.value)
    assert supplier.calls == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("192.168.0.1", False),
        ("172.31.0.9", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_which_addresses_are_public(address, public):
    assert is_public(address) == public


def test_a_name_that_has_come_to_lie_at_a_private_address_is_not_called(supplier):
    # given a name that was fit when it was checked (here: never checked)
    url = supplier.address.replace("127.0.0.1", "localhost")

    async def call():
        async with guarded_client(1.0, ("127.0.0.1",)) as client:
            await client.post(url)

    # then the connection refuses it
    with pytest.raises(httpx.ConnectError, match="private address") as caught:
        asyncio.run(call())
    assert isinstance(caught.value.__cause__, AddressRefused)
    assert supplier.calls == []
    with pytest.raises(UsageError):
        check_url(url, ("127.0.0.1",), "supplier_api.url")
