"""`stockcast shipments`: shipments at risk, what can be done about them, and doing it."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import pyarrow.compute as pc
import typer

from pipelines.contracts import topics
from pipelines.contracts.tables import REROUTES, SHIPMENTS
from pipelines.io import kafka
from pipelines.io.delta import Tables
from pipelines.operations.cli.options import ConfigOption, JsonOption, SetOption, settings_from, show_json, show_table
from pipelines.shipments.routing.alternatives import APPROVED
from pipelines.shipments.routing.approving import find_shipment, options_of, prepare
from pipelines.shipments.routing.offering import command, shown
from pipelines.shipments.tracking import TERMINAL

app = typer.Typer(help="Shipments at risk, and other ways for them.", no_args_is_help=True)

ShipmentId = Annotated[str, typer.Argument(metavar="SHIPMENT_ID")]

COLUMNS = (
    *("shipment_id", "state", "supplier_id", "carrier_id", "mode", "node", "destination", "promised"),
    *("eta", "expected_arrival", "late_probability", "reroute"),
)


@app.command("list")
def list_shipments(
    config: ConfigOption = None,
    overrides: SetOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Also those that nothing was thought of for.")] = False,
    limit: int = 20,
    json: JsonOption = False,
) -> None:
    """Shipments under way for which there are other ways, the most worth first."""
    tables = Tables(settings_from(config, overrides))
    ended = pc.field("state").isin(sorted(TERMINAL))
    under_way = tables.read(SHIPMENTS, COLUMNS, ~ended).to_pylist()
    best = _best(tables, {row["shipment_id"] for row in under_way})
    rows = [
        {**row, "option": best.get(row["shipment_id"], {}).get("option_id"), "worth": _worth(best, row)}
        for row in under_way
        if everything or row["shipment_id"] in best
    ]
    rows.sort(key=lambda row: (-(row["worth"] or 0.0), row["shipment_id"]))
    if json:
        show_json(rows[:limit])
        return
    show_table(
        f"{min(limit, len(rows))} of {len(rows)} shipments, the most to be saved first",
        ["shipment", "state", "at", "for", "promised", "expected", "saves", "way"],
        [
            [row["shipment_id"], row["state"], row["node"], row["destination"], row["promised"],
             row["expected_arrival"] or row["eta"], row["worth"],
             f"{row['reroute']} (approved)" if row["reroute"] else row["option"]]
            for row in rows[:limit]
        ],
    )  # fmt: skip


@app.command()
def show(
    shipment_id: ShipmentId, config: ConfigOption = None, overrides: SetOption = None, json: JsonOption = False
) -> None:
    """Where a shipment is, and what can be done about it."""
    tables = Tables(settings_from(config, overrides))
    shipment, options = find_shipment(tables, shipment_id), options_of(tables, shipment_id)
    if json:
        approved = [{"option": row["option_id"], "approved": _approval(row)} for row in options if row["approved"]]
        show_json({**shipment, "options": [shown(row) for row in options], "approvals": approved})
        return
    show_table(
        f"shipment {shipment_id}",
        ["what", "state"],
        [[name, shipment[name]] for name in (*COLUMNS[1:], "since", "rerouted_eta")],
    )
    show_table(
        "what can be done, the newest and best first",
        ["option", "kind", "what", "worth", "state"],
        [
            [row["option_id"], row["kind"], row["description"], row["net_benefit"], _said(row)]
            for row in options
        ],
    )  # fmt: skip
    proposed = next((row for row in options if row["proposed"] and row["approved"] is None), None)
    if proposed is not None:
        typer.echo(f"to approve the best: {command(proposed)}")


@app.command()
def reroute(
    shipment_id: ShipmentId,
    option: Annotated[str, typer.Argument(metavar="OPTION", help="As `stockcast shipments show` names it.")],
    reason: Annotated[str, typer.Option(help="Kept with the decision.")],
    config: ConfigOption = None,
    overrides: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Approve another way for a shipment: its orders move, or a transfer is ordered."""
    settings = settings_from(config, overrides)
    approval = prepare(Tables(settings), shipment_id, option, (getpass.getuser(), reason), datetime.now(UTC))
    messages = [(approval.order_id, orjson.dumps(approval.event))]
    kafka.send(kafka.producer(settings), topics.ORDER_STATUS, messages)
    if json:
        show_json(approval.response)
        return
    typer.echo(
        f"approved: {approval.option['description']}; order {approval.order_id} hears of it on {topics.ORDER_STATUS}, "
        "and the restock stream enters it within seconds"
    )


def _best(tables: Tables, names: set[str]) -> dict[str, dict[str, Any]]:
    """The best of the newest offers of each shipment."""
    columns = ("shipment_id", "option_id", "state", "net_benefit", "cost", "at")
    best: dict[str, dict[str, Any]] = {}
    for row in tables.read(REROUTES, columns, pc.field("state") != APPROVED).to_pylist():
        if row["shipment_id"] not in names:
            continue
        known = best.get(row["shipment_id"])
        if known is None or (row["at"], row["net_benefit"] or 0.0) > (known["at"], known["net_benefit"] or 0.0):
            best[row["shipment_id"]] = row
    return best


def _worth(best: dict[str, dict[str, Any]], row: dict[str, Any]) -> float | None:
    worth = best.get(row["shipment_id"], {}).get("net_benefit")
    return None if worth is None else round(worth, 2)


def _approval(option: dict[str, Any]) -> dict[str, Any]:
    return {name: option["approved"][name] for name in ("actor", "at", "arrival", "reason")}


def _said(option: dict[str, Any]) -> str:
    if option["approved"] is None:
        return "proposed" if option["proposed"] else "offered"
    return f"approved by {option['approved']['actor']}"
