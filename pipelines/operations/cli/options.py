"""Options that every command takes, and how results are shown."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import orjson
import typer
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from pipelines.operations.settings import Settings, load_settings

SHORT = 12
"""Characters."""

ConfigOption = Annotated[
    list[str] | None, typer.Option("--config", metavar="FILE", help="Settings in YAML; repeatable, later wins.")
]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="a.b=value", help="One setting; repeatable.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")]


def settings_from(config: list[str] | None, overrides: list[str] | None) -> Settings:
    """Settings of a command."""
    return load_settings(config or (), overrides or ())


def show_json(document: Any) -> None:
    """Print a document as JSON; times as RFC 3339."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS
    sys.stdout.write(orjson.dumps(document, default=str, option=options).decode() + "\n")


def tell(text: str, document: Any, json: bool) -> None:
    """Print what was done: a line for people, or a document."""
    if json:
        show_json(document)
    else:
        typer.echo(text)


def show_table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Print rows as a table; text from events is shown as it is, never as markup. Short columns are never folded."""
    table = RichTable(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    cells = [[_cell(value) for value in row] for row in rows]
    for place, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[place], int | float) for row in rows)
        short = max((len(row[place]) for row in cells), default=0) <= SHORT
        table.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=short)
    for row in cells:
        table.add_row(*row)
    Console(markup=False, highlight=False).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if hasattr(value, "strftime"):
        return str(value.strftime("%d %b %H:%M"))
    return f"{value:g}" if isinstance(value, float) else str(value)
