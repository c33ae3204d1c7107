"""A clerk who decides on proposals and orders by hand through the order API, and repeats what was not answered.

What is decided on an order follows from its id, so a run can be repeated. Each request and each answer is written
down, a line in JSON, the request before it is made.
"""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import httpx

from tests.crash.stream import series_of

HANDED_IN = 3
"""Times that some requests are repeated though they were answered."""


class Clerk:
    """Decides; to be used from one thread.

    Attributes:
        ports: of the order API, on loopback; of several, requests go to any.
    """

    def __init__(self, ports: list[int], record: Path, seed: int, series: int) -> None:
        self.ports, self._record, self._series = ports, record, series
        self._chance = random.Random(f"clerk-{seed}")
        self._waiting: dict[str, tuple[str, dict[str, Any]]] = {}
        self._decided: set[str] = set()
        self._number = 0

    def work(self, by_hand: int = 1) -> int:
        """Decide on what waits, order by hand, and repeat what was not answered; returns the requests still open."""
        for _ in range(by_hand):
            self._order_by_hand()
        try:
            for state in ("proposed", "approved"):
                page = httpx.get(f"{self._address}/v1/orders", params={"state": state, "limit": 100}, timeout=5).json()
                for order in page.get("orders", ()):
                    self._consider(order, state)
        except (httpx.HTTPError, ValueError):
            pass
        return self.repeat()

    def repeat(self) -> int:
        """Make the requests again that were not answered; returns those still open."""
        for key in list(self._waiting):
            self._ask(key)
        return len(self._waiting)

    @property
    def _address(self) -> str:
        return f"http://127.0.0.1:{self.ports[0] if len(self.ports) == 1 else self._chance.choice(self.ports)}"

    def _consider(self, order: dict[str, Any], state: str) -> None:
        order_id = order["order_id"]
        drawn = hashlib.sha256(order_id.encode()).digest()[1]
        if order_id in self._decided or (state == "approved" and drawn >= 2):
            return
        self._decided.add(order_id)
        path = f"/v1/orders/{order_id}"
        if state == "approved" or drawn < 16:
            self._plan(f"reject-{order_id}", f"{path}/reject", {"reason": "not now"})
        elif drawn < 64:
            self._plan(f"approve-{order_id}", f"{path}/approve", {"quantity": order["quantity"] + 6, "reason": "more"})
        elif drawn < 230:
            self._plan(f"approve-{order_id}", f"{path}/approve", {})

    def _order_by_hand(self) -> None:
        self._number += 1
        location_id, sku = series_of(self._chance.randrange(self._series))
        body = {"location_id": location_id, "sku": sku, "quantity": self._chance.randrange(1, 9), "reason": "fair"}
        self._plan(f"hand-{self._number}", "/v1/orders", body)

    def _plan(self, key: str, path: str, body: dict[str, Any]) -> None:
        self._write(key=key, path=path, body=body)
        self._waiting[key] = (path, body)

    def _ask(self, key: str) -> None:
        path, body = self._waiting[key]
        for _ in range(HANDED_IN if self._chance.random() < 0.2 else 1):
            try:
                answer = httpx.post(f"{self._address}{path}", json=body, headers={"Idempotency-Key": key}, timeout=10)
            except httpx.HTTPError:
                return
            self._write(key=key, status=answer.status_code, answer=answer.text)
            if answer.status_code < 500:
                self._waiting.pop(key, None)

    def _write(self, **line: Any) -> None:
        with open(self._record, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
