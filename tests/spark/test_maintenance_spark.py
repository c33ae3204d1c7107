"""Upkeep beside Spark: a stream of the table sees each row once, and Spark's writer still knows what was written."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pyarrow as pa

from pipelines.contracts.tables import STOCK_MOVEMENTS
from pipelines.operations.maintenance import TableKeeper

NOW = datetime(2026, 3, 1, tzinfo=UTC)
OUTLIVED = 1.3


def movements(number, count=10):
    rows = [
        {"event_id": f"e{place}", "event_time": NOW, "location_id": "l", "sku": "s", "kind": "sale", "quantity": 1,
         "sequence": place}
        for place in range(count * number, count * (number + 1))
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=STOCK_MOVEMENTS.schema)


def test_a_stream_and_sparks_writer_do_not_notice(spark, settings, tables):
    # given a ledger that a stream follows, and nothing that is kept for readers but what the stream needs
    short = {"retention_minutes": 1 / 60, "log_retention_minutes": 1 / 60, "small_files": 4}
    settings = settings.model_copy(update={"maintenance": settings.maintenance.model_copy(update=short)})
    keeper = TableKeeper(tables, settings, [STOCK_MOVEMENTS])
    seen: list[int] = []

    def follow():
        """As the totals do: everything that is new, from the checkpoint."""
        stream = tables.stream(spark, STOCK_MOVEMENTS).writeStream.trigger(availableNow=True)
        stream = stream.option("checkpointLocation", settings.under_home("checkpoints", "totals"))
        take = lambda batch, _: seen.extend(row.sequence for row in batch.select("sequence").collect())  # noqa: E731
        stream.foreachBatch(take).start().awaitTermination()

    def upkeep():
        time.sleep(OUTLIVED)
        return keeper.look_after(STOCK_MOVEMENTS, thorough=True)

    folder = settings.home_path / "tables" / STOCK_MOVEMENTS.name
    written = 0
    for turn in range(2):
        # when rows come in, and files are merged and removed before and after the stream has read them
        for _ in range(6):
            tables.append(STOCK_MOVEMENTS, movements(written), "live", written)
            written += 1
        assert upkeep().merged >= 6
        assert (upkeep().removed > 0) == (turn == 0), "what the stream has yet to read is kept"
        follow()
        upkeep()
        assert len(list(folder.glob("*.parquet"))) <= 2
    tables.append(STOCK_MOVEMENTS, movements(written), "live", written)
    written += 1
    follow()
    # then the stream has seen each row once, in spite of what is gone
    assert sorted(seen) == list(range(10 * written))
    assert not (folder / "_delta_log" / f"{0:020d}.json").exists()
    # and Spark's writer and ours know the last batch, and skip it
    frame = spark.createDataFrame(movements(written - 1).to_pandas(), tables.frame(spark, STOCK_MOVEMENTS).schema)
    tables.append_frame(STOCK_MOVEMENTS, frame, "live", written - 1)
    options = {"txnAppId": "live", "txnVersion": str(written - 1)}
    frame.write.format("delta").mode("append").options(**options).save(tables.uri(STOCK_MOVEMENTS))
    assert not tables.append(STOCK_MOVEMENTS, movements(written - 1), "live", written - 1)
    assert tables.frame(spark, STOCK_MOVEMENTS).count() == 10 * written
