"""Faults of topics, broker, disk and checkpoint while the stream runs and while it is stopped.

Expected each time: nothing lost, nothing twice, and one line that says what happened and what to do. The broker is
away for FAULT_SECONDS (default 6; 60 and more on demand).
"""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic
from typer.testing import CliRunner

from pipelines.errors import CheckpointError, SourceGapError
from pipelines.ingestion.stream import start_ingest
from pipelines.io.delta import Tables
from pipelines.operations import broker
from pipelines.operations.cli.app import app
from tests.bad_input import message
from tests.chain import plant_catalog
from tests.reconciler import read_table, read_topics

ROOT = Path(__file__).parents[2]
AWAY = float(os.environ.get("FAULT_SECONDS", "6"))
SALES, MOVEMENTS = "pos.sales", "inventory.movements"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Sender:
    """Sends valid events, and remembers which the broker acknowledged."""

    def __init__(self, settings):
        self.settings = settings
        self.number = 0
        self.sent: set[str] = set()

    def send(self, count, topic=SALES, partition=None, sku="p-1", padding=0):
        producer = Producer({"bootstrap.servers": self.settings.kafka.bootstrap_servers, "enable.idempotence": True})
        failures, ids = [], []
        for _ in range(count):
            self.number += 1
            ids.append(f"e-{self.number}")
            event = message(topic, ids[-1], NOON, sku=sku)
            if padding:
                event["note"] = os.urandom(padding // 2).hex()
            where = {} if partition is None else {"partition": partition}
            producer.produce(
                topic, json.dumps(event).encode(), key=f"s-1|{sku}",
                on_delivery=lambda error, _: failures.append(error) if error else None, **where,
            )  # fmt: skip
            producer.poll(0)
        producer.flush()
        assert not failures
        self.sent.update(ids)
        return set(ids)


def ledger(settings):
    return read_table(settings.home_path, "silver/stock_movements").event_id.tolist()


def wait_for(settings, ids, run=None, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not ids <= set(ledger(settings)):
        assert run is None or run.isActive, run.exception()
        assert time.monotonic() < deadline, f"{len(ids - set(ledger(settings)))} events did not arrive"
        time.sleep(0.3)


def once(spark, settings):
    start_ingest(spark, settings, Tables(settings), once=True).awaitTermination()


def command(settings, *words):
    options = ["--set", f"home={settings.home}"]
    options += ["--set", f"kafka.bootstrap_servers={settings.kafka.bootstrap_servers}"]
    result = CliRunner().invoke(app, [*words, *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def admin(settings):
    return AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})


def forget_before(settings, topic, partition, offset):
    """What retention does: records before the offset are gone."""
    client = admin(settings)
    for future in client.delete_records([TopicPartition(topic, partition, offset)]).values():
        future.result(30)


def create_anew(settings, topic):
    client = admin(settings)
    client.delete_topics([topic])[topic].result(30)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        made = client.create_topics(
            [NewTopic(topic, num_partitions=2, config={"message.timestamp.type": "LogAppendTime"})]
        )[topic]
        try:
            made.result(30)
        except Exception:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"{topic} could not be created anew")


def end_of(settings, topic, partition):
    records = [r for r in read_topics(settings.kafka.bootstrap_servers, topic) if r.partition == partition]
    return max((record.offset for record in records), default=-1) + 1


def one_line(error, *words):
    """The message is one line, and says all of this."""
    text = str(error)
    assert "\n" not in text
    for word in words:
        assert word in text, f"{word!r} is missing: {text}"


@contextmanager
def running(spark, settings, **options):
    run = start_ingest(spark, settings, Tables(settings), once=False, **options)
    try:
        yield run
    finally:
        run.stop()


@pytest.fixture
def home(chain):
    """Settings of a home with a catalog and a broker of its own, watched closely."""
    ingest = chain.ingest.model_copy(update={"watch_seconds": 0.5})
    settings = chain.model_copy(update={"ingest": ingest})
    plant_catalog(Tables(settings), [("s-1", "p-1")])
    return settings


def check_once(settings, expected):
    found = ledger(settings)
    assert len(found) == len(set(found))
    assert set(found) == expected
    bronze = read_table(settings.home_path, "bronze/events")
    assert not bronze.duplicated(["topic", "partition", "offset", "kafka_timestamp"]).any()


def test_topics_and_broker(spark, home, caplog):
    caplog.set_level(logging.INFO)
    sender = Sender(home)

    # given a new home at a broker that has already forgotten records: it says so, and reads what there is
    lost = sender.send(5, partition=0)
    forget_before(home, SALES, 0, 3)
    once(spark, home)
    assert "pos.sales[0] begins at offset 3: what came before was removed before this home first read it" in caplog.text
    kept = {event_id for event_id in lost if event_id in set(ledger(home))}
    assert len(kept) == 2
    sender.sent = set(kept)

    with running(spark, home) as run:
        # when partitions are added while it runs
        wait_for(home, sender.send(5), run)
        client = admin(home)
        client.create_partitions([NewPartitions(SALES, 5)])[SALES].result(30)
        for partition in range(5):
            wait_for(home, sender.send(3, partition=partition), run)
        # and a product becomes known, with no event after it
        waiting = sender.send(4, sku="p-late")
        time.sleep(1)
        assert not waiting & set(ledger(home))
        plant_catalog(Tables(home), [("s-1", "p-1"), ("s-1", "p-late")])
        wait_for(home, waiting, run)
        # and the broker goes away for a while
        sender.send(50)
        broker.stop(home)
        time.sleep(AWAY)
        assert run.isActive
        broker.start(home)
        wait_for(home, sender.send(50), run, seconds=120)
        wait_for(home, sender.sent, run)
        check_once(home, sender.sent)

        # when a topic is created anew while it runs, with as many records as the old one had
        wait_for(home, sender.send(6, topic=MOVEMENTS, partition=0), run)
        create_anew(home, MOVEMENTS)
        sender_new = sender.send(9, topic=MOVEMENTS, partition=0)
        deadline = time.monotonic() + 60
        while run.isActive and time.monotonic() < deadline:
            time.sleep(0.2)
        # then the stream has stopped, and says what and where, and how to go on
        assert not run.isActive
        one_line(
            run.exception(),
            *("inventory.movements[0] is another topic now", "read up to offset 6 of the old one", "begins at 0"),
            "stockcast ingest acknowledge",
        )
        assert isinstance(run.exception(), SourceGapError)
        assert not sender_new & set(ledger(home))

    # and does not start before a person has acknowledged it
    with pytest.raises(SourceGapError, match="another topic now"):
        once(spark, home)
    assert command(home, "ingest", "status").exit_code == 1
    told = command(home, "ingest", "acknowledge")
    assert told.exit_code == 0, told.output
    once(spark, home)
    check_once(home, sender.sent)
    gaps = read_table(home.home_path, "silver/ingest_gaps")
    assert set(gaps.kind) == {"recreated"}
    assert gaps[gaps.partition == 0].from_offset.tolist() == [6]
    kinds = [json.loads(record.value)["kind"] for record in read_topics(home.kafka.bootstrap_servers, "alerts")]
    assert "source_gap" in kinds

    # when retention overtakes the stopped stream
    before = end_of(home, SALES, 1)
    gone = sender.send(7, partition=1)
    forget_before(home, SALES, 1, before + 7)
    sender.sent -= gone
    with pytest.raises(SourceGapError) as caught:
        once(spark, home)
    one_line(caught.value, f"pos.sales[1] no longer holds offsets {before} to {before + 6} (7 not read)")
    assert command(home, "ingest", "acknowledge").exit_code == 0
    sender.send(4, partition=1)
    once(spark, home)
    check_once(home, sender.sent)
    assert command(home, "ingest", "acknowledge").output.startswith("there is no gap")

    # when retention overtakes the running stream, which is busy with a batch
    busy, free = threading.Event(), threading.Event()

    def dawdle(_):
        busy.set()
        free.wait(60)

    small = home.model_copy(update={"ingest": home.ingest.model_copy(update={"max_offsets_per_trigger": 20})})
    with running(spark, small, then=dawdle) as run:
        # More than Spark's consumer has fetched ahead.
        sender.send(200, partition=2, padding=20_000)
        assert busy.wait(60)
        end = end_of(home, SALES, 2)
        forget_before(home, SALES, 2, end)
        free.set()
        deadline = time.monotonic() + 120
        while run.isActive and time.monotonic() < deadline:
            time.sleep(0.2)
        one_line(run.exception(), "pos.sales[2] no longer holds offsets", "stockcast ingest acknowledge")
    assert command(home, "ingest", "acknowledge").exit_code == 0
    sender.send(4, partition=2)
    once(spark, home)
    lost = sender.sent - set(ledger(home))
    gaps = read_table(home.home_path, "silver/ingest_gaps")
    last = gaps[(gaps.partition == 2) & (gaps.kind == "retention")].iloc[0]
    assert 0 < len(lost) == last.to_offset - last.from_offset
    check_once(home, sender.sent - lost)


def newest(folder):
    return max((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


def test_checkpoint(spark, home):
    # given a stream with a checkpoint
    sender, folder = Sender(home), home.home_path / "checkpoints" / "ingest"
    sender.send(20)
    once(spark, home)

    def truncated_offsets():
        path = newest(folder / "offsets")
        path.write_bytes(path.read_bytes()[:-20])
        return f"offsets/{path.name} is damaged"

    def empty_offsets():
        newest(folder / "offsets").write_bytes(b"")
        return f"offsets/{newest(folder / 'offsets').name} is damaged"

    def no_metadata():
        (folder / "metadata").unlink()
        return "its metadata file is missing"

    def truncated_metadata():
        (folder / "metadata").write_bytes(b'{"id"')
        return "its metadata file is damaged"

    def truncated_commits():
        newest(folder / "commits").write_bytes(b"")
        return f"commits/{newest(folder / 'commits').name} is damaged"

    def another_query():
        path = newest(folder / "offsets")
        path.write_text("\n".join([*path.read_text().splitlines()[:2], json.dumps({"clicks": {"0": 3}})]))
        return f"it belongs to another query ({path.name} reads clicks)"

    def another_source():
        path = newest(folder / "offsets")
        path.write_text("\n".join([*path.read_text().splitlines(), "{}"]))
        return f"it belongs to another query (offsets/{path.name} has 2 sources)"

    def older_than_the_tables():
        shutil.copytree(folder, home.home_path / "earlier")
        sender.send(5)
        once(spark, home)
        shutil.rmtree(folder)
        shutil.move(home.home_path / "earlier", folder)
        return "it offers offsets"

    for spoil in (
        truncated_offsets,
        empty_offsets,
        no_metadata,
        truncated_metadata,
        truncated_commits,
        another_query,
        another_source,
        older_than_the_tables,
    ):
        said = spoil()
        sender.send(5)
        # when it is started, then it says what is wrong and what to do
        with pytest.raises(CheckpointError) as caught:
            once(spark, home)
        one_line(caught.value, said, str(folder), "stockcast ingest restart-checkpoint", "Nothing is lost")
        # and that done, it goes on where the tables end
        assert command(home, "ingest", "restart-checkpoint").exit_code == 0
        once(spark, home)
        check_once(home, sender.sent)


def job_words(settings, *words):
    """`jobs/ingest_events.py` as a command."""
    options = {"home": settings.home, "kafka.bootstrap_servers": settings.kafka.bootstrap_servers}
    options = [word for name, value in options.items() for word in ("--set", f"{name}={value}")]
    return [sys.executable, str(ROOT / "jobs" / "ingest_events.py"), *words, *options]


def run_until_the_disk_is_full(settings, send):
    """Run the job; once it waits for data, no file that it writes may grow beyond 600 KB. Gives what it said."""
    log = settings.home_path / "job.log"
    with log.open("wb") as output:
        process = subprocess.Popen(job_words(settings), cwd=ROOT, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 180
        while "remembering" not in log.read_text():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.2)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
        send()
        assert process.wait(180) == 1, log.read_text()[-3000:]
    finally:
        process.kill()
        process.wait(30)
    return log.read_text()


def test_disk_full_and_a_lost_checkpoint_of_a_batch_half_written(spark, home):
    sender = Sender(home)
    sender.send(10)
    once(spark, home)
    # given a disk that takes no more within the next batch
    log = run_until_the_disk_is_full(home, lambda: sender.send(120, padding=20_000))
    # then the job ends with one line that says so
    said = [line for line in log.splitlines() if line.startswith("error:")]
    assert len(said) == 1
    one_line(said[0], f"the disk under {home.home} is full", "Nothing is lost", "free space and start again")
    # and with space again, all is taken in once
    once(spark, home)
    check_once(home, sender.sent)

    # given a batch that died between its tables, of which the catalog then learns a product
    sender.send(5)
    unknown = sender.send(5, sku="p-late")
    armed = {**os.environ, "STOCKCAST_FAILPOINT": "ingest.after_ledger"}
    died = subprocess.run(job_words(home, "--once"), cwd=ROOT, env=armed, capture_output=True, timeout=180, check=False)
    assert died.returncode < 0, died.stderr[-3000:]
    plant_catalog(Tables(home), [("s-1", "p-1"), ("s-1", "p-late")])
    # when its checkpoint is lost as well
    assert command(home, "ingest", "restart-checkpoint").exit_code == 0
    once(spark, home)
    once(spark, home)
    # then the batch is finished as it was begun, and what was unknown has come again by itself
    check_once(home, sender.sent)
    quarantine = read_table(home.home_path, "silver/quarantine")
    assert len(quarantine) == len(unknown)
    assert quarantine.replayed_at.notna().all()
    batches = read_table(home.home_path, "silver/ingest_batches")
    records = [r for topic in (SALES, MOVEMENTS) for r in read_topics(home.kafka.bootstrap_servers, topic)]
    assert batches.consumed.sum() == len(records)
    assert batches.good.sum() == len(sender.sent)
    assert batches.quarantined.sum() == len(unknown)
