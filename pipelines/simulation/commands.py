"""`stockcast simulate` and `stockcast replay`."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from pipelines.errors import StockcastError, UsageError
from pipelines.operations.settings import Settings, load_settings
from pipelines.simulation import store
from pipelines.simulation.chain import write_catalog
from pipelines.simulation.history import simulate_history
from pipelines.simulation.live import LiveOptions, simulate_live
from pipelines.simulation.plan import Faults, Plan
from pipelines.simulation.replay import ReplayOptions, replay_file
from pipelines.simulation.showing import shown_progress


class Phase(StrEnum):
    """What to simulate."""

    HISTORY = "history"
    LIVE = "live"
    BOTH = "both"


Config = Annotated[
    list[str] | None, typer.Option("--config", metavar="FILE", help="Settings in YAML; repeatable, later wins.")
]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="a.b=value", help="One setting; repeatable.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")]
Rate = Annotated[float | None, typer.Option("--rate", help="Events per second; 0: as fast as possible.")]


def register(app: typer.Typer) -> None:
    """Add `simulate` and `replay` to the command line."""
    app.command("simulate")(simulate)
    app.command("replay")(replay)


def simulate(  # noqa: PLR0913 - one parameter an option
    *,
    phase: Annotated[Phase, typer.Option(help="History, live, or one after the other.")] = Phase.BOTH,
    stores: Annotated[int | None, typer.Option(help="Stores of the chain. Default: 5.")] = None,
    products: Annotated[int | None, typer.Option(help="Products per store. Default: 20.")] = None,
    days: Annotated[int | None, typer.Option(help="Days of history. Default: 400.")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed, another chain. Default: 7.")] = None,
    end: Annotated[
        str | None, typer.Option(metavar="DATE", help="The last day of history, for repeatable runs.")
    ] = None,
    live_days: Annotated[
        int, typer.Option(help="Days left to the live phase, today included, where --end is not given.")
    ] = 2,
    faults: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=SHARE,...",
            help="Shares of duplicates, late, malformed and conflicts, or none. "
            "Default: duplicates=0.02,late=0.03,malformed=0.005,conflicts=0.0002.",
        ),
    ] = None,
    rate: Rate = 200.0,
    until: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Live ends at this time, or at `now`. Default: goes on."),
    ] = None,
    max_events: Annotated[int | None, typer.Option(help="Live ends after so many messages.")] = None,
    orders_from: Annotated[
        str, typer.Option(help="Where live starts to read restock orders: saved, beginning or end.")
    ] = "saved",
    catalog_only: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Only write the catalog's CSV files there.")
    ] = None,
    config: Config = None,
    overrides: Overrides = None,
    json: Json = False,
) -> None:
    """Simulate a retail chain: send its history to Kafka, then go on live and answer restock orders.

    A home holds one chain: live goes on where the last phase ended. Load the chain's catalog from
    HOME/simulation/catalog before its events are taken in.
    """
    sizes = {"stores": stores, "products": products, "days": days, "seed": seed}
    with _exit_codes(json) as console:
        settings = load_settings(config or (), overrides or ())
        asked: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
        if faults is not None:
            asked["faults"] = Faults.parse(faults)
        if catalog_only is not None:
            write_catalog(catalog_only, _plan(None, asked, end, live_days))
            console.print(f"catalog written to {catalog_only}", soft_wrap=True)
            _say({"catalog": str(catalog_only)}, json)
            return
        options = LiveOptions(rate or None, _until(until), max_events, orders_from)
        plan = _plan(store.saved_plan(settings), asked, end, live_days)
        _say(_simulate(settings, plan, phase, options, console), json)


def replay(  # noqa: PLR0913 - one parameter an option
    *,
    file: Annotated[Path, typer.Argument(help="CSV or Parquet: date, store, item, sales.")],
    first: Annotated[str | None, typer.Option("--from", metavar="DATE", help="The first day.")] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="DATE", help="The last day.")] = None,
    locations: Annotated[str | None, typer.Option(help="Only these, comma-separated.")] = None,
    skus: Annotated[str | None, typer.Option(help="Only these, comma-separated.")] = None,
    rate: Rate = 0.0,
    opening_stock: Annotated[
        int | None, typer.Option(metavar="N", help="Count N units of each series just before its first sale.")
    ] = None,
    config: Config = None,
    overrides: Overrides = None,
    json: Json = False,
) -> None:
    """Send real sales to Kafka: one `pos.sales` event per row. Sending a file twice does no harm."""
    with _exit_codes(json) as console:
        settings = load_settings(config or (), overrides or ())
        options = ReplayOptions(
            first=_date(first, "--from"),
            last=_date(last, "--to"),
            locations=_items(locations),
            skus=_items(skus),
            rate=rate or None,
            opening_stock=opening_stock,
        )
        started = time.monotonic()
        with _stoppable() as stop, shown_progress(console) as progress:
            summary = replay_file(settings, file, options, progress, stop)
        console.print(f"replay: {summary} ({time.monotonic() - started:.1f} s)", soft_wrap=True)
        _say(asdict(summary), json)


def _simulate(settings: Settings, plan: Plan, phase: Phase, live: LiveOptions, console: Console) -> dict[str, Any]:
    started = time.monotonic()
    with _stoppable() as stop, shown_progress(console) as progress:
        if phase in (Phase.HISTORY, Phase.BOTH):
            manifest = simulate_history(settings, plan, progress, stop)
        if phase in (Phase.LIVE, Phase.BOTH):
            manifest = simulate_live(settings, plan, live, progress, stop)
    seconds = time.monotonic() - started
    console.print(f"simulate: {manifest.summary()} so far ({seconds:.1f} s)", highlight=False, soft_wrap=True)
    console.print(f"catalog: {store.catalog_folder(settings)}", highlight=False, soft_wrap=True)
    return {**manifest.as_dict(), "catalog": str(store.catalog_folder(settings))}


def _plan(saved: Plan | None, asked: dict[str, Any], end: str | None, live_days: int) -> Plan:
    """The plan that was asked for; what was not asked for is as in the home's chain, or the default."""
    last_day = _date(end, "--end")
    if saved is not None:
        cutoff = saved.cutoff if last_day is None else last_day + timedelta(days=1)
        return replace(saved, cutoff=cutoff, **asked)
    if last_day is not None:
        return Plan(cutoff=last_day + timedelta(days=1), **asked)
    return Plan.before(datetime.now(UTC).date(), live_days, **asked)


def _date(text: str | None, option: str) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} {text}: expected a date, YYYY-MM-DD") from None


def _until(text: str | None) -> datetime | None:
    if text is None or text == "now":
        return None if text is None else datetime.now(UTC)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--until {text}: expected now, or a time such as 2026-01-31T12:00:00Z") from None


def _items(text: str | None) -> tuple[str, ...]:
    return tuple(filter(None, (item.strip() for item in (text or "").split(","))))


def _say(document: dict[str, Any], json: bool) -> None:
    """The one document of standard output, where machines asked for it."""
    if json:
        typer.echo(orjson.dumps(document, default=str, option=orjson.OPT_INDENT_2).decode())


@contextmanager
def _exit_codes(json: bool) -> Iterator[Console]:
    """Turn errors into exit codes: 2 bad usage, 130 interrupted, 1 anything else that a person can mend.

    Yields:
        Where people are told how it goes: not on standard output, where machines want a document there.
    """
    try:
        yield Console(stderr=json)
    except StockcastError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from None


@contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, so that a phase ends between two messages."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
