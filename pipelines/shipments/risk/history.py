"""Lateness histories as they stood on the day of a prediction: what was known before it, and nothing later.

That a delivery is late is known the day after it was due, or was not in time for it to be known earlier: on the day
it came. By how much it is late is known only when it has come. Older deliveries weigh less. A long history is shrunk
to that of everything, and a short one to the long one (empirical Bayes: `PRIOR` deliveries' worth).

Outcomes of a row's own order never count: the row itself may have come early, before the day that it is predicted
for, and lines that travel with it would tell the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipelines.shipments.risk.columns import DELIVERED, KEY, ORDER, SCHEDULED

PRIOR = 8.0
HALF_LIVES = (365.0, 45.0)
"""In days, the long history first."""
LARGEST_DELAY = 60.0
FIRST_RATE = 0.1
_SPAN = 1e6


@dataclass(frozen=True)
class Known:
    """Outcomes with the day on which each became known, sorted by code and day; codes from `groups`."""

    codes: np.ndarray
    days: np.ndarray
    values: np.ndarray

    @classmethod
    def sorted(cls, codes: np.ndarray, days: np.ndarray, values: np.ndarray) -> Known:
        """In the order that `decayed` needs; rows whose day is NaN are not known at all."""
        there = ~np.isnan(days)
        codes, days, values = codes[there], days[there], values[there]
        order = np.lexsort((days, codes))
        return cls(codes[order], days[order], values[order])

    def decayed(self, codes: np.ndarray, at: np.ndarray, half_life: float) -> tuple[np.ndarray, np.ndarray]:
        """Weights and weighted values of each code's outcomes known before `at`."""
        if not len(self.days):
            return np.zeros(len(at)), np.zeros(len(at))
        rate = np.log(2) / half_life
        origin = self.days.max()
        weights = np.exp(rate * (self.days - origin))
        total = np.concatenate([[0.0], np.cumsum(weights)])
        summed = np.concatenate([[0.0], np.cumsum(weights * self.values)])
        place = self.codes * _SPAN + self.days
        low = np.searchsorted(place, codes * _SPAN, "left")
        high = np.searchsorted(place, codes * _SPAN + at, "left")
        scale = np.exp(-rate * (at - origin))
        return (total[high] - total[low]) * scale, (summed[high] - summed[low]) * scale


def late(rows: pd.DataFrame) -> np.ndarray:
    """1 where delivered after the scheduled day or never yet, else 0."""
    return (~(rows[DELIVERED] <= rows[SCHEDULED])).to_numpy(float)


def lateness_known(rows: pd.DataFrame) -> np.ndarray:
    """The day from which on it is known whether a delivery is late."""
    return np.asarray(np.fmin(rows[DELIVERED].to_numpy(float), rows[SCHEDULED].to_numpy(float) + 1))


def histories(rows: pd.DataFrame, at: np.ndarray, outcomes: pd.DataFrame, horizon: float) -> dict[str, np.ndarray]:
    """Features from the past of each row's keys.

    Args:
        rows: canonical rows.
        at: the day of each row's prediction; only what was known before it counts.
        outcomes: canonical rows with their outcomes; may contain `rows` themselves.
        horizon: the last day that `outcomes` knows of.

    Returns:
        log-odds of everything (`all late`), of each key against that, mean delays in days against that of all, and
        the logarithm of a key's weight, by half-life.
    """
    known_day, is_late = lateness_known(outcomes), late(outcomes)
    known_day = np.where(known_day <= horizon + 1, known_day, np.nan)
    come, delay = outcomes[DELIVERED].to_numpy(float), (outcomes[DELIVERED] - outcomes[SCHEDULED]).to_numpy(float)
    delay = np.nan_to_num(np.clip(delay, -LARGEST_DELAY, LARGEST_DELAY))
    found: dict[str, np.ndarray] = {}
    overall: dict[float, tuple[np.ndarray, np.ndarray]] = {}
    rate, mean = np.full(len(rows), FIRST_RATE), np.zeros(len(rows))
    for column in [None, *(name for name in map(str, rows.columns) if name.startswith(KEY))]:
        theirs, mine = _codes(outcomes, rows, () if column is None else (column,))
        own = _codes(outcomes, rows, (ORDER,) if column is None else (column, ORDER))
        lates, delays = (_Others.of(theirs, own[0], *pair) for pair in ((known_day, is_late), (come, delay)))
        name = "all" if column is None else column.removeprefix(KEY)
        for life in HALF_LIVES:
            # Long after the last outcome the long history stands as it stood, and the short one fades into it.
            day = np.minimum(at, horizon + 1) if life == HALF_LIVES[0] else at
            if life == HALF_LIVES[0] and column is not None:
                rate, mean = overall[life]
            weight, count = lates.decayed(mine, own[1], day, life)
            rate = (count + PRIOR * rate) / (weight + PRIOR)
            came, days = delays.decayed(mine, own[1], day, life)
            mean = (days + PRIOR * mean) / (came + PRIOR)
            if column is None:
                overall[life] = rate, mean
                found[f"{name} late {life:g}"], found[f"{name} delay {life:g}"] = _log_odds(rate), mean
            else:
                found[f"{name} late {life:g}"] = _log_odds(rate) - _log_odds(overall[life][0])
                found[f"{name} delay {life:g}"] = mean - overall[life][1]
                if life == HALF_LIVES[0]:
                    found[f"{name} weight {life:g}"] = np.log1p(weight)
    return found


def _log_odds(rate: np.ndarray) -> np.ndarray:
    bounded = np.clip(rate, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(bounded / (1 - bounded)))


@dataclass(frozen=True)
class _Others:
    """Outcomes of all orders less those of the row's own."""

    everyone: Known
    own: Known

    @classmethod
    def of(cls, codes: np.ndarray, own: np.ndarray, days: np.ndarray, values: np.ndarray) -> _Others:
        return cls(Known.sorted(codes, days, values), Known.sorted(own, days, values))

    def decayed(self, codes: np.ndarray, own: np.ndarray, at: np.ndarray, life: float) -> tuple[np.ndarray, np.ndarray]:
        (weight, value), (own_weight, own_value) = (
            known.decayed(places, at, life) for known, places in ((self.everyone, codes), (self.own, own))
        )
        weight = weight - own_weight
        # What is left of a subtraction by rounding is nothing.
        left = weight > 1e-9
        return np.where(left, weight, 0.0), np.where(left, value - own_value, 0.0)


def _codes(outcomes: pd.DataFrame, rows: pd.DataFrame, columns: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    both = np.zeros(len(outcomes) + len(rows), np.int64)
    for column in columns:
        codes, kinds = pd.factorize(pd.concat([outcomes[column], rows[column]], ignore_index=True))
        both = pd.factorize(both * len(kinds) + codes)[0]
    return both[: len(outcomes)].astype(float), both[len(outcomes) :].astype(float)
