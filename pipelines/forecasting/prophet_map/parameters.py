"""Fitted parameters as JSON, one object a series, and back: to arrays, or to an ordinary `Prophet` model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from typing import Any

import numpy as np
import orjson
import pandas as pd

from pipelines.forecasting.prophet_map.features import Specification
from pipelines.forecasting.prophet_map.fitting import Fitted
from pipelines.forecasting.series import Floats


def to_json(fitted: Fitted, name: str, end: date, calendar_days: int) -> list[str]:
    """A JSON object for each of the fitted series.

    Args:
        name: of the model that is to read it again.
        end: the day after which forecasts begin.
        calendar_days: length of the history that the features come from, up to `end`.
    """
    shared = {
        "model": name,
        "end": end.isoformat(),
        "calendar_days": calendar_days,
        "first": str(fitted.first),
        "last": str(fitted.last),
        "changepoints": fitted.changepoints.tolist(),
        "specification": asdict(fitted.specification),
    }
    # The common part is written once: what differs is appended to it as text.
    head = orjson.dumps(shared)[:-1].decode()
    columns = {
        "y_scale": fitted.scale,
        "k": fitted.k,
        "m": fitted.m,
        "sigma_obs": fitted.sigma,
        "delta": fitted.delta,
        "beta": fitted.beta,
    }
    if fitted.specification.regressors:
        columns |= {"centre": fitted.centre, "spread": fitted.spread}
    own = zip(*(values.tolist() for values in columns.values()), strict=True)
    return [f"{head},{orjson.dumps(dict(zip(columns, values, strict=True)))[1:].decode()}" for values in own]


def from_json(parameters: str | Mapping[str, Any]) -> Fitted:
    """One series' parameters as arrays of one row."""
    content = orjson.loads(parameters) if isinstance(parameters, str) else parameters

    def one(name: str) -> Floats:
        return np.array([content[name]], float)

    names = tuple(content["specification"].get("regressors", ()))
    return Fitted(
        specification=Specification(**{**content["specification"], "regressors": names}),
        rows=np.zeros(1, np.int64),
        first=np.datetime64(content["first"], "D"),
        last=np.datetime64(content["last"], "D"),
        changepoints=np.array(content["changepoints"], np.int64),
        scale=one("y_scale"),
        k=one("k"),
        m=one("m"),
        delta=one("delta"),
        beta=one("beta"),
        sigma=one("sigma_obs"),
        centre=one("centre") if names else np.empty((1, 0)),
        spread=one("spread") if names else np.empty((1, 0)),
    )


def to_prophet(parameters: str | Mapping[str, Any], history: pd.DataFrame | None = None) -> Any:
    """An ordinary fitted `Prophet` model with these parameters: it predicts, plots and draws its components.

    Args:
        parameters: what a batched Prophet engine stored for a series.
        history: columns ds, y and the model's regressors, to be drawn as points by Prophet's plots; None: no points.
    """
    content: Mapping[str, Any] = json.loads(parameters) if isinstance(parameters, str) else parameters
    fitted = from_json(content)
    changepoints = fitted.first + fitted.changepoints if fitted.changepoints.any() else np.array([], "datetime64[D]")
    model = fitted.specification.prophet(changepoints=list(pd.to_datetime(changepoints)))
    # Prophet takes its features from a history: that of the calendar has all holidays that were fitted.
    first = pd.Timestamp(content["end"]) - pd.Timedelta(days=content["calendar_days"] - 1)
    days = pd.date_range(first, content["end"], freq="D")
    names = fitted.specification.regressors
    frame = pd.DataFrame({"ds": days, "y": np.arange(len(days)) % 2 * float(fitted.scale[0])})
    model.preprocess(frame.assign(**dict.fromkeys(names, 0.0)))
    for name, centre, spread in zip(names, fitted.centre[0], fitted.spread[0], strict=True):
        model.extra_regressors[name].update(mu=float(centre), std=float(spread))
    model.start, model.t_scale = pd.Timestamp(fitted.first), pd.Timedelta(days=fitted.span)
    model.y_scale = float(fitted.scale[0])
    model.changepoints_t = fitted.changepoints / fitted.span
    model.params = {
        "k": fitted.k[:, None],
        "m": fitted.m[:, None],
        "delta": fitted.delta,
        "sigma_obs": fitted.sigma[:, None],
        "beta": fitted.beta,
    }
    seen = _history(history, fitted)
    model.history_dates = seen["ds"]
    model.history = model.setup_dataframe(seen.dropna().copy())
    return model


def _history(history: pd.DataFrame | None, fitted: Fitted) -> pd.DataFrame:
    if history is not None:
        return history.loc[:, ["ds", "y", *fitted.specification.regressors]].reset_index(drop=True)
    ends = pd.to_datetime([str(fitted.first), str(fitted.last)])
    return pd.DataFrame({"ds": ends}).assign(y=0.0, **dict.fromkeys(fitted.specification.regressors, 0.0))
