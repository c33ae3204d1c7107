"""What pages ask the tables for, one question at a time, through handles of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from pipelines.io.delta import Tables
from pipelines.operations.settings import Settings
from pipelines.serving.dashboard.finder import FoundPage, SeriesFinder
from pipelines.serving.dashboard.stock import PolicyShelf

P = ParamSpec("P")
Found = TypeVar("Found")


class Queries:
    """Questions to the tables. Table handles are no thing for two threads, so there is a lock."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._tables = Tables(settings)
        self.finder = SeriesFinder(self._tables)
        self.shelf = PolicyShelf(self._tables)

    def __call__(self, query: Callable[Concatenate[Tables, P], Found], *arguments: P.args, **named: P.kwargs) -> Found:
        """Ask a function of the tables."""
        with self._lock:
            return query(self._tables, *arguments, **named)

    def search(self, *arguments: Any) -> FoundPage:
        """As `SeriesFinder.search`."""
        with self._lock:
            return self.finder.search(*arguments)

    def categories(self) -> list[str]:
        """As `SeriesFinder.categories`."""
        with self._lock:
            return self.finder.categories()
