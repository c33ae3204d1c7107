"""The parts that a Prophet-like forecast adds up from, read from its stored parameters."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipelines.forecasting.prophet_map.features import prophet
from pipelines.forecasting.series import Floats


@dataclass(frozen=True)
class Components:
    """Parts of a forecast over T consecutive days.

    Attributes:
        dates: (T,) days.
        trend: (T,) units a day.
        parts: by name (weekly, yearly, holidays, ...), (T,) units a day, or a share of the trend.
        multiplicative: names of the parts that are shares.
    """

    dates: pd.DatetimeIndex
    trend: Floats
    parts: dict[str, Floats]
    multiplicative: frozenset[str]


def to_prophet(parameters: str) -> Any | None:
    """The Prophet model that the parameters describe; None where they are another model's."""
    content = json.loads(parameters)
    if "specification" in content:
        from pipelines.forecasting.prophet_map.parameters import to_prophet as of_batched

        return of_batched(content)
    if "changepoints_t" in content:
        return prophet().serialize.model_from_dict(content)
    return None


def components(parameters: str, days_back: int, days_ahead: int) -> Components | None:
    """Trend, seasonalities and holidays around the last day of the data; None for a model without them.

    Args:
        parameters: as the engine stored them.
        days_back, days_ahead: days up to and after the last one.
    """
    model = to_prophet(parameters)
    if model is None:
        return None
    last = pd.Timestamp(model.history_dates.max())
    dates = pd.date_range(last - pd.Timedelta(days=days_back - 1), periods=days_back + days_ahead, freq="D")
    model.uncertainty_samples = 0
    future = pd.DataFrame({"ds": dates})
    if model.growth == "logistic":
        future["cap"] = float(model.history["cap"].iloc[-1])
    predicted = model.predict(future)
    parts = {name: seasonality["mode"] for name, seasonality in model.seasonalities.items()}
    if model.train_holiday_names is not None:
        parts["holidays"] = model.holidays_mode
    return Components(
        dates,
        predicted["trend"].to_numpy(),
        {name: np.asarray(predicted[name], float) for name in parts},
        frozenset(name for name, mode in parts.items() if mode == "multiplicative"),
    )
