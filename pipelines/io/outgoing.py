"""Outgoing HTTP to addresses from the configuration: no redirects, no proxies from the environment, and no private
addresses but those allowed by name.

The address is checked where the connection is made, and the connection goes to the address that was checked, so a
name that resolves to something else a moment later leads nowhere.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Collection, Iterable
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx

from pipelines.errors import UsageError


class AddressRefused(httpcore.ConnectError):
    """A name leads to an address that is not allowed."""


class _GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to public addresses, and to any address of the allowed names."""

    def __init__(self, allowed: Collection[str]) -> None:
        self._allowed = frozenset(name.lower() for name in allowed)
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, check and connect."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(f"{host} has no address: {error}") from None
        addresses = [str(address[0]) for *_, address in found]
        if host.lower() not in self._allowed:
            addresses = [address for address in addresses if is_public(address)]
        if not addresses:
            raise AddressRefused(f"{host} lies at a private address, which is refused")
        return await self._network.connect_tcp(addresses[0], port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        """As the network does."""
        await self._network.sleep(seconds)


class _GuardedTransport(httpx.AsyncHTTPTransport):
    def __init__(self, allowed: Collection[str]) -> None:
        super().__init__(trust_env=False)
        # httpx has no parameter for the network behind its pool.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(), network_backend=_GuardedNetwork(allowed)
        )


def guarded_client(timeout: float, allowed: Collection[str]) -> httpx.AsyncClient:
    """A client that reaches public addresses and those of the `allowed` names; timeouts in seconds, per step."""
    return httpx.AsyncClient(
        transport=_GuardedTransport(allowed), timeout=timeout, follow_redirects=False, trust_env=False
    )


def check_url(url: str, allowed: Collection[str], setting: str) -> None:
    """Whether a configured URL may be called. A name that cannot be resolved now is left to the connection.

    Raises:
        UsageError: it is no HTTP URL, carries a password, or lies at a private address.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageError(f"{setting}: expected http(s)://host/path, found {parts.scheme or 'no scheme'}")
    if parts.username or parts.password:
        raise UsageError(f"{setting}: a URL is no place for a password")
    if parts.hostname in {name.lower() for name in allowed}:
        return
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    except OSError:
        return
    if not any(is_public(str(address[0])) for *_, address in found):
        section = setting.rpartition(".")[0]
        raise UsageError(
            f"{setting}: {parts.hostname} lies at a private address; name it in {section}.allowed_private_hosts if "
            "that is meant"
        )


def is_public(address: str) -> bool:
    """Whether an address is one of the internet's, also where it is wrapped in one of IPv6."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        wrapped = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]
        if wrapped is not None:
            found = wrapped
        elif found in ipaddress.ip_network("64:ff9b::/96"):
            found = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    return found.is_global and not found.is_multicast
