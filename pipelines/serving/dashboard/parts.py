"""Pieces that all pages are made of. Text goes to the browser as text, never as HTML."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Generic, TypeVar

from nicegui import ui
from nicegui.element import Element

Row = TypeVar("Row")

GOOD, WARN, BAD, INFO = "var(--good-fill)", "var(--warn-fill)", "var(--bad-fill)", "var(--low-fill)"
SEVERITY = {
    "critical": (BAD, "◆"),
    "high": (WARN, "▲"),
    "medium": (INFO, "■"),
    "low": (INFO, "●"),
    "info": ("var(--soft)", "○"),
    "good": (GOOD, "✓"),
}
"""Colour and shape: neither alone says it."""


def box(classes: str = "", tag: str = "div") -> Element:
    """A plain element with classes; `with` fills it."""
    return ui.element(tag).classes(classes)


@contextmanager
def card(title: str | None = None, note: str = "", tag: str = "section") -> Iterator[Element]:
    """A card with its title."""
    with box("card", tag) as element:
        if title is not None:
            with box("title"):
                heading(title, 2)
                if note:
                    text(note, "soft small")
        yield element


def heading(title: str, level: int = 1) -> ui.label:
    """A heading of the page."""
    label = ui.label(title)
    label.tag = f"h{level}"
    return label


def text(content: str, classes: str = "") -> ui.label:
    """Text, in a block of its own."""
    return ui.label(content).classes(classes)


def span(content: str, classes: str = "") -> ui.label:
    """Text in a line."""
    label = ui.label(content).classes(classes)
    label.tag = "span"
    return label


def empty(title: str, hint: str = "") -> None:
    """What is shown where there is nothing."""
    with box("empty"):
        text(title, "big")
        if hint:
            text(hint)


def severity(name: str) -> None:
    """A severity as shape, colour and word."""
    colour, shape = SEVERITY.get(name, SEVERITY["info"])
    with box("chip", "span"):
        span(shape, "shape").style(f"color: {colour}")
        span(name)


def bar(share: float, colour: str) -> None:
    """A share as a bar."""
    width = 100 * min(max(share, 0.0), 1.0)
    with box("bar").props("aria-hidden=true"):
        ui.element("div").style(f"width: {width:.0f}%; background: {colour}")


def button(title: str, act: Callable[..., Any], kind: str = "quiet", label: str | None = None) -> ui.button:
    """A button; `label` says to a screen reader what it acts on."""
    made = ui.button(title, on_click=act, color=None).classes(f"act {kind}").props("no-caps unelevated")
    if label is not None:
        made.props["aria-label"] = label
    return made


def table(columns: Sequence[tuple[str, bool]], rows: Sequence[Sequence[Any]], limit: int = 500) -> None:
    """A plain table; columns are (name, whether numbers). Cells are text, or functions that build one."""
    narrow = len(columns) <= 4
    with box("scroll"), box("t", "table").style("" if narrow else f"min-width: {92 * len(columns)}px"):
        with box("", "thead"), box("", "tr"):
            for name, numeric in columns:
                cell("th", name, numeric)
        with box("", "tbody"):
            for row in rows[:limit]:
                with box("", "tr"):
                    for (_, numeric), value in zip(columns, row, strict=True):
                        cell("td", value, numeric)


def cell(tag: str, value: Any, numeric: bool = False) -> None:
    """A cell of a table."""
    if callable(value):
        with box("r" if numeric else "", tag):
            value()
        return
    label = ui.label("" if value is None else str(value)).classes("r" if numeric else "")
    label.tag = tag


class Stat:
    """A figure with its name; `show` changes what differs."""

    def __init__(self, name: str, hint: str = "") -> None:
        with box("stat") as element:
            text(name, "name")
            self._value = text("–", "value")
            self._note = text("", "note")
        if hint:
            with element:
                ui.tooltip(hint)

    def show(self, value: str, note: str = "", tone: str = "") -> None:
        """Show a figure; tone: bad, warn, good or nothing."""
        if self._value.text != value:
            self._value.set_text(value)
        if self._note.text != note:
            self._note.set_text(note)
        self._value.classes(replace=f"value {tone}-text" if tone else "value")


class Lines(Generic[Row]):
    """Rows that are kept in step with data: what is the same stays, so that nothing flickers and focus is kept.

    Args:
        key: what makes a row this one.
        build: makes a row's elements and returns the outermost.
        when_empty: built while there are no rows.
    """

    def __init__(
        self, key: Callable[[Row], Hashable], build: Callable[[Row], Element], when_empty: Callable[[], None]
    ) -> None:
        self._key = key
        self._build = build
        self._when_empty = when_empty
        self._shown: dict[Hashable, tuple[Row, Element]] = {}
        self._first = True
        self._empty = ui.element("div")
        self._container = ui.element("div")

    def show(self, rows: Sequence[Row]) -> None:
        """Show these rows in this order."""
        wanted = {self._key(row): row for row in rows}
        for key in [key for key, (row, _) in self._shown.items() if wanted.get(key) != row]:
            _, element = self._shown.pop(key)
            if key in wanted:
                self._replace(key, wanted[key], element)
            else:
                element.delete()
        for key, row in wanted.items():
            if key not in self._shown:
                with self._container:
                    element = self._build(row)
                if not self._first:
                    element.classes("fresh")
                self._shown[key] = (row, element)
        self._order(list(wanted))
        self._empty.clear()
        if not wanted:
            with self._empty:
                self._when_empty()
        self._first = False

    def _replace(self, key: Hashable, row: Row, old: Element) -> None:
        old.delete()
        with self._container:
            self._shown[key] = (row, self._build(row))

    def _order(self, keys: list[Hashable]) -> None:
        """Move only what stands elsewhere."""
        for place, key in enumerate(keys):
            element = self._shown[key][1]
            if self._container.default_slot.children.index(element) != place:
                element.move(self._container, place)


def money(value: float | None) -> str:
    """An amount in the catalog's currency, without its name."""
    if value is None:
        return "–"
    if abs(value) < 0.005:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:,.2f}"


def number(value: float | None) -> str:
    """A whole number with separators."""
    return "–" if value is None else f"{value:,.0f}"


def percent(share: float | None, digits: int = 0) -> str:
    """A share."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.{digits}f} %"


def when(instant: datetime | None, now: datetime) -> str:
    """A time near now in words, else the day; UTC."""
    if instant is None:
        return "–"
    seconds = (instant - now).total_seconds()
    if abs(seconds) < 90:
        return "now"
    amount = _amount(abs(seconds))
    if amount is None:
        return f"{instant:%d %b %Y}"
    return f"in {amount}" if seconds > 0 else f"{amount} ago"


def _amount(seconds: float) -> str | None:
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86_400:.0f} days" if seconds < 60 * 86_400 else None


def severity_text(name: str, said: str) -> None:
    """A severity's shape and colour beside other words."""
    colour, shape = SEVERITY.get(name, SEVERITY["info"])
    with box("chip", "span"):
        span(shape, "shape").style(f"color: {colour}")
        span(said)
