"""Moments of a calendar's features, from which the normal equations of any series follow without touching its days.

With d the days from each day to the calendar's last, x its features and z = (1, x), suffix sums of dᵖ z zᵀ for
p = 0, 1, 2 give the moments of any stretch of days as a difference; missing days are taken off one by one. A piecewise
linear trend is linear within a stretch between changepoints, so each entry of its normal equations is a sum of such
moments. Counting from the end makes them the same to the last bit however long the calendar is.
"""

from __future__ import annotations

import numpy as np

from pipelines.forecasting.compiled import compiled
from pipelines.forecasting.series import Floats, Integers

ORDERS = 3
UNIT = 1024.0


@compiled
def suffix_moments(features: Floats) -> Floats:
    """(T + 1, 3, K + 1, K + 1): sums over each day and those after it of (d / UNIT)ᵖ z zᵀ, z = (1, features)."""
    days, count = features.shape
    sums = np.zeros((days + 1, ORDERS, count + 1, count + 1))
    z = np.ones(count + 1)
    for day in range(days - 1, -1, -1):
        z[1:] = features[day]
        weight = 1.0
        for order in range(ORDERS):
            for row in range(count + 1):
                for column in range(count + 1):
                    sums[day, order, row, column] = sums[day + 1, order, row, column] + weight * z[row] * z[column]
            weight *= (days - 1 - day) / UNIT
    return sums


@compiled
def segment_moments(sums: Floats, features: Floats, observed: Integers, boundaries: Integers) -> Floats:
    """(S + 1, 3, K + 1, K + 1): moments of tᵖ z zᵀ over the observed days of each segment, t from 0 to 1.

    Args:
        sums: `suffix_moments` of the calendar.
        features: (T, K) of the calendar.
        observed: the observed days, ascending; t is 0 on the first and 1 on the last.
        boundaries: (S,) first day of every segment after the first.
    """
    days = sums.shape[0] - 1
    size = sums.shape[2]
    first, last = observed[0], observed[-1]
    pieces = boundaries.shape[0] + 1
    moments = np.empty((pieces, ORDERS, size, size))
    for piece in range(pieces):
        begin = first if piece == 0 else boundaries[piece - 1]
        end = last + 1 if piece == pieces - 1 else boundaries[piece]
        moments[piece] = sums[begin] - sums[end]
    z = np.ones(size)
    position = 0
    piece = 0
    for day in range(first, last + 1):
        if day == observed[position]:
            position += 1
            continue
        while piece < pieces - 1 and day >= boundaries[piece]:
            piece += 1
        z[1:] = features[day]
        weight = 1.0
        for order in range(ORDERS):
            for row in range(size):
                for column in range(size):
                    moments[piece, order, row, column] -= weight * z[row] * z[column]
            weight *= (days - 1 - day) / UNIT
    scale = -UNIT / (last - first)
    shift = (days - 1 - first) / (last - first)
    for piece in range(pieces):
        zeroth, linear, square = moments[piece, 0], moments[piece, 1], moments[piece, 2]
        moments[piece, 2] = scale * scale * square + 2 * scale * shift * linear + shift * shift * zeroth
        moments[piece, 1] = scale * linear + shift * zeroth
    return moments


@compiled
def moments_of_days(features: Floats, t: Floats, positions: Integers) -> Floats:
    """(S + 1, 3, K + 1, K + 1): the same moments as `segment_moments`, added up day by day.

    Args:
        features: (n, K) of the observed days; t: (n,) of the same; positions: (S,) first of the n days of every
            segment after the first.
    """
    size = features.shape[1] + 1
    moments = np.zeros((positions.shape[0] + 1, ORDERS, size, size))
    z = np.ones(size)
    piece = 0
    for day in range(features.shape[0]):
        while piece < positions.shape[0] and day >= positions[piece]:
            piece += 1
        z[1:] = features[day]
        weight = 1.0
        for order in range(ORDERS):
            for row in range(size):
                for column in range(size):
                    moments[piece, order, row, column] += weight * z[row] * z[column]
            weight *= t[day]
    return moments
