"""`stockcast orders`: look at orders and decide on them."""

from __future__ import annotations

import getpass
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import uuid4

import orjson
import pyarrow.compute as pc
import typer

from pipelines.contracts import topics
from pipelines.contracts.identifiers import identifier
from pipelines.contracts.tables import LOCATIONS, ORDERS, PRODUCTS
from pipelines.errors import StockcastError, UnknownOrderError
from pipelines.ingestion.times import as_microseconds
from pipelines.io import kafka
from pipelines.io.delta import Tables
from pipelines.operations.cli.options import (
    ConfigOption,
    JsonOption,
    SetOption,
    settings_from,
    show_json,
    show_table,
    tell,
)
from pipelines.operations.settings import Settings
from pipelines.restocking.desk import (
    APPROVE,
    CHANGE,
    CREATE,
    REJECT,
    STATUS_OF,
    Decision,
    check_decision,
    find_order,
)

app = typer.Typer(help="Restock orders.", no_args_is_help=True)

ENTERED = "the restock stream enters it within seconds"

OrderId = Annotated[str, typer.Argument(metavar="ORDER_ID")]


@app.command("list")
def list_orders(
    config: ConfigOption = None,
    overrides: SetOption = None,
    state: Annotated[str | None, typer.Option(help="Only orders in this state.")] = None,
    location: Annotated[str | None, typer.Option(help="Only orders of this location.")] = None,
    sku: Annotated[str | None, typer.Option(help="Only orders of this product.")] = None,
    limit: int = 20,
    json: JsonOption = False,
) -> None:
    """The newest orders."""
    where = None
    for column, value in (("state", state), ("location_id", location), ("sku", sku)):
        if value is not None:
            condition = pc.field(column) == value
            where = condition if where is None else where & condition
    rows = Tables(settings_from(config, overrides)).read(ORDERS, where=where)
    newest = rows.sort_by([("created_at", "descending"), ("order_id", "ascending")]).slice(0, limit).to_pylist()
    if json:
        show_json(newest)
        return
    show_table(
        f"{len(newest)} of {rows.num_rows} orders, newest first",
        ["created", "order", "location", "sku", "units", "state"],
        [
            [row["created_at"], row["order_id"], row["location_id"], row["sku"], row["quantity"], row["state"]]
            for row in newest
        ],
    )


@app.command()
def show(order_id: OrderId, config: ConfigOption = None, overrides: SetOption = None, json: JsonOption = False) -> None:
    """All that is known of an order."""
    order = find_order(Tables(settings_from(config, overrides)), order_id)
    if json:
        show_json(order)
        return
    show_table(f"Order {order_id}", ["what", "value"], [[name, _value(value)] for name, value in order.items()])


@app.command()
def explain(
    order_id: OrderId, config: ConfigOption = None, overrides: SetOption = None, json: JsonOption = False
) -> None:
    """Why it was ordered: the arithmetic in one line."""
    explanation = find_order(Tables(settings_from(config, overrides)), order_id)["explanation"]
    tell(explanation, {"order_id": order_id, "explanation": explanation}, json)


@app.command()
def approve(
    order_id: OrderId,
    config: ConfigOption = None,
    overrides: SetOption = None,
    quantity: Annotated[int | None, typer.Option(min=1, help="Order this many units instead.")] = None,
    reason: Annotated[str | None, typer.Option(help="Kept with the decision.")] = None,
    json: JsonOption = False,
) -> None:
    """Approve a proposal, possibly with another quantity: it is released."""
    _decide(settings_from(config, overrides), APPROVE, order_id, quantity, reason, json)


@app.command()
def change(
    order_id: OrderId,
    quantity: Annotated[int, typer.Option(min=1, help="Propose this many units instead.")],
    reason: Annotated[str, typer.Option(help="Kept with the decision.")],
    config: ConfigOption = None,
    overrides: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Give a proposal another quantity; it goes on waiting for approval."""
    _decide(settings_from(config, overrides), CHANGE, order_id, quantity, reason, json)


@app.command()
def reject(
    order_id: OrderId,
    reason: Annotated[str, typer.Option(help="Kept with the decision.")],
    config: ConfigOption = None,
    overrides: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Reject an order: it no longer counts as on order."""
    _decide(settings_from(config, overrides), REJECT, order_id, None, reason, json)


@app.command()
def create(
    location: Annotated[str, typer.Option(help="Where to.")],
    sku: Annotated[str, typer.Option(help="What.")],
    quantity: Annotated[int, typer.Option(min=1, help="Units.")],
    reason: Annotated[str, typer.Option(help="Kept with the order.")],
    key: Annotated[str | None, typer.Option(help="Makes a repetition harmless: one order for each key.")] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Order by hand; it is released at once."""
    settings = settings_from(config, overrides)
    tables = Tables(settings)
    _check_series(tables, location, sku)
    key = key or uuid4().hex
    with suppress(UnknownOrderError):
        placed = find_order(tables, identifier("m", key))
        done = {"order_id": placed["order_id"], "quantity": placed["quantity"], "placed_before": True}
        tell(f"order {placed['order_id']}: placed before with this key, {placed['quantity']} units", done, json)
        return
    decision = Decision(CREATE, identifier("m", key), getpass.getuser(), _now(), quantity, f"by hand: {reason}")
    event_id = identifier("d", key)
    _send(settings, decision.event(event_id, location_id=location, sku=sku))
    done = {"order_id": decision.order_id, "quantity": quantity, "placed_before": False}
    tell(f"order {decision.order_id}: sent to {topics.ORDER_STATUS}; {ENTERED}", done, json)


def _decide(
    settings: Settings, action: str, order_id: str, quantity: int | None, reason: str | None, json: bool
) -> None:
    """Send the decision as an event; deciding the same twice does no harm."""
    check_decision(find_order(Tables(settings), order_id), action, quantity)
    decision = Decision(action, order_id, getpass.getuser(), _now(), quantity, reason)
    event_id = identifier("d", order_id, STATUS_OF[action], decision.actor, str(decision.at))
    _send(settings, decision.event(event_id))
    done = {"order_id": order_id, "status": STATUS_OF[action], "event_id": event_id}
    tell(f"{STATUS_OF[action]}: sent to {topics.ORDER_STATUS}; {ENTERED}", done, json)


def _send(settings: Settings, event: dict[str, Any]) -> None:
    kafka.send(kafka.producer(settings), topics.ORDER_STATUS, [(event["order_id"], orjson.dumps(event))])


def _check_series(tables: Tables, location: str, sku: str) -> None:
    for table, column, name in ((LOCATIONS, "location_id", location), (PRODUCTS, "sku", sku)):
        known = tables.read(table, (column,)).column(column).to_pylist()
        if known and name not in known:
            raise StockcastError(f"the catalog has no {column} {name}; jobs/load_catalog.py loads it")


def _value(value: Any) -> Any:
    """A value of an order for a table: times in full, whatever has parts as JSON."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    return orjson.dumps(value, default=str).decode() if isinstance(value, list | dict) else value


def _now() -> int:
    return as_microseconds(datetime.now(UTC))
