"""A supplier's order API for tests: one effect for each idempotency key; told to fail, hang, redirect or refuse.

As a process of its own it keeps its effects in a file, over its own death too, and has troubles of its own:

    python -m tests.stub_supplier --port N --record FILE --seed N --trouble SHARE
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import threading
from contextlib import contextmanager
from pathlib import Path

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

    Args:
        record: where effects and calls are written down before they are answered, a line in JSON each; effects that
            it holds have happened.
        trouble: share of the calls that fail, hang or lose their answer, drawn from `seed`.
    """

    def __init__(self, record: Path | None = None, trouble: float = 0.0, seed: int = 0) -> None:
        self.effects: dict[str, bytes] = {}
        self.calls: list[tuple[str, dict[str, str], bytes]] = []
        self.script: dict[str, list] = {}
        self.unsigned = 0
        self.address = ""
        self._record, self._trouble, self._chance = record, trouble, random.Random(seed)
        if record is not None:
            self.effects = {line["key"]: line["effect"].encode() for line in read_effects(record)}
        self.app = FastAPI()
        self.app.add_api_route("/orders", self._order, methods=["POST"])

    async def _order(self, request: Request) -> Response:
        body, key = await request.body(), request.headers["idempotency-key"]
        if self._record is None:
            self.calls.append((key, dict(request.headers), body))
        try:
            Webhook(SECRET).verify(body, dict(request.headers), json_parse=False)
        except Exception:
            self.unsigned += 1
            return Response(status_code=401)
        steps = self.script.get(key, self.script.get("*", []))
        step = steps.pop(0) if steps else self._drawn(body)
        if step == "hang":
            await asyncio.sleep(30)
            step = 504
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
        if self._record is not None:
            with open(self._record, "a", encoding="utf-8") as file:
                file.write("\n" + json.dumps({"key": key, "effect": body.decode()}))
        self.effects[key] = body

    def _drawn(self, body: bytes):
        """What to do with a call that nothing was said about: mostly, take it."""
        if self._chance.random() < self._trouble:
            return self._chance.choice((500, 503, "lost", "lost", "hang", 429))
        if not self._trouble:
            return 200
        units = json.loads(body)["quantity"]
        confirmed = max(1, units - 2) if self._chance.random() < 0.1 else units
        return (202 if self._chance.random() < 0.2 else 200), json.dumps({"quantity": confirmed}), {}


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


def read_effects(record: Path) -> list[dict[str, str]]:
    """The effects in a supplier's record, in order; a line that was torn by a kill never had an answer."""
    lines = []
    for text in record.read_text(encoding="utf-8").splitlines() if record.exists() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trouble", type=float, default=0.1)
    options = parser.parse_args()
    supplier = Supplier(options.record, options.trouble, options.seed)
    uvicorn.run(supplier.app, host="127.0.0.1", port=options.port, log_config=None, access_log=False, lifespan="off")


if __name__ == "__main__":
    main()
