"""The pages, with NiceGUI's simulated users: no browser, the same server code."""

from __future__ import annotations

import asyncio
import json

import pytest
from nicegui import ui
from nicegui.testing.user_simulation import user_simulation

from pipelines.contracts.tables import ORDER_AUDIT
from pipelines.serving.dashboard.app import register_pages
from pipelines.serving.dashboard.sessions import COOKIE
from tests import dashboard_chain
from tests.dashboard_chain import ACCESS, APPROVER, OPEN, READER, SCRIPT, SERIES, SmallChain, running_dashboard


@pytest.fixture
def chain(settings, tables):
    dashboard_chain.plant(tables)
    return SmallChain(settings)


def visit(chain, story, access=OPEN, token=None):
    """Run an async story with a simulated user and the dashboard behind the pages."""

    async def run():
        with running_dashboard(chain, access) as dashboard:
            async with user_simulation(lambda: None) as user:
                register_pages(dashboard)
                if token is not None:
                    user.http_client.cookies.set(COOKIE, dashboard.sessions.login(token))
                await dashboard.feed.look()
                await story(user, dashboard)

    asyncio.run(run())


def decisions(chain):
    return chain.tables.read(ORDER_AUDIT).sort_by("sequence").to_pylist()


async def recorded(chain, count):
    for _ in range(200):
        if len(decisions(chain)) >= count:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"expected {count} decisions, found {len(decisions(chain))}")


def test_an_order_appears_while_the_page_is_open_and_goes_with_its_approval(chain):
    async def story(user, dashboard):
        await user.open("/")
        await user.should_see("Nothing waits for a decision")
        # when the stream decides an order, then it is there with the next look
        chain.count_stock(SERIES[1], 0)
        await dashboard.feed.look()
        await user.should_see("Coffee")
        await user.should_not_see("Nothing waits for a decision")
        # when it is approved by two clicks, it has one effect and goes
        user.find(kind=ui.button, content="Approve").click().click()
        await recorded(chain, 1)
        await dashboard.feed.look()
        await user.should_see("Nothing waits for a decision")
        await asyncio.sleep(0.1)
        ((row,)) = decisions(chain)
        assert (row["actor"], row["action"], json.loads(row["event"])["status"]) == ("local", "approve", "approved")

    visit(chain, story)


def test_a_rejection_needs_a_reason_which_is_recorded(chain):
    async def story(user, dashboard):
        chain.count_stock(SERIES[1], 0)
        await dashboard.feed.look()
        await user.open("/")
        user.find(kind=ui.button, content="Reject").click()
        await user.should_see("Reject this order?")
        # when it is confirmed without one, nothing is recorded
        user.find(marker="decision-confirm").click()
        await asyncio.sleep(0.1)
        assert decisions(chain) == []
        user.find(marker="decision-reason").type("closing down")
        user.find(marker="decision-confirm").click()
        await recorded(chain, 1)
        (row,) = decisions(chain)
        assert (row["action"], row["reason"]) == ("reject", "closing down")
        assert json.loads(row["event"])["reason"] == "closing down"

    visit(chain, story)


def test_a_name_with_markup_is_shown_as_text(chain):
    async def story(user, dashboard):
        chain.count_stock(SERIES[0], 0)
        await dashboard.feed.look()
        for path in ("/", f"/series/{SERIES[0][0]}/{SERIES[0][1]}", "/series?q=tea"):
            await user.open(path)
            await user.should_see(SCRIPT, retries=50)
            shown = user.find(SCRIPT).elements
            assert all(isinstance(element, ui.label) for element in shown), path

    visit(chain, story)


def test_who_may_only_look_has_no_buttons(chain):
    async def story(user, dashboard):
        chain.count_stock(SERIES[1], 0)
        await dashboard.feed.look()
        await user.open("/")
        await user.should_see("Coffee")
        await user.should_see("rita (read)")
        for name in ("Approve", "Change", "Reject"):
            await user.should_not_see(kind=ui.button, content=name)

    visit(chain, story, ACCESS, READER)


def test_who_may_decide_decides_under_the_name_of_the_token(chain):
    async def story(user, dashboard):
        chain.count_stock(SERIES[1], 0)
        await dashboard.feed.look()
        await user.open("/")
        user.find(kind=ui.button, content="Approve").click()
        await recorded(chain, 1)
        assert decisions(chain)[0]["actor"] == "anna"

    visit(chain, story, ACCESS, APPROVER)


def test_without_a_session_every_page_leads_to_the_login(chain):
    async def story(user, dashboard):
        for path in (
            "/",
            "/series",
            "/series/a/b",
            "/network",
            "/totals",
            "/forecasts",
            "/data",
            "/decisions",
            "/alerts",
        ):
            answer = await user.http_client.get(path)
            assert (answer.status_code, answer.headers.get("location")) == (307, "/login"), path

    visit(chain, story, ACCESS)


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/series", "No series yet"),
        ("/series/none/none", "Nothing is known of this series"),
        ("/network", "No network yet"),
        ("/totals", "No totals yet"),
        ("/forecasts", "No forecasts in force yet"),
        ("/data", "Nothing was set aside"),
        ("/decisions", "Nobody has decided yet"),
        ("/alerts", "All is well"),
    ],
)
def test_an_empty_home_is_explained(settings, path, seen):
    chain = SmallChain(settings)

    async def story(user, dashboard):
        if path == "/alerts":
            dashboard.store.board.lines = ()
        await user.open(path)
        await user.should_see(seen, retries=20)

    visit(chain, story)


def test_a_failing_look_is_shown_and_passes(chain):
    async def story(user, dashboard):
        dashboard.store.poll = lambda: (_ for _ in ()).throw(OSError("disk away"))
        await dashboard.feed.look()
        await user.open("/")
        await user.should_see("The tables cannot be read just now")
        del dashboard.store.poll
        await dashboard.feed.look()
        assert dashboard.feed.failure is None

    visit(chain, story)


def test_records_set_aside_are_shown_with_their_bytes_escaped(chain):
    async def story(user, dashboard):
        chain.take("pos.sales", b'{"sku": "<img src=x onerror=alert(1)>"\x00')
        await user.open("/data")
        for _ in range(60):
            await dashboard.feed.look()
            if dashboard.store.reasons:
                break
            await asyncio.sleep(0.05)
        await user.should_see("not json")
        user.find(kind=ui.button, content="Samples").click()
        await user.should_see("<img src=x onerror=alert(1)>", retries=20)

    visit(chain, story)


def test_one_look_serves_all_viewers(chain, monkeypatch):
    async def story(user, dashboard):
        looks = []
        poll = dashboard.store.poll
        monkeypatch.setattr(dashboard.store, "poll", lambda: looks.append(1) or poll())
        for _ in range(5):
            await user.open("/")
        before = len(looks)
        await dashboard.feed.look()
        assert len(looks) == before + 1
        assert before == 0

    visit(chain, story)
