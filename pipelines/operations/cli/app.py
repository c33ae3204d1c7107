"""All commands, and the one place where an error becomes an exit code."""

from __future__ import annotations

import logging
import sys
import textwrap

import typer
import yaml
from pydantic import SecretStr

import pipelines.simulation.commands as simulation
from pipelines.errors import StockcastError
from pipelines.operations.cli import (
    api,
    backtest,
    broker,
    dashboard,
    ingest,
    models,
    orders,
    quarantine,
    shipments,
    status,
)
from pipelines.operations.cli.options import ConfigOption, JsonOption, SetOption, settings_from, show_json

WIDTH = 80

app = typer.Typer(
    help="Demand forecasts, stockout flags and restock orders, exactly once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(broker.app, name="broker")
app.add_typer(ingest.app, name="ingest")
app.add_typer(models.app, name="models")
app.add_typer(orders.app, name="orders")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(shipments.app, name="shipments")
app.command("status")(status.status)
app.command("api")(api.api)
app.command("dashboard")(dashboard.dashboard)
app.command("backtest")(backtest.backtest)
simulation.register(app)


@app.command()
def demo(config: ConfigOption = None, overrides: SetOption = None, keep: bool = False) -> None:
    """A fresh chain from events to forecasts, flags and orders; ends by itself.

    --keep leaves the broker running, to look around.
    """
    from pipelines.operations.demo import run_demo

    run_demo(settings_from(config, overrides), keep_broker=keep)


@app.command()
def live(config: ConfigOption = None, overrides: SetOption = None, rate: float = 20.0) -> None:
    """The demo's chain kept running at RATE events a second with its dashboard, until Ctrl-C."""
    from pipelines.operations.demo import run_live_demo

    settings = settings_from(config, overrides)
    run_live_demo(settings, rate, lambda: dashboard.dashboard_process(settings, config or (), overrides or ()))


@app.command("settings")
def show_settings(config: ConfigOption = None, overrides: SetOption = None, json: JsonOption = False) -> None:
    """The settings in force, with what each means."""
    settings = settings_from(config, overrides)
    if json:
        show_json(settings.model_dump(mode="json"))
        return
    for name, info in type(settings).model_fields.items():
        value = getattr(settings, name)
        if not hasattr(value, "model_dump"):
            sys.stdout.write(_setting(f"{name}: {value}", info.description))
            continue
        sys.stdout.write(f"{name}:\n")
        for key, field in type(value).model_fields.items():
            shown = yaml.safe_dump(_shown(getattr(value, key)), default_flow_style=True).removesuffix("...\n").strip()
            sys.stdout.write(_setting(f"  {key}: {shown}", field.description))


def _setting(line: str, note: str | None) -> str:
    """A line of YAML with its meaning: behind it, or above where that would be too wide."""
    if note is None or len(line) + len(note) + 4 <= WIDTH:
        return f"{line}  # {note}\n" if note else f"{line}\n"
    indent = line[: len(line) - len(line.lstrip())]
    above = textwrap.fill(note, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
    return f"{above}\n{line}\n"


def _shown(value: object) -> object:
    if isinstance(value, SecretStr):
        return "(a secret)"
    return list(value) if isinstance(value, tuple) else value


def main() -> None:
    """The console script: 0 done, 2 bad usage or configuration, 1 anything else."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        app()
    except StockcastError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(error.exit_code) from None
