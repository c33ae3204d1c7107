"""Who competes in a replay: levels for every evening, from what was known by then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri
from threadpoolctl import threadpool_limits

from pipelines.inventory.economics import DAYS_PER_YEAR, economic_order_quantity, round_up
from pipelines.inventory.forecast_distribution import FloatArray
from pipelines.inventory.lead_time_demand import DailyForecasts, LeadTimeDemand, Protection, lead_time_demand
from pipelines.inventory.policies import SeriesBatch, Terms, get_policy
from pipelines.inventory.replay.history import WEEK, History
from pipelines.inventory.scenarios import LEVEL_CORRELATION

Counts = npt.NDArray[np.int64]
Adjust = Callable[[float], FloatArray]
"""Wanted service to the probability that is planned with, per series (n,)."""

USUAL_DAYS = 28


@dataclass(frozen=True)
class LevelPaths:
    """Levels of P policies for n series on T evenings; arrays (P, n, T) of whole units."""

    reorder_point: Counts
    order_up_to: Counts


class Candidate(Protocol):
    """A rule in as many forms as there are service levels."""

    @property
    def name(self) -> str:
        """What it is called in the report."""
        ...

    def levels(self, history: History, protection: Protection, terms: Terms, service: Sequence[float]) -> LevelPaths:
        """The levels of each evening; `terms.service_level` is replaced by each of `service` in turn."""
        ...


@dataclass(frozen=True)
class Planned:
    """A registered policy, planning every evening from the newest forecast.

    Attributes:
        method: its registered name. paths, correlation: of `lead_time_demand`.
        adjust: a correction learnt from what service was achieved; None: none.
    """

    name: str
    method: str
    paths: int = 1024
    correlation: float = LEVEL_CORRELATION
    adjust: Adjust | None = None

    def levels(self, history: History, protection: Protection, terms: Terms, service: Sequence[float]) -> LevelPaths:
        """See `Candidate.levels`."""
        return planned_levels([self], history, protection, terms, service)[0]


def planned_levels(
    candidates: Sequence[Planned], history: History, protection: Protection, terms: Terms, service: Sequence[float]
) -> list[LevelPaths]:
    """Levels of several planned policies; those with the same paths and correlation share the sampled demand."""
    series = len(history.batch)
    shape = (len(service), series, history.days)
    policies = [get_policy(candidate.method) for candidate in candidates]
    out = [LevelPaths(np.empty(shape, np.int64), np.empty(shape, np.int64)) for _ in candidates]
    wanted = [
        [np.full(series, level) if candidate.adjust is None else candidate.adjust(level) for level in service]
        for candidate in candidates
    ]
    span = planning_span(protection)
    with threadpool_limits(limits=1):  # the products are small: threads would only wait for each other
        for day in range(history.days):
            forecasts = history.forecasts.known_on(history.evening(day), span)
            sampled: dict[tuple[int, float], LeadTimeDemand] = {}
            for candidate, policy, levels, probabilities in zip(candidates, policies, out, wanted, strict=True):
                key = (candidate.paths, candidate.correlation)
                if key not in sampled:
                    sampled[key] = lead_time_demand(forecasts, protection, *key)
                for place, probability in enumerate(probabilities):
                    batch = SeriesBatch(sampled[key], replace(terms, service_level=probability))
                    made = policy.levels(batch)
                    levels.reorder_point[place, :, day] = made.reorder_point
                    levels.order_up_to[place, :, day] = made.order_up_to
    return out


@dataclass(frozen=True)
class UsualRule:
    """What planners do without a forecast: s = m (L + R) + z √((L + R) sd² + m² sd_L²), from the last 28 days.

    Silver, Pyke and Thomas, chapter 6. Computed anew every evening. Above s it orders what the others do: a unit
    where orders are free, else the economic order quantity.

    Attributes:
        lead_time_spread: whether the deviation of the lead time is counted; many leave it out.
    """

    name: str
    lead_time_spread: bool = True
    days: int = USUAL_DAYS

    def levels(self, history: History, protection: Protection, terms: Terms, service: Sequence[float]) -> LevelPaths:
        """See `Candidate.levels`."""
        scores = ndtri(np.asarray(service))
        shape = (len(service), len(history.batch), history.days)
        out = LevelPaths(np.empty(shape, np.int64), np.empty(shape, np.int64))
        interval = protection.lead_time + protection.review
        for day in range(history.days):
            past = history.past(day, self.days)
            mean, deviation = past.mean(axis=1), past.std(axis=1, ddof=1)
            variance = interval * deviation**2
            if self.lead_time_spread:
                variance = variance + (mean * protection.lead_time_std) ** 2
            safety = scores[:, None] * np.sqrt(variance)
            fill_levels(out, day, np.maximum(mean * interval + safety, 0.0), mean, terms)
        return out


@dataclass(frozen=True)
class Clairvoyant:
    """Knows every day's demand to come, but no more of the lead time than its distribution: a bound.

    Its level is mean + z · deviation of what will be sold until the next delivery but one can arrive.
    """

    name: str

    def levels(self, history: History, protection: Protection, terms: Terms, service: Sequence[float]) -> LevelPaths:
        """See `Candidate.levels`."""
        shape = (len(service), len(history.batch), history.days)
        out = LevelPaths(np.empty(shape, np.int64), np.empty(shape, np.int64))
        span = planning_span(protection)
        scores = ndtri(np.asarray(service))[:, None]
        demand = history.demand.astype(np.float64)
        with threadpool_limits(limits=1):
            for day in range(history.days):
                known = demand[:, day + 1 : day + 1 + span]
                lacking = span - known.shape[1]
                if lacking:
                    known = np.hstack([known, history.past(day, lacking)[:, -lacking:]])
                certain = DailyForecasts(known, np.repeat(known[..., None], 7, axis=-1))
                made = lead_time_demand(certain, protection, 1024)
                mean = history.past(day, USUAL_DAYS).mean(axis=1)
                fill_levels(out, day, np.maximum(made.mean + scores * made.std, 0.0), mean, terms)
        return out


def fill_levels(out: LevelPaths, day: int, reorder_point: FloatArray, mean: FloatArray, terms: Terms) -> None:
    """The evening's levels (P, n) where order sizes are as `order_up_to` and `periodic_base_stock` make them."""
    economic = economic_order_quantity(terms.order_cost, terms.holding_cost, mean * DAYS_PER_YEAR)
    size = np.maximum(economic, terms.minimum_order)
    free = size <= 1.0
    batched = np.maximum(round_up(size, terms.pack_size), terms.pack_size)
    point = round_up(reorder_point)
    lower = np.where(free, np.maximum(point, 1.0) - 1.0, point)
    out.reorder_point[:, :, day] = lower
    out.order_up_to[:, :, day] = lower + np.where(free, 1.0, batched)


def planning_span(protection: Protection) -> int:
    """Days that nearly every order lasts, at least a fortnight."""
    longest = protection.lead_time + 4 * protection.lead_time_std + protection.review
    return int(np.ceil(max(longest.max(initial=1.0), 2 * WEEK)))
