"""Late shipments on the dashboard: other ways are shown, and approved once, with a reason."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from nicegui import ui

from pipelines.contracts.alerts import CRITICAL, Alert
from pipelines.contracts.tables import REROUTES, SHIPMENTS
from pipelines.serving.dashboard.overrides import decision_lines
from pipelines.shipments.routing.alternatives import OFFERED, situation_of
from tests import dashboard_chain
from tests.dashboard_chain import ACCESS, READER, SmallChain
from tests.unit.test_dashboard_pages import decisions, recorded, visit

NOW = datetime.now(UTC).replace(microsecond=0)
OPTION = "r-0123456789abcdef01234567"


@pytest.fixture
def chain(settings, tables):
    """A shipment that is held up at a hub, and one way for it."""
    dashboard_chain.plant(tables)
    row = {
        **{"shipment_id": "h-1", "state": "exception", "interrupted": "arrived", "node": "hub", "destination": "s-1"},
        **{"promised": NOW, "eta": NOW + timedelta(days=3), "state_time": NOW - timedelta(hours=1), "sequence": 1},
        "lines": [{"order_id": "o-1", "sku": "item-0", "quantity": 6}],
    }
    offer = {
        **{"shipment_id": "h-1", "option_id": OPTION, "state": OFFERED, "kind": "carrier"},
        "situation": situation_of(row),
        **{"node": "hub", "carrier_id": "swift", "mode": "road", "order_id": "o-1", "hours": 12.0, "std_hours": 3.0},
        **{"arrival": NOW + timedelta(hours=12), "net_benefit": 70.0, "cost": 5.0, "proposed": True, "at": NOW},
        **{"on_time_probability": 0.1, "in_stock_probability": 0.9, "avoided_units": 75.0, "avoided_loss": 75.0},
        "description": "send with swift by road",
    }  # fmt: skip
    tables.append(SHIPMENTS, pa.Table.from_pylist([row], schema=SHIPMENTS.schema))
    tables.append(REROUTES, pa.Table.from_pylist([offer], schema=REROUTES.schema))
    return SmallChain(settings)


async def hear(dashboard):
    alert = Alert("late_shipment", CRITICAL, "h-1", "shipment h-1 is late", NOW, NOW, "once")
    dashboard.store.kafka._alerts = [json.loads(alert.encode())]
    await dashboard.feed.look()


@pytest.mark.parametrize("path", ["/", "/alerts"])
def test_another_way_is_approved_once_with_a_reason(chain, path):
    async def story(user, dashboard):
        await user.open(path)
        await hear(dashboard)
        await user.should_see("shipment h-1 is late")
        user.find(kind=ui.button, content="Other ways").click()
        await user.should_see("Send it another way?", retries=50)
        # when it is confirmed without a reason, nothing is recorded
        user.find(marker="reroute-confirm").click()
        await asyncio.sleep(0.1)
        assert decisions(chain) == []
        user.find(marker="reroute-reason").type("the fair")
        user.find(marker="reroute-confirm").click().click()
        await recorded(chain, 1)
        await asyncio.sleep(0.1)
        ((row,)) = decisions(chain)
        assert (row["actor"], row["action"], row["reason"], row["order_id"]) == ("local", "reroute", "the fair", "o-1")
        assert json.loads(row["event"])["status"] == "shipped"
        # and it shows among the decisions, judged by nobody: no quantity was changed
        (shown,) = decision_lines(chain.tables, NOW)
        assert (shown.action, shown.location_id, shown.sku, shown.verdict) == ("reroute", "s-1", "item-0", "")

    visit(chain, story)


def test_who_may_only_look_sees_the_alert_without_the_button(chain):
    async def story(user, dashboard):
        await user.open("/")
        await hear(dashboard)
        await user.should_see("shipment h-1 is late")
        await user.should_not_see(kind=ui.button, content="Other ways")

    visit(chain, story, ACCESS, READER)
