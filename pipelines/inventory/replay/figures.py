"""Plots of a replay: service against stock, and what was ordered day by day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pipelines.forecasting.figures import new_figure
from pipelines.inventory.replay.results import Outcome


def service_figure(outcomes: Sequence[Outcome]) -> Figure:
    """Average stock by fill rate, and achieved by wanted cycle service; a line a policy."""
    figure = new_figure(10, 4)
    stock, service = figure.subplots(1, 2)
    figure.subplots_adjust(wspace=0.25)
    for name in dict.fromkeys(outcome.name for outcome in outcomes):
        chosen = [outcome for outcome in outcomes if outcome.name == name]
        stock.plot([o.fill_rate for o in chosen], [o.average_stock for o in chosen], marker="o", label=name)
        service.plot([o.service for o in chosen], [o.cycle_service for o in chosen], marker="o", label=name)
    wanted = [outcome.service for outcome in outcomes]
    service.plot([min(wanted), max(wanted)], [min(wanted), max(wanted)], color="grey", linewidth=1, linestyle=":")
    stock.set(xlabel="fill rate", ylabel="average stock, units a series", title="Stock for service")
    service.set(xlabel="cycle service wanted", ylabel="achieved", title="Service wanted and achieved")
    stock.legend()
    return figure


def orders_figure(outcomes: Sequence[Outcome], changed: Sequence[Outcome], start: date, weekly: bool = True) -> Figure:
    """Units ordered by week, as it was and as it is with what was changed; a panel a policy, at most four."""
    pairs = [(base, other) for base, other in zip(outcomes, changed, strict=True)][:4]
    figure = new_figure(10, 2.5 * max(len(pairs), 1))
    panels = np.atleast_1d(figure.subplots(max(len(pairs), 1), 1))
    step = 7 if weekly else 1
    for panel, (base, other) in zip(panels, pairs, strict=False):
        length = len(base.ordered) // step * step
        days = [start + timedelta(days=day) for day in range(0, length, step)]
        for outcome, label in ((base, "as it was"), (other, "changed")):
            panel.step(days, outcome.ordered[:length].reshape(-1, step).sum(axis=1), where="post", label=label)
        panel.set(title=f"{base.name}, {base.service:g}", ylabel="units ordered a week" if weekly else "units a day")
    panels[0].legend()
    return figure


def save(figure: Figure, path: Path) -> None:
    """As PNG."""
    figure.savefig(path, format="png")
