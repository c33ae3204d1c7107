"""Upkeep of Delta tables by the process that owns them: small files merged, old ones removed, logs kept short.

A live table gets a file and a log entry with every commit. Both make each following commit dearer (40,000 log
entries add half a second to an append), so the owner, between two commits of its own, looks after its tables:

- *Compaction* merges files of a size class into one of the next, as a log-structured merge tree does, so that a row
  is rewritten once for each class, not once for each compaction. Its commits change no data, and streams that
  follow the table skip them.
- *Vacuum* removes files that a commit replaced longer ago than `retention_minutes`, and those of killed writers.
- *The log* is cut behind a checkpoint. Transaction identifiers live in checkpoints: a repeated batch is still
  recognised after its log entry is gone.

Nothing is removed that a stream of this home has not read yet, however far it lags behind.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from pipelines.contracts.tables import ALL_TABLES, INGEST_BATCHES, STOCK_MOVEMENTS, Table
from pipelines.errors import OwnershipError
from pipelines.io.delta import Tables, local_path
from pipelines.io.ownership import ownership
from pipelines.operations.failpoints import failpoint, failpoint_on_change
from pipelines.operations.settings import MaintenanceSettings, Settings

log = logging.getLogger("stockcast.maintenance")

SIZE_CLASSES = 3
CLASS_FACTOR = 8
"""Each size class holds files so many times larger than the class before it; the last is `target_mb`."""

SAFETY = 0.9
"""Of a retention: a stream that lags so long behind holds removals back, in time before one takes what it needs."""

READERS = {STOCK_MOVEMENTS.name: ("totals",), INGEST_BATCHES.name: ("restock",)}
"""Streams that follow a table, by the folder of their checkpoint: they may still need what newer versions replaced."""

PATIENCE_SECONDS = 3600.0
"""A stream that holds removals back for longer is warned of."""

Sizes = Sequence[int]


@dataclass(frozen=True)
class Upkeep:
    """What was done to a table.

    Attributes:
        merged: files that were merged.
        into: files that they were merged into.
        removed: files that were deleted.
        held_back: why nothing was deleted; None where nothing stood against it.
    """

    merged: int = 0
    into: int = 0
    removed: int = 0
    held_back: str | None = None


def due_class(sizes: Sizes, small_files: int, target: int) -> int | None:
    """The target size in bytes of the size class that has more small files than it should; None: all is well.

    Args:
        sizes: of the table's files, in bytes.
        small_files: files less than half full that a class may have; it also counts those of the classes below.
        target: size of the largest class, in bytes.
    """
    due = None
    for step in range(SIZE_CLASSES - 1, -1, -1):
        size = target // CLASS_FACTOR**step
        if sum(found < size // 2 for found in sizes) >= small_files * (SIZE_CLASSES - step):
            due = size
    return due


class TableKeeper:
    """Looks after the tables of one owner, called by it between its own commits.

    Args:
        tables: the handles that the owner itself writes through.
        owned: the tables that it owns.
        clock: seconds since 1970.
    """

    def __init__(
        self, tables: Tables, settings: Settings, owned: Sequence[Table], clock: Callable[[], float] = time.time
    ) -> None:
        self._tables = tables
        self._settings = settings.maintenance
        self._checkpoints = local_path(settings.under_home("checkpoints"))
        self._owned = list(owned)
        self._clock = clock
        self._looked_at: dict[str, int] = {}
        self._cleaned_at: dict[str, float] = {}
        self._held_since: dict[str, float] = {}
        self._turn = 0

    def tick(self) -> None:
        """Look after the next table, if it has had enough commits since the last time; never raises for it."""
        if not self._settings.enabled or not self._owned:
            return
        table = self._owned[self._turn % len(self._owned)]
        self._turn += 1
        try:
            version = self._tables.version(table)
            if (
                version < 0
                or version < self._looked_at.get(table.name, -self._settings.commits) + self._settings.commits
            ):
                return
            self.look_after(table)
            self._looked_at[table.name] = self._tables.version(table)
        except (DeltaError, OSError) as error:
            # A table that is not kept in order is slow; an owner that stops for it is worse.
            self._looked_at[table.name] = self._tables.version(table)
            log.warning("%s could not be kept in order, tried again later: %s", table.name, error)

    def look_after(self, table: Table, *, thorough: bool = False) -> Upkeep:
        """Bring one table in order, now. The caller owns it.

        Args:
            thorough: clean also where it was done a moment ago.
        """
        self._keep_properties(table)
        merged, into = self._compact(table)
        removed, held_back = 0, None
        now = self._clock()
        if thorough or now >= self._cleaned_at.get(table.name, 0.0) + 60 * self._settings.clean_minutes:
            removed, held_back = self._clean(table, now)
            self._cleaned_at[table.name] = now
        if merged or removed:
            log.info("%s: %d files merged into %d, %d old ones removed", table.name, merged, into, removed)
        return Upkeep(merged, into, removed, held_back)

    def _keep_properties(self, table: Table) -> None:
        """What Delta itself must know: how long to keep, and that the log is cut here alone."""
        wanted = properties(self._settings)
        handle = self._tables.handle(table)
        found = handle.metadata().configuration
        if {name: found.get(name) for name in wanted} != wanted:
            handle.alter.set_table_properties(wanted)

    def _compact(self, table: Table) -> tuple[int, int]:
        merged = into = 0
        target = int(self._settings.target_mb * 2**20)
        handle = self._tables.handle(table)
        size = due_class(file_sizes(handle), self._settings.small_files, target)
        if size is not None:
            with failpoint_on_change("maintenance.inside_compaction", self._folder(table)):
                done = handle.optimize.compact(target_size=size)
            failpoint("maintenance.after_compaction")
            merged, into = done["numFilesRemoved"], done["numFilesAdded"]
        return merged, into

    def _clean(self, table: Table, now: float) -> tuple[int, str | None]:
        """Remove what no reader needs: old files, then the log behind a new checkpoint."""
        files, entries = self._held_back(table, now)
        if files or entries:
            since = self._held_since.setdefault(table.name, now)
            level = logging.WARNING if now >= since + PATIENCE_SECONDS else logging.INFO
            log.log(level, "%s: not everything old is removed: %s", table.name, files or entries)
        else:
            self._held_since.pop(table.name, None)
        removed: list[str] = []
        if not files:
            with failpoint_on_change("maintenance.inside_vacuum", self._folder(table)):
                removed = self._tables.handle(table).vacuum(dry_run=False, full=True)
        if not (files or entries):
            handle = self._tables.handle(table)
            handle.create_checkpoint()
            handle.cleanup_metadata()
        return len(removed), files or entries

    def _held_back(self, table: Table, now: float) -> tuple[str | None, str | None]:
        """The streams, in words, that still need old files and old log entries; None for none."""
        folder, files, entries = self._folder(table), None, None
        if folder is None or self._checkpoints is None:
            return None, None
        keep, keep_log = (60 * SAFETY * minutes for minutes in
                          (self._settings.retention_minutes, self._settings.log_retention_minutes))  # fmt: skip
        for name in READERS.get(table.name, ()):
            checkpoint = self._checkpoints / name
            if not checkpoint.is_dir():
                continue
            found = unread(checkpoint, folder / "_delta_log", self._tables.version(table))
            said = (
                f"the stream with checkpoint {checkpoint} has not read all that was committed before; run it, or "
                "remove that folder if it will never run again"
            )
            files = said if found.change < now - keep else files
            entries = said if found.entry < now - keep_log else entries
        return files, entries

    def _folder(self, table: Table) -> Path | None:
        return local_path(self._tables.uri(table))


def properties(settings: MaintenanceSettings) -> dict[str, str]:
    """The properties of a table that is kept so."""
    return {
        "delta.deletedFileRetentionDuration": f"interval {round(60 * settings.retention_minutes)} seconds",
        "delta.logRetentionDuration": f"interval {round(60 * settings.log_retention_minutes)} seconds",
        # Delta would cut the log at its checkpoints, without asking which streams have read it.
        "delta.enableExpiredLogCleanup": "false",
    }


def file_sizes(handle: DeltaTable) -> list[int]:
    """Sizes of the table's files, in bytes."""
    sizes: list[int] = pa.table(handle.get_add_actions(flatten=True)).column("size_bytes").to_pylist()
    return sizes


@dataclass(frozen=True)
class Unread:
    """When the first log entry that a stream reads next was written, and the first of them that changes data, in
    seconds since 1970; infinite where there is none."""

    entry: float = float("inf")
    change: float = float("inf")


def unread(checkpoint: Path, entries: Path, newest: int) -> Unread:
    """What a stream has yet to read of a table.

    The entry that it reads next is needed even where it changes nothing: a stream whose next version is gone fails.

    Args:
        checkpoint: of the stream.
        entries: the table's log.
        newest: the table's version.
    """
    place = _place(checkpoint)
    if place is None:
        return Unread(0.0, 0.0)
    first, reads_snapshot = place
    started = float("inf")
    for version in range(first, newest + 1):
        entry = entries / f"{version:020d}.json"
        if not entry.exists():
            return Unread(0.0, 0.0)
        started = min(started, entry.stat().st_mtime)
        if reads_snapshot or '"dataChange":true' in entry.read_text(encoding="utf-8"):
            return Unread(started, entry.stat().st_mtime)
    return Unread(started)


def _place(checkpoint: Path) -> tuple[int, bool] | None:
    """The version that a stream reads next, by the last batch that it finished, and whether it is still busy with all
    of that version's files rather than with what the version added. None before the first batch."""
    finished = [int(path.name) for path in (checkpoint / "commits").glob("[0-9]*") if path.name.isdigit()]
    for batch in sorted(finished, reverse=True):
        try:
            lines = (checkpoint / "offsets" / str(batch)).read_text(encoding="utf-8").splitlines()
            offset = json.loads(lines[2])
            snapshot = offset.get("isStartingVersion", offset.get("isInitialSnapshot", False))
            return int(offset["reservoirVersion"]), bool(snapshot)
        except (OSError, ValueError, IndexError, KeyError, TypeError):
            continue
    return None


def maintain_idle(
    settings: Settings, tables: Tables, wanted: Sequence[Table] = ALL_TABLES
) -> tuple[dict[str, Upkeep], dict[str, str]]:
    """Bring the tables in order whose owners are not at work; those that are do it themselves.

    Returns:
        What was done, and who was at work instead, by table.
    """
    done: dict[str, Upkeep] = {}
    busy: dict[str, str] = {}
    for owner in dict.fromkeys(table.owner for table in wanted):
        mine = [table for table in wanted if table.owner == owner and tables.exists(table)]
        try:
            with ownership(settings, owner):
                keeper = TableKeeper(tables, settings, mine)
                done |= {table.name: keeper.look_after(table, thorough=True) for table in mine}
        except OwnershipError:
            busy |= {table.name: owner for table in mine}
    return done, busy
