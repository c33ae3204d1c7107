"""`stockcast orders`: look at orders and decide on them."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import pyarrow.compute as pc
import typer

from pipelines.contracts import topics
from pipelines.contracts.tables import ORDER_OUTBOX, ORDERS
from pipelines.errors import StockcastError
from pipelines.ingestion.times import as_microseconds, format_time
from pipelines.io import kafka
from pipelines.io.delta import Tables
from pipelines.operations.cli.options import (
    ConfigOption,
    JsonOption,
    SetOption,
    settings_from,
    show_json,
    show_table,
)
from pipelines.operations.settings import Settings
from pipelines.restocking.decisions import identifier

app = typer.Typer(help="Restock orders.", no_args_is_help=True)

OrderId = Annotated[str, typer.Argument(metavar="ORDER_ID")]


@app.command("list")
def list_orders(
    config: ConfigOption = None,
    overrides: SetOption = None,
    state: Annotated[str | None, typer.Option(help="Only orders in this state.")] = None,
    location: Annotated[str | None, typer.Option(help="Only orders of this location.")] = None,
    limit: int = 20,
    json: JsonOption = False,
) -> None:
    """The newest orders."""
    where = None
    for column, value in (("state", state), ("location_id", location)):
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
def show(order_id: OrderId, config: ConfigOption = None, overrides: SetOption = None) -> None:
    """All that is known of an order, as JSON."""
    show_json(_find(settings_from(config, overrides), order_id))


@app.command()
def explain(order_id: OrderId, config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Why it was ordered: the arithmetic in one line."""
    typer.echo(_find(settings_from(config, overrides), order_id)["explanation"])


@app.command()
def approve(
    order_id: OrderId,
    config: ConfigOption = None,
    overrides: SetOption = None,
    quantity: Annotated[int | None, typer.Option(min=1, help="Order this many units instead.")] = None,
    reason: Annotated[str | None, typer.Option(help="Kept with the decision.")] = None,
) -> None:
    """Approve an order, possibly with another quantity."""
    _decide(settings_from(config, overrides), order_id, "approved", quantity, reason)


@app.command()
def reject(
    order_id: OrderId,
    reason: Annotated[str, typer.Option(help="Kept with the decision.")],
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Reject an order: it no longer counts as on order."""
    _decide(settings_from(config, overrides), order_id, "rejected", None, reason)


def _find(settings: Settings, order_id: str) -> dict[str, Any]:
    tables = Tables(settings)
    for row in tables.read(ORDERS, where=pc.field("order_id") == order_id).to_pylist():
        return dict(row)
    for row in tables.read(ORDER_OUTBOX, where=pc.field("order_id") == order_id).to_pylist():
        return {"state": "proposed", **orjson.loads(row["payload"])}
    raise StockcastError(f"there is no order {order_id}; `stockcast orders list` shows the newest")


def _decide(settings: Settings, order_id: str, status: str, quantity: int | None, reason: str | None) -> None:
    """Send the decision as an event; deciding twice in the same words is one decision."""
    _find(settings, order_id)
    actor = getpass.getuser()
    event: dict[str, Any] = {
        "event_id": identifier("d", order_id, status, actor, str(quantity), str(reason)),
        "event_time": format_time(as_microseconds(datetime.now(UTC))),
        "order_id": order_id,
        "status": status,
        "actor": actor,
    }
    event |= {name: value for name, value in (("quantity", quantity), ("reason", reason)) if value is not None}
    kafka.send(kafka.producer(settings), topics.ORDER_STATUS, [(order_id, orjson.dumps(event))])
    typer.echo(f"{status}: sent to {topics.ORDER_STATUS}; the restock stream enters it within seconds")
