"""Learning how late shipments will be from a delivery file, whatever its columns are called."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import date
from itertools import pairwise

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from pipelines.errors import LeakageError, MissingDataError
from pipelines.shipments.risk import trees
from pipelines.shipments.risk.calibration import Platt, fit_platt, widening
from pipelines.shipments.risk.columns import DELIVERED, SCHEDULED, ColumnMapping, canonical
from pipelines.shipments.risk.drift import Followed
from pipelines.shipments.risk.features import features, prediction_days
from pipelines.shipments.risk.history import late
from pipelines.shipments.risk.model import LEVELS, RiskModel, first_key
from pipelines.shipments.risk.plugins import DEFAULT, Lesson, Scorer, model_class

log = logging.getLogger("stockcast.shipments")

SMALLEST = 200
"""Deliveries below which nothing is learned."""
TELLS_TOO_MUCH = 0.97
SOON = 60
"""Days after the last known one: deliveries due by then are looked at as under way."""
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Learning:
    """How a model is learned.

    Attributes:
        model: its registered name, see `plugins`.
        notice_days: how long before the scheduled day a prediction is made; training rows are seen as of then.
        seeds: boostings that are averaged.
        iterations: trees of each boosting.
        slices: later slices of time, each predicted by a model of what came before it: what calibration is fitted to.
        half_life_days: a training row counts half after so many days.
    """

    model: str = DEFAULT
    notice_days: float = 1.0
    seeds: int = 2
    slices: int = 2
    half_life_days: float = 730.0
    iterations: int = 150
    coverage: float = 0.8


def train_risk(
    frame: pd.DataFrame, mapping: ColumnMapping, as_of: date | None = None, learning: Learning | None = None
) -> RiskModel:
    """A calibrated model of lateness with intervals of the arrival.

    Args:
        frame: one row a delivery (or an order's line), in any columns.
        mapping: what the columns are.
        as_of: the last day whose events may be used; later deliveries count as under way. None: all.

    Raises:
        UsageError: columns do not fit the mapping.
        MissingDataError: fewer than `SMALLEST` deliveries, or none late, or none in time.
        LeakageError: a column tells the outcome.
    """
    learning = learning or Learning()
    everything, horizon = seen_on(canonical(frame, mapping), as_of)
    rows = decided(everything, horizon)
    y = late(rows)
    if len(rows) < SMALLEST or not 0 < y.sum() < len(y):
        raise MissingDataError(
            f"{len(rows)} deliveries, {int(y.sum())} of them late, are not enough to learn from: at least {SMALLEST} "
            "with some late and some in time are needed"
        )
    at = prediction_days(rows, learning.notice_days)
    x = features(rows, at, everything, horizon)
    refuse_telltales(x, y)
    held = _held_out(x, y, rows, at, learning)
    delay = (rows[DELIVERED] - rows[SCHEDULED]).to_numpy(float)
    # What earlier fits did not know, the last one knows: it starts without a shift.
    followed = held.followed(rows, y)
    shifted = held.log_odds + followed.shift(at[held.rows], rows[first_key(rows)].to_numpy(str)[held.rows])
    platt = fit_platt(shifted, y[held.rows]) if len(held.rows) else Platt()
    came = ~np.isnan(delay[held.rows])
    widen = widening(delay[held.rows][came], held.low[came], held.high[came], learning.coverage)
    final = _fit(x, y, delay, at, learning)
    return RiskModel(
        mapping=mapping,
        kind=learning.model,
        names=tuple(x.columns),
        medians=tuple(np.nan_to_num(x.median().to_numpy(float)).tolist()),
        lateness=final.lateness,
        delays=final.delays,
        platt=platt,
        widening=widen,
        notice_days=learning.notice_days,
        outcomes=everything,
        horizon=horizon,
        followed=Followed.nothing(),
    )


def known_as_of(rows: pd.DataFrame, as_of: date | None) -> pd.DataFrame:
    """Rows whose lateness is known at the end of a day, in order of time; deliveries after it have not come."""
    return decided(*seen_on(rows, as_of))


def seen_on(rows: pd.DataFrame, as_of: date | None) -> tuple[pd.DataFrame, float]:
    """Rows in order of time as they are seen at the end of a day, and the day since 1970; None: the newest's.

    Those due more than `SOON` days later are left out.
    """
    if as_of is not None:
        day = float((as_of - _EPOCH).days)
        rows = rows.assign(**{DELIVERED: rows[DELIVERED].where(rows[DELIVERED] <= day)})
    else:
        day = float(np.nanmax(rows[[SCHEDULED, DELIVERED]].to_numpy(), initial=-np.inf))
    seen = (rows[DELIVERED] <= day) | (rows[SCHEDULED] <= day + SOON)
    return rows[seen].sort_values(SCHEDULED, kind="stable").reset_index(drop=True), day


def decided(rows: pd.DataFrame, day: float) -> pd.DataFrame:
    """Of rows as seen on a day: those that are late or have come."""
    return rows[(rows[DELIVERED] <= day) | (rows[SCHEDULED] < day)].reset_index(drop=True)


def refuse_telltales(x: pd.DataFrame, y: np.ndarray) -> None:
    """Refuse a single feature that ranks late before others nearly without fail: it was written down afterwards.

    Raises:
        LeakageError: names it.
    """
    for name in x:
        values = x[name].to_numpy(float)
        filled = np.where(np.isnan(values), np.nanmin(values, initial=0.0) - 1, values)
        rank = roc_auc_score(y, filled)
        if max(rank, 1 - rank) > TELLS_TOO_MUCH:
            raise LeakageError(
                f"{name!r} alone tells late from in time with an ROC-AUC of {max(rank, 1 - rank):.3f}: it can "
                "hardly be known beforehand; take its column out of the mapping"
            )


@dataclass(frozen=True)
class _Fitted:
    lateness: Scorer
    delays: tuple[trees.Trees, ...]


@dataclass(frozen=True)
class _HeldOut:
    rows: np.ndarray
    log_odds: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def followed(self, rows: pd.DataFrame, late: np.ndarray) -> Followed:
        """The predictions with their outcomes."""
        supplier = rows[first_key(rows)].to_numpy(str)[self.rows]
        return Followed(rows[SCHEDULED].to_numpy(float)[self.rows] + 1, self.log_odds, late[self.rows], supplier)


def _fit(frame: pd.DataFrame, y: np.ndarray, delay: np.ndarray, at: np.ndarray, learning: Learning) -> _Fitted:
    x = frame.to_numpy(float)
    weight = 0.5 ** ((at.max() - at) / learning.half_life_days)
    shape = {"max_leaf_nodes": 6, "min_samples_leaf": 30, "l2_regularization": 5.0, "max_bins": 32}
    lesson = Lesson(tuple(frame.columns), x, y, weight, learning.seeds, learning.iterations)
    lateness = model_class(learning.model).fit(lesson)
    options = {**shape, "max_features": 0.3, "learning_rate": 0.1, "max_iter": learning.iterations // 3}
    came = ~np.isnan(delay)
    delays = tuple(trees.quantile(x[came], delay[came], weight[came], level, **options) for level in LEVELS)
    return _Fitted(lateness, delays)


def _held_out(x: pd.DataFrame, y: np.ndarray, rows: pd.DataFrame, at: np.ndarray, learning: Learning) -> _HeldOut:
    """Predictions of the last slices of time, each by a fit to what was known when it began."""
    scheduled, delivered = rows[SCHEDULED].to_numpy(float), rows[DELIVERED].to_numpy(float)
    known = np.fmin(delivered, scheduled + 1)
    edges = np.quantile(at, np.linspace(0.55, 1.0, learning.slices + 1))
    edges[-1] += 1
    parts = []
    for first, last in pairwise(edges):
        before, within = known < first, (at >= first) & (at < last)
        if before.sum() < SMALLEST // 2 or not within.any() or not 0 < y[before].sum() < before.sum():
            continue
        delay = np.where(delivered < first, delivered - scheduled, np.nan)
        fitted = _fit(x[before], y[before], delay[before], at[before], replace(learning, seeds=1))
        ends = (fitted.delays[place].sums(x[within].to_numpy(float)) for place in (0, -1))
        log_odds = fitted.lateness.log_odds(x[within].to_numpy(float))
        parts.append((np.flatnonzero(within), log_odds, *ends))
    if not parts:
        nothing = np.empty(0)
        return _HeldOut(nothing.astype(int), nothing, nothing, nothing)
    return _HeldOut(*(np.concatenate(part) for part in zip(*parts, strict=True)))
