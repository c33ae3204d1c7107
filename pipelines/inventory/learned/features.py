"""What is known on an evening of each series, as a planner's rule could use it: statistics, calendar, price, supply."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.inventory.forecast_distribution import FloatArray
from pipelines.inventory.lead_time_demand import Protection, lead_time_demand
from pipelines.inventory.policies import Terms
from pipelines.inventory.replay.candidates import planning_span
from pipelines.inventory.replay.history import History

NAMES = ("constant", "forecast_spread", "recent_level", "last_week", "recent_spread", "slowness", "year_sin",
         "year_cos", "promotion", "lead_time_spread", "price")  # fmt: skip
PATHS = 256


@dataclass(frozen=True)
class Evenings:
    """T evenings of n series.

    Attributes:
        expected, deviation: (n, T) of the demand over the protection interval, by the forecast known then.
        daily: (n, T) mean demand of the 28 days before.
        values: (n, T, f) features, in the order of `NAMES`; those of demand relative to `expected`.
    """

    expected: FloatArray
    deviation: FloatArray
    daily: FloatArray
    values: FloatArray


def evenings(history: History, protection: Protection, terms: Terms) -> Evenings:
    """Nothing of a day after the evening takes part, but for promotions, which are planned ahead."""
    shape = (len(history.batch), history.days)
    expected, deviation, daily = np.empty(shape), np.empty(shape), np.empty(shape)
    values = np.empty((*shape, len(NAMES)))
    interval = protection.lead_time + protection.review
    span = planning_span(protection)
    promotion = np.nan_to_num(history.batch.promotion[:, history.first_column :])
    reach = int(np.ceil(interval.max(initial=1.0)))
    for day in range(history.days):
        demand = lead_time_demand(history.forecasts.known_on(history.evening(day), span), protection, PATHS)
        past = history.past(day, 28)
        mean = np.maximum(demand.mean, 1e-3)
        angle = 2 * np.pi * history.evening(day).timetuple().tm_yday / 365.25
        ahead = promotion[:, day + 1 : day + 1 + reach]
        expected[:, day], deviation[:, day], daily[:, day] = mean, demand.std, past.mean(axis=1)
        values[:, day] = np.stack(
            [
                np.ones(len(mean)),
                demand.std / mean,
                np.clip(past.mean(axis=1) * interval / mean - 1, -1, 3),
                np.clip(past[:, -7:].mean(axis=1) * interval / mean - 1, -1, 3),
                past.std(axis=1) * np.sqrt(interval) / mean,
                1 / np.sqrt(mean),
                np.full(len(mean), np.sin(angle)),
                np.full(len(mean), np.cos(angle)),
                ahead.mean(axis=1) if ahead.shape[1] else np.zeros(len(mean)),
                protection.lead_time_std / np.maximum(protection.lead_time, 1e-9),
                np.log1p(np.nan_to_num(terms.unit_price)),
            ],
            axis=1,
        )
    return Evenings(expected, deviation, daily, values)


def realised(history: History, protection: Protection) -> FloatArray:
    """(n, T) what was sold until the next delivery but one could arrive; NaN where that is after the history's end.

    Each evening's order has the lead time that it had, so the spread of lead times is in it.
    """
    demand = history.demand.astype(np.float64)
    total = np.concatenate([np.zeros((len(demand), 1)), np.cumsum(demand, axis=1)], axis=1)
    day = np.arange(history.days)
    end = day + 1 + history.lead_time + np.maximum(np.rint(protection.review), 1).astype(np.int64)[:, None]
    known = end <= history.days
    rows = np.arange(len(demand))[:, None]
    return np.where(known, total[rows, np.minimum(end, history.days)] - total[:, 1:], np.nan)
