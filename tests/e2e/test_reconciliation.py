"""A simulated chain with duplicates, disorder and bad events adds up, however it is shuffled and cut."""

from __future__ import annotations

import json
import random
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa

from pipelines.contracts.tables import BRONZE_EVENTS
from pipelines.ingestion.catalog import load_catalog
from pipelines.ingestion.ingestor import Ingestor
from pipelines.io.delta import Tables
from pipelines.operations.live import run_live
from pipelines.restocking.engine import RestockEngine
from pipelines.simulation import store
from pipelines.simulation.history import simulate_history
from pipelines.simulation.plan import Faults, Plan
from tests.reconciler import INPUT_TOPICS, read_table, read_topics, stock

PLAN = Plan(
    cutoff=date(2026, 3, 1),
    seed=5,
    stores=2,
    products=6,
    days=45,
    faults=Faults(duplicates=0.06, late=0.05, malformed=0.02, conflicts=0.002),
)


def positions_of(home):
    positions = read_table(home, "gold/inventory_positions").set_index(["location_id", "sku"])
    return positions.on_hand.sort_index()


def test_a_faulty_history_adds_up_however_it_is_cut(spark, chain, tmp_path):
    # given a simulated history with faults of every kind, taken in by the stream
    manifest = simulate_history(chain, PLAN)
    load_catalog(chain, Tables(chain), store.catalog_folder(chain))
    run_live(
        chain.model_copy(update={"ingest": chain.ingest.model_copy(update={"max_offsets_per_trigger": 4_000})}),
        once=True,
    )

    # then each record ended in one place, and as many in each as the simulator says it sent
    records = read_topics(chain.kafka.bootstrap_servers, *INPUT_TOPICS)
    batches = (
        read_table(chain.home_path, "silver/ingest_batches").set_index("topic").groupby("topic").sum(numeric_only=True)
    )
    # orders on board of shipments under way were told of their arrival, which was taken in as well
    told = [record for record in records if record.topic == "restock.order_status"]
    assert {json.loads(record.value)["actor"] for record in told} == {"shipments"}
    assert batches.consumed.sum() == len(records) == manifest.messages + len(told)
    assert batches.loc["restock.order_status"].good == len(told)
    for topic, sent in manifest.topics.items():
        counted = batches.loc[topic]
        assert counted.good == sent.valid, topic
        assert counted.duplicates == sent.exact_duplicates, topic
        assert counted.quarantined == sent.malformed + sent.conflicting_duplicates, topic
        assert counted.tombstones == sent.tombstones, topic
    ledger = read_table(chain.home_path, "silver/stock_movements")
    expected = positions_of(chain.home_path)
    assert expected.tolist() == stock(ledger).sort_index().tolist()

    # and shuffled within what Kafka allows, cut into other batches, the positions stay the same
    schema = pa.schema([field for field in BRONZE_EVENTS.schema if field.name != "ingested_at"])
    arrived = datetime(2026, 3, 2, tzinfo=UTC)
    for seed in (1, 2):
        chance = random.Random(seed)
        clean = without_contradictions(records)
        chance.shuffle(clean)
        rows = [
            {**vars(record), "kafka_timestamp": arrived + timedelta(milliseconds=place), "headers": None}
            for place, record in enumerate(clean)
        ]
        tables = Tables(chain.model_copy(update={"home": str(tmp_path / f"other-{seed}")}))
        load_catalog(
            chain.model_copy(update={"home": str(tmp_path / f"other-{seed}")}), tables, store.catalog_folder(chain)
        )
        ingestor = Ingestor(tables, chain.ingest, "shuffled", lambda: arrived)
        ingestor.resume(new_stream=True)
        engine = RestockEngine(tables, chain.restock, lambda flags: None, lambda: arrived)
        engine.resume()
        start = batch = 0
        while start < len(rows):
            size = chance.randrange(1, 3_000)
            engine.stage(ingestor.take_in(batch, pa.Table.from_pylist(rows[start : start + size], schema=schema)))
            start, batch = start + size, batch + 1
        engine.save()
        assert positions_of(tmp_path / f"other-{seed}").equals(expected)


def without_contradictions(records):
    """The records without later contradictions of an event: of two contents the first to arrive stands, so a
    shuffle may not turn them round."""
    first = {}
    for record in records:
        first.setdefault(_id(record), record.value)
    return [record for record in records if first[_id(record)] == record.value]


def _id(record):
    try:
        event = json.loads(record.value or b"")
        return (record.topic, event["event_id"])
    except (ValueError, KeyError, TypeError):
        return (record.topic, record.partition, record.offset)
