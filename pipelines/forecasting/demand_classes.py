"""Demand classes: how regular a series is in time and in size, which decides the models that compete for it.

Syntetos, Boylan and Croston (2005), "On the categorization of demand patterns", Journal of the Operational Research
Society 56: by the average interval between demands (ADI) and the squared coefficient of variation of their
sizes (CV²).
"""

from __future__ import annotations

import numpy as np

from pipelines.forecasting.series import Floats, SeriesBatch

SMOOTH, ERRATIC, INTERMITTENT, LUMPY = "smooth", "erratic", "intermittent", "lumpy"
NO_DEMAND, SHORT = "no_demand", "short"
MODELLED = (SMOOTH, ERRATIC, INTERMITTENT, LUMPY)
"""Classes that models compete for; the other two get the fallback."""

ADI_CUTOFF, CV2_CUTOFF = 1.32, 0.49
RECENT_DAYS = 365
"""A series is what it was in its last year."""


def demand_statistics(batch: SeriesBatch) -> tuple[Floats, Floats]:
    """ADI and CV² of each series over its last year, (n,) each; infinite and 0 without any demand.

    ADI is known days per day with demand; days before the first are no part of a series.
    """
    recent = batch.demand[:, -RECENT_DAYS:]
    known = np.isfinite(recent)
    units = np.where(known, recent, 0.0)
    sold = units > 0
    days, times = known.sum(axis=1), sold.sum(axis=1)
    some = np.maximum(times, 1)
    mean = units.sum(axis=1) / some
    variance = (np.where(sold, units - mean[:, None], 0.0) ** 2).sum(axis=1) / some
    interval = np.where(times > 0, days / some, np.inf)
    return interval, np.divide(variance, mean**2, out=np.zeros(len(batch)), where=mean > 0)


def demand_classes(batch: SeriesBatch, minimum_days: int) -> tuple[str, ...]:
    """The class of each series.

    Args:
        minimum_days: series with fewer known days are "short".
    """
    interval, variation = demand_statistics(batch)
    rare, uneven = interval >= ADI_CUTOFF, variation >= CV2_CUTOFF
    names = np.array([SMOOTH, ERRATIC, INTERMITTENT, LUMPY], object)
    classes = names[2 * rare + uneven]
    classes[~np.isfinite(interval)] = NO_DEMAND
    classes[batch.observed < minimum_days] = SHORT
    return tuple(classes.tolist())
