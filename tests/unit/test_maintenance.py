"""Upkeep of tables: contents stay, files and log stay few, and a stream that lags behind loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from pipelines.contracts.tables import INGEST_BATCHES, PRODUCTS, STOCK_MOVEMENTS
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.operations.maintenance import TableKeeper, due_class, maintain_idle, unread

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 3, 1, tzinfo=UTC)
OUTLIVED = 1.3
"""Seconds: longer than anything is kept here."""


@pytest.fixture
def eager(settings):
    """Settings of a home whose tables are looked after at each tick, and where nothing is kept for readers."""
    options = {"commits": 2, "small_files": 4, "clean_minutes": 0.0}
    short = {"retention_minutes": 1 / 60, "log_retention_minutes": 1 / 60}
    upkeep = settings.maintenance.model_copy(update=options | short)
    return settings.model_copy(update={"maintenance": upkeep})


def movements(first, count=10):
    rows = [
        {
            "event_id": f"e{number}",
            "event_time": NOW,
            "location_id": "l",
            "sku": "s",
            "kind": "sale",
            "quantity": 1,
            "sequence": number,
        }
        for number in range(first, first + count)
    ]
    return pa.Table.from_pylist(rows, schema=STOCK_MOVEMENTS.schema)


def fill(tables, commits, start=0):
    for number in range(start, start + commits):
        assert tables.append(STOCK_MOVEMENTS, movements(10 * number), "live", number)


def files(settings, table=STOCK_MOVEMENTS):
    return list((settings.home_path / "tables" / table.name).glob("*.parquet"))


def entries(settings, table=STOCK_MOVEMENTS):
    return sorted((settings.home_path / "tables" / table.name / "_delta_log").glob("*.json"))


def sequences(settings):
    """What an outsider finds in the ledger."""
    path = settings.home_path / "tables" / STOCK_MOVEMENTS.name
    return sorted(DeltaTable(path).to_pyarrow_table(columns=["sequence"]).column("sequence").to_pylist())


def test_files_and_log_stay_few_over_many_commits_and_no_row_changes(eager):
    # given an owner that looks after its table between its own commits
    tables = Tables(eager)
    keeper = TableKeeper(tables, eager, [STOCK_MOVEMENTS])
    kept = []
    for number in range(120):
        fill(tables, 1, number)
        keeper.tick()
        if number % 30 == 29:
            time.sleep(OUTLIVED)
            keeper.look_after(STOCK_MOVEMENTS)
            kept.append((len(files(eager)), len(entries(eager))))
    # then files and log entries are bounded however many commits there were
    assert max(count for count, _ in kept) < 20
    assert max(count for _, count in kept) < 30
    # and the rows are those that were written, for an outsider too
    assert sequences(eager) == list(range(1200))
    assert sorted(tables.read(STOCK_MOVEMENTS).column("sequence").to_pylist()) == list(range(1200))
    assert tables.read(STOCK_MOVEMENTS, ("event_id",), pc.field("sku") == "s").num_rows == 1200


def test_a_repeated_batch_is_recognised_after_its_log_entry_is_gone(eager):
    # given a table whose log was cut, behind a checkpoint that has outlived the retention itself
    tables = Tables(eager)
    fill(tables, 30)
    keeper = TableKeeper(tables, eager, [STOCK_MOVEMENTS])
    for _ in range(2):
        keeper.look_after(STOCK_MOVEMENTS)
        time.sleep(OUTLIVED)
    keeper.look_after(STOCK_MOVEMENTS)
    assert entries(eager)[0].name > f"{29:020d}.json"
    # when the last batch comes again, to this process and to one that has just started
    for writer in (tables, Tables(eager)):
        assert not writer.append(STOCK_MOVEMENTS, movements(290), "live", 29)
    # then it is in the table once
    assert sequences(eager) == list(range(300))


def test_a_reader_that_was_idle_meanwhile_goes_on(eager):
    # given another process' handle, opened before the log was cut behind it
    tables, idle = Tables(eager), Tables(eager)
    fill(tables, 5)
    assert idle.version(STOCK_MOVEMENTS) == 5
    fill(tables, 30, start=5)
    keeper = TableKeeper(tables, eager, [STOCK_MOVEMENTS])
    for _ in range(3):
        keeper.look_after(STOCK_MOVEMENTS)
        time.sleep(OUTLIVED)
    assert entries(eager)[0].name > f"{35:020d}.json"
    fill(tables, 2, start=35)
    # when it reads again, then it finds everything
    assert idle.read(STOCK_MOVEMENTS).num_rows == 370
    assert idle.last_transaction(STOCK_MOVEMENTS, "live") == 36


def offset_file(settings, name, version, *, snapshot=False):
    """A checkpoint of a stream that goes on at this version."""
    folder = settings.home_path / "checkpoints" / name
    for part in ("offsets", "commits"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    offset = {"sourceVersion": 1, "reservoirVersion": version, "index": -1, "isStartingVersion": snapshot}
    (folder / "offsets" / "0").write_text(f"v1\n{{}}\n{json.dumps(offset)}")
    (folder / "commits" / "0").write_text("v1\n{}")


def test_what_a_stream_has_not_read_is_kept_until_it_has(eager):
    # given a stream of the ledger that stopped long ago
    tables = Tables(eager)
    fill(tables, 10)
    offset_file(eager, "totals", 3)
    time.sleep(OUTLIVED)
    keeper = TableKeeper(tables, eager, [STOCK_MOVEMENTS])
    # when the table is looked after, then nothing that it needs goes, and the reason is told
    upkeep = keeper.look_after(STOCK_MOVEMENTS)
    assert upkeep.merged == 10
    assert upkeep.removed == 0
    assert "totals" in upkeep.held_back
    assert len(files(eager)) == 11
    # and when it has read all, the old files and entries go
    time.sleep(OUTLIVED)
    offset_file(eager, "totals", tables.version(STOCK_MOVEMENTS) + 1)
    upkeep = keeper.look_after(STOCK_MOVEMENTS)
    assert upkeep.held_back is None
    assert upkeep.removed == 10
    assert sequences(eager) == list(range(100))


def test_of_what_changes_nothing_a_stream_that_has_read_all_holds_back_the_log_alone(eager):
    # given a stream that stands before commits of upkeep, which it has yet to pass
    tables = Tables(eager)
    fill(tables, 10)
    place = tables.version(STOCK_MOVEMENTS) + 1
    offset_file(eager, "totals", place)
    keeper = TableKeeper(tables, eager, [STOCK_MOVEMENTS])
    keeper.look_after(STOCK_MOVEMENTS)
    log, checkpoint = entries(eager)[0].parent, eager.home_path / "checkpoints" / "totals"
    found = unread(checkpoint, log, tables.version(STOCK_MOVEMENTS))
    assert found.entry <= time.time()
    assert found.change == float("inf")
    # when all of that is old, then old files go, and the entry that it reads next stays
    time.sleep(OUTLIVED)
    for _ in range(3):
        keeper.look_after(STOCK_MOVEMENTS)
        time.sleep(OUTLIVED)
    assert len(files(eager)) == 1
    assert (log / f"{place:020d}.json").exists()
    # and new rows behind it are held, until the stream has read them
    fill(tables, 4, start=10)
    time.sleep(OUTLIVED)
    upkeep = keeper.look_after(STOCK_MOVEMENTS)
    assert (upkeep.merged, upkeep.removed) == (5, 0)
    assert upkeep.held_back


def test_a_stream_in_the_middle_of_a_version_or_before_a_gap_needs_everything(eager):
    # given a stream that is still busy with all files of a version
    tables = Tables(eager)
    fill(tables, 3)
    log, checkpoint = entries(eager)[0].parent, eager.home_path / "checkpoints" / "totals"
    offset_file(eager, "totals", 3, snapshot=True)
    assert unread(checkpoint, log, 3).change <= time.time()
    # or that has not begun, or whose next entry is gone
    (checkpoint / "commits" / "0").unlink()
    assert unread(checkpoint, log, 3).change == 0.0
    offset_file(eager, "totals", 2)
    (log / f"{2:020d}.json").unlink()
    assert unread(checkpoint, log, 3).change == 0.0
    # then it is said to need all; one that has read all needs nothing
    offset_file(eager, "totals", 4)
    assert unread(checkpoint, log, 3).change == unread(checkpoint, log, 3).entry == float("inf")


def test_rows_are_rewritten_once_a_size_class():
    # given three size classes, of at most 1, 8 and 64 bytes in thousands
    target = 64_000
    # then the lowest class is due for few files, a higher one only for many, and full files for nothing
    assert due_class([10] * 3, 4, target) is None
    assert due_class([10] * 4, 4, target) == 1_000
    assert due_class([600] * 4, 4, target) is None
    assert due_class([600] * 8, 4, target) == 8_000
    assert due_class([31_000] * 11, 4, target) is None
    assert due_class([31_000] * 12, 4, target) == 64_000
    assert due_class([32_000] * 1000, 4, target) is None


def test_upkeep_that_fails_does_not_stop_the_owner(eager, caplog):
    # given a table with a file that is gone
    tables = Tables(eager)
    fill(tables, 10)
    files(eager)[0].unlink()
    # when it is looked after, then its owner is told, and goes on
    TableKeeper(tables, eager, [STOCK_MOVEMENTS]).tick()
    assert "silver/stock_movements could not be kept in order" in caplog.text
    assert tables.append(STOCK_MOVEMENTS, movements(100), "live", 10)


def test_tables_of_an_owner_at_work_are_left_to_it(eager):
    # given tables of two owners, one of them at work
    tables = Tables(eager)
    fill(tables, 10)
    tables.ensure(PRODUCTS)
    program = (
        "import sys; from pipelines.io.ownership import ownership; from pipelines.operations.settings import "
        f"load_settings\nwith ownership(load_settings(overrides=['home={eager.home}']), 'ingest_events'):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        done, busy = maintain_idle(eager, tables)
    # then only the other's are touched
    assert set(done) == {"catalog/products"}
    assert busy == {STOCK_MOVEMENTS.name: "ingest_events"}
    # and with nobody at work all are, and the locks are free again
    done, busy = maintain_idle(eager, tables)
    assert done[STOCK_MOVEMENTS.name].merged == 10
    assert not busy
    with ownership(eager, "ingest_events"):
        pass


KILLED = """
from pipelines.contracts.tables import STOCK_MOVEMENTS
from pipelines.io.delta import Tables
from pipelines.operations.maintenance import TableKeeper
from pipelines.operations.settings import load_settings
settings = load_settings(overrides={overrides})
TableKeeper(Tables(settings), settings, [STOCK_MOVEMENTS]).look_after(STOCK_MOVEMENTS)
"""


@pytest.mark.parametrize("point", ["inside_compaction", "after_compaction", "inside_vacuum"])
def test_a_kill_in_the_middle_does_no_harm(eager, point):
    # given a table that has files to merge and to remove
    tables = Tables(eager)
    fill(tables, 40)
    if point == "inside_vacuum":
        tables.handle(STOCK_MOVEMENTS).optimize.compact()
        time.sleep(OUTLIVED)
    overrides = [f"home={eager.home}"]
    overrides += [f"maintenance.{name}={value}" for name, value in eager.maintenance.model_dump().items()]
    # when its owner dies in the middle of it
    died = subprocess.run(
        [sys.executable, "-c", KILLED.format(overrides=overrides)],
        cwd=ROOT,
        env={**os.environ, "STOCKCAST_FAILPOINT": f"maintenance.{point}"},
        check=False,
    )
    assert died.returncode == -signal.SIGKILL
    assert sequences(eager) == list(range(400))
    # then the next one completes it, and a repeated batch is still known
    time.sleep(OUTLIVED)
    again = Tables(eager)
    assert not again.append(STOCK_MOVEMENTS, movements(390), "live", 39)
    keeper = TableKeeper(again, eager, [STOCK_MOVEMENTS])
    keeper.look_after(STOCK_MOVEMENTS)
    time.sleep(OUTLIVED)
    keeper.look_after(STOCK_MOVEMENTS)
    assert sequences(eager) == list(range(400))
    assert len(files(eager)) < 10


def test_a_rewritten_table_is_bounded_too(eager):
    # given a table that is replaced as a whole again and again
    tables = Tables(eager)
    keeper = TableKeeper(tables, eager, [INGEST_BATCHES])
    for number in range(30):
        row = {"batch_id": number, "topic": "t", "last_sequence": number}
        tables.overwrite(INGEST_BATCHES, pa.Table.from_pylist([row], schema=INGEST_BATCHES.schema))
    time.sleep(OUTLIVED)
    keeper.look_after(INGEST_BATCHES)
    # then only the newest version's file is left
    assert len(files(eager, INGEST_BATCHES)) == 1
    assert tables.largest(INGEST_BATCHES, "last_sequence") == 29
