"""Stock in the books that nobody can buy: nothing was sold where something was all but certain to sell."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pipelines.anomalies.registry import RARE, Finding, Look, register, surprise
from pipelines.anomalies.residuals import scores, spread, zero_chance
from pipelines.anomalies.view import Floats, View
from pipelines.inventory.scenarios import LEVEL_CORRELATION

Integers = npt.NDArray[np.int64]


@register
class PhantomStock:
    """The chance of no sale since the last one, by the forecasts of the days in between, while the books say that
    there is stock. Days with an empty shelf do not count, nor the part of today before the last receipt or count."""

    name: ClassVar[str] = "phantom_stock"

    def look(self, view: View) -> Look:
        """See `Rule.look`."""
        days = view.demand
        if not days.days:
            return Look(0)
        on_hand = np.array([view.stock.get(key, 0) for key in days.keys])
        today = np.array([_today(view, key, sold) for key, sold in zip(days.keys, _sold_today(view), strict=True)])
        silent = np.where(np.isnan(today), 0, np.minimum(silent_days(days.demand, days.in_stock), _undisturbed(view)))
        counted = np.arange(days.days)[None, :] >= days.days - silent[:, None]
        known = counted & np.isfinite(days.mean) & np.isfinite(days.variance)
        part = np.nan_to_num(today)
        mean = np.where(known, days.mean, 0).sum(axis=1) + part * np.nan_to_num(days.today_mean)
        deviations = np.sqrt(
            np.column_stack([np.where(known, days.variance, 0), part * np.nan_to_num(days.today_variance)])
        )
        squares, sums = (deviations**2).sum(axis=1), deviations.sum(axis=1)
        variance = (1 - LEVEL_CORRELATION) * squares + LEVEL_CORRELATION * sums**2
        tested = (on_hand > 0) & (mean > 0)
        chance = np.where(tested, zero_chance(np.where(tested, mean, 1.0), variance * spread(scores(days)) ** 2), 1.0)
        rows = np.flatnonzero(-np.log10(np.maximum(chance, 1e-300)) >= RARE)
        return Look(
            int(tested.sum()),
            [
                self._finding(view, int(row), float(chance[row]), int(on_hand[row]), float(mean[row]), int(silent[row]))
                for row in rows
            ],
        )

    def _finding(self, view: View, row: int, chance: float, on_hand: int, mean: float, silent: int) -> Finding:
        key = view.demand.keys[row]
        location, sku = key.split("|")
        cost, price = view.products.get(sku, (np.nan, np.nan))
        a_day = np.nan_to_num(view.demand.today_mean[row]) * (price - cost)
        worth = f", {a_day:,.0f} of margin a day" if np.isfinite(a_day) else ""
        return Finding(
            subject=key,
            surprise=surprise(chance),
            message=f"the books say {on_hand} of {sku} at {location}, but nothing was sold "
            f"{f'for {silent} days' if silent else 'today'} where {mean:.1f} were expected (1 in "
            f"{min(1 / chance, 1e9):,.0f}{worth}): count the shelf",
            details={"on_hand": on_hand, "expected": round(mean, 2), "silent_days": silent, "chance": chance},
        )


def silent_days(demand: Floats, in_stock: Floats) -> Integers:
    """(n,) how many of the last complete days in a row had stock all day, no sale, and are known."""
    quiet = (demand == 0) & (in_stock >= 1)
    if not quiet.shape[1]:
        return np.zeros(len(quiet), int)
    ended = ~quiet[:, ::-1]
    return np.asarray(np.where(ended.any(axis=1), ended.argmax(axis=1), quiet.shape[1]), int)


def _undisturbed(view: View) -> Integers:
    """(n,) how many of the last complete days nothing was brought or corrected on, nor since."""
    days = view.demand
    last = [view.brought.get(key) for key in days.keys]
    return np.array([days.days if at is None else max((view.midnight.date() - at.date()).days - 1, 0) for at in last])


def _sold_today(view: View) -> list[bool]:
    sales = (
        view.lines[(view.lines.kind == "sale") & (view.lines.event_time >= view.midnight)]
        if len(view.lines)
        else view.lines
    )
    sold = set(sales.location_id.astype(str) + "|" + sales.sku.astype(str)) if len(sales) else set()
    return [key in sold for key in view.demand.keys]


def _today(view: View, key: str, sold: bool) -> float:
    """Share of today that counts; NaN where something was sold today."""
    if sold:
        return float("nan")
    brought = view.brought.get(key)
    since = brought if brought is not None and brought > view.midnight else None
    return view.elapsed_share(key.split("|", maxsplit=1)[0], since)
