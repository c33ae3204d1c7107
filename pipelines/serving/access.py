"""Who may use the order API, and for what."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.errors import UsageError
from pipelines.operations.secret_files import read_secret_file, secret_of
from pipelines.operations.settings import ApiSettings

READ, APPROVE = "read", "approve"
ROLES = (READ, APPROVE)
"""Each may do what those before it may."""

SHORTEST_TOKEN = 16
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


@dataclass(frozen=True)
class Caller:
    """Somebody who showed a token."""

    name: str
    role: str

    def may(self, role: str) -> bool:
        """Whether the caller's role includes `role`."""
        return ROLES.index(self.role) >= ROLES.index(role)


LOCAL = Caller("local", APPROVE)
"""Everybody, where no tokens are set and the API listens on loopback."""


class Access:
    """The tokens in force. With none, whoever reaches the loopback address may do everything."""

    def __init__(self, tokens: Sequence[tuple[str, Caller]]) -> None:
        self._tokens = [(token.encode(), caller) for token, caller in tokens]

    @property
    def is_open(self) -> bool:
        """Whether there are no tokens."""
        return not self._tokens

    def caller(self, token: str) -> Caller | None:
        """Whose token it is; it is compared with each in constant time."""
        found = None
        for known, caller in self._tokens:
            if hmac.compare_digest(known, token.encode()):
                found = caller
        return found


def load_access(settings: ApiSettings, host: str | None = None, setting: str = "api.host") -> Access:
    """The tokens of the settings and of their file.

    Args:
        host, setting: the address that will be listened on and where it is set; None: the order API's.

    Raises:
        UsageError: a token is too short, a file can be read by others or does not have the form, or the API would
            listen beyond loopback without any.
    """
    tokens: list[tuple[str, Caller]] = []
    for value, caller, name in (
        (settings.read_token, Caller("reader", READ), "api.read_token"),
        (settings.approve_token, Caller("approver", APPROVE), "api.approve_token"),
    ):
        if (token := secret_of(value, None, name)) is not None:
            tokens.append((token, caller))
    if settings.tokens_file is not None:
        tokens += _parse(read_secret_file(settings.tokens_file, "api.tokens_file"))
    for token, caller in tokens:
        if len(token) < SHORTEST_TOKEN:
            raise UsageError(f"the order API's token of {caller.name} has fewer than {SHORTEST_TOKEN} characters")
    if len({token for token, _ in tokens}) < len(tokens):
        raise UsageError("two of the order API's tokens are the same; give each caller one of its own")
    host = settings.host if host is None else host
    if not tokens and not is_loopback(host):
        raise UsageError(
            f"{setting} is {host}, which others can reach, and no token is set; set "
            "STOCKCAST__API__APPROVE_TOKEN (and STOCKCAST__API__READ_TOKEN) or api.tokens_file, or listen on 127.0.0.1"
        )
    return Access(tokens)


def _parse(text: str) -> list[tuple[str, Caller]]:
    tokens = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        role, _, rest = line.strip().partition(" ")
        name, _, token = rest.strip().partition(" ")
        if role not in ROLES or not name or not token.strip():
            raise UsageError(f"api.tokens_file, line {number}: expected `read NAME TOKEN` or `approve NAME TOKEN`")
        tokens.append((token.strip(), Caller(name, role)))
    return tokens


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
