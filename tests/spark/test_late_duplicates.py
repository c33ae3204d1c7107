"""What came again beyond the horizon of the live stream: found at night, corrected in the open, once."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from pipelines.contracts.tables import BRONZE_EVENTS, DAILY_DEMAND, DEMAND_TOTALS, QUARANTINE, STOCK_MOVEMENTS
from pipelines.demand.aggregate import write_demand
from pipelines.demand.totals import Totals
from pipelines.demand.windows import shape_of
from pipelines.ingestion.ingestor import Ingestor
from pipelines.ingestion.late_duplicates import correct_late_duplicates
from pipelines.operations.settings import IngestSettings
from tests.bad_input import message
from tests.reconciler import read_table, stock

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
SALES, MOVEMENTS = "pos.sales", "inventory.movements"


class Chain:
    """An ingestor whose days pass as told."""

    def __init__(self, tables):
        self.tables, self.now, self.batch, self.offset = tables, START, 0, 0
        self.ingestor = Ingestor(tables, IngestSettings(), "test", lambda: self.now)
        self.ingestor.resume(new_stream=True)

    def take_in(self, *messages, days=0):
        self.now += timedelta(days=days)
        schema = pa.schema([field for field in BRONZE_EVENTS.schema if field.name != "ingested_at"])
        rows = [
            {"topic": topic, "partition": 0, "offset": self.offset + n, "kafka_timestamp": self.now, "value": value}
            for n, (topic, value) in enumerate(messages)
        ]
        self.offset += len(rows)
        self.ingestor.take_in(self.batch, pa.Table.from_pylist(rows, schema=schema))
        self.batch += 1


def event(topic, event_id, **changes):
    return topic, json.dumps(message(topic, event_id, START - timedelta(hours=1), **changes)).encode()


def test_a_late_repetition_is_taken_back_once_and_demand_counts_it_once(spark, tables, settings):
    # given a stock, and events that come again nine days later: the same, and one that says something else
    chain, sent, told = Chain(tables), [], []
    first = [
        event(MOVEMENTS, "e-1", kind="count", quantity=100, event_time="2026-02-28T00:00:00Z"),
        event(SALES, "e-2", quantity=7),
        event(SALES, "e-3", quantity=5),
        event(MOVEMENTS, "e-4", kind="receipt", quantity=30),
    ]
    chain.take_in(*first)
    expected = stock(read_table(settings.home_path, "silver/stock_movements"))
    assert expected.tolist() == [118]
    chain.take_in(*first[:2], event(SALES, "e-3", quantity=50), first[3], days=9)
    assert stock(read_table(settings.home_path, "silver/stock_movements")).tolist() != [118]

    def night():
        report = correct_late_duplicates(spark, tables, chain.now, sent.extend, told.extend)
        write_demand(spark, tables, None)
        return report

    # when the night looks for them, twice before its corrections are taken in and once after
    report = night()
    assert (report.repeated, report.sent, report.contradicting) == (4, 3, 1)
    night()
    assert len(sent) == 6
    assert sent[:3] == sent[3:], "the same corrections, byte for byte"
    chain.take_in(*((MOVEMENTS, value) for _, value in sent))
    report = night()
    # then the stock is what it was, by three rows that everybody can see
    assert report.sent == 0
    ledger = read_table(settings.home_path, "silver/stock_movements")
    assert stock(ledger).tolist() == [118]
    corrections = ledger[ledger.event_id.str.startswith("late-duplicate-")]
    assert sorted(corrections.quantity) == [-30, 7, 50]
    assert set(corrections.kind) == {"adjustment"}
    assert tables.read(QUARANTINE).num_rows == 0
    # and demand counts what was sold
    assert tables.read(DAILY_DEMAND, ("demand",)).column(0).to_pylist() == [12]
    # and so do the totals
    Totals(spark, tables, shape_of(1440), lambda rows: None).refresh(tables.frame(spark, STOCK_MOVEMENTS))
    assert tables.read(DEMAND_TOTALS, ("orders", "units")).to_pylist() == 2 * [{"orders": 2, "units": 12}]
    # and the contradiction is told, with an id that repeats
    assert {alert.kind for alert in told} == {"conflicting_event"}
    assert len({alert.alert_id for alert in told}) == 1
    # and long after, when the corrections' own ids are forgotten, nothing more is sent
    chain.take_in(event(SALES, "e-9"), days=30)
    assert night().sent == 0


def test_a_ledger_without_repetitions_needs_nothing(spark, tables):
    chain = Chain(tables)
    chain.take_in(event(SALES, "e-1"), event(SALES, "e-1"), event(SALES, "e-2"))
    assert correct_late_duplicates(spark, tables, START, _never, _never).repeated == 0


def _never(_):
    raise AssertionError("nothing was to be sent")
