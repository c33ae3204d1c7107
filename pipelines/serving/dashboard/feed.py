"""One look at the tables for all viewers, and each page told of what changed: nothing else is sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from nicegui import Client, background_tasks

from pipelines.serving.dashboard.store import Store

log = logging.getLogger("stockcast.dashboard")

FAILURE_PAUSE = 2.0


Show = Callable[[], Awaitable[None] | None]


@dataclass(eq=False)
class _Subscription:
    client: Client
    topic: str
    show: Show


class Feed:
    """Polls the store and calls the pages' functions, in the server's event loop.

    Attributes:
        failure: why the last look failed; None where it did not.
    """

    def __init__(self, store: Store, seconds: float) -> None:
        self._store = store
        self._seconds = seconds
        self._subscriptions: list[_Subscription] = []
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="dashboard-feed")
        self._asked = asyncio.Event()
        self.failure: str | None = None

    def subscribe(self, client: Client, topic: str, show: Show) -> None:
        """Call `show` whenever the topic changed, until the client is gone."""
        subscription = _Subscription(client, topic, show)
        self._subscriptions.append(subscription)
        client.on_delete(lambda: self._remove(subscription))

    def ask(self) -> None:
        """Look now: something was just decided."""
        self._asked.set()

    async def run(self) -> None:
        """Look for ever; a look that fails is logged and repeated."""
        try:
            while True:
                await self.look()
                self._asked.clear()
                pause = self._seconds if self.failure is None else FAILURE_PAUSE
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._asked.wait(), pause)
        finally:
            self._executor.shutdown(wait=False, cancel_futures=True)

    async def look(self) -> None:
        """Look once, and tell the pages."""
        try:
            changed = await asyncio.get_running_loop().run_in_executor(self._executor, self._store.poll)
            self.failure = None
        except Exception as error:
            if self.failure is None:
                log.exception("the tables could not be looked at; trying again")
            self.failure = f"{type(error).__name__}: {error}"
            return
        for subscription in list(self._subscriptions):
            if subscription.topic in changed:
                self._tell(subscription)

    def _tell(self, subscription: _Subscription) -> None:
        if subscription.client.is_deleted:
            self._remove(subscription)
            return
        try:
            with subscription.client:
                waited = subscription.show()
                if waited is not None:
                    background_tasks.create(_in_page(subscription.client, waited))
        except Exception:
            log.exception("a page could not be brought up to date")

    def _remove(self, subscription: _Subscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)


async def _in_page(client: Client, waited: Awaitable[None]) -> None:
    with client:
        await waited
