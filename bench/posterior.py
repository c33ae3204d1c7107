"""The batched fits against Stan's, by Prophet's own posterior and its own preprocessing."""

from __future__ import annotations

from datetime import date
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from pipelines.forecasting.prophet_map import fitting
from pipelines.forecasting.prophet_map.features import FLAT, Specification, calendar, prophet
from pipelines.forecasting.prophet_map.fitting import Fitted
from pipelines.forecasting.prophet_map.posterior import log_posterior

HORIZON = 28


def compare(demand: np.ndarray, end: date, base: Specification) -> pd.DataFrame:
    """Both fits of each series, one row a series.

    Args:
        demand: (N, T) up to `end`, NaN where unknown.

    Returns:
        stan, batched: log posteriors; gain: their difference, relative; noise: Stan's σ as a share of the largest
        demand; difference: of the two forecasts of `HORIZON` days, at most, in units of Stan's σ.
    """
    rows = []
    for group in fitting.fit(demand, end, base, HORIZON):
        for place, row in enumerate(group.rows):
            rows.append({"row": int(row), **_compare(demand[row], end, group, place)})
    return pd.DataFrame(rows).set_index("row").sort_index()


def stock(demand: np.ndarray, end: date, base: Specification) -> Any:
    """Prophet, fitted by Stan to one series; what the base turns on is left to Prophet's "auto"."""
    history = pd.DataFrame({"ds": pd.date_range(end=pd.Timestamp(end), periods=len(demand)), "y": demand})
    model = prophet().Prophet(
        growth=base.growth, seasonality_mode=base.seasonality_mode, n_changepoints=base.n_changepoints
    )
    if base.holidays_country is not None:
        model.add_country_holidays(base.holidays_country)
    model.uncertainty_samples = 0
    return model.fit(history[np.isfinite(demand).cumsum() > 0], seed=1)


def _compare(demand: np.ndarray, end: date, group: Fitted, place: int) -> dict[str, float]:
    model = stock(demand, end, group.specification)
    features, scales, _, _ = model.make_all_seasonality_features(model.history)
    changes = group.delta[place]
    if group.specification.growth == FLAT:
        # A flat trend has no changes; Prophet keeps their prior, which is highest at zero.
        changes = np.zeros(len(model.changepoints_t))
    else:
        np.testing.assert_allclose(group.changepoints / group.span, model.changepoints_t)
    places = [_names(group.specification, end, len(demand)).index(name) for name in features.columns]
    dense = (model.history["y_scaled"].to_numpy(), model.history["t"].to_numpy(), features.to_numpy(float))
    data = (*dense, np.array(scales, float), model.changepoints_t)
    stans = {name: _value(name, values) for name, values in model.params.items() if name != "trend"}
    ours = {
        "k": group.k[place], "m": group.m[place], "sigma_obs": group.sigma[place],
        "delta": changes, "beta": group.beta[place, places],
    }  # fmt: skip
    stan, batched = (log_posterior(*data, values, group.specification) for values in (stans, ours))
    future = pd.DataFrame({"ds": pd.date_range(pd.Timestamp(end) + pd.Timedelta(days=1), periods=HORIZON)})
    known = calendar(group.specification, end, len(demand), HORIZON)
    ahead = (np.datetime64(end, "D") - group.last).astype(int) + np.arange(1, HORIZON + 1)
    forecast = fitting.forecast(group, known.features[known.days :], ahead, (0.5,))[0][place]
    sigma = max(float(stans["sigma_obs"]), 1e-12)
    away = np.abs(model.predict(future)["yhat"].to_numpy() - forecast).max() / (model.y_scale * sigma)
    return {
        "stan": stan, "batched": batched, "gain": (batched - stan) / max(abs(stan), 1e-9),
        "noise": sigma, "difference": float(away),
    }  # fmt: skip


@cache
def _names(specification: Specification, end: date, days: int) -> list[str]:
    """The features' names by column, those of the holidays that only other series saw included."""
    known = calendar(specification, end, days, HORIZON)
    history = pd.DataFrame({"ds": pd.date_range(pd.Timestamp(known.first), periods=known.days)})
    model = specification.prophet()
    model.preprocess(history.assign(y=np.arange(known.days) % 2))
    return list(model.make_all_seasonality_features(model.setup_dataframe(history))[0].columns)


def _value(name: str, values: Any) -> Any:
    flat = np.ravel(np.asarray(values, float))
    return flat if name in {"delta", "beta"} else float(flat[0])
