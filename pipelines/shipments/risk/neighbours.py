"""What became of the shipments around a row, by the day of its prediction: the state of the supplier and the lane.

A shipment is mostly late because the ones around it are: those due in the same days, those ordered just before, those
that came last. What counts is which of them had come before the day of the prediction. That they were due is known
from their order on. Shipments of the row's own order never count.

Order numbers are given in the order of placing, so that the neighbours of a number were ordered about when it was; an
identifier that is not letters and then a number has no such neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipelines.shipments.risk.columns import DATE, DELIVERED, KEY, ORDER, PLACE, SCHEDULED

MARK = "neighbours"
DUE = {"due now": (-5.0, 10.0), "due next": (0.0, 30.0)}
"""Days around the row's scheduled day."""
RECENT_DAYS = 45.0
BEFORE, AROUND = 10, 25
"""Orders in the sequence of their numbers: before the row's, and on both sides of it."""
LARGEST_DELAY = 60.0
_SPAN = 1e12
_CHUNK = 4096


def neighbours(rows: pd.DataFrame, at: np.ndarray, outcomes: pd.DataFrame, horizon: float) -> dict[str, np.ndarray]:
    """Features from the shipments around each row, for its supplier (first key) and its first lane.

    Args:
        rows: canonical rows.
        at: the day of each row's prediction; only what was known before it counts.
        outcomes: canonical rows with their outcomes and those still under way; may contain `rows` themselves.
        horizon: the last day that `outcomes` knows of; a later prediction sees the state as it was then, shifted.
    """
    limit = np.minimum(at, horizon + 1)
    due = rows[SCHEDULED].to_numpy(float) - (at - limit)
    found: dict[str, np.ndarray] = {}
    keys = [name for name in map(str, rows.columns) if name.startswith(KEY)]
    lanes = [name for name in keys if " × " in name]
    for column in [keys[0], *lanes[:1]]:
        scene = _Scene.of(outcomes, rows, column)
        name = f"{column.removeprefix(KEY)} {MARK}"
        parts = [
            scene.take(slice(start, start + _CHUNK)).features(
                due[start : start + _CHUNK], limit[start : start + _CHUNK]
            )
            for start in range(0, max(len(rows), 1), _CHUNK)
        ]
        found |= {f"{name} {what}": np.concatenate([part[what] for part in parts]) for what in parts[0]}
    return found


@dataclass(frozen=True)
class _Scene:
    """Shipments by group (`code`) with the rows that are asked for; orders by whole numbers, alike in both."""

    code: np.ndarray
    order: np.ndarray
    number: np.ndarray
    due: np.ndarray
    came: np.ndarray
    placed: np.ndarray
    row_code: np.ndarray
    row_order: np.ndarray
    row_number: np.ndarray

    @classmethod
    def of(cls, outcomes: pd.DataFrame, rows: pd.DataFrame, column: str) -> _Scene:
        both = pd.concat([outcomes[[ORDER, column]], rows[[ORDER, column]]], ignore_index=True)
        order, code = (pd.factorize(both[name])[0].astype(float) for name in (ORDER, column))
        dates = [name for name in map(str, outcomes.columns) if name.startswith(DATE)]
        placed = outcomes[dates].min(axis=1).fillna(-np.inf) if dates else pd.Series(-np.inf, index=outcomes.index)
        size = len(outcomes)
        table = pd.DataFrame(
            {
                "code": code[:size],
                "order": order[:size],
                "number": outcomes[PLACE].to_numpy(float),
                "due": outcomes[SCHEDULED].to_numpy(float),
                "came": outcomes[DELIVERED].fillna(np.inf).to_numpy(float),
                "placed": placed.to_numpy(float),
            }
        )
        # An order's lines due on one day are one shipment, which has come with its last line.
        table = table.groupby(["code", "order", "due"], as_index=False, sort=False).agg(
            {"number": "first", "came": "max", "placed": "min"}
        )
        table = table[["code", "order", "number", "due", "came", "placed"]]
        shipments = {str(name): table[name].to_numpy() for name in table}
        return cls(**shipments, row_code=code[size:], row_order=order[size:], row_number=rows[PLACE].to_numpy(float))

    def take(self, some: slice) -> _Scene:
        """The same shipments, a part of the rows."""
        shipments = (self.code, self.order, self.number, self.due, self.came, self.placed)
        return _Scene(*shipments, self.row_code[some], self.row_order[some], self.row_number[some])

    def features(self, due: np.ndarray, limit: np.ndarray) -> dict[str, np.ndarray]:
        """See `neighbours`: shares are drawn a little towards one half or less."""
        found = {}
        for name, (low, high) in DUE.items():
            row, other = self._within(self.due, due + low, due + high)
            there = self.placed[other] < limit[row]
            found[name] = self._share(row, there, self.came[other] < limit[row], 1, 3)
        row, other = self._within(self.came, limit - RECENT_DAYS, limit - 0.5)
        delay = np.clip(self.came[other] - self.due[other], -LARGEST_DELAY, LARGEST_DELAY)
        count = self._sum(row, np.ones(len(row)))
        found["recent delay"] = self._sum(row, delay) / (count + 3)
        found["due later"] = self._share(row, np.ones(len(row), bool), self.due[other] > due[row], 1, 2)
        found["overtook"] = self._share(row, np.ones(len(row), bool), self.number[other] > self.row_number[row], 1, 2)
        return found | self._by_number(limit)

    def _by_number(self, limit: np.ndarray) -> dict[str, np.ndarray]:
        order = np.lexsort((self.number, self.code))
        place = (self.code * _SPAN + np.nan_to_num(self.number, nan=_SPAN / 2))[order]
        at = self.row_code * _SPAN + np.nan_to_num(self.row_number, nan=-1.0)
        low, high = np.searchsorted(place, at, "left"), np.searchsorted(place, at, "right")
        first = np.searchsorted(place, self.row_code * _SPAN, "left")
        end = np.searchsorted(place, self.row_code * _SPAN + np.where(np.isnan(self.row_number), 0, _SPAN / 2), "left")
        row, index = _ranges(np.maximum(low - BEFORE, first), low)
        other = order[index]
        before = self._share(row, np.ones(len(row), bool), self.came[other] < limit[row], 1, 3)
        row, index = _ranges(np.maximum(low - AROUND, first), np.minimum(high + AROUND, end))
        other = order[index]
        decided = np.minimum(self.came, self.due + 1)[other] < limit[row]
        known = decided & (self.order[other] != self.row_order[row])
        late = self._share(row, known, ~(self.came[other] <= self.due[other]), 1, 10)
        return {"ordered before": before, "ordered around late": late}

    def _within(self, days: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of a row and a shipment of its group, of another order, with a day from `low` to `high`."""
        place = self.code * _SPAN + np.minimum(days, _SPAN / 2)
        order = np.argsort(place, kind="stable")
        place = place[order]
        ends = (
            np.searchsorted(place, self.row_code * _SPAN + low, "left"),
            np.searchsorted(place, self.row_code * _SPAN + high, "right"),
        )
        row, index = _ranges(*ends)
        other = order[index]
        foreign = self.order[other] != self.row_order[row]
        return row[foreign], other[foreign]

    def _share(self, row: np.ndarray, of: np.ndarray, have: np.ndarray, plus: float, over: float) -> np.ndarray:
        return (self._sum(row, of & have) + plus) / (self._sum(row, of) + over)

    def _sum(self, row: np.ndarray, values: np.ndarray) -> np.ndarray:
        return np.bincount(row, values.astype(float), minlength=len(self.row_code))


def _ranges(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every (row, index) with low <= index < high."""
    count = np.maximum(high - low, 0)
    row = np.repeat(np.arange(len(count)), count)
    start = np.repeat(np.cumsum(count) - count - low, count)
    return row, np.arange(count.sum()) - start
