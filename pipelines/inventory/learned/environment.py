"""The replay as an environment that an agent acts in, with the signature of Gymnasium's `Env`: `reset` and `step`.

Gymnasium itself is no dependency: nothing of it is needed beyond the signature. A step is an evening, the action the
units ordered for each series, the reward less the money that the day cost. The same day as in `replay.kernel`
(`tests/unit/test_learned_levels.py` plays both).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.inventory.economics import DAYS_PER_YEAR
from pipelines.inventory.forecast_distribution import FloatArray
from pipelines.inventory.learned.features import Evenings
from pipelines.inventory.policies import Terms
from pipelines.inventory.replay.history import History

OBSERVED = ("position", "on_hand", "expected", "deviation", "daily")


class ReplayEnvironment:
    """`copies` agents side by side in the same history; arrays (copies, n).

    Args:
        known: what is observed of the forecasts, evening by evening.
    """

    def __init__(self, history: History, terms: Terms, known: Evenings, copies: int = 1) -> None:
        self._demand, self._lead_time = history.demand, history.lead_time
        self._first, self._known, self._copies = (history.measured - history.start).days, known, copies
        self._terms = terms
        self._review = np.maximum(np.rint(terms.review_days), 1)
        self._margin = np.maximum(np.nan_to_num(terms.unit_price - terms.unit_cost), 0.0)
        self._held = np.nan_to_num(terms.holding_cost) / DAYS_PER_YEAR

    @property
    def first_evening(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """What is expected, its deviation and the daily mean on the first evening, (n,) each."""
        return self._known.expected[:, 0], self._known.deviation[:, 0], self._known.daily[:, 0]

    def reset(self, opening: FloatArray) -> tuple[FloatArray, dict[str, Any]]:
        """Begin on the first day with so much on hand, (copies, n); what is seen in its evening."""
        series, days = self._demand.shape
        self._day = 0
        self._on_hand = opening.astype(np.float64).copy()
        self._on_order = np.zeros_like(self._on_hand)
        self._arrivals = np.zeros((days + int(self._lead_time.max(initial=0)) + 2, self._copies, series))
        self._cost = self._morning()
        return self._observe(), {}

    def step(self, action: FloatArray) -> tuple[FloatArray, FloatArray, bool, bool, dict[str, Any]]:
        """Order (copies, n) units tonight, where a review is due, and go on to the next evening.

        Returns:
            What is seen then; the reward (copies,), less what tonight's orders and the day up to here cost, 0 before
            the measured days; whether the history is over; never cut short; nothing more.
        """
        action = np.where(self._day % self._review == 0, action, 0.0)
        cost = self._cost + (action > 0) * np.nan_to_num(self._terms.order_cost)
        reward = -cost.sum(axis=1) if self._day >= self._first else np.zeros(self._copies)
        rows = np.arange(self._demand.shape[0])
        due = self._day + self._lead_time[:, self._day] + 1
        self._arrivals[due, :, rows] += action.T
        self._on_order += action
        self._day += 1
        over = self._day >= self._demand.shape[1]
        if not over:
            self._cost = self._morning()
        return self._observe() if not over else np.empty(0), reward, over, False, {}

    def _morning(self) -> FloatArray:
        """What arrived is there, demand takes of it; money that the day cost, (copies, n)."""
        received = self._arrivals[self._day]
        self._on_hand += received
        self._on_order -= received
        wanted = self._demand[:, self._day]
        sold = np.minimum(wanted, self._on_hand)
        self._on_hand -= sold
        return np.asarray(self._on_hand * self._held + (wanted - sold) * self._margin)

    def _observe(self) -> FloatArray:
        """(5, copies, n), in the order of `OBSERVED`."""
        shape = self._on_hand.shape
        known = (getattr(self._known, name)[:, self._day] for name in OBSERVED[2:])
        return np.stack(
            [self._on_hand + self._on_order, self._on_hand, *(np.broadcast_to(one, shape) for one in known)]
        )
