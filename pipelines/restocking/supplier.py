"""One order to the supplier's API over HTTP: the order's id is its idempotency key, so calling again is harmless."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

import httpx
import orjson
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_delay, stop_never
from tenacity.stop import stop_base
from tenacity.wait import wait_base, wait_exponential_jitter

from pipelines.contracts.tables import SUPPLIER_CALLS
from pipelines.errors import UsageError
from pipelines.ingestion.times import parse_time
from pipelines.io.delta import Tables
from pipelines.io.outgoing import check_url, guarded_client
from pipelines.operations.failpoints import failpoint
from pipelines.operations.secret_files import secret_of
from pipelines.operations.settings import SupplierApiSettings
from pipelines.restocking.orders import ACKNOWLEDGED, SENT
from pipelines.restocking.webhooks import Signer

log = logging.getLogger("stockcast.suppliers")

PARKED = "parked"
WITHDRAWN = "withdrawn"
RETRY = "retry"
INTERNAL = "internal"

LARGEST_ANSWER = 65_536
KEPT_OF_ANSWER = 2_000
_TRY_AGAIN = frozenset({408, 409, 425, 429})
_LATER = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


class NotNowError(Exception):
    """The supplier cannot take an order at the moment; `retry_after` in seconds, where it says so."""

    def __init__(self, why: str, retry_after: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after = retry_after


@dataclass(frozen=True)
class Answer:
    """What came of an order: acknowledged, sent (taken, to be confirmed later) or parked (for good, with the
    reason). `eta` in microseconds since 1970."""

    order_id: str
    outcome: str
    status_code: int
    text: str
    reason: str | None
    attempts: int
    quantity: int | None = None
    eta: int | None = None


OnDelay = Callable[[str, str], None]


class SupplierApi:
    """Calls the supplier's API, as often as it takes. To be used from one event loop.

    Args:
        clock: the time that goes into signatures.
        on_delay: told once of each order that is tried for longer than `retry_seconds`, with the reason.
        patient: never gives up; else after `retry_seconds`.

    Raises:
        UsageError: the URL or the secret is not fit.
    """

    def __init__(
        self, settings: SupplierApiSettings, clock: Callable[[], datetime], on_delay: OnDelay, *, patient: bool = True
    ) -> None:
        self._url, self._signer = check_supplier_api(settings)
        self._settings = settings
        self._clock = clock
        self._on_delay = on_delay
        self._stop: stop_base = stop_never if patient else stop_after_delay(settings.retry_seconds)
        self._client = guarded_client(settings.timeout_seconds, settings.allowed_private_hosts)
        self._slots = asyncio.Semaphore(settings.concurrency)

    async def send(self, order_id: str, body: bytes) -> Answer:
        """Call until there is an answer that stands.

        Raises:
            NotNowError: not patient, and there was none in time.
        """
        delayed = False

        def tell(state: RetryCallState) -> None:
            nonlocal delayed
            error = state.outcome.exception() if state.outcome is not None else None
            log.info("order %s, attempt %d: %s", order_id, state.attempt_number, error)
            if not delayed and (state.seconds_since_start or 0.0) > self._settings.retry_seconds:
                delayed = True
                self._on_delay(order_id, str(error))

        attempts = 0
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(NotNowError),
            wait=_Pause(self._settings.first_pause_seconds, self._settings.largest_pause_seconds),
            stop=self._stop,
            before_sleep=tell,
            reraise=True,
        ):
            with attempt:
                attempts += 1
                status, text = await self._call(order_id, body)
        failpoint("supplier.after_call")
        return _judge(order_id, status, text, attempts)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _call(self, order_id: str, body: bytes) -> tuple[int, bytes]:
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": order_id,
            **self._signer.headers(order_id, body, self._clock()),
        }
        try:
            async with (
                self._slots,
                asyncio.timeout(self._settings.timeout_seconds),
                self._client.stream("POST", self._url, content=body, headers=headers) as response,
            ):
                text = b""
                async for part in response.aiter_bytes():
                    text += part
                    if len(text) > LARGEST_ANSWER:
                        break
        except TimeoutError:
            raise NotNowError(f"no answer within {self._settings.timeout_seconds:g} s") from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise NotNowError(f"{type(error).__name__}: {error}") from None
        status = response.status_code
        if status >= 500 or status in _TRY_AGAIN:
            wait = response.headers.get("retry-after", "") if status in _LATER else ""
            raise NotNowError(f"answered {status}", float(wait) if wait.isdigit() else 0.0)
        return status, text[:LARGEST_ANSWER]


def newest_calls(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of rows of `gold/supplier_calls` the newest of each order."""
    return {row["order_id"]: row for row in sorted(rows, key=lambda row: row["answered_at"])}


def parked_orders(tables: Tables) -> list[str]:
    """The orders that the supplier did not take and that wait for a person."""
    newest = newest_calls(tables.read(SUPPLIER_CALLS, ("order_id", "outcome", "answered_at")).to_pylist())
    return [order_id for order_id, row in newest.items() if row["outcome"] == PARKED]


def check_supplier_api(settings: SupplierApiSettings) -> tuple[str, Signer]:
    """The URL that orders are sent to, and what signs them.

    Raises:
        UsageError: the URL or the secret is not fit.
    """
    if settings.url is None:
        raise UsageError("supplier_api.url is not set; set it to where orders are sent")
    check_url(settings.url, settings.allowed_private_hosts, "supplier_api.url")
    secret = secret_of(settings.secret, settings.secret_file, "supplier_api.secret")
    if secret is None:
        raise UsageError(
            "supplier_api.url is set and no secret to sign orders with; set STOCKCAST__SUPPLIER_API__SECRET or "
            "supplier_api.secret_file"
        )
    return settings.url, Signer(secret, "supplier_api.secret")


class _Pause(wait_base):
    """Growing pauses with jitter, and never less than the supplier asks for (at most the largest pause)."""

    def __init__(self, first: float, largest: float) -> None:
        self._growing = wait_exponential_jitter(initial=first, max=largest, jitter=first)
        self._largest = largest

    def __call__(self, retry_state: RetryCallState) -> float:
        """Seconds."""
        error = retry_state.outcome.exception() if retry_state.outcome is not None else None
        asked = error.retry_after if isinstance(error, NotNowError) else 0.0
        return min(self._largest, max(self._growing(retry_state), asked))


def _judge(order_id: str, status: int, answer: bytes, attempts: int) -> Answer:
    text = answer[:KEPT_OF_ANSWER].decode("utf-8", "replace")
    if 300 <= status < 400:
        reason = f"answered {status}: redirects are not followed; set supplier_api.url to where it leads"
        return Answer(order_id, PARKED, status, text, reason, attempts)
    if not 200 <= status < 300:
        reason = f"answered {status}, which repeating does not change"
        return Answer(order_id, PARKED, status, text, reason, attempts)
    outcome = SENT if status == HTTPStatus.ACCEPTED else ACKNOWLEDGED
    return Answer(order_id, outcome, status, text, None, attempts, *_confirmed(answer))


def _confirmed(answer: bytes) -> tuple[int | None, int | None]:
    """Quantity and time of receipt, where the answer confirms them; whatever else it says is only kept."""
    try:
        said = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return None, None
    if not isinstance(said, dict):
        return None, None
    quantity, eta = said.get("quantity"), said.get("eta")
    try:
        promised = parse_time(eta) if isinstance(eta, str) else None
    except ValueError:
        promised = None
    return (quantity if type(quantity) is int and 1 <= quantity <= 10_000_000 else None), promised
