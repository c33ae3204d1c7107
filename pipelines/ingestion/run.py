"""A running ingest query: what is watched beside it, and why it ended, in one line."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pyspark.sql.streaming.query import StreamingQuery

from pipelines.errors import BrokerError, CheckpointError, SourceGapError, StockcastError, StorageError

log = logging.getLogger("stockcast.ingestion")

DISK_FULL = ("No space left on device", "File too large", "Disk quota exceeded")
STORAGE = ("(os error 28)", "(os error 27)", "(os error 122)", *DISK_FULL)


@dataclass
class IngestRun:
    """The query, with the same methods as Spark's, and what is done beside it.

    Attributes:
        watch: called every `seconds` while the query runs; raises `SourceGapError` to stop it.
        explain: finds the cause behind a failure of Spark's.
        failure: what stopped the query, where we know it better than Spark.
        remembered: how many event ids are known.
    """

    query: StreamingQuery
    watch: Callable[[datetime], None]
    explain: Callable[[BaseException], BaseException]
    seconds: float
    failure: BaseException | None = None
    remembered: Callable[[], int] = int
    _ended: threading.Event = field(default_factory=threading.Event)
    _explained: BaseException | None = None

    def start_watching(self) -> None:
        """Watch in a thread of its own."""
        threading.Thread(target=self._keep_watching, name="ingest-watch", daemon=True).start()

    @property
    def name(self) -> str:
        """The query's name."""
        return str(self.query.name)

    @property
    def isActive(self) -> bool:
        """Whether it runs."""
        return bool(self.query.isActive)

    @property
    def recentProgress(self) -> list[Any]:
        """Reports of its last micro-batches."""
        return list(self.query.recentProgress)

    def stop(self) -> None:
        """Stop in an orderly way."""
        self._ended.set()
        self.query.stop()

    def exception(self) -> BaseException | None:
        """What ended the query, explained; None while it runs and after an orderly end."""
        if self._explained is None and not self.isActive:
            found = self.failure or self.query.exception()
            if found is not None:
                self._explained = self.explain(found)
        return self._explained

    def awaitTermination(self, timeout: int | None = None) -> bool:
        """Wait for the end, at most so many seconds; returns whether it has ended.

        Raises:
            StockcastError: it failed; says why and what to do.
        """
        try:
            ended = self.query.awaitTermination(timeout)
        except Exception as error:
            self._ended.set()
            found = self.exception()
            raise (found if found is not None else error) from None
        if ended is False:
            return False
        self._ended.set()
        if (found := self.exception()) is not None:
            raise found
        return True

    def _keep_watching(self) -> None:
        waiting = False
        while not self._ended.wait(self.seconds) and self.query.isActive:
            try:
                self.watch(datetime.now(UTC))
            except SourceGapError as error:
                self.failure = self.failure or error
                self.query.stop()
                return
            except BrokerError as error:
                if not waiting:
                    log.warning("the broker does not answer (%s); waiting for it, nothing is lost", error)
                waiting = True
                continue
            except Exception:
                log.exception("looking after topics, catalog and alerts failed; trying again")
            if waiting:
                log.warning("the broker answers again")
            waiting = False


def cause(
    error: BaseException,
    home: str,
    servers: str,
    find_gap: Callable[[], None],
    check_checkpoint: Callable[[], None],
) -> BaseException:
    """The error in the words of a person who can do something about it; itself where we know nothing better.

    Args:
        find_gap: raises `SourceGapError` where Kafka no longer holds what is to be read, `BrokerError` where no
            broker answers.
        check_checkpoint: raises `CheckpointError` where the checkpoint is damaged.
    """
    if isinstance(error, StockcastError):
        return error
    text = str(error)
    if any(sign in text for sign in STORAGE):
        return StorageError(
            f"the disk under {home} is full, so a batch was not finished. Nothing is lost: free space and start "
            "again; the batch is taken in once"
        )
    try:
        check_checkpoint()
        find_gap()
    except (SourceGapError, CheckpointError) as found:
        return found
    except BrokerError:
        return BrokerError(
            f"the broker at {servers} went away and did not come back in time. Nothing is lost: start it and start "
            "this again"
        )
    return error
