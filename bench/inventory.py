"""Inventory: the stock that policies need for equal service, in a replay of half a year of real demand."""

from __future__ import annotations

import time
from datetime import date, timedelta
from textwrap import fill
from typing import Any

import numpy as np

from bench.forecast_data import daily_units
from bench.harness import Options, say
from bench.report import foot
from pipelines.forecasting.series import SeriesBatch
from pipelines.inventory.lead_time_demand import Protection
from pipelines.inventory.level_correlation import level_correlation
from pipelines.inventory.policies import Terms
from pipelines.inventory.replay.candidates import Clairvoyant, Planned, UsualRule
from pipelines.inventory.replay.forecast_errors import errors_of
from pipelines.inventory.replay.history import (
    History,
    Rolling,
    RollingForecasts,
    forecast_rolling,
    sampled_lead_times,
)
from pipelines.inventory.replay.results import Outcome, replay, stock_at
from pipelines.inventory.service_correction import learn_correction

LEAD_TIMES = (6, 7, 8)
PACK = 6
FILL_RATES = (0.97, 0.98, 0.99, 0.995)
SERVICE = (0.3, 0.45, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 0.998, 0.999, 0.9999)
WIDE = (*SERVICE, 1 - 1e-5, 1 - 1e-7, 1 - 1e-10)
"""The rules without a distribution need absurd service levels to reach a fill rate of 0.995."""
TARGETS = (0.9, 0.95, 0.97, 0.98, 0.99)
SETTLING_DAYS = 35
HALF_YEAR = 184
SCENES = {"orders cost nothing": 0.0, "an order costs 2": 2.0}
UNIT_COST, HOLDING_RATE = 10.0, 0.2

Row = dict[str, Any]


def measure(options: Options) -> Row:
    """Learn from the half year before, then replay the last one."""
    demand, names, last = daily_units(options.data)
    batch = _batch(demand, names, last)
    measured = last - timedelta(days=HALF_YEAR - 1)
    before = measured - timedelta(days=HALF_YEAR)
    started = time.perf_counter()
    first = before - timedelta(days=SETTLING_DAYS + 1)
    forecasts = forecast_rolling(batch, first, last, Rolling(), progress=lambda day: say(f"forecast from {day}"))
    forecast_seconds = time.perf_counter() - started
    learning = _history(batch.until(measured - timedelta(days=1)), forecasts, before, seed=1)
    testing = _history(batch, forecasts, measured, seed=2)
    rho = level_correlation(*errors_of(learning))
    results: Row = {"series": len(batch), "days": HALF_YEAR, "last": str(last), "correlation": rho}
    results |= {"forecast_seconds": forecast_seconds, "origins": len(forecasts.origins), "scenes": {}}
    for scene, order_cost in SCENES.items():
        results["scenes"][scene] = _scene(learning, testing, rho, order_cost)
        say(f"inventory, {scene}: {results['scenes'][scene]['stock']}")
    results["speed"] = _speed(testing, rho)
    return results


def _scene(learning: History, testing: History, rho: float, order_cost: float) -> Row:
    series = len(testing.batch)
    terms, protection = _terms(series, order_cost), _protection(series)
    method = "periodic_base_stock" if order_cost == 0 else "order_up_to"
    plain = Planned("planned", method, correlation=rho)
    tried = replay(learning, [plain], protection, terms, SERVICE)
    classes = _classes(learning)
    correction = learn_correction(
        SERVICE,
        [outcome.totals["served_cycles"] for outcome in tried],
        [outcome.totals["cycles"] for outcome in tried],
        classes,
    )
    ours = Planned("corrected", method, correlation=rho, adjust=lambda wanted: correction.plan_with(wanted, classes))
    usual = [UsualRule("usual"), UsualRule("usual, lead time taken as certain", lead_time_spread=False)]
    outcomes = replay(testing, [plain, ours], protection, terms, SERVICE)
    outcomes += replay(testing, [*usual, Clairvoyant("clairvoyant")], protection, terms, _centred())
    names = ("usual", "usual, lead time taken as certain", "planned", "corrected", "clairvoyant")
    best = np.fmin(stock_at(outcomes, names[0], FILL_RATES), stock_at(outcomes, names[1], FILL_RATES))
    return {
        "stock": {name: stock_at(outcomes, name, FILL_RATES).tolist() for name in names},
        "saved": {name: (1 - stock_at(outcomes, name, FILL_RATES) / best).tolist() for name in names},
        "orders": {name: _orders_at(outcomes, name, 0.99) for name in names},
        "cycle_service": {
            name: {str(goal): _achieved(outcomes, name, goal) for goal in TARGETS}
            for name in ("usual", "planned", "corrected")
        },
    }


def _speed(history: History, rho: float) -> Row:
    """Twenty policies: levels for every evening, and the replay itself, a day's arithmetic compiled before."""
    series = len(history.batch)
    terms, protection = _terms(series, 0.0), _protection(series)
    service = tuple(np.linspace(0.8, 0.99, 10))
    candidates = [Planned(name, name, correlation=rho) for name in ("periodic_base_stock", "order_up_to")]
    started = time.perf_counter()
    outcomes = replay(history, candidates, protection, terms, service)
    return {"policies": len(outcomes), "days": history.days, "seconds": time.perf_counter() - started}


def _batch(demand: np.ndarray, names: list[tuple[str, str]], last: date) -> SeriesBatch:
    locations, skus = zip(*names, strict=True)
    return SeriesBatch(
        location_id=locations,
        sku=skus,
        category=skus,
        timezone=("UTC",) * len(names),
        end=last,
        demand=demand,
        promotion=np.zeros_like(demand),
        start=np.zeros(len(names), np.int64),
    )


def _history(batch: SeriesBatch, forecasts: RollingForecasts, measured: date, seed: int) -> History:
    start = measured - timedelta(days=SETTLING_DAYS)
    days = (batch.end - start).days + 1
    lead_time = sampled_lead_times(LEAD_TIMES, len(batch), days, np.random.default_rng(seed))
    return History(batch, forecasts, lead_time, start, measured)


def _protection(series: int) -> Protection:
    return Protection.observed(np.tile(np.asarray(LEAD_TIMES, float), (series, 1)), np.ones(series))


def _terms(series: int, order_cost: float) -> Terms:
    values = {
        "service_level": 0.95, "pack_size": PACK, "minimum_order": 1.0, "order_cost": order_cost,
        "holding_cost": HOLDING_RATE * UNIT_COST, "unit_cost": UNIT_COST, "unit_price": 1.5 * UNIT_COST,
        "shelf_life_days": np.nan, "review_days": 1.0,
    }  # fmt: skip
    return Terms(**{name: np.full(series, float(value)) for name, value in values.items()})


def _classes(history: History) -> list[str]:
    """Thirds of the series by what they sold in the learning half year."""
    sold = history.demand.sum(axis=1)
    third = np.searchsorted(np.quantile(sold, [1 / 3, 2 / 3]), sold)
    return [("slow", "middle", "fast")[place] for place in third]


def _centred() -> tuple[float, ...]:
    return (0.05, 0.1, 0.2, *WIDE)


def _achieved(outcomes: list[Outcome], name: str, goal: float) -> float:
    return next(item.cycle_service for item in outcomes if item.name == name and item.service == goal)


def _orders_at(outcomes: list[Outcome], name: str, fill_rate: float) -> float:
    """Orders a series and day at that fill rate, interpolated."""
    chosen = sorted((item for item in outcomes if item.name == name), key=lambda item: item.fill_rate)
    share = [float(item.totals["orders"].sum() / item.totals["days"].sum()) for item in chosen]
    return float(np.interp(fill_rate, [item.fill_rate for item in chosen], share))


def section(options: Options, results: Row, command: str) -> str:
    """The tables of stock at equal fill rate, and of achieved cycle service."""
    what = "real daily series" if options.data else "simulated series (trend, week, year, Poisson noise)"
    text = f"""{results["series"]} {what}; {results["days"]} days up to {results["last"]}, day by day:
        lead times of {", ".join(map(str, LEAD_TIMES))} days, drawn for each order; packs of {PACK}; reviewed every
        evening; what is not there is lost. Forecast every week by `pooled` from nothing but the past. Usual: mean and
        deviation of the last 28 days, every evening anew, and normal z; with and without the deviation of the lead
        time. Planned: quantile of the demand over observed lead times and review; the errors' correlation
        ({results["correlation"]:.3f}) and the correction of service are learnt in a replay of the half year before.
        Clairvoyant: knows the demand to come, not the lead times. Stock: units on hand in the evening, a series;
        every rule's curve of fill rate and stock is traced over service levels and read at equal fill rates. Saved:
        against the better usual rule."""
    tables = "\n\n".join(_scene_tables(scene, found) for scene, found in results["scenes"].items())
    speed = results["speed"]
    pace = f"""{speed["policies"]} policies × {results["series"]} series × {speed["days"]} days, levels from sampled
        paths and replay: {speed["seconds"]:.0f} s in one process. Forecasts of {results["origins"]} weeks:
        {results["forecast_seconds"]:.0f} s."""
    return f"""
## Inventory: stock for equal service, replayed

{fill(" ".join(text.split()), 120)}

{tables}

{fill(" ".join(pace.split()), 120)}

{foot(command)}"""


def _scene_tables(scene: str, found: Row) -> str:
    heads = " | ".join(f"stock at {level:g} | saved" for level in FILL_RATES)
    lines = [f"| {scene} | {heads} | orders a day |", "|---|" + "---:|" * (2 * len(FILL_RATES) + 1)]
    for name, stock in found["stock"].items():
        cells = " | ".join(
            f"{units:.1f} | {100 * saved:.1f} %" for units, saved in zip(stock, found["saved"][name], strict=True)
        )
        lines.append(f"| {name} | {cells} | {found['orders'][name]:.2f} |")
    goals = ["| cycle service wanted | " + " | ".join(f"{goal:g}" for goal in TARGETS) + " |"]
    goals.append("|---|" + "---:|" * len(TARGETS))
    for name, achieved in found["cycle_service"].items():
        cells = " | ".join(f"{achieved[str(goal)]:.4f}" for goal in TARGETS)
        goals.append(f"| {name}: achieved | {cells} |")
    return "\n".join(lines) + "\n\n" + "\n".join(goals)
