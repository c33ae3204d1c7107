"""The nightly training end to end, on a handful of short series."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import ClassVar

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from mlflow import MlflowClient

from pipelines.contracts.tables import (
    DAILY_DEMAND,
    FORECASTS,
    HOURLY_DEMAND,
    LOCATIONS,
    PRODUCTS,
    QUANTILE_COLUMNS,
    SERIES_STATUS,
    SOURCING,
)
from pipelines.errors import MissingDataError, PublishingError
from pipelines.forecasting import engines, frames, publishing, training
from pipelines.forecasting.demand_classes import MODELLED
from pipelines.forecasting.models.seasonal_naive import SeasonalNaive
from pipelines.forecasting.tracking import tracking_uri
from pipelines.io.delta import Tables
from pipelines.io.published import FORECASTS as ARTEFACT
from pipelines.io.published import Published, in_force, publish
from pipelines.operations.settings import load_settings

AS_OF = date(2024, 3, 29)  # Berlin changes its clocks two days later
NOW = datetime(2024, 3, 30, 2, 0, tzinfo=UTC)
HORIZON, HOURS, HISTORY = 14, 72, 90
SETTINGS = [
    "forecast.engine=prophet",
    "forecast.horizon_days=14",
    "forecast.minimum_history_days=40",
    "forecast.uncertainty_samples=100",
    "forecast.batch_series=3",
    "forecast.versions_kept=2",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> str:
    """The home of one chain, night after night: the tests of this file follow on one another."""
    return str(tmp_path_factory.mktemp("training"))


def with_home(home: str, *overrides: str):
    return load_settings(overrides=[f"home={home}", *SETTINGS, *overrides])


@pytest.fixture(scope="module")
def tables(home) -> Tables:
    return Tables(with_home(home))


@pytest.fixture(scope="module")
def chain(tables):
    """A chain of two stores: four ordinary series, a short one, a constant one, one that stopped selling,
    one out of stock for a while, one that a store is supplied with and never sold; a warehouse's sourcing row
    asks for nothing."""
    rng = np.random.default_rng(7)
    week = 1 + 0.4 * np.sin(2 * np.pi * np.arange(HISTORY) / 7)
    demand = {("berlin", f"tea-{item}"): rng.poisson(12 * week) for item in range(4)}
    demand["boston", "tea-0"] = rng.poisson(5 * week)[-20:]
    demand["boston", "tea-1"] = np.full(HISTORY, 3)
    demand["boston", "tea-2"] = rng.poisson(8 * week)[:-10]
    demand["boston", "tea-3"] = np.where(np.arange(HISTORY) // 10 == 6, 0, 1 + rng.poisson(9 * week))
    daily, hourly = [], []
    for (location, sku), units in demand.items():
        end = AS_OF - timedelta(days=10) if (location, sku) == ("boston", "tea-2") else AS_OF
        for back, quantity in enumerate(units[::-1]):
            day = end - timedelta(days=back)
            empty = (location, sku) == ("boston", "tea-3") and quantity == 0
            row = {"location_id": location, "sku": sku, "demand": int(quantity), "returned": 0}
            row |= {"promotion_share": 0.0, "in_stock_fraction": 0.0 if empty else 1.0}
            daily.append({**row, "date": day})
            if back < 28:
                # Everything sells at 18:00 UTC.
                hour = datetime(day.year, day.month, day.day, 18, tzinfo=UTC)
                hourly.append({**row, "hour": hour})
    tables.overwrite(DAILY_DEMAND, pa.Table.from_pylist(daily, schema=DAILY_DEMAND.schema))
    tables.overwrite(HOURLY_DEMAND, pa.Table.from_pylist(hourly, schema=HOURLY_DEMAND.schema))
    skus = [f"tea-{item}" for item in range(5)]
    products = [{"sku": sku, "name": sku, "category": "tea"} for sku in skus]
    locations = [
        {"location_id": "berlin", "kind": "store", "timezone": "Europe/Berlin"},
        {"location_id": "boston", "kind": "store", "timezone": "America/New_York"},
        {"location_id": "hub", "kind": "warehouse", "timezone": "Mars/Olympus"},
    ]
    sourcing = [
        {"location_id": location, "sku": sku} for location, sku in [*demand, ("boston", "tea-4"), ("hub", "tea-4")]
    ]
    tables.overwrite(PRODUCTS, pa.Table.from_pylist(products, schema=PRODUCTS.schema))
    tables.overwrite(LOCATIONS, pa.Table.from_pylist(locations, schema=LOCATIONS.schema))
    tables.overwrite(SOURCING, pa.Table.from_pylist(sourcing, schema=SOURCING.schema))
    return {*demand, ("boston", "tea-4")}


def read(tables, table) -> pd.DataFrame:
    return tables.read(table).to_pandas()


@pytest.fixture(scope="module")
def told() -> list[tuple[int, int]]:
    """Progress as it was told."""
    return []


@pytest.fixture(scope="module")
def night(spark, home, tables, chain, told):
    """The first night, with stock Prophet and MLflow."""
    return training.train(spark, with_home(home), tables, None, NOW, lambda done, total: told.append((done, total)))


def test_every_series_asked_for_has_a_status_and_where_due_a_reason(night, tables, chain, told):
    status = read(tables, SERIES_STATUS).set_index(["location_id", "sku"])
    assert set(status.index) == chain
    assert night.as_of == AS_OF
    assert night.summary.status == {"ok": 6, "fallback": 3, "failed": 0}
    reasons = status["reason"].to_dict()
    assert reasons["boston", "tea-0"].startswith("too short: 20 known days")
    assert reasons["boston", "tea-1"] == "constant demand of 3 a day"
    assert reasons["boston", "tea-4"].startswith("no sales yet")
    assert status.loc[("boston", "tea-3"), "observations"] == HISTORY - 10
    assert status.loc[("boston", "tea-2"), "observations"] == HISTORY
    assert (status["training_run"] == night.training_run).all()
    scored = status[status["status"] == "ok"]
    assert scored[["WAPE", "MASE", "coverage", "baseline_WAPE"]].notna().all(axis=None)
    assert 0 < night.summary.wape <= night.summary.baseline_wape * 1.15
    assert told[-1] == (9, 9)


def test_the_forecasts_are_in_force_and_complete(night, tables):
    pointer = in_force(tables, ARTEFACT)
    assert pointer.version == night.version == "f-20240329-20240330T020000"
    assert (pointer.as_of, pointer.training_run) == (AS_OF, night.training_run)
    rows = read(tables, FORECASTS)
    assert set(rows["forecast_version"]) == {night.version}
    day, hour = rows[rows["grain"] == "day"], rows[rows["grain"] == "hour"]
    assert len(day) == 9 * HORIZON
    assert len(hour) == 9 * HOURS
    assert day["target_time"].min() == pd.Timestamp("2024-03-30", tz="UTC")
    assert day["target_time"].max() == pd.Timestamp("2024-04-12", tz="UTC")
    assert (day["target_time"].dt.hour == 0).all()
    quantiles = rows[list(QUANTILE_COLUMNS)].to_numpy()
    assert np.isfinite(quantiles).all()
    assert quantiles.min() >= 0
    assert (np.diff(quantiles, axis=1) >= 0).all()


def test_the_hours_of_a_utc_day_add_up_to_the_day_across_a_clock_change(night, tables):
    rows = read(tables, FORECASTS)
    day, hour = rows[rows["grain"] == "day"], rows[rows["grain"] == "hour"]
    keys = ["location_id", "sku", "target_time"]
    total = hour.assign(target_time=hour["target_time"].dt.floor("D")).groupby(keys)["yhat"].sum()
    np.testing.assert_allclose(total, day.set_index(keys)["yhat"].loc[total.index], rtol=1e-9)
    berlin = hour[hour["location_id"] == "berlin"].groupby("target_time")["yhat"].sum()
    assert berlin.idxmax().hour in {17, 18}


def test_the_model_is_champion_serves_what_was_published_and_refuses_a_changed_file(night, home, tables, tmp_path):
    rows = read(tables, FORECASTS)
    assert night.champion
    uri = tracking_uri(with_home(home))
    client = MlflowClient(uri, uri)
    run = client.get_run(night.training_run)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["wape"] == pytest.approx(night.summary.wape)
    assert run.data.params["forecast.engine"] == "prophet"
    assert run.data.tags["published"] == "yes"
    assert {file.path for file in client.list_artifacts(run.info.run_id, "figures")} == {
        "figures/coverage_and_bias_by_category.png",
        "figures/forecasts_of_a_sample.png",
        "figures/wape_by_series.png",
    }
    aliases = {k: str(v) for k, v in client.get_registered_model("stockcast-demand").aliases.items()}
    assert aliases == {"challenger": night.model_version, "champion": night.model_version}

    folder = client.download_artifacts(run.info.run_id, "model", str(tmp_path))
    model = mlflow.pyfunc.load_model(folder)
    assert model.metadata.signature is not None
    wanted = pd.DataFrame({"location_id": ["berlin", "boston"], "sku": ["tea-0", "tea-4"], "horizon": HORIZON})
    served = model.predict(wanted).set_index(["location_id", "sku"])
    for key in served.index.unique():
        chosen = rows["location_id"].eq(key[0]) & rows["sku"].eq(key[1]) & rows["grain"].eq("day")
        published = rows[chosen].sort_values("target_time")
        names = ["yhat", *QUANTILE_COLUMNS]
        np.testing.assert_allclose(served.loc[key, names], published[names], rtol=1e-9, atol=1e-9)
    with open(f"{folder}/artifacts/series.parquet", "ab") as file:
        file.write(b"x")
    with pytest.raises(PublishingError, match="SHA-256"):
        mlflow.pyfunc.load_model(folder)


class TestANightThatGoesWrong:
    """Leaves yesterday's forecasts in force, and a run again completes."""

    LATER = NOW + timedelta(days=1)

    @pytest.fixture(autouse=True)
    def no_patience(self, monkeypatch):
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    def settings(self, home, engine="seasonal_naive"):
        """Without Stan, and with an MLflow server that is away."""
        few = [f"forecast.candidates.{name}=[default, moving_average]" for name in MODELLED]
        return with_home(home, f"forecast.engine={engine}", "mlflow.tracking_uri=http://127.0.0.1:9", *few)

    def still_in_force(self, night, tables, chain):
        assert in_force(tables, ARTEFACT).version == night.version
        rows = read(tables, FORECASTS)
        assert len(rows[rows["forecast_version"] == night.version]) == len(chain) * (HORIZON + HOURS)

    def test_the_engine_fails_on_all_series(self, spark, night, home, tables, chain):
        @engines.register("always_fails")
        @dataclass(frozen=True)
        class AlwaysFails(SeasonalNaive):
            name: ClassVar[str] = "always_fails"

            def fit_forecast(self, batch, horizon, probabilities):
                raise RuntimeError("out of luck")

        with pytest.raises(PublishingError, match=r"always_fails failed on all 6 series.*out of luck"):
            training.train(spark, self.settings(home, "always_fails"), tables, AS_OF, self.LATER)
        self.still_in_force(night, tables, chain)

    def test_rows_are_lost_on_the_way(self, spark, night, home, tables, chain, monkeypatch):
        good = frames.forecast_rows
        monkeypatch.setattr(frames, "forecast_rows", lambda *a: good(*a).where("sku != 'tea-3'"))
        with pytest.raises(PublishingError, match="2 series without a forecast"):
            training.train(spark, self.settings(home), tables, AS_OF, self.LATER)
        self.still_in_force(night, tables, chain)
        assert publishing.stored_versions(tables) == {night.version}

    def test_the_job_dies_before_publishing_and_is_run_again_while_one_series_fails(
        self, spark, night, home, tables, chain, monkeypatch, caplog
    ):
        # given an engine that fails on one series
        @engines.register("fails_on_one")
        @dataclass(frozen=True)
        class FailsOnOne(SeasonalNaive):
            name: ClassVar[str] = "fails_on_one"

            def fit_forecast(self, batch, horizon, probabilities):
                if ("berlin", "tea-1") in zip(batch.location_id, batch.sku, strict=True):
                    raise RuntimeError("out of luck")
                return SeasonalNaive.fit_forecast(self, batch, horizon, probabilities)

        # when the job dies after writing and before the switch
        def die(*_):
            raise KeyboardInterrupt

        settings = self.settings(home, "fails_on_one")
        with monkeypatch.context() as patch:
            patch.setattr(publishing, "check", die)
            with pytest.raises(KeyboardInterrupt):
                training.train(spark, settings, tables, AS_OF, self.LATER)
        # then yesterday's are in force
        self.still_in_force(night, tables, chain)

        # when the same night is run again
        report = training.train(spark, settings, tables, AS_OF, self.LATER)
        # then it is in force, without a trace of the attempt
        pointer = in_force(tables, ARTEFACT)
        assert pointer.version == report.version > night.version
        rows = read(tables, FORECASTS)
        expected = dict.fromkeys((night.version, report.version), len(chain) * (HORIZON + HOURS))
        assert rows["forecast_version"].value_counts().to_dict() == expected
        # and only the failing series is forecast by another model, which is said
        status = read(tables, SERIES_STATUS)
        status = status[status["forecast_version"] == report.version].set_index(["location_id", "sku"])
        assert report.summary.status == {"ok": 6, "fallback": 3, "failed": 0}
        assert status.loc[("berlin", "tea-1"), "model"] != "fails_on_one"
        assert "RuntimeError: out of luck" in status.loc[("berlin", "tea-1"), "reason"]
        # and that MLflow was away is said, and stopped nothing
        assert report.training_run is None
        assert pointer.training_run is None
        assert "MLflow could not start a run" in caplog.text


def test_no_demand_is_said_to_be_missing(spark, tmp_path):
    settings = with_home(str(tmp_path))
    with pytest.raises(MissingDataError, match="gold/daily_demand has no day"):
        training.train(spark, settings, Tables(settings), None, NOW)


def test_old_versions_are_deleted_but_never_the_one_in_force(tmp_path):
    # given five versions, the oldest in force
    tables = Tables(with_home(str(tmp_path)))
    versions = [f"f-2024032{day}-20240330T020000" for day in range(1, 6)]
    for version in versions:
        row = pa.Table.from_pylist([{"forecast_version": version}], schema=FORECASTS.schema)
        tables.append(FORECASTS, row)
        row = pa.Table.from_pylist([{"forecast_version": version}], schema=SERIES_STATUS.schema)
        tables.append(SERIES_STATUS, row)
    publish(tables, Published(ARTEFACT, versions[0], AS_OF, None, NOW))
    # when
    deleted = publishing.delete_old_versions(tables, keep=2)
    # then
    assert deleted == versions[1:3]
    assert publishing.stored_versions(tables) == {versions[0], *versions[3:]}
    assert set(read(tables, SERIES_STATUS)["forecast_version"]) == {versions[0], *versions[3:]}


class TestProblems:
    @pytest.fixture
    def good(self, spark):
        rows = [
            {
                "location_id": "berlin",
                "sku": sku,
                "grain": grain,
                "target_time": datetime(2024, 3, 30, tzinfo=UTC) + step * length,
                "yhat": 1.0,
                **{name: float(place) for place, name in enumerate(QUANTILE_COLUMNS)},
            }
            for sku in ("tea", "milk")
            for grain, length, steps in (("day", timedelta(days=1), 2), ("hour", timedelta(hours=1), 3))
            for step in range(steps)
        ]
        return pd.DataFrame(rows)

    def found(self, spark, rows: pd.DataFrame) -> list[str]:
        wanted = spark.createDataFrame([("berlin", "tea"), ("berlin", "milk")], "location_id string, sku string")
        return publishing.problems(spark.createDataFrame(rows), wanted, AS_OF, 2, 3)

    def test_none(self, spark, good):
        assert self.found(spark, good) == []

    def test_each_of_them_is_named(self, spark, good):
        # given one fault of each kind, each in its own row
        good.loc[0, "yhat"] = np.nan
        good.loc[1, "q05"] = -1.0
        good.loc[2, "q95"] = np.inf
        good.loc[3, "q50"] = 0.5
        good.loc[4, "target_time"] = datetime(2024, 3, 29, tzinfo=UTC)
        good.loc[good["sku"] == "milk", "sku"] = "beer"
        # then
        found = self.found(spark, good.drop(index=9))
        assert found == [
            "3 numbers that are missing, negative or not finite",
            "1 rows whose quantiles cross",
            f"1 rows for {AS_OF} or before",
            "1 series without exactly 2 days and 3 hours",
            "1 series without a forecast",
            "1 series that nobody asked for",
        ]

    def test_nothing_at_all(self, spark, good):
        empty = spark.createDataFrame(good).where("false")
        wanted = spark.createDataFrame([("berlin", "tea")], "location_id string, sku string")
        assert publishing.problems(empty, wanted, AS_OF, 2, 3) == ["no forecast at all"]
