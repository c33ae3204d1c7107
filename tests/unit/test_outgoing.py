"""Outgoing HTTP goes where the configuration says and nowhere else."""

from __future__ import annotations

import asyncio
import socket
import threading

import httpx
import pytest

from pipelines.io.outgoing import guarded_client
from tests.stub_supplier import supplier_running


def get(url, allowed=()):
    async def call():
        async with guarded_client(5.0, allowed) as client:
            return await client.get(url)

    return asyncio.run(call())


@pytest.fixture
def proxy(monkeypatch):
    """A proxy that the environment asks for; yields whom it was called by."""
    callers = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def take():
            while True:
                try:
                    connection, caller = listener.accept()
                except OSError:
                    return
                callers.append(caller)
                connection.close()

        threading.Thread(target=take, daemon=True).start()
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{listener.getsockname()[1]}")
        yield callers


def test_a_proxy_of_the_environment_is_not_used(proxy):
    with supplier_running() as supplier:
        answer = get(supplier.address, allowed=["127.0.0.1"])
    assert answer.status_code == 405
    assert proxy == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]"])
def test_a_private_address_is_not_called_unless_it_is_allowed_by_name(host):
    # given a supplier on this machine
    with supplier_running() as supplier:
        url = supplier.address.replace("127.0.0.1", host)
        # when it is called under names that nobody allowed, or another one is allowed
        for allowed in ((), ("supplier.example.org",)):
            with pytest.raises(httpx.ConnectError, match="private address"):
                get(url, allowed)
        # then it was not reached
        assert supplier.calls == []
