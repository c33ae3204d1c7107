"""A series within its pool: shapes and growth from chain, category and location; its own as far as it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, ClassVar

import numpy as np
import orjson

from pipelines.forecasting.distributions import demand_quantiles
from pipelines.forecasting.engines import EngineOptions, ForecastBatch, register
from pipelines.forecasting.pooled.design import YEAR, Dates, months, weekdays
from pipelines.forecasting.pooled.pools import Pool, expected_logs
from pipelines.forecasting.pooled.series_level import Levels, Priors, fit_levels
from pipelines.forecasting.series import Floats, SeriesBatch


@register("pooled")
@dataclass(frozen=True)
class Pooled:
    """Log-linear demand: exp(level + growth + weekday + month + ...), with shapes learnt from sums over many series.

    A year's shape cannot be told from noise in one series; in the sum of its pool it can, and a series is moved away
    from that only as far as its own sales and the spread between series warrant (empirical Bayes). Effects multiply,
    as they do in a shop. Without pools in the options, each series stands alone with wide priors.
    """

    options: EngineOptions
    name: ClassVar[str] = "pooled"
    uses_pools: ClassVar[bool] = True

    def fit_forecast(self, batch: SeriesBatch, horizon: int, probabilities: Sequence[float]) -> ForecastBatch:
        """See `Engine.fit_forecast`; fails for series without a known day."""
        pool = self.options.pools.at(batch.end)
        logs = np.zeros((len(batch), batch.days + horizon)) if pool is None else expected_logs(pool, batch, horizon)
        levels = fit_levels(batch, logs[:, : batch.days], Priors() if pool is None else pool.priors)
        future = np.datetime64(batch.end, "D") + np.arange(1, horizon + 1)
        factors = np.exp(logs[:, batch.days :])
        drift = (0.0, 0.0, 0.0) if pool is None else pool.drift_deviations
        yhat, quantiles = _forecast(levels, factors, future, batch.end, drift, probabilities)
        observed = batch.observed
        return ForecastBatch(
            yhat,
            quantiles,
            tuple(_parameters(self.name, levels, batch, pool)),
            tuple(None if days else "no known day" for days in observed),
        )

    def replay(self, parameters: str, horizon: int, probabilities: Sequence[float]) -> tuple[Floats, Floats]:
        """See `Engine.replay`."""
        content = orjson.loads(parameters)
        end = date.fromisoformat(content["end"])
        future = np.datetime64(end, "D") + np.arange(1, horizon + 1)
        levels = Levels(*(np.array([content[name]], float) for name in Levels._fields))
        pool = _pool(content["pool"], end)
        factors = np.ones((1, horizon)) if pool is None else np.exp(pool.design(future).columns @ pool.chain)[None]
        drift = (0.0, 0.0, 0.0) if pool is None else pool.drift_deviations
        yhat, quantiles = _forecast(levels, factors, future, end, drift, probabilities)
        return yhat[0], quantiles[0]


def _forecast(
    levels: Levels,
    factors: Floats,
    future: Dates,
    end: date,
    drift: tuple[float, float, float],
    probabilities: Sequence[float],
) -> tuple[Floats, Floats]:
    own = np.exp(levels.weekday[:, weekdays(future)] + levels.month[:, months(future)])
    yhat = levels.level[:, None] * factors * own
    ahead = (future - np.datetime64(end, "D")).astype(np.int64) / YEAR
    turns = (future.astype("datetime64[Y]") != np.datetime64(end, "Y")).astype(float)
    common = (drift[1] * ahead) ** 2 + drift[2] ** 2 * turns
    relative = levels.deviation[:, None] ** 2 + common
    return yhat, demand_quantiles(yhat, levels.dispersion[:, None] * yhat + relative * yhat**2, probabilities)


def _parameters(name: str, levels: Levels, batch: SeriesBatch, pool: Pool | None) -> list[str]:
    pools: dict[tuple[str, str], Any] = {}
    if pool is not None:
        for key in set(zip(batch.category, batch.location_id, strict=True)):
            pools[key] = {
                "first": pool.first.isoformat(),
                "end": pool.end.isoformat(),
                "holidays": [[holiday, day.isoformat()] for holiday, day in pool.holidays],
                "coefficients": pool.coefficients(*key).tolist(),
                "drift_deviations": list(pool.drift_deviations),
            }
    columns = zip(*(values.tolist() for values in levels), strict=True)
    keys = zip(batch.category, batch.location_id, strict=True)
    return [
        orjson.dumps(
            {
                "model": name,
                "end": batch.end.isoformat(),
                **dict(zip(Levels._fields, values, strict=True)),
                "pool": pools.get(key),
            }
        ).decode()
        for values, key in zip(columns, keys, strict=True)
    ]


def _pool(content: dict[str, Any] | None, end: date) -> Pool | None:
    if content is None:
        return None
    return Pool(
        date.fromisoformat(content["first"]),
        date.fromisoformat(content["end"]),
        tuple((name, date.fromisoformat(day)) for name, day in content["holidays"]),
        np.array(content["coefficients"], float),
        {},
        {},
        tuple(content["drift_deviations"]),
        Priors(),
    )
