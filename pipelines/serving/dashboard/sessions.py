"""Who is at the browser: tokens of the order API, shown once at the login, then a cookie that scripts cannot read."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from pipelines.serving.access import LOCAL, LOCAL_NAMES, Access, Caller

COOKIE = "stockcast_session"
LONGEST_LIST = 1_000
_OWN_RULES = ("/v1/", "/health", "/openapi.json", "/login")
"""Addresses that check callers by themselves, or need not."""


@dataclass(frozen=True)
class Session:
    """Somebody at a browser. `token` is theirs; None where none are set."""

    caller: Caller
    token: str | None = None


class Sessions:
    """The sessions in force; they end with the process."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    @property
    def is_open(self) -> bool:
        """Whether no tokens are set, so that whoever is on this machine may decide."""
        return self._access.is_open

    def login(self, token: str) -> str | None:
        """A new session's cookie for a token; None for an unknown one."""
        caller = self._access.caller(token.strip())
        if caller is None:
            return None
        cookie = secrets.token_urlsafe(32)
        with self._lock:
            self._sessions[cookie] = Session(caller, token.strip())
            while len(self._sessions) > LONGEST_LIST:
                del self._sessions[next(iter(self._sessions))]
        return cookie

    def logout(self, cookie: str | None) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(cookie or "", None)

    def of(self, cookie: str | None) -> Session | None:
        """The session of a cookie; without tokens everybody's."""
        if self._access.is_open:
            return Session(LOCAL)
        return self._sessions.get(cookie or "")


class Gate:
    """Lets in who has a session, from this very page; without tokens, who asks for this machine by its own name."""

    def __init__(self, app: ASGIApp, sessions: Sessions) -> None:
        self._app = app
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As every ASGI application."""
        if scope["type"] not in {"http", "websocket"} or (refusal := self._refusal(scope)) is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 4403, "reason": refusal})
        elif refusal == "login":
            await RedirectResponse("/login", 303)(scope, receive, send)
        else:
            await PlainTextResponse(refusal, 403)(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        host, origin = _header(scope, b"host"), _header(scope, b"origin")
        path = scope["path"]
        # Another site's page may send requests here from the same browser: what changes something must be ours.
        foreign = bool(origin) and urlsplit(origin).netloc != host
        if foreign and (scope["type"] == "websocket" or scope["method"] not in {"GET", "HEAD"}):
            return "requests from pages of other sites are refused"
        if path.startswith(_OWN_RULES):
            return None
        if self._sessions.is_open:
            if (urlsplit(f"//{host}").hostname or "") not in LOCAL_NAMES:
                return "without tokens only requests to localhost or 127.0.0.1 are answered"
            return None
        if self._sessions.of(cookie_of(scope["headers"])) is not None:
            return None
        is_page = scope["type"] == "http" and not path.startswith("/_nicegui")
        return "login" if is_page else "this needs a session: /login"


def cookie_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The session's cookie in a request's headers."""
    for name, value in headers:
        if name == b"cookie":
            try:
                morsel = SimpleCookie(value.decode("latin-1")).get(COOKIE)
            except CookieError:
                continue
            if morsel is not None:
                return morsel.value
    return None


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for found, value in scope["headers"] if found == name), "")
