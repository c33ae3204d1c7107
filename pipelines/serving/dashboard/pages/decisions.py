"""Decisions: who decided what and why, and whether deciding otherwise than proposed helped."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fastapi import Request
from nicegui import ui
from starlette.responses import RedirectResponse

from pipelines.serving.dashboard import parts
from pipelines.serving.dashboard.frame import Dashboard, Page, frame, loading
from pipelines.serving.dashboard.links import series_link
from pipelines.serving.dashboard.overrides import EARLY, HELPED, HURT, DecisionLine, decision_lines
from pipelines.serving.dashboard.store import WAITING

TONES = {HELPED: "good", HURT: "critical", EARLY: "info"}
DONE = {"approve": "approved", "change": "changed", "reject": "rejected", "create": "ordered by hand"}


def register(dashboard: Dashboard) -> None:
    """The page at `/decisions`."""

    @ui.page("/decisions")
    async def decisions(request: Request) -> RedirectResponse | None:
        if (session := dashboard.session(request)) is None:
            return RedirectResponse("/login")
        with frame(dashboard, session, request, "Decisions") as page:
            await page.client.connected()
            body = parts.box("main-in")
            with body, parts.card(), loading("Reading the decisions ..."):
                found = await _read(page)

            def show(lines: list[DecisionLine]) -> None:
                body.clear()
                with body:
                    _show(page, lines)

            async def again() -> None:
                fresh = await _read(page)
                if not page.client.is_deleted:
                    show(fresh)

            show(found)
            dashboard.feed.subscribe(page.client, WAITING, again)
        return None


async def _read(page: Page) -> list[DecisionLine]:
    dashboard = page.dashboard
    return await dashboard.ask(dashboard.queries, decision_lines, dashboard.clock())


def _show(page: Page, lines: list[DecisionLine]) -> None:
    if not lines:
        with parts.card():
            parts.empty("Nobody has decided yet", "Approvals, changes and rejections show here with who and why.")
        return
    verdicts = Counter(line.verdict for line in lines)
    with parts.box("stats"):
        parts.Stat("Decisions").show(parts.number(len(lines)), "the newest")
        parts.Stat("Otherwise than proposed").show(parts.number(sum(verdicts[name] for name in TONES)))
        parts.Stat("Helped").show(parts.number(verdicts[HELPED]))
        parts.Stat("Did not help").show(parts.number(verdicts[HURT]))
        parts.Stat("Too early to say").show(parts.number(verdicts[EARLY]))
    columns = [
        ("When", False),
        ("Who", False),
        ("Product", False),
        ("Proposed", True),
        ("Decided", True),
        ("Why", False),
        ("Did it help?", False),
    ]
    with parts.card("Decisions", "newest first; judged over the week from the expected receipt on"):
        parts.table(columns, [_row(page, line) for line in lines])


def _row(page: Page, line: DecisionLine) -> list[Any]:
    def product() -> None:
        with ui.link("", series_link(line.location_id, line.sku)).classes("plain"):
            parts.text(page.dashboard.store.catalog.product(line.sku), "strong")
            parts.text(f"{line.location_id} · {line.sku}", "soft small")

    def who() -> None:
        parts.text(line.actor)
        parts.text(DONE.get(line.action, line.action), "soft small")

    def verdict() -> None:
        if line.verdict in TONES:
            parts.severity_text(TONES[line.verdict], line.verdict)
        elif line.verdict:
            parts.text(line.verdict, "soft small")
        if line.why:
            parts.text(line.why, "soft tiny")

    return [
        f"{line.at:%d %b %H:%M}",
        who,
        product,
        parts.number(line.proposed),
        parts.number(line.decided),
        line.reason or "–",
        verdict,
    ]
