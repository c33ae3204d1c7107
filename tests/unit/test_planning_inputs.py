"""What a plan learns from the tables: lead times of orders that came, and how much of an error is a wrong level."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from pipelines.contracts.tables import BACKTESTS, ORDERS, STOCK_MOVEMENTS
from pipelines.inventory.lead_times import LeadTimeRecords
from pipelines.inventory.level_correlation import level_correlation
from pipelines.inventory.planning_inputs import error_correlation, lead_time_records, with_lead_times
from pipelines.inventory.scenarios import LEVEL_CORRELATION
from pipelines.io.delta import Tables

AS_OF = date(2024, 5, 31)


def rows_of(table, rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(
        [{field.name: row.get(field.name) for field in table.schema} for row in rows], table.schema
    )


def terms() -> pa.Table:
    return pa.table(
        {
            "location_id": ["L", "L", "M"],
            "sku": ["a", "b", "a"],
            "supplier_id": ["slow", "new", "slow"],
            "lead_time_days": [3.0, 4.0, 3.0],
            "lead_time_std_days": [0.5, 1.0, 0.5],
        }
    )


def test_a_suppliers_own_orders_replace_what_its_sourcing_states():
    count = 400
    records = LeadTimeRecords(
        np.full(count, "slow", object), np.full(count, "L", object), np.full(count, 9.0), np.ones(count, bool)
    )

    found = with_lead_times(terms(), records)

    assert found["lead_time_days"].to_pylist() == pytest.approx([9.0, 4.0, 9.0], abs=0.2)
    assert found["lead_time_std_days"][1].as_py() == 1.0
    assert [row is None for row in found["lead_time_points"].to_pylist()] == [False, True, False]


def test_without_orders_nothing_changes(tables: Tables):
    found = with_lead_times(terms(), lead_time_records(tables, AS_OF))

    assert found.drop_columns(["lead_time_points"]).equals(terms())
    assert found["lead_time_points"].null_count == 3


def test_orders_and_receipts_are_read_from_their_tables(tables: Tables):
    began = datetime(2024, 5, 1, tzinfo=UTC)
    orders = [
        {"order_id": f"o{number}", "state": "received", "supplier_id": "slow", "location_id": "L", "created_at": began}
        for number in range(3)
    ]
    movements = [
        {"event_id": f"e{number}", "event_time": began + timedelta(days=5 + number), "kind": "receipt",
         "order_id": f"o{number}", "location_id": "L", "sku": "a", "quantity": 6, "change": 6}
        for number in range(3)
    ]  # fmt: skip
    tables.overwrite(ORDERS, rows_of(ORDERS, orders))
    tables.overwrite(STOCK_MOVEMENTS, rows_of(STOCK_MOVEMENTS, [*movements, {**movements[0], "kind": "sale"}]))

    assert sorted(lead_time_records(tables, AS_OF).days.tolist()) == [5.0, 6.0, 7.0]
    assert lead_time_records(tables, date(2024, 5, 6)).arrived.tolist() == [True, False, False]


def backtests(rho: float, version: str, series: int = 300, days: int = 28, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    level = rng.standard_normal((series, 1))
    errors = np.sqrt(rho) * level + np.sqrt(1 - rho) * rng.standard_normal((series, days))
    spread = 2 * 1.2815515655446004
    return [
        {"location_id": "L", "sku": str(row), "model": "m", "forecast_version": version, "first_day": AS_OF,
         "actual": (50 + 5 * errors[row]).tolist(), "yhat": [50.0] * days, "low": [0.0] * days,
         "high": [5 * spread] * days}
        for row in range(series)
    ]  # fmt: skip


@pytest.mark.parametrize("rho", [0.0, 0.1, 0.4])
def test_the_correlation_is_that_of_the_backtests_errors(tables: Tables, rho):
    tables.overwrite(BACKTESTS, rows_of(BACKTESTS, [*backtests(rho, "f-1"), *backtests(0.8, "f-0")]))

    assert error_correlation(tables, "f-1") == pytest.approx(rho, abs=0.03 + 0.1 * rho)


def test_without_backtests_it_is_the_presumed_one(tables: Tables):
    assert error_correlation(tables, "f-1") == LEVEL_CORRELATION


def test_few_errors_are_not_believed_and_unknown_days_do_not_count():
    rng = np.random.default_rng(2)
    errors = np.where(rng.random((400, 28)) < 0.3, np.nan, rng.standard_normal((400, 28)))

    assert level_correlation(errors[:1], np.ones((1, 28))) == pytest.approx(LEVEL_CORRELATION, abs=0.03)
    assert level_correlation(errors, np.ones((400, 28))) == pytest.approx(0.0, abs=0.03)
    assert level_correlation(errors, 7 * np.ones((400, 28))) == pytest.approx(
        level_correlation(errors, np.ones((400, 28)))
    )
