"""The errors of a replay's forecasts, for what can be learnt from them."""

from __future__ import annotations

import numpy as np

from pipelines.inventory.forecast_distribution import FloatArray, day_moments, quantile_knots
from pipelines.inventory.replay.history import History

DAYS = 14


def errors_of(history: History, days: int = DAYS) -> tuple[FloatArray, FloatArray]:
    """Errors (m, days) and forecast deviations of all forecasts whose days lie within the history's batch.

    Only forecasts from the replay's days on are taken, and only such whose `days` days are all over by its end.
    """
    errors, deviations = [], []
    batch, forecasts = history.batch, history.forecasts
    days = min(days, forecasts.yhat.shape[2])
    for place, origin in enumerate(forecasts.origins):
        first = batch.days - (batch.end - origin).days
        if origin < history.start or first + days > batch.days:
            continue
        knots = quantile_knots(forecasts.yhat[place, :, :days], forecasts.quantiles[place, :, :days])
        mean, deviation = day_moments(knots)
        errors.append(batch.demand[:, first : first + days] - mean)
        deviations.append(deviation)
    if not errors:
        return np.empty((0, days)), np.empty((0, days))
    return np.vstack(errors), np.vstack(deviations)
