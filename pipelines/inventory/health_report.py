"""What a night says of the stock: series that may run out and what that costs, stock that is too much or dead.

A table of what holds now; what a night does not find any more, it closes. Alerts tell of what began and what ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.alerts import CRITICAL as CRITICAL_ALERT
from pipelines.contracts.alerts import HIGH, INFO, LOW, Alert
from pipelines.contracts.tables import DAILY_DEMAND, INVENTORY_POLICIES, INVENTORY_POSITIONS, STOCK_HEALTH
from pipelines.inventory.forecast_distribution import FloatArray
from pipelines.inventory.lead_time_demand import LeadTimeDemand
from pipelines.inventory.live_stock import Key
from pipelines.inventory.shared_limits import matrix_of
from pipelines.inventory.stock_health import DEAD_STOCK, OVERSTOCK, RiskLimits, find_excess
from pipelines.inventory.stockout import demand_between, expected_lost_units, stockout_probability
from pipelines.io.delta import Tables
from pipelines.operations.settings import PlanningSettings

STOCKOUT_RISK = "stockout_risk"
TOLD = 20
"""Alerts a night at most that something began, and that it ended: those of the most money."""
LEAST_PROBABILITY = 0.2
_POINTS = 256
_CHUNK = 4096

Row = dict[str, Any]


@dataclass(frozen=True)
class Known:
    """Of each series with a position.

    Attributes:
        on_hand, on_order: units. due: days until the next open order should come; absent where none is open.
        idle_days: days since anything was sold; absent where it is not known for long enough to tell.
    """

    on_hand: Mapping[Key, int]
    on_order: Mapping[Key, int]
    due: Mapping[Key, float]
    idle_days: Mapping[Key, float]


def judge_stock(policies: pa.Table, known: Known, planning: PlanningSettings, limits: RiskLimits) -> list[Row]:
    """Rows of `gold/stock_health` but for when they began, for all series of the policies with a position."""
    out: list[Row] = []
    for start in range(0, policies.num_rows, _CHUNK):
        part = policies.slice(start, _CHUNK)
        keys = list(zip(part["location_id"].to_pylist(), part["sku"].to_pylist(), strict=True))
        places = [place for place, key in enumerate(keys) if key in known.on_hand]
        if places:
            part = part.take(pa.array(places))
            keys = [keys[place] for place in places]
            out += _excess(part, keys, known, planning, limits) + _risk(part, keys, known, limits)
    return out


def _excess(part: pa.Table, keys: list[Key], known: Known, planning: PlanningSettings, limits: RiskLimits) -> list[Row]:
    mean, std = matrix_of(part["cumulative_mean"]), matrix_of(part["cumulative_std"])
    demand = LeadTimeDemand.of_moments(mean[:, -1], std[:, -1], mean, std, _POINTS)
    on_hand = np.array([known.on_hand[key] for key in keys], np.float64)
    idle = np.array([known.idle_days.get(key, 0.0) for key in keys])
    found = find_excess(on_hand, demand, idle, _floats(part, "unit_cost"), planning.dead_after_days)
    rows = []
    for place in np.flatnonzero(found.kind != ""):
        kind, units = str(found.kind[place]), float(found.units[place])
        cover = float(found.cover_days[place])
        said = (
            f"{units:.0f} units, nothing sold for {planning.dead_after_days:g} days or longer"
            if kind == DEAD_STOCK
            else f"{units:.0f} of {on_hand[place]:.0f} units are beyond the 95th percentile of "
            f"{mean.shape[1]} days' demand"
        )
        rows.append(
            _row(part, int(place), keys[place], kind, known)
            | {
                "severity": limits.severity(float(np.nan_to_num(found.value[place]))),
                "cover_days": cover if np.isfinite(cover) else None,
                "units": units,
                "value": _or_none(float(found.value[place])),
                "message": f"{said}{_worth(float(found.value[place]), 'paid for them')}",
            }
        )
    return rows


def _risk(part: pa.Table, keys: list[Key], known: Known, limits: RiskLimits) -> list[Row]:
    margin = np.maximum(_floats(part, "unit_price") - _floats(part, "unit_cost"), 0.0)
    lead_time, correlation = _floats(part, "lead_time_days"), _floats(part, "correlation")
    means, deviations = part["cumulative_mean"].to_pylist(), part["cumulative_std"].to_pylist()
    rows = []
    for place, key in enumerate(keys):
        days = min(known.due.get(key, np.inf), float(lead_time[place]))
        mean, std = demand_between(means[place], deviations[place], 0.0, days, float(correlation[place]))
        there = max(known.on_hand[key], 0)
        probability = stockout_probability(there, mean, std)
        if probability < LEAST_PROBABILITY:
            continue
        lost = expected_lost_units(there, mean, std)
        value = lost * float(margin[place])
        rows.append(
            _row(part, place, key, STOCKOUT_RISK, known)
            | {
                "severity": limits.severity(float(np.nan_to_num(value))),
                "units": lost,
                "value": _or_none(value),
                "probability": probability,
                "message": (
                    f"{probability:.0%} to run out within the {days:.1f} days until the next possible receipt; "
                    f"{lost:.1f} units expected to be lost{_worth(value, 'of margin')}"
                ),
            }
        )
    return rows


def update_health(found: list[Row], before: list[Row], as_of: date) -> list[Row]:
    """The new table: what was found, since when; and what was open before and is not found any more, closed."""
    opened = {_name(row): row["opened_on"] for row in before if row["closed_on"] is None}
    today = {_name(row) for row in found}
    # A night that is run again closes what it closed before.
    gone = [
        {**row, "closed_on": as_of}
        for row in before
        if _name(row) not in today and row["closed_on"] in {None, as_of} and row["opened_on"] <= as_of
    ]
    return [{**row, "opened_on": opened.get(_name(row), as_of), "closed_on": None} for row in found] + gone


def report_health(
    tables: Tables, planning: PlanningSettings, limits: RiskLimits, version: str, as_of: date
) -> list[Row]:
    """Judge the stock by the policies of a version and enter it in `gold/stock_health`; its rows."""
    columns = ("location_id", "sku", "cumulative_mean", "cumulative_std", "unit_cost", "unit_price",
               "lead_time_days", "correlation", "policy_version")  # fmt: skip
    policies = tables.read(INVENTORY_POLICIES, columns, partition=version)
    found = judge_stock(policies, _known(tables, as_of, planning.dead_after_days), planning, limits)
    rows = update_health(found, tables.read(STOCK_HEALTH).to_pylist(), as_of)
    tables.overwrite(STOCK_HEALTH, pa.Table.from_pylist(rows, schema=STOCK_HEALTH.schema))
    return rows


def health_alerts(rows: list[Row], as_of: date, now: datetime) -> list[Alert]:
    """Alerts of what began and of what ended on a day; a night that is run again gives the same."""
    moment = datetime.combine(as_of, time(), UTC)
    begun = sorted(
        (row for row in rows if row["opened_on"] == as_of and row["closed_on"] is None),
        key=lambda row: (-(row["value"] or 0.0), _name(row)),
    )
    ended = sorted((row for row in rows if row["closed_on"] == as_of), key=_name)
    grades = {"low": LOW, "medium": LOW, "high": HIGH, "critical": CRITICAL_ALERT}
    alerts = [
        Alert(
            row["kind"],
            grades[row["severity"]],
            f"{row['location_id']}|{row['sku']}",
            f"{row['kind'].replace('_', ' ').capitalize()} of {row['sku']} at {row['location_id']}: {row['message']}",
            moment,
            now,
            str(row["opened_on"]),
            {name: row[name] for name in ("on_hand", "on_order", "units", "value", "severity")},
        )
        for row in begun[:TOLD]
        if row["severity"] != "low"
    ]
    return (
        alerts
        + [
            Alert(
                f"{row['kind']}_over",
                INFO,
                f"{row['location_id']}|{row['sku']}",
                f"{row['kind'].replace('_', ' ').capitalize()} of {row['sku']} at {row['location_id']} since "
                f"{row['opened_on']} is over",
                moment,
                now,
                str(row["opened_on"]),
            )
            for row in ended
            if row["severity"] != "low"
        ][:TOLD]
    )


def _known(tables: Tables, as_of: date, dead_after_days: float) -> Known:
    end = datetime.combine(as_of, time.max, UTC)
    on_hand: dict[Key, int] = {}
    on_order: dict[Key, int] = {}
    due: dict[Key, float] = {}
    columns = ("location_id", "sku", "on_hand", "on_order", "open_orders")
    for row in tables.read(INVENTORY_POSITIONS, columns).to_pylist():
        key = (row["location_id"], row["sku"])
        on_hand[key], on_order[key] = row["on_hand"], row["on_order"]
        coming = [
            (order["expected_receipt"] - end).total_seconds() / 86_400
            for order in row["open_orders"] or ()
            if order["released"] and order["outstanding"] > 0
        ]
        if ahead := [days for days in coming if days > 0]:
            due[key] = min(ahead)
    return Known(on_hand, on_order, due, _idle_days(tables, as_of, dead_after_days))


def _idle_days(tables: Tables, as_of: date, dead_after_days: float) -> dict[Key, float]:
    rows = tables.read(DAILY_DEMAND, ("location_id", "sku", "date", "demand"), pc.field("date") <= pa.scalar(as_of))
    days = rows["date"].cast(pa.int32())
    sold = pc.if_else(pc.greater(rows["demand"].cast(pa.float64()), 0.0), days, pa.scalar(None, pa.int32()))
    table = pa.table({"location_id": rows["location_id"], "sku": rows["sku"], "day": days, "sold": sold})
    grouped = table.group_by(["location_id", "sku"]).aggregate([("day", "min"), ("sold", "max")])
    today = (as_of - date(1970, 1, 1)).days
    return {
        (row["location_id"], row["sku"]): np.inf if row["sold_max"] is None else float(today - row["sold_max"])
        for row in grouped.to_pylist()
        if today - row["day_min"] >= dead_after_days
    }


def _row(part: pa.Table, place: int, key: Key, kind: str, known: Known) -> Row:
    return {
        "location_id": key[0],
        "sku": key[1],
        "kind": kind,
        "on_hand": known.on_hand[key],
        "on_order": known.on_order[key],
        "policy_version": part["policy_version"][place].as_py(),
    }


def _name(row: Row) -> tuple[str, str, str]:
    return row["kind"], row["location_id"], row["sku"]


def _floats(part: pa.Table, name: str) -> FloatArray:
    return np.asarray(part[name].cast(pa.float64()).to_numpy(), np.float64)


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _worth(value: float, what: str) -> str:
    return f", {value:.2f} {what}" if np.isfinite(value) and value > 0 else ""


__all__ = [
    "DEAD_STOCK",
    "OVERSTOCK",
    "STOCKOUT_RISK",
    "Known",
    "health_alerts",
    "judge_stock",
    "report_health",
    "update_health",
]
