"""How good a model of lateness is, from several days on: rolling origins, never one window.

From each origin a model learns what was known at that day's end, and predicts the deliveries due in the years after
it, each from the day before it is due (`Learning.notice_days`). `followed`: histories and the rate of late ones go on
with every outcome from the day on which it is known, as they do in a chain that trains every night, the model itself
stays as it was. `frozen`: nothing is known after the origin.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from pipelines.shipments.risk.columns import DATE, DELIVERED, KEY, NUMBER, SCHEDULED, ColumnMapping, canonical
from pipelines.shipments.risk.history import late
from pipelines.shipments.risk.model import first_key
from pipelines.shipments.risk.scores import key_rates, scores
from pipelines.shipments.risk.training import Learning, known_as_of, train_risk

FROZEN, FOLLOWED = "frozen", "followed"
RATES, PLAIN = "supplier-rate table", "plain gradient boosting"
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Origin:
    """Learn up to `cutoff`, predict what is due after it up to `end`."""

    cutoff: date
    end: date


@dataclass(frozen=True)
class Judged:
    """Predictions of one model from one origin, with what came of them."""

    name: str
    origin: Origin
    late: np.ndarray
    probability: np.ndarray

    @property
    def scores(self) -> dict[str, float]:
        """See `scores.scores`."""
        return scores(self.late, self.probability)


def baselines(frame: pd.DataFrame, mapping: ColumnMapping, origin: Origin) -> Iterator[Judged]:
    """What a model must beat: each supplier's rate so far, and scikit-learn's boosting as it comes on all columns."""
    rows = canonical(frame, mapping)
    learnt, asked = known_as_of(rows, origin.cutoff), rows[due(rows, origin)]
    truth, past = late(asked), late(learnt)
    own = first_key(rows)
    yield Judged(RATES, origin, truth, key_rates(learnt[own].to_numpy(), past, asked[own].to_numpy()))
    both = _plain(pd.concat([learnt, asked], ignore_index=True))
    with threadpool_limits(1, user_api="openmp"):
        model = HistGradientBoostingClassifier(random_state=0).fit(both[: len(learnt)], past)
        yield Judged(PLAIN, origin, truth, model.predict_proba(both[len(learnt) :])[:, 1])


def judged(
    frame: pd.DataFrame,
    mapping: ColumnMapping,
    origin: Origin,
    learning: Learning | None = None,
    modes: Sequence[str] = (FOLLOWED, FROZEN),
) -> Iterator[Judged]:
    """A learned model from one origin, in each of the modes."""
    learning = learning or Learning()
    rows = canonical(frame, mapping)
    within, after = due(rows, origin), due(rows, replace(origin, end=date.max))
    model = train_risk(frame, mapping, origin.cutoff, learning)
    for mode in modes:
        known = frame[after] if mode == FOLLOWED else None
        found = model.score(frame[within], known=known, reasons=False)["late_probability"].to_numpy()
        yield Judged(f"{learning.model}, {mode}", origin, late(rows[within]), found)


def due(rows: pd.DataFrame, origin: Origin) -> np.ndarray:
    """Which canonical rows are due after the cutoff, up to the end, and decided by the last day that is known of."""
    days = rows[SCHEDULED].to_numpy(float)
    cutoff, end = ((day - _EPOCH).days for day in (origin.cutoff, origin.end))
    last = float(np.nanmax(rows[DELIVERED].to_numpy(float), initial=-np.inf))
    decided = rows[DELIVERED].notna().to_numpy() | (days < last)
    return np.asarray((days > cutoff) & (days <= end) & decided)


def origins(rows: pd.DataFrame, first: float = 0.3, years: int = 2) -> list[Origin]:
    """The end of each year by which at least a share `first` of the deliveries was due, with the years after it.

    The last origin leaves a year.
    """
    days = rows[SCHEDULED].to_numpy(float)
    earliest, last = (_EPOCH + timedelta(days=int(np.quantile(days, share))) for share in (first, 1.0))
    ends = [
        date(year, 12, 31)
        for year in range(earliest.year, last.year + 1)
        if earliest <= date(year, 12, 31) <= last - timedelta(days=360)
    ]
    return [Origin(end, min(end.replace(year=end.year + years), last)) for end in ends]


def mean_scores(found: Sequence[Judged]) -> Mapping[str, Mapping[str, float]]:
    """By model: each score's mean over the origins."""
    table = pd.DataFrame([{"name": one.name, **one.scores} for one in found])
    means = table.groupby("name", sort=False).mean()
    return {str(name): {str(score): float(value) for score, value in row.items()} for name, row in means.iterrows()}


def _plain(rows: pd.DataFrame) -> np.ndarray:
    """Every column as a number, with the calendar; nothing of other rows."""
    found = {name: pd.factorize(rows[name])[0].astype(float) for name in rows if str(name).startswith(KEY)}
    found |= {name: rows[name].to_numpy(float) for name in rows if str(name).startswith(NUMBER)}
    due_day = rows[SCHEDULED].to_numpy(float)
    for name in (name for name in rows if str(name).startswith(DATE)):
        day = rows[name].to_numpy(float)
        found[name] = np.where(day < due_day - 1, due_day - day, np.nan)
    dates = pd.DatetimeIndex(due_day.astype("datetime64[D]"))
    found |= {"month": dates.month.to_numpy(float), "weekday": dates.dayofweek.to_numpy(float)}
    return pd.DataFrame(found).to_numpy(float)
