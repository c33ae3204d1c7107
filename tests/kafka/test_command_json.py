"""Every command that prints has `--json`: one document on standard output, and nothing else there."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import click
import pyarrow as pa
import pytest
import typer

from pipelines.contracts.tables import QUARANTINE
from pipelines.io import kafka, kafka_rights
from pipelines.io.published import FORECASTS, Published, publish
from pipelines.operations.cli import main, models
from pipelines.operations.cli.app import app
from tests.chain import plant_catalog
from tests.unit.test_order_api import plant_orders

WITHOUT = {"api", "dashboard", "demo", "live"}
"""They serve until they are told to end, or tell a story."""
SHOWN_ELSEWHERE = {"shipments show", "shipments reroute"}
"""By `tests/unit/test_shipments_command.py`, on a chain with late shipments."""
REASON = ("--reason", "r")
SALES = "date,store,item,sales\n" + "".join(
    f"{date(2024, 1, 1) + timedelta(days=n)},s,{item},{3 + (n + item) % 7}\n" for n in range(260) for item in (1, 2)
)
EXAMPLES: dict[str, tuple[str, ...]] = {
    "status": (),
    "settings": (),
    "broker start": (),
    "broker status": (),
    "broker stop": ("--set", "home={nowhere}"),
    "broker grant": ("restock", "someone"),
    "orders list": (),
    "orders show": ("o-1",),
    "orders explain": ("o-1",),
    "orders approve": ("o-1",),
    "orders change": ("o-1", "--quantity", "6", *REASON),
    "orders reject": ("o-1", *REASON),
    "orders create": ("--location", "store-0", "--sku", "item-0", "--quantity", "6", *REASON),
    "quarantine list": (),
    "quarantine replay": (),
    "ingest status": (),
    "ingest acknowledge": (),
    "ingest restart-checkpoint": (),
    "models list": (),
    "models promote": ("2",),
    "models rollback": ("--dry-run",),
    "simulate": ("--phase", "history", "--stores", "1", "--products", "2", "--days", "20"),
    "replay": ("{sales}",),
    "backtest": ("{sales}", "--days", "60", "--policy", "usual", "--service", "0.95"),
    "shipments list": (),
}


def commands(group: click.Group | None = None, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """All commands by their full names."""
    for name, command in (group or typer.main.get_command(app)).commands.items():  # type: ignore[union-attr]
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


@pytest.fixture
def stockcast(broker, settings, tables, tmp_path, monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs a command on a small home with a broker behind it; gives its exit code and what it said where."""
    plant_catalog(tables, [("store-0", "item-0")])
    plant_orders(tables, ("o-1", "proposed", 12))
    record = {"topic": "pos.sales", "partition": 0, "offset": 1, "reason": "not_json", "detail": "x" * 200}
    record |= {"key": b"k", "value": b"{" * 300, "quarantined_at": datetime(2026, 1, 1, tzinfo=UTC)}
    tables.append(QUARANTINE, pa.Table.from_pylist([record], schema=QUARANTINE.schema))
    for day in (1, 2):
        at = datetime(2026, 1, day, tzinfo=UTC)
        publish(tables, Published(FORECASTS, f"f-2026010{day}-20260101T000000", at.date(), None, at))
    candidate = SimpleNamespace(version="2", forecast_version="f-2")
    decision = SimpleNamespace(promoted=True, overruled=None, verdicts=["bias: fine"])
    sales = tmp_path / "sales.csv"
    sales.write_text(SALES, encoding="utf-8")
    home = settings.home

    def run(name: str, *arguments: str) -> tuple[int, str, str]:
        if name == "models promote":
            monkeypatch.setattr(models, "_asked", lambda *_: (candidate, decision))
        if name == "broker grant":
            monkeypatch.setattr(kafka_rights, "grant", lambda *_: 5)
        if name.startswith(("orders", "quarantine")):
            monkeypatch.setattr(kafka, "send", lambda *_: None)
        places = {"{nowhere}": tmp_path / "nowhere", "{sales}": sales}
        given = [
            argument if "{" not in argument else argument.format(nowhere=places["{nowhere}"], sales=places["{sales}"])
            for argument in arguments
        ]
        base = ["--set", f"home={broker.home if name in {'broker start', 'broker status'} else home}"]
        base += ["--set", f"kafka.bootstrap_servers={broker.kafka.bootstrap_servers}"]
        monkeypatch.setattr(sys, "argv", ["stockcast", *name.split(), *base, *given])
        monkeypatch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def test_every_command_that_prints_has_it_and_an_example_here():
    found = dict(commands())
    having = {name for name, command in found.items() if any("--json" in option.opts for option in command.params)}
    assert set(found) - having == WITHOUT
    assert having == set(EXAMPLES) | SHOWN_ELSEWHERE


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_command_prints_one_document_for_machines_and_fits_80_columns_for_people(stockcast, name):
    # when a machine asks
    code, out, err = stockcast(name, *EXAMPLES[name], "--json")
    # then there is one document, whatever the exit code
    assert json.loads(out) is not None, err
    assert "error:" not in err
    # and for people nothing is wider than 80 columns, but for sentences, which a terminal breaks
    again, shown, _ = stockcast(name, *EXAMPLES[name])
    assert again == code
    assert shown.strip()
    assert not shown.startswith("{")
    wide = [line for line in shown.splitlines() if len(line.rstrip()) > 80 and "  " in line.strip()]
    assert wide == []


def test_an_error_leaves_standard_output_to_documents(stockcast):
    code, out, err = stockcast("orders show", "o-9", "--json")
    assert (code, out) == (1, "")
    assert "there is no order o-9" in err
