"""The replay as a vector environment of Gymnasium: copies of a chain side by side, an agent in each.

A step is an evening, the action the units ordered for each series, the reward less the money that the day cost. The
same day as in `replay.kernel` (`tests/unit/test_learned_levels.py` plays both).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from pipelines.inventory.economics import DAYS_PER_YEAR
from pipelines.inventory.forecast_distribution import FloatArray
from pipelines.inventory.learned.features import Evenings
from pipelines.inventory.policies import Terms
from pipelines.inventory.replay.history import History

OBSERVED = ("position", "on_hand", "expected", "deviation", "daily")


class ReplayEnvironment(VectorEnv):
    """`copies` agents side by side in the same history of n series. All copies end on the same day.

    Observed: (copies, 5, n), in the order of `OBSERVED`. Action: (copies, n) units ordered tonight.

    Args:
        known: what is observed of the forecasts, evening by evening.
    """

    def __init__(self, history: History, terms: Terms, known: Evenings, copies: int = 1) -> None:
        self._demand, self._lead_time = history.demand, history.lead_time
        self._first, self._known = (history.measured - history.start).days, known
        series = self._demand.shape[0]
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED}
        self.num_envs = copies
        self.single_observation_space = Box(-np.inf, np.inf, (len(OBSERVED), series), np.float64)
        self.single_action_space = Box(0.0, np.inf, (series,), np.float64)
        self.observation_space = batch_space(self.single_observation_space, copies)
        self.action_space = batch_space(self.single_action_space, copies)
        self._terms = terms
        self._review = np.maximum(np.rint(terms.review_days), 1)
        self._margin = np.maximum(np.nan_to_num(terms.unit_price - terms.unit_cost), 0.0)
        self._held = np.nan_to_num(terms.holding_cost) / DAYS_PER_YEAR

    @property
    def first_evening(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """What is expected, its deviation and the daily mean on the first evening, (n,) each."""
        return self._known.expected[:, 0], self._known.deviation[:, 0], self._known.daily[:, 0]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Begin on the first day; what is seen in its evening.

        Args:
            seed: nothing is drawn: the history is what it is.
            options: `opening`: units on hand, (copies, n); else what is expected until an order could arrive.
        """
        super().reset(seed=seed)
        series, days = self._demand.shape
        self._day = 0
        usual = np.broadcast_to(np.ceil(self._known.expected[:, 0]), (self.num_envs, series))
        self._on_hand = np.array((options or {}).get("opening", usual), dtype=np.float64)
        self._on_order = np.zeros_like(self._on_hand)
        self._arrivals = np.zeros((days + int(self._lead_time.max(initial=0)) + 2, self.num_envs, series))
        self._cost = self._morning()
        return self._observe(), {}

    def step(self, actions: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, dict[str, Any]]:
        """Order (copies, n) units tonight, where a review is due, and go on to the next evening.

        Returns:
            What is seen then (after the last evening: that one again); the reward (copies,), less what tonight's
            orders and the day up to here cost, 0 before the measured days; whether the history is over, (copies,);
            never cut short; nothing more.
        """
        action = np.where(self._day % self._review == 0, actions, 0.0)
        cost = self._cost + (action > 0) * np.nan_to_num(self._terms.order_cost)
        reward = -cost.sum(axis=1) if self._day >= self._first else np.zeros(self.num_envs)
        rows = np.arange(self._demand.shape[0])
        due = self._day + self._lead_time[:, self._day] + 1
        self._arrivals[due, :, rows] += action.T
        self._on_order += action
        self._day += 1
        over = self._day >= self._demand.shape[1]
        if not over:
            self._cost = self._morning()
        ends = np.full(self.num_envs, over)
        return self._observe(), reward, ends, np.zeros_like(ends), {}

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
        shape = self._on_hand.shape
        day = min(self._day, self._demand.shape[1] - 1)
        known = (np.broadcast_to(getattr(self._known, name)[:, day], shape) for name in OBSERVED[2:])
        return np.stack([self._on_hand + self._on_order, self._on_hand, *known], axis=1)
