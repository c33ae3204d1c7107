"""A few nights end to end: what MLflow shows, who is in force, the way back, and the watch over what was published."""

from __future__ import annotations

import json
import logging
from datetime import UTC, date, datetime, timedelta

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from pipelines.contracts.tables import (
    BACKTESTS,
    DAILY_DEMAND,
    FORECAST_DRIFT,
    FORECASTS,
    HOURLY_DEMAND,
    LOCATIONS,
    PRODUCTS,
    SOURCING,
)
from pipelines.forecasting import publishing, training
from pipelines.forecasting.drift_watch import watch
from pipelines.forecasting.tracking import connect, registry
from pipelines.forecasting.trained import TRAINED_SERIES
from pipelines.io import published
from pipelines.io.delta import Tables
from pipelines.operations.cli.app import app
from pipelines.operations.settings import load_settings

FIRST = date(2024, 3, 20)
HISTORY, AHEAD = 120, 6
KEYS = [(location, f"tea-{item}") for location in ("berlin", "boston") for item in range(6)]
SETTINGS = [
    "forecast.engine=category_profile",
    "forecast.horizon_days=14",
    "forecast.hourly_horizon_hours=24",
    "forecast.minimum_history_days=40",
    "tracking.worst_series=2",
    "tracking.sample_series=1",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> str:
    """The home of one chain; the tests of this file follow on one another."""
    return str(tmp_path_factory.mktemp("tracking"))


def with_home(home: str, *overrides: str):
    return load_settings(overrides=[f"home={home}", *SETTINGS, *overrides])


@pytest.fixture(scope="module")
def tables(home) -> Tables:
    return Tables(with_home(home))


@pytest.fixture(scope="module")
def demand(tables) -> pd.DataFrame:
    """Two stores with six products each; from three days after the first night on, everything sells twice as much."""
    rng = np.random.default_rng(9)
    days = pd.date_range(end=FIRST + timedelta(days=AHEAD), periods=HISTORY + AHEAD)
    level = 20 * (1 + 0.3 * np.sin(2 * np.pi * np.arange(len(days)) / 7))
    level[HISTORY + 3 :] *= 2
    rows = [
        {"location_id": location, "sku": sku, "date": day.date(), "demand": int(units), "in_stock_fraction": 1.0}
        for location, sku in KEYS
        for day, units in zip(days, rng.poisson(level), strict=True)
    ]
    tables.overwrite(DAILY_DEMAND, pa.Table.from_pylist(rows, schema=DAILY_DEMAND.schema))
    tables.ensure(HOURLY_DEMAND, SOURCING)
    products = [{"sku": f"tea-{item}", "name": "tea", "category": "tea"} for item in range(6)]
    locations = [{"location_id": name, "kind": "store", "timezone": "UTC"} for name in ("berlin", "boston")]
    tables.overwrite(PRODUCTS, pa.Table.from_pylist(products, schema=PRODUCTS.schema))
    tables.overwrite(LOCATIONS, pa.Table.from_pylist(locations, schema=LOCATIONS.schema))
    return pd.DataFrame(rows)


def night(spark, home, tables, days: int, *overrides: str, **options):
    """Train `days` days after the first night."""
    as_of = FIRST + timedelta(days=days)
    now = datetime(2024, 3, 21, 2, tzinfo=UTC) + timedelta(days=days, minutes=len(publishing.stored_versions(tables)))
    return training.train(spark, with_home(home, *overrides), tables, as_of, now, **options)


@pytest.fixture(scope="module")
def first(spark, home, tables, demand):
    return night(spark, home, tables, 0)


@pytest.fixture(scope="module")
def client(home):
    return connect(with_home(home))


def in_force(tables) -> str:
    return published.in_force(tables, published.FORECASTS).version


def champion(home, client) -> str:
    return registry(with_home(home), client).champion().version


def stockcast(home, *arguments: str):
    sets = [word for override in (f"home={home}", *SETTINGS) for word in ("--set", override)]
    return CliRunner().invoke(app, [*arguments, *sets])


def test_the_run_says_what_it_used_and_shows_a_few_series(first, home, client):
    run = client.get_run(first.training_run)
    assert run.info.status == "FINISHED"
    used = {item.dataset.name: json.loads(item.dataset.source) for item in run.inputs.dataset_inputs}
    assert used["gold/daily_demand"]["delta_table_version"] >= 1
    assert "staging/trained_series" in used
    assert len({item.dataset.digest for item in run.inputs.dataset_inputs}) == 2
    assert run.data.tags["promotion"] == "promoted"
    assert run.data.tags["promotion.gain"] == "passed, there is no champion"
    assert run.data.tags["series"] == "12"
    # and the worst series and a sample have runs of their own
    children = client.search_runs(
        [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'", max_results=50
    )
    assert len(children) == 3
    assert sum(child.data.tags["why"].startswith("worst") for child in children) == 2
    for child in children:
        assert child.info.status == "FINISHED"
        shown = {file.path for file in client.list_artifacts(child.info.run_id, "figures")}
        assert {"figures/forecast.png", "figures/errors.png"} <= shown
        assert child.data.metrics["WAPE"] > 0


def test_any_series_is_served_under_the_alias(first, home, client, tables, demand):
    folder = client.download_artifacts(first.training_run, "model")
    model = mlflow.pyfunc.load_model(folder)
    assert model.metadata.get_model_info().signature is not None
    question = pd.DataFrame(KEYS[::-1], columns=["location_id", "sku"]).assign(horizon=14)
    answer = model.predict(question)
    stored = tables.read(FORECASTS).to_pandas()
    chosen = (stored["forecast_version"] == first.version) & (stored["grain"] == "day")
    stored = stored[chosen].sort_values("target_time")
    for location, sku in KEYS:
        mine = answer[(answer["location_id"] == location) & (answer["sku"] == sku)]
        theirs = stored[(stored["location_id"] == location) & (stored["sku"] == sku)]
        np.testing.assert_allclose(mine[["yhat", "q90"]], theirs[["yhat", "q90"]], rtol=1e-9)


def test_a_night_like_the_one_before_takes_over_on_the_days_in_common(spark, first, home, client, tables):
    second = night(spark, home, tables, 1)
    assert second.champion
    assert in_force(tables) == second.version
    assert champion(home, client) == second.model_version
    gain = client.get_run(second.training_run).data.tags["promotion.gain"]
    assert "on 13 common days of 12 series" in gain
    assert first.version in gain
    # and the first night's forecast of that day was held against what came
    whole = second.drift.scopes[0]
    assert (whole.series, whole.scored_days) == (12, 12)
    assert second.drift.version == first.version
    assert 0 < whole.WAPE < 1


def test_a_dry_run_judges_and_leaves_all_as_it_is(spark, home, client, tables, caplog):
    before = in_force(tables), champion(home, client)
    with caplog.at_level(logging.INFO, "stockcast.forecasting"):
        tried = night(spark, home, tables, 2, dry_run=True)
    assert tried.decision.promoted
    assert not tried.champion
    assert (in_force(tables), champion(home, client)) == before
    assert "dry run, nothing is put in force" in caplog.text
    # and the version can be promoted afterwards, first dry as well
    dry = stockcast(home, "models", "promote", tried.model_version, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert in_force(tables) == before[0]
    done = stockcast(home, "models", "promote", tried.model_version)
    assert done.exit_code == 0, done.output
    assert (in_force(tables), champion(home, client)) == (tried.version, tried.model_version)


def test_a_worse_model_stays_challenger_and_the_forecasts_in_force_stay(spark, home, client, tables, caplog):
    before = in_force(tables), champion(home, client)
    refused = night(spark, home, tables, 3, "promotion.minimum_gain=0.9")
    assert not refused.decision.promoted
    assert not refused.champion
    assert (in_force(tables), champion(home, client)) == before
    assert "the forecasts in force stay" in caplog.text
    assert client.get_run(refused.training_run).data.tags["promotion.gain"].startswith("refused")
    assert client.get_run(refused.training_run).data.tags["published"] == "no"
    # and its forecasts are stored, so that a person may decide otherwise
    listed = json.loads(stockcast(home, "models", "list", "--json").stdout)
    assert [row["version"] for row in listed] == sorted((row["version"] for row in listed), key=int, reverse=True)
    assert listed[0]["state"] == ["challenger"]
    assert [row["version"] for row in listed if "in force" in row["state"]] == [before[1]]


def test_rolling_back_puts_the_stored_forecasts_in_force_again(home, client, tables):
    history = published.history(tables, published.FORECASTS)
    left, target = history[-1].version, history[-2].version
    dry = stockcast(home, "models", "rollback", "--dry-run")
    assert (dry.exit_code, in_force(tables)) == (0, left)
    done = stockcast(home, "models", "rollback")
    assert done.exit_code == 0, done.output
    assert in_force(tables) == target
    assert registry(with_home(home), client).champion().forecast_version == target
    # a second step back goes further back, a third has nowhere to go
    assert stockcast(home, "models", "rollback").exit_code == 0
    assert in_force(tables) == history[0].version
    nowhere = stockcast(home, "models", "rollback")
    assert nowhere.exit_code != 0
    assert "no earlier forecasts were in force" in str(nowhere.exception)


def test_demand_that_doubles_is_told(spark, home, tables, caplog):
    # given forecasts from before demand doubled
    pointer = published.in_force(tables, published.FORECASTS)
    assert pointer.as_of == FIRST
    # when six nights have gone by
    report = night(spark, home, tables, AHEAD)
    # then the watch over the forecasts that were in force says so
    whole = report.drift.scopes[0]
    assert whole.scored_days == len(KEYS) * AHEAD
    assert whole.bias < -0.2
    assert "drift, all series: " in caplog.text
    assert "too low" in caplog.text
    rows = tables.read(FORECAST_DRIFT).to_pandas()
    tonight = rows[rows["as_of"] == FIRST + timedelta(days=AHEAD)].set_index("scope")
    assert set(tonight.index) == {"all", "tea"}
    assert tonight.loc["all", "bias"] == pytest.approx(whole.bias)
    # and looking again counts nothing twice
    status = tables.read(TRAINED_SERIES, ("location_id", "sku", "category", "observations")).to_pandas()
    daily, settings = tables.frame(spark, DAILY_DEMAND), with_home(home).drift
    again = watch(tables, daily, status, pointer, FIRST + timedelta(days=AHEAD), settings)
    assert again.scopes[0].scored_days == whole.scored_days
    assert again.scopes[0].bias == pytest.approx(whole.bias)
    assert len(tables.read(FORECAST_DRIFT)) == len(rows)


def test_forecasts_that_are_gone_are_said_to_be_gone(home, client, tables):
    # given that what was in force before is no longer stored
    target, left = published.history(tables, published.FORECASTS)[0].version, in_force(tables)
    tables.delete(FORECASTS, f"forecast_version = '{target}'")
    # when
    done = stockcast(home, "models", "rollback", target)
    # then the alias alone is moved, and that is said
    assert done.exit_code == 1
    assert "are gone" in done.output
    assert in_force(tables) == left
    assert registry(with_home(home), client).champion().forecast_version == target


def test_backtests_are_kept_as_long_as_the_forecasts(home, tables):
    stored = set(tables.read(BACKTESTS, ("forecast_version",)).column("forecast_version").to_pylist())
    assert stored >= publishing.stored_versions(tables)
    deleted = publishing.delete_old_versions(tables, keep=2)
    left = set(tables.read(BACKTESTS, ("forecast_version",)).column("forecast_version").to_pylist())
    assert deleted
    assert not left & set(deleted)
