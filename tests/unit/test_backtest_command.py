"""`stockcast backtest` on a file of sales: the table, the JSON, the plots, and what if."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from pipelines.contracts.tables import DAILY_DEMAND, PRODUCTS, SOURCING
from pipelines.errors import MissingDataError, UsageError
from pipelines.inventory.replay.candidates import UsualRule
from pipelines.inventory.replay.history import Rolling
from pipelines.inventory.replay.laboratory import (
    Assumed,
    WhatIf,
    changed,
    drawn_lead_times,
    from_file,
    from_home,
    history_of,
    lead_time_grid,
    rolled,
)
from pipelines.inventory.replay.results import replay
from pipelines.operations.cli.app import app
from pipelines.operations.settings import ForecastSettings

DAYS = 40


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    rng = np.random.default_rng(7)
    days = pd.date_range("2024-01-01", periods=220)
    rows = [
        {
            "date": day.date().isoformat(),
            "store": f"s{store}",
            "item": f"i{item}",
            "sales": int(rng.poisson(8 + 9 * item)),
        }
        for store in range(2)
        for item in range(2)
        for day in days
    ]
    path = tmp_path_factory.mktemp("sales") / "sales.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def run(file: Path, *options: str):
    words = ["backtest", str(file), "--days", str(DAYS), "--set", f"home={file.parent / 'home'}", *options]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "80"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_the_table_keeps_to_eighty_columns_and_names_every_policy(file):
    shown = run(file, "--policy", "periodic_base_stock", "--policy", "usual", "--policy", "clairvoyant")

    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "4 series, 2024-06-29 to 2024-08-07" in shown
    assert [shown.count(name) for name in ("periodic_base_stock", "usual", "clairvoyant")] == [3, 3, 3]


def test_the_document_adds_up_and_more_service_takes_more_stock(file):
    document = json.loads(run(file, "--service", "0.8,0.99", "--margin", "2", "--json"))

    assert [row["policy"] for row in document["policies"]] == ["periodic_base_stock"] * 2 + ["usual"] * 2
    low, high = document["policies"][:2]
    assert low["average_stock"] < high["average_stock"]
    assert low["fill_rate"] <= high["fill_rate"]
    assert all(row["lost_margin"] == 2 * row["lost_units"] for row in document["policies"])


def test_an_outage_is_felt_and_both_plots_are_drawn(file, tmp_path):
    shown = run(
        file, "--json", "--service", "0.95", "--policy", "usual", "--if-outage", "2024-07-10:12",
        "--plot", str(tmp_path / "p.png"),
    )  # fmt: skip
    document = json.loads(shown)
    change = document["what_if"][0]

    assert change["stockout_days"] > 0
    assert change["lost_units"] > 0
    assert any(change["ordered_by_day"])
    for path in document["plots"]:
        assert Path(path).read_bytes().startswith(b"\x89PNG")
    assert len(document["plots"]) == 2


def test_longer_lead_times_take_more_stock_and_higher_service_more_orders_at_first(file):
    document = json.loads(
        run(file, "--json", "--service", "0.9", "--policy", "usual", "--if-lead-time", "12-14", "--if-service", "0.98")
    )

    assert document["what_if"][0]["average_stock"] > 0
    assert (document["what_if"][0]["wanted_before"], document["what_if"][0]["service_level"]) == (0.9, 0.98)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--service", "95"], "--service is '95'"),
        (["--lead-time", "8-6"], "expected days such as 7 or 6-8"),
        (["--if-outage", "soon"], "expected a day and a number of days"),
        (["--if-outage", "2023-01-01:5"], "outside of the replay"),
        (["--if-service", "1.5"], "expected between 0 and 1"),
        (["--policy", "guess"], "no policy is called 'guess'"),
        (["--days", "200"], "choose from 1 to 128 days"),
    ],
    ids=["service", "lead time", "outage", "outage elsewhere", "if service", "policy", "too many days"],
)
def test_what_cannot_be_is_said(file, options, message):
    with pytest.raises(UsageError, match=message):
        run(file, *options)


def test_an_outage_changes_nothing_before_it(file):
    batch = from_file(file)
    supply = Assumed(lead_times=(3,)).supply(len(batch))
    forecasts = rolled(batch, DAYS, Rolling(), ForecastSettings())
    history = history_of(batch, forecasts, supply, DAYS, np.random.default_rng(0))
    later, _ = changed(history, supply, WhatIf(outage=(date(2024, 7, 20), 5)), np.random.default_rng(0))

    begin = (date(2024, 7, 20) - history.start).days
    assert (later.lead_time - history.lead_time)[0, begin - 1 : begin + 6].tolist() == [0, 5, 4, 3, 2, 1, 0]
    before, after = (
        replay(scene, [UsualRule("usual")], supply.protection, supply.terms, (0.95,))[0] for scene in (history, later)
    )
    # The first late delivery is missed a lead time and a day after the outage's first evening.
    assert (before.ordered[: begin + 4] == after.ordered[: begin + 4]).all()
    assert after.fill_rate < before.fill_rate
    assert lead_time_grid((3,), 2).tolist() == [[3.0], [3.0]]


def test_a_home_is_replayed_on_its_own_sourcing(tables):
    products = [
        {"sku": sku, "name": sku, "category": "c", "unit_cost": 4.0, "unit_price": 7.0, "shelf_life_days": None}
        for sku in ("a", "b", "unsourced")
    ]
    sourcing = [
        {"location_id": "S", "sku": sku, "supplier_id": "V", "lead_time_days": 5.0, "lead_time_std_days": 1.0,
         "pack_size": pack, "minimum_order": 1, "order_cost": 3.0, "holding_cost_rate": 0.25, "service_level": 0.9,
         "review_days": 1.0}
        for sku, pack in (("b", 12), ("a", 6), ("never sold", 1))
    ]  # fmt: skip
    first = date(2024, 1, 1)
    demand = [
        {"location_id": "S", "sku": sku, "date": first + timedelta(days=day), "demand": 5 + day % 7 + 10 * (sku == "b"),
         "returned": 0}
        for sku in ("a", "b", "unsourced")
        for day in range(120)
        if not (sku == "b" and day < 20)
    ]  # fmt: skip
    for table, rows in ((PRODUCTS, products), (SOURCING, sourcing), (DAILY_DEMAND, demand)):
        tables.overwrite(table, pa.Table.from_pylist(rows, schema=table.schema))

    batch, supply = from_home(tables)

    assert batch.sku == ("a", "b")
    assert batch.end == first + timedelta(days=119)
    assert (batch.demand[1, :20].tolist(), batch.demand[1, 20]) == (pytest.approx([np.nan] * 20, nan_ok=True), 21)
    assert supply.terms.pack_size.tolist() == [6, 12]
    assert supply.terms.holding_cost.tolist() == [1.0, 1.0]
    drawn = drawn_lead_times(supply.protection, 4000, np.random.default_rng(0))
    assert (drawn.mean(), drawn.std()) == pytest.approx((5.0, 1.04), abs=0.05)


def test_a_home_without_demand_is_told_what_to_do(tables):
    with pytest.raises(MissingDataError, match="or name a file of sales"):
        from_home(tables)
