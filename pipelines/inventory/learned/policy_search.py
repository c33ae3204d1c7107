"""A policy search in the replay's environment by the cross-entropy method (Rubinstein and Kroese 2004).

The agent's rule has four numbers: how the reorder point follows what is expected, the forecast's deviation and the
square root of the level, and how much is ordered beyond it, in economic order quantities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.inventory.economics import DAYS_PER_YEAR, economic_order_quantity, round_up
from pipelines.inventory.forecast_distribution import FloatArray
from pipelines.inventory.lead_time_demand import Protection
from pipelines.inventory.learned.environment import ReplayEnvironment
from pipelines.inventory.learned.features import Evenings, evenings
from pipelines.inventory.policies import Terms
from pipelines.inventory.replay.candidates import LevelPaths
from pipelines.inventory.replay.history import History

START = np.array([0.0, 1.65, 0.0, 1.0])
SPREAD = np.array([0.1, 0.6, 0.5, 0.4])
POPULATION, ELITE, GENERATIONS = 24, 6, 10


def rule_levels(
    rule: FloatArray, expected: FloatArray, deviation: FloatArray, daily: FloatArray, terms: Terms
) -> tuple[FloatArray, FloatArray]:
    """Reorder point and order-up-to level of a rule, whole units; shapes as `expected`, the series last."""
    level, spread, root, size = rule
    point = round_up(np.maximum(expected * (1 + level) + deviation * spread + np.sqrt(expected) * root, 0.0))
    economic = economic_order_quantity(
        np.broadcast_to(terms.order_cost, daily.shape),
        np.broadcast_to(np.nan_to_num(terms.holding_cost), daily.shape),
        daily * DAYS_PER_YEAR,
    )
    wanted = np.maximum(economic * max(size, 0.0), terms.minimum_order)
    free = wanted <= 1.0
    batch = np.maximum(round_up(wanted, terms.pack_size), terms.pack_size)
    lower = np.where(free, np.maximum(point, 1.0) - 1.0, point)
    return lower, lower + np.where(free, 1.0, batch)


def search_policy(
    history: History, known: Evenings, terms: Terms, rng: np.random.Generator, generations: int = GENERATIONS
) -> FloatArray:
    """The rule of the least cost that was found in this history, (4,).

    In each generation the best quarter of the rules says where the next ones are drawn; the best of all is kept.
    """
    centre, spread = START.copy(), SPREAD.copy()
    best, least = START.copy(), np.inf
    environment = ReplayEnvironment(history, terms, known, POPULATION)
    for generation in range(generations):
        rules = centre + spread * rng.standard_normal((POPULATION, len(START)))
        rules[0] = centre
        if generation == 0:
            rules[0] = START
        cost = -play(environment, rules, terms)
        order = np.argsort(cost, kind="stable")
        if cost[order[0]] < least:
            best, least = rules[order[0]].copy(), float(cost[order[0]])
        elite = rules[order[:ELITE]]
        centre, spread = elite.mean(axis=0), elite.std(axis=0) + 0.02 * SPREAD
    return best


def play(environment: ReplayEnvironment, rules: FloatArray, terms: Terms) -> FloatArray:
    """The reward of each rule over the whole history, (copies,)."""
    pack = np.maximum(terms.pack_size, 1.0)
    smallest = round_up(terms.minimum_order, pack)
    opening = np.stack([rule_levels(rule, *environment.first_evening, terms)[1] for rule in rules])
    seen, _ = environment.reset(options={"opening": opening})
    total, over = np.zeros(len(rules)), np.zeros(len(rules), bool)
    while not over.all():
        levels = [rule_levels(rule, seen[row, 2], seen[row, 3], seen[row, 4], terms) for row, rule in enumerate(rules)]
        point, up_to = (np.stack(side) for side in zip(*levels, strict=True))
        needed = np.maximum(round_up(up_to - seen[:, 0], pack), smallest)
        seen, reward, over, _, _ = environment.step(np.where(seen[:, 0] <= point, needed, 0.0))
        total += reward
    return total


@dataclass(frozen=True)
class SearchedPolicy:
    """A candidate of the replay; it has one rule, whatever service is asked for."""

    name: str
    rule: FloatArray
    known: Evenings | None = None

    def levels(self, history: History, protection: Protection, terms: Terms, service: Sequence[float]) -> LevelPaths:
        """See `Candidate.levels`."""
        known = self.known or evenings(history, protection, terms)
        point, up_to = rule_levels(self.rule, known.expected.T, known.deviation.T, known.daily.T, terms)
        return LevelPaths(*(np.repeat(side.T[None].astype(np.int64), len(service), axis=0) for side in (point, up_to)))
