"""A supplier's order API for tests: one effect for each idempotency key; told to fail, hang, redirect or refuse."""

from __future__ import annotations

import asyncio
import base64
import threading
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI, Request, Response
from standardwebhooks import Webhook

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


class Supplier:
    """What the supplier did, and what it is told to do.

    Attributes:
        effects: order bodies by idempotency key: what it would deliver.
        calls: every call, as (key, headers, body).
        script: by key (or "*"), what to do with the next calls: a status, a (status, body, headers), "hang", or
            "lost" (take the order, answer nothing useful). With nothing left to do: 200.
        unsigned: calls whose signature was wrong.
    """

    def __init__(self) -> None:
        self.effects: dict[str, bytes] = {}
        self.calls: list[tuple[str, dict[str, str], bytes]] = []
        self.script: dict[str, list] = {}
        self.unsigned = 0
        self.address = ""
        self.app = FastAPI()
        self.app.add_api_route("/orders", self._order, methods=["POST"])

    async def _order(self, request: Request) -> Response:
        body, key = await request.body(), request.headers["idempotency-key"]
        self.calls.append((key, dict(request.headers), body))
        try:
            Webhook(SECRET).verify(body, dict(request.headers), json_parse=False)
        except Exception:
            self.unsigned += 1
            return Response(status_code=401)
        steps = self.script.get(key, self.script.get("*", []))
        step = steps.pop(0) if steps else 200
        if step == "hang":
            await asyncio.sleep(30)
        status, text, headers = step if isinstance(step, tuple) else (step, "{}", {})
        if step == "lost":
            status = 502
        if step == "lost" or 200 <= status < 300:
            self._take(key, body)
        return Response(text, status, headers, "application/json")

    def _take(self, key: str, body: bytes) -> None:
        if key in self.effects:
            assert self.effects[key] == body, f"{key} came with another content"
            return
        self.effects[key] = body


@contextmanager
def supplier_running():
    """A supplier on a free port of loopback, in a thread."""
    supplier = Supplier()
    server = uvicorn.Server(uvicorn.Config(supplier.app, port=0, log_config=None, access_log=False, lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        threading.Event().wait(0.01)
    supplier.address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/orders"
    yield supplier
    server.should_exit = server.force_exit = True
    thread.join(10)
