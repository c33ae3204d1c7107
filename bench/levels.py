"""Learnt levels against the tuned classical ones: cost a day in the newer half of a replay of real demand."""

from __future__ import annotations

from textwrap import fill
from typing import Any

import numpy as np

from bench.forecast_data import daily_units
from bench.harness import Options, say
from bench.inventory import _batch
from bench.report import foot
from pipelines.inventory.learned.learning import LEARNT_DAYS, learn_levels
from pipelines.inventory.replay.history import Rolling
from pipelines.inventory.replay.laboratory import Assumed, history_of, rolled
from pipelines.operations.settings import ForecastSettings

EVERY = 5
SCENES = ((2.0, 2.0, 5.0), (0.0, 2.0, 5.0), (2.0, 20.0, 2.0), (0.0, 20.0, 2.0))
"""Money per order, per unit and year held, and per unit missing."""
PACK, UNIT_COST, GENERATIONS = 6, 10.0, 12

Row = dict[str, Any]


def measure(options: Options) -> Row:
    """Forecast the past once; learn and judge under each scene's costs."""
    demand, names, last = daily_units(options.data)
    batch = _batch(demand[::EVERY], names[::EVERY], last)
    forecasts = rolled(batch, LEARNT_DAYS, Rolling(), ForecastSettings(), lambda day: say(f"forecast from {day}"))
    scenes = []
    for order_cost, held, margin in SCENES:
        supply = Assumed(
            pack_size=PACK, order_cost=order_cost, holding_cost=held, unit_cost=UNIT_COST, unit_price=UNIT_COST + margin
        ).supply(len(batch))
        history = history_of(batch, forecasts, supply, LEARNT_DAYS, np.random.default_rng(1))
        learnt = learn_levels(history, supply, np.random.default_rng(1), GENERATIONS)
        say(f"levels: {learnt}")
        found = {judged.method: (judged.total, judged.outcome.fill_rate) for judged in learnt.methods}
        scenes.append({"order_cost": order_cost, "held": held, "margin": margin, "methods": found})
    return {"series": len(batch), "last": str(last), "scenes": scenes}


def section(options: Options, results: Row, command: str) -> str:
    """The table of costs."""
    names = list(results["scenes"][0]["methods"])
    text = f"""{results["series"]} series; learnt and tuned on the older half of {LEARNT_DAYS} days up to
        {results["last"]}, judged on the newer. Lead times of 6, 7, 8 days, packs of {PACK}, unit cost {UNIT_COST:g}.
        Money a day, all series together (holding, ordering, lost margin), and the fill rate."""
    lines = ["| an order costs | held a year | margin | " + " | ".join(names) + " |", "|---:" * (3 + len(names)) + "|"]
    for scene in results["scenes"]:
        cells = " | ".join(f"{cost:.1f} ({fill_rate:.4f})" for cost, fill_rate in scene["methods"].values())
        lines.append(f"| {scene['order_cost']:g} | {scene['held']:g} | {scene['margin']:g} | {cells} |")
    table = "\n".join(lines)
    return f"\n## Levels: learnt against tuned\n\n{fill(' '.join(text.split()), 120)}\n\n{table}\n\n{foot(command)}"
