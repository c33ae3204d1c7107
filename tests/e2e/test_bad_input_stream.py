"""The whole catalogue of bad input, and thousands of mutated messages, at once through the real broker and stream."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime

import pandas as pd
from confluent_kafka import Producer
from typer.testing import CliRunner

from pipelines.ingestion.stream import start_ingest
from pipelines.io.delta import Tables
from pipelines.operations.cli.app import app
from tests.bad_input import DUPLICATE, GOOD, TOMBSTONE, catalogue
from tests.chain import plant_catalog
from tests.fuzz import PLACES, SKUS, Mutator, violation
from tests.reconciler import INPUT_TOPICS, read_table, read_topics

FUZZED = 5_000
LEDGER = "silver/stock_movements"
SILVER = (LEDGER, "silver/shipment_events", "silver/order_status")
KNOWN = [(place, sku) for place in PLACES for sku in SKUS]
LEARNT = {"unknown product", "unknown location", "unknown product and location", "unknown product in a shipment"}


def send(bootstrap, messages):
    """Produce; gives (topic, partition, offset) of each, in the order of sending."""
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True, "linger.ms": 5})
    places = {}

    def delivered(number):
        def remember(error, record):
            assert error is None, error
            places[number] = (record.topic(), record.partition(), record.offset())

        return remember

    for number, (topic, key, value) in enumerate(messages):
        producer.produce(topic, value, key=key, on_delivery=delivered(number))
        producer.poll(0)
    producer.flush()
    return [places[number] for number in range(len(messages))]


def by_place(home, name):
    rows = read_table(home, name)
    found = {(row.topic, row.partition, row.offset): row for row in rows.itertuples()}
    assert len(found) == len(rows), f"{name} holds a record twice"
    return found


def check_everything(settings):
    """Promise 1: each record of the broker is in bronze once, byte for byte, and ended in exactly one place."""
    home = settings.home_path
    records = read_topics(settings.kafka.bootstrap_servers, *INPUT_TOPICS)
    bronze, quarantine = by_place(home, "bronze/events"), by_place(home, "silver/quarantine")
    silver = {place: row for name in SILVER for place, row in by_place(home, name).items()}
    assert {(r.topic, r.partition, r.offset): (r.key, r.value) for r in records} == {
        place: (row.key, row.value) for place, row in bronze.items()
    }
    assert all((row.key, row.value) == (bronze[place].key, bronze[place].value) for place, row in quarantine.items())
    assert not set(silver) & set(quarantine)
    batches = read_table(home, "silver/ingest_batches")
    counted = {name: int(batches[name].sum()) for name in ("good", "quarantined", "duplicates", "tombstones")}
    tombstones = sum(record.value is None and record.key is not None for record in records)
    assert sum(counted.values()) == int(batches.consumed.sum()) == len(records)
    assert (counted["good"], counted["quarantined"], counted["tombstones"]) == (
        *(len(silver), len(quarantine)),
        tombstones,
    )
    return silver, quarantine


def alerts(settings):
    found = {}
    for record in read_topics(settings.kafka.bootstrap_servers, "alerts"):
        alert = json.loads(record.value)
        found.setdefault(alert["alert_id"], alert)
    return Counter((alert["kind"], alert["subject"]) for alert in found.values()), list(found.values())


def take_in(spark, settings):
    start_ingest(spark, settings, Tables(settings), once=True).awaitTermination()


def test_the_catalogue_and_thousands_of_mutated_messages_at_once(spark, chain):
    # given a catalog, every line of the catalogue of bad input, and messages to most of which something was done
    settings = chain.model_copy(update={"ingest": chain.ingest.model_copy(update={"max_offsets_per_trigger": 2_500})})
    plant_catalog(Tables(settings), KNOWN)
    now = datetime.now(UTC)
    cases, mutator = catalogue(now), Mutator(7, now)
    messages = [(case.topic, case.key, case.value) for case in cases] + list(mutator.messages(FUZZED))
    places = send(settings.kafka.bootstrap_servers, messages)

    # when the stream takes them in, in several batches
    take_in(spark, settings)

    # then each record is in one place, byte for byte, and every case where the catalogue says
    silver, quarantine = check_everything(settings)
    assert read_table(settings.home_path, "silver/ingest_batches").batch_id.nunique() >= 3
    for case, place in zip(cases, places, strict=False):
        found = GOOD if place in silver else quarantine[place].reason if place in quarantine else None
        assert found == (None if case.outcome in {DUPLICATE, TOMBSTONE} else case.outcome), case.name
    assert {row.event_id for row in silver.values()} >= {event_id for _, event_id in mutator.untouched}
    # and what the ledger holds is valid for a check that shares no code with the pipeline
    ledger, sent = by_place(settings.home_path, LEDGER), dict(zip(places, messages, strict=True))
    fuzzed = [place for place in places[len(cases) :] if place in ledger]
    assert len(fuzzed) > FUZZED / 5
    for place in fuzzed:
        row = {name: None if pd.isna(value) else value for name, value in ledger[place]._asdict().items()}
        assert violation(place[0], row, sent[place][2], now) is None

    # and contradictions and the share of bad input are told, once each
    kinds, told = alerts(settings)
    assert kinds[("conflicting_event", "pos.sales")] >= 1
    assert kinds[("bad_input_share", "pos.sales")] == 1
    assert {subject for kind, subject in kinds if kind == "bad_input_share"} == set(INPUT_TOPICS)
    assert all(alert["message"].isprintable() for alert in told)

    # when nothing but bad records come
    bad = [(case.topic, case.key, case.value) for case in cases if case.outcome == "not_json"] * 20
    send(settings.kafka.bootstrap_servers, bad)
    take_in(spark, settings)
    # then they are set aside, and no alert is repeated
    check_everything(settings)
    again, _ = alerts(settings)
    assert again[("bad_input_share", "pos.sales")] == 1

    # when the catalog learns what it did not know
    plant_catalog(Tables(settings), [*KNOWN, ("s-new", "p-new")])
    take_in(spark, settings)
    # then those events are taken in by themselves, each once, and marked as replayed
    silver, quarantine = check_everything(settings)
    ids = Counter(row.event_id for row in silver.values())
    for case, place in zip(cases, places, strict=False):
        if case.name in LEARNT:
            assert ids[json.loads(case.value)["event_id"]] == 1, case.name
            assert pd.notna(quarantine[place].replayed_at)
    records = len(read_topics(settings.kafka.bootstrap_servers, *INPUT_TOPICS))
    take_in(spark, settings)
    assert len(read_topics(settings.kafka.bootstrap_servers, *INPUT_TOPICS)) == records, "nothing is sent twice"

    # and a person sees the reasons counted, and can send the rest again
    options = ["--set", f"home={settings.home}", "--set"]
    options += [f"kafka.bootstrap_servers={settings.kafka.bootstrap_servers}"]
    listed = CliRunner().invoke(app, ["quarantine", "list", "--json", *options])
    counts = {(reason, topic): 0 for reason, topic, *_ in json.loads(listed.output)["counts"]}
    for reason, topic, _, count in json.loads(listed.output)["counts"]:
        counts[(reason, topic)] += count
    assert counts == Counter((row.reason, row.topic) for row in quarantine.values())
    replayed = CliRunner().invoke(app, ["quarantine", "replay", "--reason", "empty_record", *options])
    assert replayed.exit_code == 0, replayed.output
    take_in(spark, settings)
    check_everything(settings)
