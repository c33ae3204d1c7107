"""What a night says of the stock: begun once, carried on while it lasts, closed by itself."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest

from pipelines.contracts.tables import DAILY_DEMAND, INVENTORY_POLICIES, INVENTORY_POSITIONS, STOCK_HEALTH
from pipelines.inventory.health_report import Known, health_alerts, judge_stock, report_health, update_health
from pipelines.inventory.stock_health import RiskLimits
from pipelines.operations.settings import PlanningSettings
from tests.unit.test_shared_limits import policy

AS_OF = date(2026, 3, 1)
LIMITS = RiskLimits(10, 100, 1000)
NOW = datetime(2026, 3, 2, 3, tzinfo=UTC)


def judged(levels, due=None, idle=None, **changes):
    rows = [policy(location, **changes) for location in levels]
    known = Known(
        {(location, "a"): level for location, level in levels.items()},
        {(location, "a"): 0 for location in levels},
        {(location, "a"): days for location, days in (due or {}).items()},
        {(location, "a"): days for location, days in (idle or {}).items()},
    )
    found = judge_stock(pa.Table.from_pylist(rows, schema=INVENTORY_POLICIES.schema), known, PlanningSettings(), LIMITS)
    return {(row["location_id"], row["kind"]): row for row in found}


def test_risk_overstock_and_dead_stock_are_told_apart():
    # given 4 units a day: nearly nothing, enough, ten weeks, and much of what nobody buys
    found = judged({"s-1": 3, "s-2": 40, "s-3": 280, "s-4": 20}, idle={"s-4": 100.0})
    assert set(found) == {("s-1", "stockout_risk"), ("s-3", "overstock"), ("s-4", "dead_stock")}
    # then the risk is the demand of three days' lead time beyond what is there, and its margin of 5 a unit
    risk = found["s-1", "stockout_risk"]
    assert risk["units"] == pytest.approx(9.0, abs=0.1)
    assert risk["value"] == pytest.approx(5 * risk["units"])
    assert risk["severity"] == "medium"
    # and the excess is what is beyond the horizon's 95th percentile, by what was paid: (280 - 130) x 10
    assert found["s-3", "overstock"]["value"] == pytest.approx(1500, abs=30)
    assert found["s-3", "overstock"]["severity"] == "critical"
    assert found["s-3", "overstock"]["cover_days"] == pytest.approx(70)
    assert found["s-4", "dead_stock"]["units"] == 20


def test_an_order_that_comes_sooner_lowers_the_risk():
    sooner = judged({"s-1": 5}, due={"s-1": 1.0})["s-1", "stockout_risk"]
    later = judged({"s-1": 5})["s-1", "stockout_risk"]
    assert sooner["probability"] < later["probability"]
    assert sooner["units"] < later["units"]


def row(kind="overstock", sku="a", opened=None, closed=None, severity="high", value=100.0):
    return {"location_id": "s-1", "sku": sku, "kind": kind, "severity": severity, "value": value, "units": 10.0,
            "on_hand": 20, "on_order": 0, "message": "10 units", "opened_on": opened, "closed_on": closed}  # fmt: skip


def test_what_lasts_keeps_its_beginning_and_what_is_gone_is_closed_for_one_night():
    days = [AS_OF + timedelta(days=ahead) for ahead in range(3)]
    first = update_health([row(), row(sku="b")], [], days[0])
    second = update_health([row()], first, days[1])
    third = update_health([row()], second, days[2])
    assert [(one["sku"], one["opened_on"], one["closed_on"]) for one in second] == [
        ("a", days[0], None), ("b", days[0], days[1])
    ]  # fmt: skip
    assert [(one["sku"], one["opened_on"], one["closed_on"]) for one in third] == [("a", days[0], None)]
    # and a night that is run again comes to the same
    assert update_health([row()], second, days[1]) == second


def test_alerts_tell_of_what_begins_and_ends_once():
    begun = [row(opened=AS_OF), row(sku="small", opened=AS_OF, severity="low"), row(sku="old", opened=date(2026, 1, 1))]
    ended = [row(sku="b", opened=date(2026, 2, 1), closed=AS_OF)]
    alerts = health_alerts(begun + ended, AS_OF, NOW)
    assert [(alert.kind, alert.subject) for alert in alerts] == [("overstock", "s-1|a"), ("overstock_over", "s-1|b")]
    again = health_alerts(begun + ended, AS_OF, NOW + timedelta(hours=1))
    assert [alert.alert_id for alert in alerts] == [alert.alert_id for alert in again]


def test_the_table_is_made_from_the_home_and_closes_by_itself(tables):
    # given a store with ten weeks of stock that sells, and one whose stock has not moved for a hundred days
    policies = [policy("s-1"), policy("s-2")]
    tables.overwrite(INVENTORY_POLICIES, pa.Table.from_pylist(policies, schema=INVENTORY_POLICIES.schema))
    sold = [("s-1", AS_OF, 4), ("s-1", AS_OF - timedelta(days=200), 4), ("s-2", AS_OF - timedelta(days=100), 1)]
    demand = [{"location_id": place, "sku": "a", "date": day, "demand": units} for place, day, units in sold]
    tables.overwrite(DAILY_DEMAND, pa.Table.from_pylist(demand, schema=DAILY_DEMAND.schema))

    def stand(**levels):
        rows = [{"location_id": f"s-{name[1]}", "sku": "a", "on_hand": units, "on_order": 0, "open_orders": []}
                for name, units in levels.items()]  # fmt: skip
        tables.overwrite(INVENTORY_POSITIONS, pa.Table.from_pylist(rows, schema=INVENTORY_POSITIONS.schema))

    stand(s1=280, s2=30)
    report_health(tables, PlanningSettings(), LIMITS, "p-2", AS_OF)
    stand(s1=40, s2=30)
    report_health(tables, PlanningSettings(), LIMITS, "p-2", AS_OF + timedelta(days=1))
    # then both were found, and the first is closed once it is gone
    rows = {(one["location_id"], one["kind"]): one for one in tables.read(STOCK_HEALTH).to_pylist()}
    assert rows["s-1", "overstock"]["closed_on"] == AS_OF + timedelta(days=1)
    assert rows["s-2", "dead_stock"]["opened_on"] == AS_OF
    assert rows["s-2", "dead_stock"]["closed_on"] is None
