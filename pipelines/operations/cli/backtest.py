"""`stockcast backtest`: the past once more, day by day, under several policies; and what if."""

from __future__ import annotations

import re
import sys
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from pipelines.errors import UsageError
from pipelines.inventory.policies import get_policy
from pipelines.inventory.replay.candidates import Candidate, Clairvoyant, Planned, UsualRule
from pipelines.inventory.replay.forecast_errors import errors_of
from pipelines.inventory.replay.history import History, Rolling
from pipelines.inventory.replay.laboratory import (
    Assumed,
    Supply,
    WhatIf,
    changed,
    difference,
    from_file,
    from_home,
    history_of,
    rolled,
)
from pipelines.inventory.replay.results import Outcome, replay
from pipelines.io.delta import Tables
from pipelines.operations.cli.options import ConfigOption, JsonOption, SetOption, settings_from, show_json, show_table
from pipelines.operations.settings import Settings

USUAL, CLAIRVOYANT = "usual", "clairvoyant"
_RANGE = re.compile(r"(\d{1,3})(?:-(\d{1,3}))?")
_OUTAGE = re.compile(r"(\d{4}-\d{2}-\d{2}):(\d{1,3})")

File = Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Sales as for `replay`; none: the home's tables.")]
DaysOption = Annotated[int, typer.Option("--days", help="The last days of the history that are replayed.")]
PolicyOption = Annotated[
    list[str] | None,
    typer.Option("--policy", help=f"A registered policy, {USUAL} or {CLAIRVOYANT}; repeatable."),
]
ServiceOption = Annotated[str, typer.Option("--service", help="Service levels wanted, comma-separated.")]
LeadTimeOption = Annotated[str, typer.Option("--lead-time", help="Of a file's orders, days: 7 or 6-8.")]
PackOption = Annotated[int, typer.Option("--pack", help="Units per pack of a file's products.")]
MinimumOption = Annotated[int, typer.Option("--minimum", help="Smallest order of a file's products, units.")]
OrderCostOption = Annotated[float, typer.Option("--order-cost", help="Money per order of a file's products.")]
HoldingOption = Annotated[float, typer.Option("--holding-cost", help="Money per unit and year, likewise.")]
MarginOption = Annotated[float, typer.Option("--margin", help="Money lost with a unit that is missing, likewise.")]
PlotOption = Annotated[Path | None, typer.Option("--plot", metavar="PNG", help="Where to draw service and stock.")]
IfService = Annotated[float | None, typer.Option("--if-service", help="What if this service were wanted?")]
IfLeadTime = Annotated[str | None, typer.Option("--if-lead-time", help="What if orders took so long: 9 or 8-12?")]
IfOutage = Annotated[
    str | None, typer.Option("--if-outage", metavar="DAY:N", help="What if nothing were shipped for N days from DAY?")
]


def backtest(  # noqa: PLR0913, PLR0917 - one parameter an option
    file: File = None,
    days: DaysOption = 180,
    policy: PolicyOption = None,
    service: ServiceOption = "0.9,0.95,0.98",
    lead_time: LeadTimeOption = "6-8",
    pack: PackOption = 6,
    minimum: MinimumOption = 0,
    order_cost: OrderCostOption = 0.0,
    holding_cost: HoldingOption = 0.0,
    margin: MarginOption = 0.0,
    plot: PlotOption = None,
    if_service: IfService = None,
    if_lead_time: IfLeadTime = None,
    if_outage: IfOutage = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the lead times that are drawn.")] = 1,
    config: ConfigOption = None,
    overrides: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Replay the last days under several policies: service, stock, orders and cost.

    Forecasts are made anew every week from nothing but the past. The --if options replay once more with one thing
    changed, and show what that does to the orders.
    """
    settings = settings_from(config, overrides)
    levels = _levels(service)
    if if_service is not None and not 0 < if_service < 1:
        raise UsageError(f"--if-service is {if_service:g}; expected between 0 and 1")
    what = WhatIf(
        if_service,
        None if if_lead_time is None else _range(if_lead_time, "--if-lead-time"),
        None if if_outage is None else _outage(if_outage),
    )
    names = policy or ["periodic_base_stock" if order_cost == 0 else "order_up_to", USUAL]
    for name in names:
        if name not in {USUAL, CLAIRVOYANT}:
            get_policy(name)
    assumed = Assumed(
        lead_times=_range(lead_time, "--lead-time"),
        pack_size=pack,
        minimum_order=minimum,
        order_cost=order_cost,
        holding_cost=holding_cost,
        unit_price=margin,
    )
    history, supply = _history(file, days, assumed, settings, seed)
    correlation = _correlation(history)
    candidates = [_candidate(name, correlation) for name in names]
    outcomes = replay(history, candidates, supply.protection, supply.terms, levels)
    document: dict[str, Any] = {
        "from": history.measured,
        "to": history.batch.end,
        "series": len(history.batch),
        "policies": [outcome.summary(supply.terms) for outcome in outcomes],
    }
    other: list[Outcome] = []
    if what != WhatIf():
        scene, terms = changed(history, supply, what, np.random.default_rng(seed))
        wanted = levels if what.service_level is None else (what.service_level,) * len(levels)
        other = replay(scene, candidates, terms.protection, terms.terms, wanted)
        document["what_if"] = [difference(base, after) for base, after in zip(outcomes, other, strict=True)]
    if plot is not None:
        document["plots"] = _draw(plot, outcomes, other, history)
    if json:
        show_json(document)
        return
    _show(document)


def _history(file: Path | None, days: int, assumed: Assumed, settings: Settings, seed: int) -> tuple[History, Supply]:
    engine = settings.forecast.engine
    if file is not None:
        batch = from_file(file)
        supply = assumed.supply(len(batch))
    else:
        batch, supply = from_home(Tables(settings))

    def told(day: date) -> None:
        sys.stderr.write(f"\rforecast the past as of {day}")
        sys.stderr.flush()

    progress = told if sys.stderr.isatty() else lambda _: None
    forecasts = rolled(batch, days, Rolling(engine=engine), settings.forecast, progress)
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    return history_of(batch, forecasts, supply, days, np.random.default_rng(seed)), supply


def _correlation(history: History) -> float:
    """From the forecasts that were over before the measured days: nothing is learnt from what is tested."""
    from pipelines.inventory.level_correlation import level_correlation

    known = history.batch.until(history.measured)
    earlier = History(known, history.forecasts, history.lead_time, history.start, history.measured)
    return level_correlation(*errors_of(earlier))


def _candidate(name: str, correlation: float) -> Candidate:
    if name == USUAL:
        return UsualRule(name)
    if name == CLAIRVOYANT:
        return Clairvoyant(name)
    return Planned(name, name, correlation=correlation)


def _draw(path: Path, outcomes: list[Outcome], other: list[Outcome], history: History) -> list[str]:
    from pipelines.inventory.replay.figures import orders_figure, save, service_figure

    save(service_figure(outcomes), path)
    drawn = [str(path)]
    if other:
        second = path.with_name(f"{path.stem}-what-if{path.suffix}")
        save(orders_figure(outcomes, other, history.start), second)
        drawn.append(str(second))
    return drawn


def _show(document: dict[str, Any]) -> None:
    rows = document["policies"]
    # Eighty columns have room for what was lost in units or in money, not for both.
    last = ("cost", "cost") if any(row["cost"] for row in rows) else ("lost", "lost_units")
    show_table(
        f"{document['series']} series, {document['from']} to {document['to']}",
        ["policy", "wanted", "cycle", "fill", "stock", "out", "orders", last[0]],
        [
            [
                row["policy"],
                f"{row['service_level']:g}",
                f"{row['cycle_service']:.3f}",
                f"{row['fill_rate']:.4f}",
                f"{row['average_stock']:.1f}",
                f"{row['stockout_days']:,}",
                f"{row['orders']:,}",
                f"{row[last[1]]:,.0f}",
            ]
            for row in rows
        ],
    )
    if "what_if" in document:
        show_table(
            "What if: the difference it makes",
            ["policy", "wanted", "orders", "units", "stock", "fill", "out", "lost"],
            [
                [
                    row["policy"],
                    f"{row['wanted_before']:g}→{row['service_level']:g}",
                    f"{row['orders']:+,}",
                    f"{row['ordered_units']:+,}",
                    f"{row['average_stock']:+.1f}",
                    f"{row['fill_rate']:+.4f}",
                    f"{row['stockout_days']:+,}",
                    f"{row['lost_units']:+,}",
                ]
                for row in document["what_if"]
            ],
        )
    sys.stdout.write("stock: units a series in the evening; out: days with demand lost, summed\n")
    for path in document.get("plots", ()):
        sys.stdout.write(f"drawn: {path}\n")


def _levels(text: str) -> tuple[float, ...]:
    try:
        levels = tuple(float(word) for word in text.split(","))
    except ValueError:
        levels = ()
    if not levels or not all(0 < level < 1 for level in levels):
        raise UsageError(f"--service is {text!r}; expected numbers between 0 and 1, such as 0.9,0.95")
    return levels


def _range(text: str, option: str) -> tuple[int, ...]:
    found = _RANGE.fullmatch(text.strip())
    if not found or int(found[2] or found[1]) < int(found[1]):
        raise UsageError(f"{option} is {text!r}; expected days such as 7 or 6-8")
    return tuple(range(int(found[1]), int(found[2] or found[1]) + 1))


def _outage(text: str) -> tuple[date, int]:
    found = _OUTAGE.fullmatch(text.strip())
    try:
        if found and int(found[2]) > 0:
            return date.fromisoformat(found[1]), int(found[2])
    except ValueError:
        pass
    raise UsageError(f"--if-outage is {text!r}; expected a day and a number of days, such as 2024-05-01:14")
