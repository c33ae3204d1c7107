"""What a replay came to: service, stock and money per policy, and policies compared at equal service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.inventory.economics import DAYS_PER_YEAR
from pipelines.inventory.forecast_distribution import FloatArray
from pipelines.inventory.lead_time_demand import Protection
from pipelines.inventory.policies import Terms
from pipelines.inventory.replay.candidates import Candidate, LevelPaths, Planned, planned_levels
from pipelines.inventory.replay.history import History
from pipelines.inventory.replay.kernel import Buying, Days, run

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Outcome:
    """A policy's replay, totals per series.

    Attributes:
        name, service: the candidate and what service it aimed at.
        totals: `kernel.TOTALS` by name, (n,) each.
        ordered: (T,) units ordered on each of the replay's days, all series together.
    """

    name: str
    service: float
    totals: Mapping[str, Counts]
    ordered: Counts

    @property
    def fill_rate(self) -> float:
        """Share of the demand that was met at once."""
        return _ratio(self.totals["sold"], self.totals["demand"])

    @property
    def cycle_service(self) -> float:
        """Share of the replenishment cycles without a stockout."""
        return _ratio(self.totals["served_cycles"], self.totals["cycles"])

    @property
    def average_stock(self) -> float:
        """Units on hand in the evening, mean over days and series."""
        return _ratio(self.totals["on_hand"], self.totals["days"])

    def summary(self, terms: Terms) -> dict[str, Any]:
        """All that is reported of a policy; money is of the measured days, nothing where a price is unknown."""
        totals = self.totals
        lost = totals["demand"] - totals["sold"]
        years = totals["days"].max(initial=0) / DAYS_PER_YEAR
        held = totals["on_hand"] / np.maximum(totals["days"], 1) * np.nan_to_num(terms.holding_cost) * years
        margin = np.nan_to_num(terms.unit_price - terms.unit_cost)
        ordering = totals["orders"] * np.nan_to_num(terms.order_cost)
        return {
            "policy": self.name,
            "service_level": self.service,
            "fill_rate": self.fill_rate,
            "cycle_service": self.cycle_service,
            "average_stock": self.average_stock,
            "stockout_days": int(totals["short_days"].sum()),
            "orders": int(totals["orders"].sum()),
            "ordered_units": int(totals["ordered"].sum()),
            "lost_units": int(lost.sum()),
            "holding_cost": float(held.sum()),
            "order_cost": float(ordering.sum()),
            "lost_margin": float((lost * margin).sum()),
            "cost": float((held + ordering + lost * margin).sum()),
        }


def replay(
    history: History,
    candidates: Sequence[Candidate],
    protection: Protection,
    terms: Terms,
    service: Sequence[float],
    maximum_order: FloatArray | None = None,
) -> list[Outcome]:
    """Play every candidate at every service level, all with the same demand, lead times and constraints.

    Args:
        protection: what the candidates believe of lead times; the true ones are the history's.
        terms: pack size, minimum order, costs and review period of each series.
        maximum_order: (n,) units, 0 for none.
    """
    buying = buying_of(terms, maximum_order)
    planned = [candidate for candidate in candidates if isinstance(candidate, Planned)]
    shared = iter(planned_levels(planned, history, protection, terms, service) if planned else ())
    out: list[Outcome] = []
    for candidate in candidates:
        among = isinstance(candidate, Planned)
        levels = next(shared) if among else candidate.levels(history, protection, terms, service)
        out += play(history, candidate.name, levels, buying, service)
    return out


def play(history: History, name: str, levels: LevelPaths, buying: Buying, service: Sequence[float]) -> list[Outcome]:
    """One candidate's levels, played; it starts with the first evening's order-up-to level on hand."""
    series, length = len(history.batch), history.days
    is_open = np.ones((series, length), np.bool_) if history.open_days is None else history.open_days
    days = Days(history.demand, history.lead_time, is_open, (history.measured - history.start).days)
    opening = np.ascontiguousarray(levels.order_up_to[:, :, 0])
    totals, ordered = run(days, buying, levels.reorder_point, levels.order_up_to, opening)
    return [
        Outcome(name, float(level), {key: value[place] for key, value in totals.items()}, ordered[place])
        for place, level in enumerate(service)
    ]


def buying_of(terms: Terms, maximum_order: FloatArray | None = None) -> Buying:
    """Whole units and days."""
    largest = np.zeros(len(terms.pack_size)) if maximum_order is None else maximum_order
    return Buying(
        np.maximum(terms.pack_size, 1).astype(np.int64),
        np.maximum(terms.minimum_order, 0).astype(np.int64),
        np.where(largest > 0, np.maximum(largest, terms.pack_size), 0).astype(np.int64),
        np.maximum(np.rint(terms.review_days), 1).astype(np.int64),
    )


def curve(outcomes: Sequence[Outcome], name: str) -> tuple[FloatArray, FloatArray]:
    """Fill rates, ascending, and the average stock that each took, of one candidate."""
    chosen = sorted((item.fill_rate, item.average_stock) for item in outcomes if item.name == name)
    return np.array([fill for fill, _ in chosen]), np.array([stock for _, stock in chosen])


def stock_at(outcomes: Sequence[Outcome], name: str, fill_rates: Sequence[float]) -> FloatArray:
    """A candidate's average stock at given fill rates, between its service levels interpolated; nan beyond them.

    Between two points the stock is taken to be linear in the logarithm of what was lost: the curve bends less there.
    """
    fill, stock = curve(outcomes, name)
    lost = -np.log(np.maximum(1.0 - fill, 1e-12))
    wanted = -np.log(1.0 - np.asarray(fill_rates))
    return np.interp(wanted, lost, stock, left=np.nan, right=np.nan)


def _ratio(part: Counts, whole: Counts) -> float:
    total = int(whole.sum())
    return float(part.sum() / total) if total else float("nan")
