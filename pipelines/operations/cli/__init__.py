"""The console script `stockcast`."""

from __future__ import annotations

from pipelines.operations.cli.app import main

__all__ = ["main"]
