"""The plan end to end on Delta: on executors and in the driver, published whole or not at all."""

from __future__ import annotations

import runpy
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy import stats

from pipelines.contracts.tables import (
    FORECASTS,
    INVENTORY_POLICIES,
    PRODUCTS,
    QUANTILE_COLUMNS,
    QUANTILES,
    SOURCING,
)
from pipelines.errors import MissingDataError, OwnershipError, PublishingError
from pipelines.inventory.planning import check_policies, plan
from pipelines.io import published
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.operations.settings import Settings, load_settings

AS_OF = date(2016, 12, 31)
NOW = datetime(2017, 1, 1, 3, 0, tzinfo=UTC)
LOCATIONS, SKUS, DAYS = ("S1", "S2", "W1"), tuple(f"P{number:02d}" for number in range(10)), 28


def series() -> list[tuple[str, str]]:
    return [(location, sku) for location in LOCATIONS for sku in SKUS]


def write_catalog(tables: Tables, **changes: object) -> None:
    """Sourcing for every series but the last, and for one product that was never forecast."""
    products = [
        {"sku": sku, "name": sku, "category": "c", "unit_cost": 4.0, "unit_price": 6.0,
         "shelf_life_days": 10 if sku == "P09" else None, "substitute_group": None}
        for sku in (*SKUS, "NEW")
    ]  # fmt: skip
    sourcing = [
        {"location_id": location, "sku": sku, "supplier_id": "V1", "lead_time_days": 6.0,
         "lead_time_std_days": 1.5, "pack_size": 6, "minimum_order": 1, "order_cost": 10.0,
         "holding_cost_rate": 0.25, "service_level": 0.95, "review_days": 1.0, **changes}
        for location, sku in [*series()[:-1], ("S1", "NEW")]
    ]  # fmt: skip
    tables.overwrite(PRODUCTS, pa.Table.from_pylist(products, schema=PRODUCTS.schema))
    tables.overwrite(SOURCING, pa.Table.from_pylist(sourcing, schema=SOURCING.schema))


def forecast_rows(version: str, as_of: date = AS_OF) -> list[dict]:
    scores = stats.norm.ppf(QUANTILES)
    start = datetime.combine(as_of + timedelta(days=1), datetime.min.time(), UTC)
    return [
        {"location_id": location, "sku": sku, "grain": "day", "target_time": start + timedelta(days=day),
         "forecast_version": version, "yhat": mean, "model": "m", "created_at": NOW,
         **dict(zip(QUANTILE_COLUMNS, np.maximum(mean + 0.2 * mean * scores, 0).tolist(), strict=True))}
        for number, (location, sku) in enumerate(series())
        for day in range(DAYS)
        for mean in [5.0 + number + 3 * (day % 7 == 5)]
    ]  # fmt: skip


def publish_forecasts(tables: Tables, version: str = "f-1", as_of: date = AS_OF, rows: list | None = None) -> None:
    rows = forecast_rows(version, as_of) if rows is None else rows
    hourly = [{**rows[0], "grain": "hour", "yhat": 1e6}]
    table = pa.Table.from_pylist([*rows, *hourly], schema=FORECASTS.schema)
    tables.overwrite(FORECASTS, table, predicate=f"forecast_version = '{version}'")
    published.publish(tables, published.Published(published.FORECASTS, version, as_of, "run", NOW))


def policies(tables: Tables, version: str | None = None) -> pa.Table:
    where = None if version is None else pc.field("policy_version") == version
    return tables.read(INVENTORY_POLICIES, where=where).sort_by(
        [("policy_version", "ascending"), ("location_id", "ascending"), ("sku", "ascending")]
    )


@pytest.fixture
def small(settings: Settings) -> Settings:
    planning = settings.planning.model_copy(update={"paths": 256, "versions_kept": 2, "driver_series": 10})
    return settings.model_copy(update={"planning": planning})


def test_executors_and_driver_plan_the_same_and_publish_it(spark, small, tables):
    # Given published forecasts, an older version beside them, and a catalog that covers all but one series.
    publish_forecasts(tables, "f-0", AS_OF - timedelta(days=1))
    publish_forecasts(tables)
    write_catalog(tables)

    on_spark = plan(spark, small, tables, AS_OF, NOW)
    first = policies(tables)
    in_driver = plan(None, small, tables, None, NOW)
    second = policies(tables)

    # Then both come to the same version, in place of itself, and to the same rows.
    assert on_spark == in_driver
    assert first.num_rows == second.num_rows == 29
    for name in INVENTORY_POLICIES.schema.names:
        if name in ("cumulative_mean", "cumulative_std"):
            for one, two in zip(first[name].to_pylist(), second[name].to_pylist(), strict=True):
                assert one == pytest.approx(two)
        elif name == "safety_stock":
            np.testing.assert_allclose(first[name].to_numpy(), second[name].to_numpy())
        else:
            assert first[name].to_pylist() == second[name].to_pylist(), name
    assert set(first["forecast_version"].to_pylist()) == {"f-1"}
    pointer = published.in_force(tables, published.POLICIES)
    assert pointer is not None
    assert (pointer.version, pointer.as_of) == (on_spark.policy_version, AS_OF)
    assert on_spark.policy_version.startswith("p-20161231-")


def test_the_levels_of_one_series_by_hand(small, tables):
    # Given demand of 5 a day and 8 on each sixth day, 20 % deviation, and six days of lead time, certain.
    publish_forecasts(tables)
    write_catalog(tables, lead_time_std_days=0.0)

    report = plan(None, small, tables, AS_OF, NOW)

    row = policies(tables).to_pylist()[0]
    assert (row["location_id"], row["sku"]) == ("S1", "P00")
    # 38 expected in 7 days; Σσ² = 6 + 1.6² = 8.56, Σσ = 7.6; variance 0.9 * 8.56 + 0.1 * 57.76 = 13.48.
    assert row["cumulative_mean"][6] == pytest.approx(38)
    assert row["cumulative_std"][6] == pytest.approx(np.sqrt(13.48))
    assert row["reorder_point"] == np.ceil(38 + 1.645 * np.sqrt(13.48))  # 44.04
    # EOQ = √(2 * 10 * (38 / 7 * 365) / 1) = 199.07, in packs of 6: 204.
    assert row["order_up_to"] == row["reorder_point"] + 204
    assert row["binding_constraint"] == "economic_order_quantity"
    assert row["safety_stock"] == pytest.approx(row["reorder_point"] - 38, abs=0.05)
    assert (row["method"], row["supplier_id"], row["pack_size"]) == ("order_up_to", "V1", 6)
    assert (row["unit_cost"], row["as_of"], row["created_at"]) == (4.0, AS_OF, NOW)
    assert report.by_constraint == {"economic_order_quantity": 27, "shelf_life": 2}
    assert 7 < report.median_cover_days < 10


def test_what_cannot_be_planned_is_counted_and_named(small, tables, caplog):
    publish_forecasts(tables)
    write_catalog(tables)

    with caplog.at_level("INFO", "stockcast.inventory"):
        report = plan(None, small, tables, AS_OF, NOW)

    assert (report.without_sourcing.count, report.without_sourcing.examples) == (1, ("W1|P09",))
    assert (report.without_forecast.count, report.without_forecast.examples) == (1, ("S1|NEW",))
    assert "forecasts without sourcing: 1 (W1|P09)" in caplog.text


def test_other_inputs_are_another_version_and_old_versions_go(small, tables):
    publish_forecasts(tables)
    write_catalog(tables)
    versions = [plan(None, small, tables, AS_OF, NOW).policy_version]

    write_catalog(tables, service_level=0.98)
    versions.append(plan(None, small, tables, AS_OF, NOW + timedelta(minutes=1)).policy_version)
    newsvendor = small.model_copy(update={"planning": small.planning.model_copy(update={"method": "newsvendor"})})
    versions.append(plan(None, newsvendor, tables, AS_OF, NOW + timedelta(minutes=2)).policy_version)

    assert len(set(versions)) == 3
    assert set(policies(tables)["policy_version"].to_pylist()) == set(versions[1:])
    higher = policies(tables, versions[1])["reorder_point"].to_numpy()
    assert set(policies(tables, versions[2])["method"].to_pylist()) == {"newsvendor"}
    assert published.in_force(tables, published.POLICIES).version == versions[2]
    assert higher.min() > 0


def test_forecasts_of_the_wrong_day_are_not_planned_with(small, tables, caplog):
    write_catalog(tables)
    with pytest.raises(MissingDataError, match="no forecasts are published"):
        plan(None, small, tables, AS_OF, NOW)
    publish_forecasts(tables)
    with pytest.raises(MissingDataError, match="later than --as-of 2016-12-30"):
        plan(None, small, tables, AS_OF - timedelta(days=1), NOW)

    # Older forecasts stay in force after a failed night; the policies say how old they are.
    report = plan(None, small, tables, AS_OF + timedelta(days=1), NOW)

    assert report.as_of == AS_OF
    assert "older than 2017-01-01" in caplog.text


@pytest.mark.parametrize(
    ("where", "damage"),
    [("driver", "a day is missing"), ("driver", "a value is not finite"), ("executors", "a day is missing")],
)
def test_malformed_forecasts_leave_the_policies_in_force(request, small, tables, where, damage):
    publish_forecasts(tables)
    write_catalog(tables)
    before = plan(None, small, tables, AS_OF, NOW).policy_version
    rows = forecast_rows("f-2")
    if damage == "a day is missing":
        del rows[40]
    else:
        rows[40]["q50"] = float("nan")
    publish_forecasts(tables, "f-2", rows=rows)
    spark = request.getfixturevalue("spark") if where == "executors" else None

    with pytest.raises(PublishingError, match=r"^1 series have day forecasts with .*S1\|P01"):
        plan(spark, small, tables, AS_OF, NOW)

    assert published.in_force(tables, published.POLICIES).version == before


def test_an_incomplete_or_broken_version_is_refused():
    keys = pa.table({"location_id": ["S1", "S1"], "sku": ["P1", "P2"]})
    good = keys.append_column("reorder_point", pa.array([3, 0])).append_column("order_up_to", pa.array([9, 6]))
    good = good.append_column("safety_stock", pa.array([1.0, 0.0]))

    check_policies(good, keys)
    with pytest.raises(PublishingError, match=r"missing: 1 \(S1\|P2\)"):
        check_policies(good.slice(0, 1), keys)
    with pytest.raises(PublishingError, match="found 4 policies"):
        check_policies(pa.concat_tables([good, good]), keys)
    for column, values in {"reorder_point": [3, 6], "order_up_to": [9, -1], "safety_stock": [0.0, None]}.items():
        place = good.schema.get_field_index(column)
        broken = good.set_column(place, column, pa.array(values, good.schema.field(column).type))
        with pytest.raises(PublishingError, match=r"otherwise in 1 \(S1\|P2\)"):
            check_policies(broken, keys)


def test_two_plans_at_once_are_refused(small, tables):
    publish_forecasts(tables)
    write_catalog(tables)
    with ownership(small, "plan_inventory"), pytest.raises(OwnershipError):
        plan(None, small, tables, AS_OF, NOW)


@pytest.mark.parametrize("limit", [10, 1000], ids=["executors", "driver"])
def test_the_job_plans_on_executors_or_in_the_driver(spark, tmp_path, limit):
    main = runpy.run_path(str(Path(__file__).parents[2] / "jobs" / "plan_inventory.py"))["main"]
    home = tmp_path / "home"
    tables = Tables(load_settings(overrides=[f"home={home}"]))
    publish_forecasts(tables)
    write_catalog(tables)
    arguments = [
        "--set",
        f"home={home}",
        "--set",
        "planning.paths=256",
        "--set",
        f"planning.driver_series={limit}",
        "--as-of",
        "2016-12-31",
    ]

    assert main(arguments) == 0
    assert policies(tables).num_rows == 29
    assert main([*arguments, "--set", "planning.method=magic"]) == 2
