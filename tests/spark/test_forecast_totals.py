"""Totals of a forecast version: exactly the sum of its series, with quantiles for series that move together."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipelines.contracts.tables import (
    BACKTESTS,
    FORECAST_TOTALS,
    FORECASTS,
    LOCATIONS,
    PRODUCTS,
    QUANTILE_COLUMNS,
    QUANTILES,
)
from pipelines.forecasting.coherence import PRIOR_CORRELATION, correlations, write_totals
from pipelines.forecasting.distributions import demand_quantiles
from pipelines.forecasting.engines import EngineOptions, create
from pipelines.forecasting.hourly import hourly_forecast
from pipelines.forecasting.reconciliation import reconciled_rows
from pipelines.io.delta import Tables
from pipelines.operations.settings import load_settings

VERSION, NOW = "f-20240329-20240330T020000", datetime(2024, 3, 30, 2, tzinfo=UTC)
FIRST = datetime(2024, 3, 30, tzinfo=UTC)
STORES = {"berlin-1": "europe", "madrid-1": "europe", "boston-1": "americas", "nowhere": None}
SKUS = {"tea": "drinks", "juice": "drinks", "bread": "bakery"}
DAYS, BACKTEST_DAYS = 3, 28


@pytest.fixture(scope="module")
def version(spark, tmp_path_factory):
    """A stored version whose series rise and fall together by a tenth, as its backtest shows."""
    tables = Tables(load_settings(overrides=[f"home={tmp_path_factory.mktemp('totals')}"]))
    rng = np.random.default_rng(5)
    keys = [(store, sku) for store in STORES for sku in SKUS]
    yhat = rng.uniform(5, 60, (len(keys), DAYS))
    quantiles = demand_quantiles(yhat, yhat + 0.1 * yhat**2, QUANTILES)
    shares = rng.dirichlet(np.ones(24), (len(keys), DAYS))
    hours = hourly_forecast(yhat, quantiles, shares, QUANTILES, 24 * DAYS)
    rows = []
    for grain, step, (mean, spread) in (("day", 24, (yhat, quantiles)), ("hour", 1, hours)):
        for row, (store, sku) in enumerate(keys):
            for place in range(mean.shape[1]):
                rows.append(
                    {
                        **{"location_id": store, "sku": sku, "grain": grain, "forecast_version": VERSION},
                        **{"target_time": FIRST + timedelta(hours=step * place), "yhat": mean[row, place]},
                        **dict(zip(QUANTILE_COLUMNS, map(float, spread[row, place]), strict=True)),
                    }
                )
    tables.overwrite(FORECASTS, pa.Table.from_pylist(rows, schema=FORECASTS.schema))
    mean = np.repeat(yhat[:, :1], BACKTEST_DAYS, axis=1)
    common = rng.gamma(10, 0.1, BACKTEST_DAYS)
    spread = demand_quantiles(mean, mean + 0.1 * mean**2, (0.1, 0.9))
    backtests = [
        {
            **{"location_id": store, "sku": sku, "forecast_version": VERSION, "first_day": date(2024, 3, 1)},
            **{"actual": rng.poisson(mean[row] * common).astype(float), "yhat": mean[row]},
            **{"low": spread[row, :, 0], "high": spread[row, :, 1]},
        }
        for row, (store, sku) in enumerate(keys)
    ]
    backtests[0]["actual"][3] = np.nan
    tables.overwrite(BACKTESTS, pa.Table.from_pylist(backtests, schema=BACKTESTS.schema))
    products = [{"sku": sku, "category": category} for sku, category in SKUS.items()]
    locations = [{"location_id": store, "region": region} for store, region in STORES.items() if region]
    tables.overwrite(PRODUCTS, pa.Table.from_pylist(products, schema=PRODUCTS.schema))
    tables.overwrite(LOCATIONS, pa.Table.from_pylist(locations, schema=LOCATIONS.schema))
    write_totals(spark, tables, VERSION, NOW)
    write_totals(spark, tables, VERSION, NOW)
    return pd.DataFrame(rows), tables.read(FORECAST_TOTALS).to_pandas()


def test_every_total_is_the_sum_of_its_series(version):
    rows, totals = version
    rows = rows.assign(
        region=rows["location_id"].map(STORES).fillna("unknown"), category=rows["sku"].map(SKUS), everything="global"
    )
    rows["region_category"] = rows["region"] + "|" + rows["category"]
    expected = 0
    for kind, column in {"global": "everything", "region": "region", "category": "category"}.items():
        sums = rows.groupby([column, "grain", "target_time"])["yhat"].agg(["sum", "count"])
        found = totals[totals["scope_kind"] == kind].set_index(["scope", "grain", "target_time"]).loc[sums.index]
        np.testing.assert_allclose(found["yhat"], sums["sum"], rtol=1e-12)
        np.testing.assert_array_equal(found["series"], sums["count"])
        expected += len(sums)
    cells = rows.groupby(["region_category", "grain", "target_time"])["yhat"].sum()
    assert len(totals) == expected + len(cells)  # written twice, there once


def test_levels_agree_with_each_other(version):
    _, totals = version
    sums = totals.groupby(["scope_kind", "grain", "target_time"])["yhat"].sum().unstack("scope_kind")
    for kind in ("region", "category", "region_category"):
        np.testing.assert_allclose(sums[kind], sums["global"], rtol=1e-12)


def test_quantiles_allow_for_series_that_move_together(version):
    rows, totals = version
    chain = totals[(totals["scope_kind"] == "global") & (totals["grain"] == "day")].iloc[0]
    series = rows[(rows["grain"] == "day") & (rows["target_time"] == chain["target_time"])]
    width = chain["q95"] - chain["q05"]
    widths = series["q95"] - series["q05"]
    # wider than for independent series, narrower than for series that are one
    assert 1.3 * np.sqrt((widths**2).sum()) < width < widths.sum()
    quantiles = totals[list(QUANTILE_COLUMNS)].to_numpy()
    assert np.isfinite(quantiles).all()
    assert (quantiles >= 0).all()
    assert (np.diff(quantiles, axis=1) >= 0).all()


def test_the_common_factor_is_found_in_the_backtest(version):
    _, totals = version
    # given variance 0.1 y² in common of y + 0.1 y² in all
    found = totals.groupby("scope_kind")["correlation"].first()
    assert 0.3 < found["global"] < 0.9
    assert totals["forecast_version"].unique() == [VERSION]


def test_reconciled_series_agree_with_totals_that_know_better(spark, version):
    # given series whose forecasts are half of what is sold, and totals by seasonal naive, which are right
    rows, _ = version
    daily = pd.DataFrame(
        [
            (store, sku, date(2024, 3, 29) - timedelta(days=back), 20.0 + back % 7)
            for store in STORES
            for sku in SKUS
            for back in range(120)
        ],
        columns=["location_id", "sku", "date", "demand"],
    )
    half = rows.assign(**dict.fromkeys(("yhat", *QUANTILE_COLUMNS), 1.0))
    half.loc[half["grain"] == "day", ["yhat", *QUANTILE_COLUMNS]] = 11.5
    rng = np.random.default_rng(1)
    backtests = [
        {
            **{"location_id": store, "sku": sku, "forecast_version": VERSION, "first_day": date(2024, 3, 2)},
            **{"actual": rng.normal(23, 3, 28), "yhat": np.full(28, 11.5), "low": np.zeros(28), "high": np.ones(28)},
        }
        for store in STORES
        for sku in SKUS
    ]
    tested = pa.Table.from_pylist(backtests, schema=BACKTESTS.schema)
    places = (
        spark.createDataFrame([*SKUS.items()], "sku string, category string"),
        spark.createDataFrame([*STORES.items()], "location_id string, region string"),
    )
    # when
    found = reconciled_rows(
        spark.createDataFrame(half),
        spark.createDataFrame(tested.to_pandas().drop(columns=["model"])),
        spark.createDataFrame(daily),
        places,
        create("seasonal_naive", EngineOptions()),
        date(2024, 3, 29),
    ).toPandas()
    # then days are what is sold, and hours and quantiles have gone with their day
    days = found[found["grain"] == "day"]
    assert len(found) == len(half)
    assert days["yhat"].mean() == pytest.approx(23, rel=0.25)
    np.testing.assert_allclose(days["q50"], days["yhat"])
    factor = days.assign(date=days["target_time"].dt.date).set_index(["location_id", "sku", "date"])["yhat"] / 11.5
    hours = found[found["grain"] == "hour"]
    keys = pd.MultiIndex.from_arrays([hours["location_id"], hours["sku"], hours["target_time"].dt.date])
    np.testing.assert_allclose(hours["yhat"], factor.loc[keys])


class TestCorrelations:
    def errors(self, common: float, days: int = 200, count: int = 12) -> pd.DataFrame:
        rng = np.random.default_rng(2)
        e = np.sqrt(common) * rng.normal(size=(days, 1)) + np.sqrt(1 - common) * rng.normal(size=(days, count))
        return pd.DataFrame(
            {
                **{"date": range(days), "region": "r", "category": "c"},
                **{"errors": e.sum(axis=1), "error_squares": (e**2).sum(axis=1)},
                **{"deviations": float(count), "variances": float(count)},
            }
        )

    @pytest.mark.parametrize("common", [0.0, 0.2, 0.7])
    def test_recover_a_common_factor(self, common):
        assert correlations(self.errors(common))["global"] == pytest.approx(common, abs=0.1)

    def test_without_a_backtest_it_is_the_prior(self):
        assert correlations(self.errors(0.2).iloc[:0])["region"] == PRIOR_CORRELATION
