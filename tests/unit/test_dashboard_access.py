"""Who gets to the dashboard: hosts, origins, sessions, and that it is not opened to others without a token."""

from __future__ import annotations

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient
from pydantic import SecretStr
from starlette.websockets import WebSocketDisconnect

from pipelines.errors import OwnershipError, StockcastError, UsageError
from pipelines.io.ownership import ownership
from pipelines.operations.cli.dashboard import dashboard_process
from pipelines.serving.dashboard.login import add_login
from pipelines.serving.dashboard.server import DASHBOARD, dashboard_server
from pipelines.serving.dashboard.sessions import COOKIE, Gate, Sessions
from pipelines.serving.server import OWNER
from tests.dashboard_chain import ACCESS, APPROVER, OPEN, READER

SOCKET = "ws://127.0.0.1:8322/_nicegui_ws/socket.io/"


def client(access, host="127.0.0.1:8322"):
    """A page, an API address and a socket behind the gate."""
    app, sessions = FastAPI(), Sessions(access)
    add_login(app, sessions)

    @app.get("/")
    @app.post("/")
    @app.get("/v1/orders")
    def page():
        return "shown"

    @app.websocket("/_nicegui_ws/socket.io/")
    async def socket(websocket: WebSocket):
        await websocket.accept()
        await websocket.send_text("open")

    return TestClient(Gate(app, sessions), base_url=f"http://{host}", follow_redirects=False)


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:8322", 200), ("localhost:8322", 200), ("[::1]:8322", 200), ("attacker.example", 403)],
)
def test_without_tokens_only_this_machine_by_its_own_name_is_answered(host, status):
    assert client(OPEN, host).get("/").status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [(None, 200), ("http://127.0.0.1:8322", 200), ("http://attacker.example", 403), ("http://127.0.0.1:9", 403)],
)
def test_what_changes_something_must_come_from_our_own_page(origin, status):
    headers = {} if origin is None else {"Origin": origin}
    assert client(OPEN).post("/", headers=headers).status_code == status


def test_a_socket_of_another_sites_page_is_refused():
    browser = client(OPEN)
    with browser.websocket_connect(SOCKET, headers={"Origin": "http://127.0.0.1:8322"}) as socket:
        assert socket.receive_text() == "open"
    with (
        pytest.raises(WebSocketDisconnect),
        browser.websocket_connect(SOCKET, headers={"Origin": "http://attacker.example"}),
    ):
        pass


def test_a_token_opens_a_session_that_ends_with_the_logout():
    browser = client(ACCESS)
    # given nobody: pages lead to the login, sockets are refused, the API checks its callers itself
    assert browser.get("/").headers["location"] == "/login"
    assert browser.get("/_nicegui/x.js").status_code == 403
    assert browser.get("/v1/orders").status_code == 200
    with pytest.raises(WebSocketDisconnect), browser.websocket_connect(SOCKET):
        pass
    # when a token is wrong, then it is said, without repeating it
    refused = browser.post("/login", data={"token": "<b>wrong</b>"})
    assert (refused.status_code, "not known" in refused.text, "<b>wrong" in refused.text) == (401, True, False)
    # when it is right
    answer = browser.post("/login", data={"token": APPROVER})
    said = answer.headers["set-cookie"].lower()
    assert (answer.headers["location"], "httponly" in said, "samesite=strict" in said) == ("/", True, True)
    assert APPROVER not in said
    assert browser.get("/").text == '"shown"'
    with browser.websocket_connect(SOCKET) as socket:
        assert socket.receive_text() == "open"
    # then after the logout the old cookie opens nothing
    cookie = browser.cookies[COOKIE]
    browser.get("/logout")
    browser.cookies.set(COOKIE, cookie)
    assert browser.get("/").headers["location"] == "/login"


def test_a_session_knows_whose_it_is():
    sessions = Sessions(ACCESS)
    reader, approver = sessions.of(sessions.login(READER)), sessions.of(sessions.login(APPROVER))
    assert (reader.caller.name, reader.caller.may("approve")) == ("rita", False)
    assert (approver.caller.name, approver.caller.may("approve")) == ("anna", True)
    assert sessions.login("somebody") is None
    assert sessions.of("guessed") is None
    assert sessions.of(None) is None


def test_beyond_loopback_it_wants_a_token(settings):
    beyond = settings.model_copy(update={"dashboard": settings.dashboard.model_copy(update={"host": "0.0.0.0"})})
    with pytest.raises(UsageError, match=r"dashboard\.host is 0\.0\.0\.0"), dashboard_server(beyond, lambda _: None):
        pass
    # with one it goes on, as far as the ownership that another holds
    api = settings.api.model_copy(update={"approve_token": SecretStr(APPROVER)})
    with (
        ownership(beyond, DASHBOARD),
        pytest.raises(OwnershipError),
        dashboard_server(beyond.model_copy(update={"api": api}), lambda _: None),
    ):
        pass


def test_a_second_dashboard_names_the_first(settings):
    with (
        ownership(settings, DASHBOARD),
        pytest.raises(OwnershipError, match="dashboard"),
        dashboard_server(settings, lambda _: None),
    ):
        pass


def test_beside_a_process_that_owns_the_audit_and_answers_nowhere_it_says_what_to_do(settings):
    silent = settings.model_copy(update={"api": settings.api.model_copy(update={"port": 1})})
    with (
        ownership(silent, OWNER),
        pytest.raises(UsageError, match=r"api\.host and api\.port"),
        dashboard_server(silent, lambda _: None),
    ):
        pass


def test_as_a_process_that_cannot_start_it_says_why(settings):
    settings.home_path.mkdir(parents=True)
    overrides = [f"home={settings.home}", "dashboard.host=0.0.0.0"]
    with (
        pytest.raises(StockcastError, match=r"did not start: error: dashboard\.host is 0\.0\.0\.0"),
        dashboard_process(settings, (), overrides),
    ):
        pass
