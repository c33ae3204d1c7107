"""Alerts on their way to somebody else's address: each message of `alerts` is POSTed as a signed Standard Webhook.

At least once, in order: the place in the topic is committed after the answer. The alert's id is the message's id and
its idempotency key, so that whoever receives it can tell a repeated one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import httpx
import orjson
from confluent_kafka import Consumer, KafkaException, Message

from pipelines.contracts import topics
from pipelines.contracts.events import IDENTIFIER
from pipelines.errors import BrokerError, UsageError
from pipelines.ingestion.times import as_datetime, parse_time
from pipelines.io import kafka
from pipelines.io.outgoing import check_url, guarded_client
from pipelines.operations.secret_files import secret_of
from pipelines.operations.settings import AlertWebhookSettings, Settings
from pipelines.restocking.webhooks import Signer

log = logging.getLogger("stockcast.alerts")

GROUP = "stockcast-alert-webhook"
REMEMBERED = 10_000
POLL_SECONDS = 0.5
_TRY_AGAIN = frozenset({408, 409, 425, 429})

SENT, REFUSED, LATE, REPEATED, NONE = "sent", "refused", "late", "repeated", "none"
"""What became of a message: taken, refused for good, too old to matter, sent before, or no alert at all."""


class _NotNowError(Exception):
    pass


class AlertWebhook:
    """Sends the messages of `alerts`, one after the other.

    Args:
        clock: the time that goes into signatures.

    Raises:
        UsageError: the URL or the secret is not fit.
    """

    def __init__(self, settings: Settings, clock: Callable[[], datetime]) -> None:
        self._settings = settings.alert_webhook
        self._url, self._signer = check_alert_webhook(self._settings)
        self._clock = clock
        self._sent: OrderedDict[str, None] = OrderedDict()
        kafka.prepare(settings, read=(topics.ALERTS,))
        self._consumer: Consumer = kafka.consumer(settings, GROUP)
        self._consumer.subscribe([topics.ALERTS])
        self.outcomes: dict[str, int] = {}

    def run(self, stopped: Callable[[], bool]) -> None:
        """Send until `stopped()`.

        Raises:
            BrokerError: the broker refuses; what was not committed is sent again by the next one.
        """
        try:
            asyncio.run(self._run(stopped))
        except KafkaException as error:
            raise BrokerError(f"alerts could not be read: {error.args[0].str()}") from error
        finally:
            self._consumer.close()

    async def _run(self, stopped: Callable[[], bool]) -> None:
        async with guarded_client(self._settings.timeout_seconds, self._settings.allowed_private_hosts) as client:
            while not stopped():
                message = await asyncio.to_thread(self._consumer.poll, POLL_SECONDS)
                if message is None or message.error() is not None:
                    continue
                outcome = await self._handle(client, message, stopped)
                if outcome is None:
                    return
                self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
                await asyncio.to_thread(self._consumer.commit, message, asynchronous=False)

    async def _handle(self, client: httpx.AsyncClient, message: Message, stopped: Callable[[], bool]) -> str | None:
        """What became of a message; None where it was stopped before there was an answer."""
        body = message.value() or b""
        alert = _alert(body)
        if alert is None:
            return NONE
        alert_id, raised_at = alert
        if alert_id in self._sent:
            return REPEATED
        pause, limit = self._settings.first_pause_seconds, timedelta(hours=self._settings.give_up_hours)
        while True:
            if self._clock() - raised_at > limit:
                log.warning("alert %s is older than %g hours and is left out", alert_id, self._settings.give_up_hours)
                return LATE
            try:
                status = await self._call(client, alert_id, body)
            except _NotNowError as error:
                log.info("alert %s: %s; trying again in %.1f s", alert_id, error, pause)
                if await _stopped_within(pause, stopped):
                    return None
                pause = min(2 * pause, self._settings.largest_pause_seconds)
                continue
            if 200 <= status < 300:
                self._remember(alert_id)
                return SENT
            log.warning("alert %s was answered %d, which repeating does not change: left out", alert_id, status)
            return REFUSED

    async def _call(self, client: httpx.AsyncClient, alert_id: str, body: bytes) -> int:
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": alert_id,
            **self._signer.headers(alert_id, body, self._clock()),
        }
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                async with client.stream("POST", self._url, content=body, headers=headers) as response:
                    status = response.status_code
        except TimeoutError:
            raise _NotNowError(f"no answer within {self._settings.timeout_seconds:g} s") from None
        except httpx.TransportError as error:
            raise _NotNowError(f"{type(error).__name__}: {error}") from None
        if status >= 500 or status in _TRY_AGAIN:
            raise _NotNowError(f"answered {status}")
        return status

    def _remember(self, alert_id: str) -> None:
        self._sent[alert_id] = None
        if len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)


def check_alert_webhook(settings: AlertWebhookSettings) -> tuple[str, Signer]:
    """The URL that alerts are sent to, and what signs them.

    Raises:
        UsageError: the URL or the secret is not fit.
    """
    if settings.url is None:
        raise UsageError("alert_webhook.url is not set; set it to where alerts are sent")
    check_url(settings.url, settings.allowed_private_hosts, "alert_webhook.url")
    secret = secret_of(settings.secret, settings.secret_file, "alert_webhook.secret")
    if secret is None:
        raise UsageError(
            "alert_webhook.url is set and no secret to sign alerts with; set STOCKCAST__ALERT_WEBHOOK__SECRET or "
            "alert_webhook.secret_file"
        )
    return settings.url, Signer(secret, "alert_webhook.secret")


async def _stopped_within(seconds: float, stopped: Callable[[], bool]) -> bool:
    """Wait; whether it was stopped meanwhile."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while not stopped():
        if (left := until - loop.time()) <= 0:
            return False
        await asyncio.sleep(min(left, 0.1))
    return True


def _alert(body: bytes) -> tuple[str, datetime] | None:
    """Id and time of an alert; None for what is none: anybody may write to a topic."""
    with suppress(ValueError, TypeError, AttributeError):
        said: dict[str, Any] = orjson.loads(body)
        alert_id, raised_at = said.get("alert_id"), said.get("raised_at")
        if isinstance(alert_id, str) and IDENTIFIER.fullmatch(alert_id) and isinstance(raised_at, str):
            return alert_id, as_datetime(parse_time(raised_at))
    return None
