"""The rate of late shipments changes from month to month; probabilities follow it.

What was predicted and what then came of it gives the shift: of everything, and of each supplier beyond that, as a
logistic intercept that is found from the outcomes known before the day of a prediction, older ones weighing less
(a prior-probability shift; Saerens, Latinne and Decaestecker, 2002, with labels instead of their EM steps).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

HALF_LIFE = 45.0
"""Days."""
STIFF, STIFF_EACH = 2.5, 5.0
"""Weight, in units of information, of no shift: of all, and of a supplier."""
_STEPS = 6
_OLDEST = 6


@dataclass(frozen=True)
class Followed:
    """Predictions with their outcomes.

    Attributes:
        day: from which on the outcome was known, whichever it was: the day after the scheduled one.
        log_odds: as predicted; late: 1 or 0; supplier: as text.
    """

    day: np.ndarray
    log_odds: np.ndarray
    late: np.ndarray
    supplier: np.ndarray

    @classmethod
    def nothing(cls) -> Followed:
        """No outcomes yet."""
        return cls(np.empty(0), np.empty(0), np.empty(0), np.empty(0, str))

    def and_later(self, other: Followed) -> Followed:
        """With more outcomes; where both know of a day, those of `other` count."""
        first = other.day.min(initial=np.inf)
        mine = self.frame()[self.day < first]
        return Followed.of(pd.concat([mine, other.frame()], ignore_index=True))

    def frame(self) -> pd.DataFrame:
        """As a table."""
        columns = {"day": self.day, "log_odds": self.log_odds, "late": self.late}
        return pd.DataFrame(columns).assign(supplier=self.supplier.astype(str))

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Followed:
        """What `frame` gave."""
        day, log_odds, late = (frame[name].to_numpy(float) for name in ("day", "log_odds", "late"))
        return cls(day, log_odds, late, frame["supplier"].to_numpy(str))

    def shift(self, at: np.ndarray, supplier: np.ndarray) -> np.ndarray:
        """What to add to the log-odds of predictions made on the days `at`, each from outcomes known before."""
        shifts = np.zeros(len(at))
        order = np.argsort(self.day, kind="stable")
        day, score, late = self.day[order], self.log_odds[order], self.late[order]
        codes, names = pd.factorize(np.concatenate([self.supplier[order], supplier.astype(str)]))
        theirs, mine = codes[: len(day)], codes[len(day) :]
        for moment in np.unique(at):
            known = slice(*np.searchsorted(day, [moment - _OLDEST * HALF_LIFE, moment], "left"))
            asked = at == moment
            if known.start == known.stop:
                continue
            weight = 0.5 ** ((moment - day[known]) / HALF_LIFE)
            everyone = np.zeros(known.stop - known.start, int)
            overall = _intercepts(score[known], late[known], weight, everyone, 1, STIFF)[0]
            each = _intercepts(score[known] + overall, late[known], weight, theirs[known], len(names), STIFF_EACH)
            shifts[asked] = overall + each[mine[asked]]
        return shifts


def _intercepts(
    score: np.ndarray, late: np.ndarray, weight: np.ndarray, group: np.ndarray, groups: int, stiff: float
) -> np.ndarray:
    """Of each group, by penalised maximum likelihood (Newton's method with bounded steps)."""
    found = np.zeros(groups)
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(score + found[group], -30, 30)))
        slope = np.bincount(group, weight * (late - chance), groups) - stiff * found
        curve = np.bincount(group, weight * chance * (1 - chance), groups) + stiff
        found += np.clip(slope / curve, -1, 1)
    return found
