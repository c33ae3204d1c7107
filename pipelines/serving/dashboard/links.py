"""Addresses of pages."""

from __future__ import annotations

from urllib.parse import quote


def series_link(location_id: str, sku: str) -> str:
    """The page of a series."""
    return f"/series/{quote(location_id, safe='')}/{quote(sku, safe='')}"
