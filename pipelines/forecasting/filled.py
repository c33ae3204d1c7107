"""Histories without gaps, for models that cannot have any."""

from __future__ import annotations

import numpy as np

from pipelines.forecasting.series import Floats

WEEK = 7


def filled(demand: Floats) -> Floats:
    """One series (T,) from its first known day on; an unknown day is the nearest known one of its weekday, earlier
    days first; the mean of the known days where no day of its weekday is known."""
    known = np.flatnonzero(np.isfinite(demand))
    if not len(known):
        return np.empty(0)
    values = demand[known[0] :].copy()
    if len(known) == len(values):
        return values
    mean = values[np.isfinite(values)].mean()
    for offset in range(min(WEEK, len(values))):
        same = values[offset::WEEK]
        there = np.isfinite(same)
        if there.any():
            newest = np.maximum.accumulate(np.where(there, np.arange(len(same)), -1))
            values[offset::WEEK] = same[np.where(newest < 0, there.argmax(), newest)]
        else:
            values[offset::WEEK] = mean
    return values
