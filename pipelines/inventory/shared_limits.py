"""What series compete for: a sibling's excess, a warehouse's stock, the day's money. Pure, Arrow in and out.

Levels are planned series by series; this comes after, over all of them, and fills the columns of
`gold/inventory_policies` that say so. The live stage decides on each series by itself and keeps to them, so that the
sum of what it decides is within what there is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.stats import nbinom, poisson

from pipelines.contracts.tables import INVENTORY_POLICIES
from pipelines.inventory.constraints import Orders, Worth, order_quantities, within_budget
from pipelines.inventory.forecast_distribution import FloatArray
from pipelines.inventory.lead_time_demand import LeadTimeDemand
from pipelines.inventory.live_stock import Key, LiveStock
from pipelines.inventory.policies import NO_DEMAND
from pipelines.inventory.quantity import BUDGET, WAREHOUSE_SHORTAGE
from pipelines.inventory.stock_health import cover_days
from pipelines.inventory.stockout import demand_between, expected_lost_units
from pipelines.inventory.transfers import Moves, best_transfers, stock_cost
from pipelines.operations.settings import PlanningSettings

SURE = 0.95
"""A source keeps what it sells with this probability, and a series is looked after that may come to order with it."""
CANDIDATES = 8
"""Sources that are weighed for a target: those with the most to spare."""


@dataclass(frozen=True)
class Chain:
    """What is known of the whole chain beside its policies.

    Attributes:
        region: of each location. warehouses: those that are.
        order_cost, holding_rate: of each series: money per order, and a year per money in stock.
    """

    region: dict[str, str]
    warehouses: frozenset[str]
    order_cost: dict[Key, float]
    holding_rate: dict[Key, float]


def with_limits(
    policies: pa.Table, chain: Chain, stock: LiveStock, planning: PlanningSettings, version: str
) -> pa.Table:
    """The policies with offers of transfers and with allowances.

    Args:
        policies: all of a version, as `plan_series` gives them.
        version: names the offers that are new.
    """
    rows = _Rows(policies, chain, stock)
    out = {} if planning.transfer_cost is None else _transfers(rows, planning, version)
    out |= _allowances(rows, planning, _moved(out, rows))
    schema = INVENTORY_POLICIES.schema
    for name, values in out.items():
        policies = policies.set_column(
            schema.get_field_index(name), schema.field(name), pa.array(values, schema.field(name).type)
        )
    return policies


class _Rows:
    """The policies as arrays, with their stock."""

    def __init__(self, policies: pa.Table, chain: Chain, stock: LiveStock) -> None:
        self.chain, self.stock = chain, stock
        self.location: list[str] = policies["location_id"].to_pylist()
        self.sku: list[str] = policies["sku"].to_pylist()
        self.supplier: list[str | None] = policies["supplier_id"].to_pylist()
        self.keys: list[Key] = list(zip(self.location, self.sku, strict=True))
        for name in ("reorder_point", "order_up_to", "pack_size", "minimum_order", "lead_time_days", "review_days",
                     "unit_cost", "unit_price", "correlation"):  # fmt: skip
            setattr(self, name, np.asarray(policies[name].cast(pa.float64()).to_numpy(), np.float64))
        self.cumulative_mean = matrix_of(policies["cumulative_mean"])
        self.cumulative_std = matrix_of(policies["cumulative_std"])
        self.on_hand = self._of(stock.on_hand)
        self.position = self.on_hand + self._of(stock.on_order)
        self.promised = self._of(stock.promised)
        self.known = np.array([key in stock.on_hand for key in self.keys], np.bool_)
        # What is not expected to sell is not ordered, whatever its position.
        self.sells = np.array(policies["binding_constraint"].to_pylist(), object) != NO_DEMAND
        self.order_cost = np.array([chain.order_cost.get(key, 0.0) for key in self.keys])
        self.holding_rate = np.array([chain.holding_rate.get(key, 0.0) for key in self.keys])
        self.margin = np.maximum(np.nan_to_num(self.unit_price - self.unit_cost), 0.0)

    reorder_point: FloatArray
    order_up_to: FloatArray
    pack_size: FloatArray
    minimum_order: FloatArray
    lead_time_days: FloatArray
    review_days: FloatArray
    unit_cost: FloatArray
    unit_price: FloatArray
    correlation: FloatArray

    def _of(self, found: Mapping[Key, int]) -> FloatArray:
        return np.array([found.get(key, 0) for key in self.keys], np.float64)

    @cached_property
    def lowest(self) -> FloatArray:
        """Where the position will be after the first day, at worst with `SURE` probability; (n,)."""
        return self.position - quantile(self.cumulative_mean[:, 0], self.cumulative_std[:, 0], SURE)

    @cached_property
    def excess(self) -> FloatArray:
        """Units on hand that neither the horizon nor an order-up-to level needs, and that nobody was promised."""
        kept = quantile(self.cumulative_mean[:, -1], self.cumulative_std[:, -1], SURE)
        spare = np.floor(self.on_hand - np.maximum(kept, self.order_up_to) - self.promised)
        return np.where(self.known, np.maximum(spare, 0.0), 0.0)

    def may_order(self) -> npt.NDArray[np.bool_]:
        """Which series may come to order within the first day."""
        return np.asarray(self.known & self.sells & (self.lowest <= self.reorder_point))


def quantile(mean: FloatArray, std: FloatArray, probability: float) -> FloatArray:
    """The demand that is not exceeded with that probability: negative binomial, Poisson where it spreads no more."""
    variance = std**2
    wide = variance > mean * (1 + 1e-6)
    safe_mean = np.where(mean > 0, mean, 1.0)
    safe_variance = np.where(wide & (mean > 0), variance, 2 * safe_mean)
    spread = nbinom.ppf(probability, safe_mean**2 / (safe_variance - safe_mean), safe_mean / safe_variance)
    return np.asarray(np.where(mean > 0, np.where(wide, spread, poisson.ppf(probability, safe_mean)), 0.0))


# Transfers. --------------------------------------------------------------------------------------------------


def _transfers(rows: _Rows, planning: PlanningSettings, version: str) -> dict[str, list[object]]:
    """The columns of offers: one for each series that may come to order and that a sibling can help for less."""
    needed = np.where(rows.may_order(), np.maximum(np.ceil(rows.order_up_to - rows.lowest), 0.0), 0.0)
    needed[planning.transfer_days > rows.lead_time_days] = 0.0
    spare, pairs = _pairs(rows, needed)
    move = _weighed(rows, planning, needed, spare, pairs)
    units = best_transfers(spare, needed, move.moves)
    size = len(rows.keys)
    columns: dict[str, list[object]] = {
        f"transfer_{name}": [None] * size for name in ("offer", "source", "quantity", "days", "cost", "reason")
    }
    for place in np.flatnonzero(units):
        source, target = pairs.giver[place], int(move.moves.target[place])
        offer = rows.stock.offers.get(rows.keys[target])
        values = (
            version if offer is None else offer.offer,
            rows.location[source],
            int(units[place]),
            planning.transfer_days,
            (planning.transfer_cost or 0.0) + units[place] * planning.transfer_unit_cost,
            move.reason(rows, planning, int(place), int(source), int(units[place])),
        )
        for name, value in zip(columns, values, strict=True):
            columns[name][target] = value
    return columns


@dataclass(frozen=True)
class _Pairs:
    """Moves that are possible: `pool` is what they draw from, a row of `spare`; `giver` and `target` policies' rows."""

    pool: npt.NDArray[np.int64]
    giver: npt.NDArray[np.int64]
    target: npt.NDArray[np.int64]
    most: FloatArray


def _pairs(rows: _Rows, needed: FloatArray) -> tuple[FloatArray, _Pairs]:
    """What there is to spare, and who may get it.

    An offer of the night before that nobody has taken may be taken until the new policies are in force. So what it
    promises stays put aside: whoever has it may have it again, as the same offer and not a larger one, and only what
    is beyond all of these is offered to others. Rows of `spare`: what is free, then what was offered before.
    """
    size = len(rows.keys)
    row_of = {key: row for row, key in enumerate(rows.keys)}
    offered = np.zeros(size)
    for key, offer in rows.stock.offers.items():
        source = row_of.get((offer.source, key[1]))
        if source is not None:
            offered[source] += offer.quantity
    spare = np.concatenate([np.maximum(rows.excess - offered, 0.0), np.minimum(rows.excess, offered)])
    givers: dict[tuple[str, str | None], list[int]] = defaultdict(list)
    for row in np.flatnonzero(spare[:size] >= 1).tolist():
        givers[rows.sku[row], rows.chain.region.get(rows.location[row])].append(row)
    found: list[tuple[int, int, int, float]] = []
    for row in np.flatnonzero(needed >= 1).tolist():
        kept = rows.stock.offers.get(rows.keys[row])
        if kept is not None:
            giver = row_of.get((kept.source, rows.sku[row]), -1)
            if giver >= 0:
                found.append((size + giver, giver, row, min(kept.quantity, needed[row], spare[size + giver])))
            continue
        near = [one for one in givers[rows.sku[row], rows.chain.region.get(rows.location[row])] if one != row]
        for one in sorted(near, key=lambda giver: (-spare[giver], giver))[:CANDIDATES]:
            found.append((one, one, row, min(spare[one], needed[row])))
    pool, source_row, target = np.array([one[:3] for one in found], np.int64).reshape(-1, 3).T
    return spare, _Pairs(pool, source_row, target, np.array([one[3] for one in found], np.float64))


@dataclass(frozen=True)
class _Weighed:
    """The moves, and what went into their worth, money per unit."""

    moves: Moves
    needed: FloatArray
    lying: FloatArray
    sooner: FloatArray
    lying_days: FloatArray

    def reason(self, rows: _Rows, planning: PlanningSettings, place: int, source: int, units: int) -> str:
        """Why moving so many units is better than buying them, in words that can be reckoned again."""
        target = int(self.moves.target[place])
        cost = (planning.transfer_cost or 0.0) + units * planning.transfer_unit_cost
        days = self.lying_days[place]
        lies = f"{days:.0f} days longer" if np.isfinite(days) else "for good"
        parts = [f"{units * self.lying[place]:.2f} for stock that would lie there {lies}"]
        if units >= self.needed[target] and rows.order_cost[target] > 0:
            parts.append(f"{rows.order_cost[target]:.2f} for the order")
        if units * self.sooner[place] >= 0.005:
            parts.append(f"{units * self.sooner[place]:.2f} of margin lost until then")
        return (
            f"{rows.location[source]} has {rows.excess[source]:.0f} beyond what it needs for "
            f"{rows.cumulative_mean.shape[1]} days; moving up to {units} costs {cost:.2f} and takes "
            f"{planning.transfer_days:g} days, buying takes {rows.lead_time_days[target]:.1f} days and costs "
            f"{' + '.join(parts)}"
        )


def _weighed(rows: _Rows, planning: PlanningSettings, needed: FloatArray, spare: FloatArray, pairs: _Pairs) -> _Weighed:
    daily = rows.cumulative_mean[:, -1] / rows.cumulative_mean.shape[1]
    # The excess is wanted after all that is kept has sold; on average half of it has to go first.
    free = np.maximum(rows.on_hand - rows.excess / 2, 0.0)
    lying_days = cover_days(free, rows.cumulative_mean)[pairs.giver]
    lying_days[daily[pairs.giver] <= 0] = np.inf
    lying = stock_cost(np.nan_to_num(rows.unit_cost)[pairs.target], rows.holding_rate[pairs.giver], lying_days)
    lost = {row: _margin_lost_waiting(rows, planning, int(row)) for row in np.unique(pairs.target)}
    sooner = np.array([lost[row] / max(needed[row], 1.0) for row in pairs.target.tolist()])
    whole = pairs.most >= needed[pairs.target]
    fixed = (planning.transfer_cost or 0.0) - np.where(whole, rows.order_cost[pairs.target], 0.0)
    moves = Moves(pairs.pool, pairs.target, lying + sooner - planning.transfer_unit_cost, fixed, pairs.most)
    return _Weighed(moves, needed, lying, sooner, lying_days)


def _margin_lost_waiting(rows: _Rows, planning: PlanningSettings, row: int) -> float:
    """Margin lost between the day a transfer would come and the day a purchase would."""
    if rows.margin[row] <= 0:
        return 0.0
    of = (rows.cumulative_mean[row].tolist(), rows.cumulative_std[row].tolist())
    there = float(rows.position[row])
    lost = [
        expected_lost_units(there, *demand_between(*of, 0.0, days, float(rows.correlation[row])))
        for days in (planning.transfer_days, float(rows.lead_time_days[row]))
    ]
    return max(lost[1] - lost[0], 0.0) * float(rows.margin[row])


def _moved(transfers: dict[str, list[object]], rows: _Rows) -> FloatArray:
    """Units of each series that need not be bought, as a sibling offers them."""
    given = transfers.get("transfer_quantity", [None] * len(rows.keys))
    return np.array([quantity or 0 for quantity in given], np.float64)


# Allowances. -------------------------------------------------------------------------------------------------


def _allowances(rows: _Rows, planning: PlanningSettings, moved: FloatArray) -> dict[str, list[object]]:
    """Units that each series may buy in a day: its share of the money, and of its warehouse's stock."""
    size = len(rows.keys)
    least, reason = np.full(size, np.inf), np.full(size, "", object)
    wanted = _wanted(rows, moved)
    for warehouse in sorted({name for name in rows.supplier if name in rows.chain.warehouses and name is not None}):
        served = np.array([name == warehouse for name in rows.supplier])
        for sku in sorted({rows.sku[row] for row in np.flatnonzero(served)}):
            key = (warehouse, sku)
            if key not in rows.stock.on_hand:
                continue
            group = np.flatnonzero(served & (np.array(rows.sku, object) == sku))
            there = max(rows.stock.on_hand[key] - rows.stock.promised.get(key, 0), 0)
            least[group] = _shares(rows, wanted, group, np.ones(len(group)), float(there))
            reason[group] = WAREHOUSE_SHORTAGE
    if planning.daily_budget is not None:
        outside = np.array([name not in rows.chain.warehouses for name in rows.supplier], np.bool_)
        group = np.flatnonzero(outside)
        left = max(planning.daily_budget - rows.stock.spent, 0.0)
        least[group] = _shares(rows, wanted, group, np.nan_to_num(rows.unit_cost[group]), left)
        reason[group] = BUDGET
    if not np.isfinite(least).any():
        return {}
    return {
        "allowance": [int(value) if np.isfinite(value) else None for value in least],
        "allowance_reason": [
            str(why) if np.isfinite(value) else None for value, why in zip(least, reason, strict=True)
        ],
    }


def _wanted(rows: _Rows, moved: FloatArray) -> FloatArray:
    """What each series would order within the day at worst: up to its level from where it may be then."""
    low = np.minimum(rows.lowest + np.where(rows.may_order(), moved, 0.0), rows.reorder_point)
    orders = order_quantities(
        rows.order_up_to - low, rows.pack_size, rows.minimum_order, np.full(len(rows.keys), np.inf)
    )
    return np.where(rows.sells, orders.quantity, 0.0)


def _shares(
    rows: _Rows, wanted: FloatArray, group: npt.NDArray[np.int64], cost: FloatArray, available: float
) -> FloatArray:
    """Units for each series of a group: for those that may come to order within the day first, then for the rest."""
    units = np.zeros(len(group))
    likely = rows.may_order()[group]
    for part in (likely, ~likely):
        if part.any():
            units[part] = _share(rows, wanted, group[part], cost[part], available)
            available = max(available - float((units[part] * cost[part]).sum()), 0.0)
    return units


def _share(
    rows: _Rows, wanted: FloatArray, group: npt.NDArray[np.int64], cost: FloatArray, available: float
) -> FloatArray:
    """Units for each series of a group, whose cost together is at most what is available: by lost margin saved."""
    mean, std = _protection_moments(rows, group)
    demand = LeadTimeDemand.of_moments(mean, std, rows.cumulative_mean[group], rows.cumulative_std[group])
    worth = Worth(
        position=rows.position[group],
        # Where no margin is known, units are saved instead of money.
        margin=np.where(rows.margin[group] > 0, rows.margin[group], 1e-6),
        unit_cost=cost,
        pack_size=rows.pack_size[group],
        minimum_order=rows.minimum_order[group],
    )
    orders = Orders(wanted[group], np.full(len(group), "", "<U24"))
    return within_budget(orders, demand, worth, available).quantity


def _protection_moments(rows: _Rows, group: npt.NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    """Mean and deviation of the demand until an order placed at the next review arrives."""
    days = rows.lead_time_days[group] + rows.review_days[group]
    last = rows.cumulative_mean.shape[1]
    place = np.clip(np.ceil(days).astype(np.int64), 1, last) - 1
    scale = np.maximum(days / (place + 1), 1.0)
    return rows.cumulative_mean[group, place] * scale, rows.cumulative_std[group, place] * scale


def matrix_of(lists: pa.ChunkedArray) -> FloatArray:
    """(n, days), the last value repeated where a series' lists are shorter."""
    rows = lists.to_pylist()
    width = max(map(len, rows), default=1)
    return np.array([[*row, *[row[-1]] * (width - len(row))] for row in rows], np.float64).reshape(len(rows), width)
