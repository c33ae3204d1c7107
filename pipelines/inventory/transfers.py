"""Which excess goes where: a linear program over the moves that are possible, and what each of them saves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog
from scipy.sparse import coo_array, vstack

from pipelines.inventory.economics import DAYS_PER_YEAR
from pipelines.inventory.forecast_distribution import FloatArray

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Moves:
    """m possible moves; arrays of shape (m,).

    Attributes:
        source, target: rows of `spare` and of `needed`.
        unit_value: money that a moved unit saves, what moving it costs already taken off.
        fixed_cost: money of the move itself; less than 0 where it saves an order.
        most: units at most.
    """

    source: Places
    target: Places
    unit_value: FloatArray
    fixed_cost: FloatArray
    most: FloatArray

    def take(self, rows: npt.NDArray[np.int64]) -> Moves:
        """The named moves."""
        return Moves(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def best_transfers(spare: FloatArray, needed: FloatArray, moves: Moves) -> FloatArray:
    """Whole units of each move, so that together they save the most money.

    A transportation problem, solved by HiGHS: no source gives more than it can spare, no target gets more than it
    needs. A move's fixed cost is spread over the most units that it could have, for the choice; afterwards moves that
    do not pay their own are dropped. Of several moves to one target the one that saves most stays, and the rest of the
    excess is shared out once more among those that stayed.

    Args:
        spare: (s,) whole units. needed: (t,) whole units.

    Returns:
        (m,), 0 for a move that is not made.
    """
    units = np.zeros(len(moves.source))
    chosen = np.flatnonzero(moves.most >= 1)
    for _ in range(2):
        part = moves.take(chosen)
        found = _solve(spare, needed, part)
        saved = found * part.unit_value - np.where(found > 0, part.fixed_cost, 0.0)
        units[:] = 0
        units[chosen] = np.where(saved > 1e-9, found, 0.0)
        # The best move to each target: the last of its rows in the order of what they save.
        order = chosen[np.argsort(saved, kind="stable")]
        order = order[units[order] > 0]
        best = dict(zip(moves.target[order].tolist(), order.tolist(), strict=True))
        chosen = np.array(sorted(best.values()), np.int64)
    kept = np.zeros(len(units), np.bool_)
    kept[chosen] = True
    return np.where(kept, units, 0.0)


def _solve(spare: FloatArray, needed: FloatArray, moves: Moves) -> FloatArray:
    count = len(moves.source)
    if count == 0:
        return np.zeros(0)
    ones, columns = np.ones(count), np.arange(count)
    limits = vstack(
        [
            coo_array((ones, (moves.source, columns)), shape=(len(spare), count)),
            coo_array((ones, (moves.target, columns)), shape=(len(needed), count)),
        ]
    )
    worth = moves.unit_value - moves.fixed_cost / np.maximum(moves.most, 1.0)
    found = linprog(
        -worth,
        A_ub=limits,
        b_ub=np.concatenate([spare, needed]),
        bounds=np.column_stack([np.zeros(count), moves.most]),
        method="highs-ds",  # a vertex, so whole units
    )
    return np.asarray(np.floor(found.x + 1e-6), np.float64)


def stock_cost(unit_cost: FloatArray, yearly_rate: FloatArray, days: FloatArray) -> FloatArray:
    """Money that a unit costs which lies for so many days before it is wanted; at most what was paid for it.

    Args:
        days: inf for what is never wanted.
    """
    share = np.where(np.isfinite(days), yearly_rate * np.nan_to_num(days, posinf=0.0) / DAYS_PER_YEAR, 1.0)
    return np.asarray(unit_cost * np.minimum(share, 1.0), np.float64)
