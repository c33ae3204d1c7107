"""The contract that every registered model keeps, and the choice between them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from pipelines.contracts.tables import QUANTILES
from pipelines.errors import UsageError
from pipelines.forecasting.category import CategoryProfile, CategoryProfiles
from pipelines.forecasting.engines import EngineOptions, create, fit_safely, monotone, registered
from pipelines.forecasting.models.seasonal_naive import SeasonalNaive
from pipelines.forecasting.series import from_matrix
from pipelines.operations.settings import ForecastSettings

END = date(2024, 3, 10)
HORIZON = 10
OPTIONS = EngineOptions(
    ForecastSettings(uncertainty_samples=100),
    CategoryProfiles(overall=CategoryProfile(level=4.0, weekday=np.linspace(0.7, 1.3, 7), dispersion=2.0)),
)


def weekly(days: int, level: float = 20.0, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.poisson(level * (1 + 0.5 * np.sin(2 * np.pi * np.arange(days) / 7))).astype(float)


def series() -> dict[str, np.ndarray]:
    days = 100
    nothing = np.full(days, np.nan)
    gaps = weekly(days)
    gaps[20:35] = np.nan
    spike = np.zeros(days)
    spike[40] = 500
    two = nothing.copy()
    two[-2:] = 3, 5
    return {
        "weekly": weekly(days),
        "short": np.where(np.arange(days) < 80, np.nan, weekly(days)),
        "constant": np.full(days, 5.0),
        "zeros": np.zeros(days),
        "two points": two,
        "gaps": gaps,
        "spike": spike,
        "large": weekly(days) * 1e9,
        "intermittent": (np.random.default_rng(5).random(days) < 0.1).astype(float),
        "nothing": nothing,
    }


def readme_example() -> str:
    """The README's model of twenty lines."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    return re.search(r"```python\n(# pipelines/forecasting/models/.*?)```", readme, re.DOTALL).group(1)


# So that it is among the registered ones below, as if it were a file beside them.
exec(compile(readme_example(), "README.md", "exec", dont_inherit=True), {"__name__": __name__})

NAMES = list(series())
BATCH = from_matrix(np.array(list(series().values())), END, [("store", name.replace(" ", "-")) for name in NAMES])


@pytest.fixture(scope="module", params=registered())
def fitted(request):
    engine = create(request.param, OPTIONS)
    return engine, fit_safely(engine, BATCH, HORIZON, QUANTILES)


class TestContract:
    def test_shapes(self, fitted):
        _, forecast = fitted
        assert forecast.yhat.shape == (len(BATCH), HORIZON)
        assert forecast.quantiles.shape == (len(BATCH), HORIZON, len(QUANTILES))
        assert len(forecast.parameters) == len(forecast.failures) == len(BATCH)

    def test_every_series_is_either_sound_or_has_a_reason(self, fitted):
        _, forecast = fitted
        for row, failure in enumerate(forecast.failures):
            if failure is None:
                assert np.isfinite(forecast.yhat[row]).all(), NAMES[row]
                assert np.isfinite(forecast.quantiles[row]).all(), NAMES[row]
                assert forecast.yhat[row].min() >= 0
                assert forecast.quantiles[row].min() >= 0
                assert (np.diff(forecast.quantiles[row], axis=1) >= 0).all(), NAMES[row]
            else:
                assert failure

    @pytest.mark.parametrize("name", ["weekly", "gaps", "large"])
    def test_an_ordinary_series_is_forecast_at_its_own_level(self, fitted, name):
        engine, forecast = fitted
        row = NAMES.index(name)
        assert forecast.failures[row] is None, engine.name
        known = BATCH.demand[row][np.isfinite(BATCH.demand[row])]
        assert forecast.yhat[row].mean() == pytest.approx(known.mean(), rel=0.4)
        assert (forecast.quantiles[row, :, 0] < forecast.quantiles[row, :, -1]).any()

    def test_the_same_data_give_the_same_forecast_whatever_came_before(self, fitted):
        engine, forecast = fitted
        np.random.random(17)
        rows = np.array([NAMES.index("gaps"), NAMES.index("weekly")])
        again = fit_safely(engine, BATCH.take(rows), HORIZON, QUANTILES)
        np.testing.assert_array_equal(again.yhat, forecast.yhat[rows])
        np.testing.assert_array_equal(again.quantiles, forecast.quantiles[rows])

    def test_parameters_are_json_and_give_the_forecast_again(self, fitted):
        engine, forecast = fitted
        for row, failure in enumerate(forecast.failures):
            if failure is None:
                text = json.dumps(json.loads(forecast.parameters[row]))
                yhat, quantiles = engine.replay(text, HORIZON, QUANTILES)
                scale = 1 + forecast.yhat[row].max()
                np.testing.assert_allclose(yhat, forecast.yhat[row], rtol=1e-9, atol=1e-9 * scale)
                np.testing.assert_allclose(quantiles, forecast.quantiles[row], rtol=1e-9, atol=1e-9 * scale)

    def test_an_empty_batch_gives_an_empty_forecast(self, fitted):
        engine, _ = fitted
        assert fit_safely(engine, BATCH.take(np.array([], int)), HORIZON, QUANTILES).yhat.shape == (0, HORIZON)


def test_the_readmes_example_is_one_of_the_models_and_takes_about_twenty_lines():
    assert "quarter_mean" in registered()
    assert len([line for line in readme_example().splitlines() if line.strip()]) <= 21


def test_an_unknown_engine_is_refused_with_those_that_exist():
    with pytest.raises(UsageError, match=r"'profet'.*prophet.*seasonal_naive"):
        create("profet", OPTIONS)


def test_prophets_parameters_open_as_a_prophet_model():
    from prophet.serialize import model_from_json

    engine = create("prophet", OPTIONS)
    forecast = fit_safely(engine, BATCH.take(np.array([0])), HORIZON, QUANTILES)
    model = model_from_json(forecast.parameters[0])
    future = model.make_future_dataframe(HORIZON, include_history=False)
    np.testing.assert_allclose(model.predict(future)["yhat"], forecast.yhat[0], rtol=1e-9)
    assert future["ds"].iloc[0].date() == END + timedelta(days=1)


class TestSeasonalNaive:
    def test_repeats_the_last_known_week(self):
        # given two weeks, the newest Sunday unknown
        demand = np.arange(1.0, 29.0)
        demand[-1] = np.nan
        forecast = fit_safely(SeasonalNaive(OPTIONS), from_matrix(demand, END), 9, QUANTILES)
        assert forecast.yhat[0].tolist() == [22, 23, 24, 25, 26, 27, 21, 22, 23]


class TestFallback:
    def test_a_series_without_history_is_its_categorys_median_series(self):
        engine = create("category_profile", OPTIONS)
        forecast = fit_safely(engine, from_matrix(np.full((1, 9), np.nan), END), 7, QUANTILES)
        # END is a Sunday, so the first day is a Monday
        np.testing.assert_allclose(forecast.yhat[0], 4.0 * np.linspace(0.7, 1.3, 7))

    def test_with_two_weeks_of_history_the_category_no_longer_counts_for_the_level(self):
        engine = create("category_profile", OPTIONS)
        forecast = fit_safely(engine, from_matrix(np.full((1, 14), 50.0), END), 7, QUANTILES)
        assert forecast.yhat[0].mean() == pytest.approx(50)

    def test_a_series_that_sells_nothing_is_forecast_as_nothing(self):
        engine = create("category_profile", OPTIONS)
        forecast = fit_safely(engine, from_matrix(np.zeros((1, 60)), END), 7, QUANTILES)
        assert forecast.quantiles.max() == 0


@dataclass(frozen=True)
class Broken:
    """Seasonal naive that goes wrong in a chosen way on chosen series."""

    fault: str
    skus: tuple[str, ...]
    name: ClassVar[str] = "broken"

    def fit_forecast(self, batch, horizon, probabilities):
        forecast = SeasonalNaive(OPTIONS).fit_forecast(batch, horizon, probabilities)
        for row, sku in enumerate(batch.sku):
            if sku in self.skus:
                if self.fault == "raises":
                    raise RuntimeError("out of luck")
                if self.fault == "nan":
                    forecast.yhat[row] = np.nan
                if self.fault == "far off":
                    forecast.yhat[row] *= 3
                if self.fault == "negative and crossing":
                    forecast.quantiles[row] = -forecast.quantiles[row]
        return forecast

    def replay(self, parameters, horizon, probabilities):
        return SeasonalNaive(OPTIONS).replay(parameters, horizon, probabilities)


class TestOneBadSeries:
    batch = from_matrix(np.array([weekly(100, seed=seed) for seed in range(3)]), END)

    @pytest.mark.parametrize(("fault", "reason"), [("raises", "out of luck"), ("nan", "not finite")])
    def test_costs_only_itself(self, fault, reason):
        forecast = fit_safely(Broken(fault, ("sku-1",)), self.batch, HORIZON, QUANTILES)
        assert reason in forecast.failures[1]
        assert forecast.failures[0] is None
        assert forecast.failures[2] is None
        expected = fit_safely(SeasonalNaive(OPTIONS), self.batch, HORIZON, QUANTILES)
        np.testing.assert_array_equal(forecast.yhat[[0, 2]], expected.yhat[[0, 2]])

    def test_negative_and_crossing_quantiles_are_mended(self):
        forecast = fit_safely(Broken("negative and crossing", ("sku-1",)), self.batch, HORIZON, QUANTILES)
        assert forecast.quantiles.min() >= 0
        assert (np.diff(forecast.quantiles, axis=2) >= 0).all()


def test_monotone():
    np.testing.assert_array_equal(monotone(np.array([-1.0, 3, 2, 4])), [0, 3, 3, 4])


def test_a_season_that_would_multiply_a_vanished_trend_is_added_instead():
    # given rare demand, of which a multiplicative model makes an almost vanished trend times a huge season
    rng = np.random.default_rng(5)
    rare = rng.poisson(4, (60, 1096)) * (rng.random((60, 1096)) < rng.uniform(0.02, 0.08, (60, 1)))
    batch = from_matrix(np.vstack([rare.astype(float), weekly(1096)]), END)
    engine = create("prophet_batched", EngineOptions(ForecastSettings(seasonality_mode="multiplicative")))
    # when forecast
    result = engine.fit_forecast(batch, 28, QUANTILES)
    modes = [json.loads(text)["specification"]["seasonality_mode"] for text in result.parameters]
    # then some are additive, those that sell every day are not, and no forecast leaves what the series ever sold
    assert "additive" in modes[:-1]
    assert "multiplicative" in modes[:-1]
    assert modes[-1] == "multiplicative"
    assert (result.yhat.max(axis=1) <= np.nanmax(batch.demand, axis=1)).all()
    # and the parameters give the same forecast again
    row = modes.index("additive")
    np.testing.assert_allclose(engine.replay(result.parameters[row], 28, QUANTILES)[0], result.yhat[row], rtol=1e-9)
