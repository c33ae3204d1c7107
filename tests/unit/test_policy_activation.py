"""A new policy version looks at the stock of now, whatever of the ledger is still to be read when it is found."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from demand_oracle import event

from pipelines.contracts.tables import INGEST_BATCHES, INVENTORY_POSITIONS, ORDER_OUTBOX, STOCK_MOVEMENTS
from pipelines.errors import OwnershipError
from pipelines.io.delta import Tables
from pipelines.operations.settings import RestockSettings
from pipelines.restocking.engine import RestockEngine
from tests.chain import plant_policies

REORDER_POINT, ORDER_UP_TO = 20, 50
NOW = datetime.now(UTC).replace(microsecond=0)


def take_in(tables: Tables, *movements: tuple[str, str, int], ago: timedelta) -> None:
    """Ledger rows of (sku, kind, quantity), a second apart, as a finished ingest batch."""
    rows = [
        {**event(NOW - ago + timedelta(seconds=place), kind, quantity, sku=sku), "sequence": place, "ingested_at": NOW}
        for place, (sku, kind, quantity) in enumerate(movements, start=1)
    ]
    batch = {"batch_id": 0, "topic": "pos.sales", "last_sequence": len(rows), "finished_at": NOW}
    for table, content in ((STOCK_MOVEMENTS, rows), (INGEST_BATCHES, [batch])):
        tables.append(table, pa.Table.from_pylist(content, schema=table.schema))


@pytest.mark.parametrize("ago", [timedelta(hours=5), timedelta(days=40)], ids=["policy's days", "older history"])
def test_an_engine_that_starts_on_a_full_ledger_orders_for_its_end_only(tables: Tables, ago: timedelta) -> None:
    # given a series that was low and was filled up, one that is low, and policies made after all of it
    history = [("filled", "count", 40), ("filled", "sale", 35), ("low", "count", 40), ("low", "sale", 35)]
    take_in(tables, *history, ("filled", "receipt", 30), ago=ago)
    plant_policies(
        tables, [("s1", "filled"), ("s1", "low")], reorder_point=REORDER_POINT, order_up_to=ORDER_UP_TO, pack_size=1
    )

    # when a restock engine starts for the first time
    engine = RestockEngine(tables, RestockSettings(), lambda flags: None, lambda: NOW)
    engine.resume()
    engine.catch_up()
    engine.save()

    # then only what is low now is ordered, and only once
    positions = {row["sku"]: (row["on_hand"], row["on_order"]) for row in tables.read(INVENTORY_POSITIONS).to_pylist()}
    assert positions == {"filled": (35, 0), "low": (5, ORDER_UP_TO - 5)}
    assert tables.read(ORDER_OUTBOX).num_rows == 1


def test_a_second_writer_of_the_outbox_is_noticed_before_an_order_is_lost(tables: Tables) -> None:
    # given two engines that both went on from the same place, which the locks do not let happen
    take_in(tables, ("low", "count", 5), ago=timedelta(hours=5))
    plant_policies(tables, [("s1", "low")], reorder_point=REORDER_POINT, order_up_to=ORDER_UP_TO, pack_size=1)
    engines = [RestockEngine(tables, RestockSettings(), lambda flags: None, lambda: NOW) for _ in range(2)]
    for engine in engines:
        engine.resume()
    # when both decide, then the second says so instead of leaving its order out in silence
    engines[0].catch_up()
    with pytest.raises(OwnershipError, match="another one owns"):
        engines[1].catch_up()
    assert tables.read(ORDER_OUTBOX).num_rows == 1
