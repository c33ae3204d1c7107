"""How unusual something must be to be told: by how many false alarms a day planners put up with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, timedelta

import numpy as np

MEMORY = timedelta(days=28)
FEWEST_DAYS = 7
"""Days of a rule's own scores from which on they count."""
_APART = timedelta(days=3)
"""Scores of a subject that lie closer together are of one episode."""

Score = tuple[date, str, float]
"""Day, subject, and the largest surprise of that day."""


def threshold(tested: int, a_day: float, past: Sequence[Score], today: date) -> float:
    """The least surprise (-log10 of a chance) that is told.

    Two demands, the stricter counts. By the rule's own chances: of `tested` subjects looked at a day, `a_day` pass it
    where all is well. By what has been: in the last four weeks no more episodes than the budget's would have passed it.
    All of them count as false: the budget is kept even where they were not.

    Args:
        a_day: this rule's share of the false alarms.
        past: the rule's scores before today.
    """
    nominal = float(np.log10(max(tested, 1) / a_day))
    remembered = [score for score in past if today - MEMORY <= score[0] < today]
    if not remembered:
        return nominal
    days = (today - min(score[0] for score in remembered)).days
    if days < FEWEST_DAYS:
        return nominal
    peaks = sorted(episodes(remembered), reverse=True)
    allowed = int(a_day * days)
    return max(nominal, peaks[allowed] + 1e-6) if len(peaks) > allowed else nominal


def episodes(scores: Iterable[Score]) -> list[float]:
    """The largest surprise of each stretch of a subject's scores."""
    by_subject: dict[str, list[tuple[date, float]]] = defaultdict(list)
    for day, subject, surprise in scores:
        by_subject[subject].append((day, surprise))
    peaks = []
    for found in by_subject.values():
        before: date | None = None
        for day, surprise in sorted(found):
            if before is None or day - before > _APART:
                peaks.append(surprise)
            else:
                peaks[-1] = max(peaks[-1], surprise)
            before = day
    return peaks
