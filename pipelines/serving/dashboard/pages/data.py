"""Data: the streams, the batches, what was set aside and why, the last night, and what has not left yet."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from nicegui import ui
from nicegui.element import Element
from starlette.responses import RedirectResponse

from pipelines.contracts.tables import PUBLISHED, SERIES_STATUS
from pipelines.errors import StockcastError
from pipelines.ingestion.replay import send_again
from pipelines.io import kafka
from pipelines.io.delta import Tables
from pipelines.operations.settings import Settings
from pipelines.serving.dashboard import charts, health, parts
from pipelines.serving.dashboard.frame import Dashboard, Page, frame, loading
from pipelines.serving.dashboard.health import ReasonLine
from pipelines.serving.dashboard.store import COUNTERS, HEALTH

DELIVERY_MS = 20_000
ARTEFACTS = {"forecasts": "Forecasts", "forecasts_today": "Forecasts of today's hours", "policies": "Policies"}


def register(dashboard: Dashboard) -> None:
    """The page at `/data`."""

    @ui.page("/data")
    def data(request: Request) -> RedirectResponse | None:
        if (session := dashboard.session(request)) is None:
            return RedirectResponse("/login")
        with frame(dashboard, session, request, "Data") as page:
            _figures(page)
            with parts.box("grid wide-left"):
                _streams(page)
                _night(page)
            _batches(page)
            _quarantine(page)
        return None


def _figures(page: Page) -> None:
    with parts.box("stats"):
        rate = parts.Stat("Events a second")
        behind = parts.Stat("Behind", "Records in Kafka that have not been taken in")
        aside = parts.Stat("Set aside")
        backlog = parts.Stat("Orders to leave", "Released, and not on restock.orders yet")
        unsent = parts.Stat("Decisions to send", "Recorded, and not in Kafka yet")

    def show() -> None:
        store = page.dashboard.store
        figures, waiting = store.counters, sum(reason.waiting for reason in store.reasons)
        rate.show(f"{figures.events_per_second:,.1f}")
        behind.show(parts.number(figures.lag), "Kafka is away" if figures.lag is None else "records")
        aside.show(parts.number(waiting), "not replayed")
        known = store.kafka.state.relayed is not None
        backlog.show(
            parts.number(store.backlog) if known else "–", "" if known else "not known", "warn" if store.backlog else ""
        )
        unsent.show(parts.number(store.unsent_decisions))

    page.on(COUNTERS, show)
    page.on(HEALTH, show)


def _streams(page: Page) -> None:
    with parts.card("Streams", "the last 30 minutes of batches"):
        holder = parts.box()

    def show() -> None:
        now = page.dashboard.clock()
        columns = [
            ("Topic", False),
            ("Last batch", True),
            ("Batches", True),
            ("Records", True),
            ("Set aside", True),
            ("Behind", True),
        ]
        holder.clear()
        with holder:
            parts.table(
                columns,
                [
                    [
                        line.topic,
                        parts.when(line.last_batch, now),
                        parts.number(line.batches),
                        parts.number(line.records),
                        parts.number(line.set_aside),
                        parts.number(line.lag),
                    ]
                    for line in page.dashboard.store.streams
                ],
            )

    page.on(HEALTH, show)


def _batches(page: Page) -> None:
    with parts.card("Records a batch", "newest last"), parts.box("pad-b"):
        plot = ui.plotly(charts.batch_bars([], [])).classes("plot")
        nothing = parts.text("No batch in the last half hour", "soft small")

    def show() -> None:
        records = page.dashboard.store.batch_sizes
        plot.update_figure(charts.batch_bars([time for time, _ in records], [size for _, size in records]))
        plot.set_visibility(bool(records))
        nothing.set_visibility(not records)

    page.on(HEALTH, show)


def _night(page: Page) -> None:
    with parts.card("Last night"):
        holder = parts.box()

    async def fill() -> None:
        with holder, loading("Reading ..."):
            rows, status = await page.dashboard.ask(page.dashboard.queries, _published)
        with holder:
            if not rows:
                parts.empty("No night has run yet", "jobs/nightly.py, or make nightly")
                return
            now = page.dashboard.clock()
            lines = [
                [
                    ARTEFACTS.get(row["artefact"], row["artefact"]),
                    f"{row['as_of']}",
                    parts.when(row["published_at"], now),
                ]
                for row in rows
            ]
            parts.table([("In force", False), ("Data up to", True), ("Published", True)], lines)
            said = ", ".join(f"{count:,} {name}" for name, count in status.items())
            parts.text(f"Series: {said or 'none'}", "soft small pad")

    ui.timer(0.0, fill, once=True)


def _published(tables: Tables) -> tuple[list[dict[str, Any]], dict[str, int]]:
    rows = tables.read(PUBLISHED).sort_by("artefact").to_pylist()
    version = next((row["version"] for row in rows if row["artefact"] == "forecasts"), None)
    status = tables.read(SERIES_STATUS, ("status", "forecast_version")).to_pandas()
    counts = status[status.forecast_version == version].status.value_counts()
    return rows, {str(name): int(count) for name, count in counts.items()}


def _quarantine(page: Page) -> None:
    with parts.card("Set aside", "records that did not meet the contract; nothing of them is lost"):
        lines = parts.Lines[ReasonLine](
            lambda row: row.reason,
            lambda row: _reason(page, row),
            lambda: parts.empty("Nothing was set aside", "Bad records show here with the reason."),
        )
    page.on(HEALTH, lambda: lines.show(page.dashboard.store.reasons))


def _reason(page: Page, row: ReasonLine) -> Element:
    with parts.box("line reason", "article") as line:
        with parts.box():
            parts.text(row.reason.replace("_", " "), "strong")
            parts.text(", ".join(row.topics), "soft small")
        parts.text(f"{row.records:,} records", "num")
        parts.text(f"{row.waiting:,} not replayed", "num soft" if not row.waiting else "num")
        with parts.box("actions"):
            parts.button("Samples", lambda: _samples(page, row), label=f"Samples of {row.reason}")
            if page.may_decide and row.waiting:
                parts.button("Replay", lambda: _ask_replay(page, row), label=f"Replay {row.reason}")
    return line


async def _samples(page: Page, row: ReasonLine) -> None:
    with ui.dialog() as dialog, parts.box("dialog wide").props("role=dialog"):
        parts.heading(f"Set aside: {row.reason.replace('_', ' ')}", 2)
        body = parts.box("samples")
        with parts.box("actions"):
            parts.button("Close", dialog.close)
    dialog.on("hide", dialog.delete)
    dialog.open()
    with body, loading("Reading ..."):
        found = await page.dashboard.ask(page.dashboard.queries, health.samples, row.reason)
    if dialog.is_deleted:
        return
    with body:
        for record in found:
            with parts.box("sample"):
                place = f"{record['topic']}/{record['partition']}/{record['offset']}"
                again = ", replayed" if record["replayed_at"] else ""
                parts.text(f"{place} · {record['quarantined_at']:%d %b %H:%M:%S}{again}", "soft tiny num")
                parts.text(record["detail"] or "", "small strong")
                parts.text(record["value"] or "(no value)", "mono")


def _ask_replay(page: Page, row: ReasonLine) -> None:
    with ui.dialog() as dialog, parts.box("dialog").props("role=dialog"):
        parts.heading("Replay these records?", 2)
        parts.text(f"{row.waiting:,} set aside for {row.reason.replace('_', ' ')}", "strong")
        parts.text(
            "They are sent to their topics again, as they were. What is still bad is set aside again.", "soft small"
        )

        async def replay() -> None:
            dialog.close()
            await _replay(page, row.reason)

        with parts.box("actions"):
            parts.button("Cancel", dialog.close)
            parts.button("Replay", replay, "primary")
    dialog.on("hide", dialog.delete)
    dialog.open()


async def _replay(page: Page, reason: str) -> None:
    dashboard = page.dashboard
    if not page.may_decide:
        return
    if not dashboard.store.kafka.state.answers:
        said, sent_well = "Kafka does not answer, so nothing was sent", False
    else:
        try:
            sent = await dashboard.ask(dashboard.queries, _send_again, dashboard.settings, reason)
            said, sent_well = f"{sent:,} records were sent again", True
        except StockcastError as error:
            said, sent_well = str(error), False
    if not page.client.is_deleted:
        with page.client:
            ui.notify(said, type="positive" if sent_well else "warning")


def _send_again(tables: Tables, settings: Settings, reason: str) -> int:
    return send_again(tables, kafka.producer(settings, **{"message.timeout.ms": DELIVERY_MS}), reason)
