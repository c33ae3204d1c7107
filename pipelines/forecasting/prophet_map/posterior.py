"""Prophet's log posterior, written out day by day: what every fit is judged by."""

from __future__ import annotations

import numpy as np

from pipelines.forecasting.prophet_map.features import FLAT, MULTIPLICATIVE, Specification
from pipelines.forecasting.prophet_map.fitting import TREND_PRIOR
from pipelines.forecasting.series import Floats


def log_posterior(
    y: Floats,
    t: Floats,
    features: Floats,
    scales: Floats,
    changepoints: Floats,
    parameters: dict[str, Floats],
    specification: Specification,
) -> float:
    """Log density up to a constant, of one series (Stan's, without the Jacobian of σ).

    Args:
        y: (n,) scaled demand; t: (n,); features: (n, K); scales: (K,); changepoints: (S,).
        parameters: k, m, sigma_obs: numbers; delta: (S,); beta: (K,).
    """
    k, m, sigma = (float(parameters[name]) for name in ("k", "m", "sigma_obs"))
    delta, beta = parameters["delta"], parameters["beta"]
    passed = t[:, None] >= changepoints
    trend = (k + passed @ delta) * t + m - passed @ (changepoints * delta)
    if specification.growth == FLAT:
        trend = np.full_like(t, m)
    season = features @ beta
    mean = trend * (1 + season) if specification.seasonality_mode == MULTIPLICATIVE else trend + season
    return float(
        -len(y) * np.log(sigma)
        - 0.5 * np.sum((y - mean) ** 2) / sigma**2
        - 2.0 * sigma**2
        - 0.5 * (k**2 + m**2) / TREND_PRIOR**2
        - 0.5 * np.sum((beta / scales) ** 2)
        - np.sum(np.abs(delta)) / specification.changepoint_prior_scale
    )
