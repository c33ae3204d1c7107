"""What a Prophet model is made of, and its features by day: computed by Prophet itself, once for all series."""

from __future__ import annotations

import importlib
import logging
import os
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import cache, lru_cache
from typing import Any

import numpy as np
import pandas as pd

from pipelines.forecasting.prophet_map.moments import suffix_moments
from pipelines.forecasting.series import Floats

LINEAR, FLAT = "linear", "flat"
ADDITIVE, MULTIPLICATIVE = "additive", "multiplicative"

WEEKLY_FROM_DAYS = 14
YEARLY_FROM_DAYS = 730


@dataclass(frozen=True)
class Specification:
    """A Prophet model without data; the names and defaults are Prophet's.

    `weekly` and `yearly` are on from `WEEKLY_FROM_DAYS` and `YEARLY_FROM_DAYS` on, as Prophet's "auto" has it.
    """

    growth: str = LINEAR
    seasonality_mode: str = ADDITIVE
    weekly: bool = True
    yearly: bool = True
    holidays_country: str | None = None
    n_changepoints: int = 25
    changepoint_range: float = 0.8
    changepoint_prior_scale: float = 0.05
    seasonality_prior_scale: float = 10.0
    holidays_prior_scale: float = 10.0
    regressors: tuple[str, ...] = ()

    @property
    def seasonal(self) -> bool:
        """Whether the calendar alone has features; if not, Prophet puts a column of zeros in their place."""
        return self.weekly or self.yearly or self.holidays_country is not None

    def prophet(self, changepoints: Any = None) -> Any:
        """The same as an unfitted `Prophet`."""
        names = asdict(self)
        country = names.pop("holidays_country")
        model = prophet().Prophet(
            **{name: value for name, value in names.items() if name not in {"weekly", "yearly", "regressors"}},
            changepoints=changepoints,
            weekly_seasonality=self.weekly,
            yearly_seasonality=self.yearly,
            daily_seasonality=False,
        )
        if country is not None:
            model.add_country_holidays(country)
        for name in self.regressors:
            model.add_regressor(name)
        return model


@dataclass(frozen=True)
class Calendar:
    """Features of the days from `first` on: `days` of history, then a horizon.

    Attributes:
        features: (days + horizon, K); a model without seasonality has one column of zeros, as in Prophet.
        scales: (K,) the priors' standard deviations.
        moments: suffix sums over the history, see `moments.suffix_moments`; only for multiplicative models.
    """

    first: np.datetime64
    days: int
    features: Floats
    scales: Floats
    moments: Floats | None


def calendar(specification: Specification, end: date, days: int, horizon: int) -> Calendar:
    """The calendar of at least `days` days up to `end`, and `horizon` beyond; kept for the next call."""
    return _calendar(_of_features(specification), end, calendar_days(days), horizon)


def future_features(specification: Specification, end: date, days: int, horizon: int) -> Floats:
    """(horizon, K) features of the days after `end` of a calendar of `days` days; kept for the next call."""
    return _future(_of_features(specification), end, days, horizon)


def calendar_days(days: int) -> int:
    """The length of the calendar that serves a history of `days` days: a round number, so that many share one."""
    return -(-max(days, 2) // 64) * 64


def _of_features(specification: Specification) -> Specification:
    """The same for all models with the same calendar features: trends and regressors differ, seasonality does not."""
    defaults = Specification()
    return replace(
        specification,
        growth=defaults.growth,
        n_changepoints=0,
        changepoint_range=defaults.changepoint_range,
        changepoint_prior_scale=defaults.changepoint_prior_scale,
        regressors=(),
    )


@lru_cache(maxsize=8)
def _calendar(specification: Specification, end: date, days: int, horizon: int) -> Calendar:
    first = np.datetime64(end, "D") - (days - 1)
    features, scales = _features(specification, first, days, horizon)
    moments = suffix_moments(features[:days]) if specification.seasonality_mode == MULTIPLICATIVE else None
    return Calendar(first, days, features, scales, moments)


@lru_cache(maxsize=64)
def _future(specification: Specification, end: date, days: int, horizon: int) -> Floats:
    # Without holidays, features are functions of the date alone.
    history = days if specification.holidays_country is not None else 2
    first = np.datetime64(end, "D") - (history - 1)
    return _features(specification, first, history, horizon)[0][history:]


def _features(specification: Specification, first: np.datetime64, days: int, horizon: int) -> tuple[Floats, Floats]:
    """Features (days + horizon, K) from `first` on and the scales (K,) of their priors.

    Holidays are those that occur in the history; one that a series never saw keeps a coefficient of zero.
    """
    model = specification.prophet()
    history = _days(first, days)
    model.preprocess(history.assign(y=np.arange(days) % 2))
    frame = model.setup_dataframe(_days(first, days + horizon))
    features, scales, _, _ = model.make_all_seasonality_features(frame)
    return np.ascontiguousarray(features.to_numpy(float)), np.asarray(scales, float)


def _days(first: np.datetime64, count: int) -> pd.DataFrame:
    return pd.DataFrame({"ds": pd.date_range(pd.Timestamp(first), periods=count, freq="D")})


@cache
def prophet() -> Any:
    """The package, imported where it is needed, on one thread and without its log lines per series."""
    os.environ.setdefault("STAN_NUM_THREADS", "1")
    logging.getLogger("prophet.plot").setLevel(logging.CRITICAL)
    package = importlib.import_module("prophet")
    importlib.import_module("prophet.serialize")
    for name in ("cmdstanpy", "prophet"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [logging.NullHandler()], False
        logger.setLevel(logging.CRITICAL)
    return package
