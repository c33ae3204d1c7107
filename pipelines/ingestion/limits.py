"""What validation knows beside the contract: limits from the settings, names from the catalog in force."""

from __future__ import annotations

import logging

from pipelines.contracts.tables import LOCATIONS, PRODUCTS
from pipelines.ingestion.sorting import Coordinates
from pipelines.ingestion.times import parse_time
from pipelines.ingestion.validation import Limits
from pipelines.io.delta import Tables
from pipelines.operations.settings import IngestSettings

log = logging.getLogger("stockcast.ingestion")


class CatalogLimits:
    """The limits in force, read anew when the catalog changes."""

    def __init__(self, tables: Tables, settings: IngestSettings) -> None:
        self._tables = tables
        self._settings = settings
        self._versions: tuple[int, int] | None = None
        self._limits = self.without_catalog()
        self._coordinates: Coordinates = {}

    @property
    def versions(self) -> tuple[int, int]:
        """Which catalog is in force: another one has other versions."""
        return self._tables.version(PRODUCTS), self._tables.version(LOCATIONS)

    def current(self) -> tuple[Limits, Coordinates]:
        """The limits, and the coordinates of locations."""
        versions = self.versions
        if versions != self._versions:
            self._load()
            self._versions = versions
        return self._limits, self._coordinates

    def without_catalog(self) -> Limits:
        """Limits under which references are not checked."""
        return Limits(
            earliest_event_time=parse_time(self._settings.earliest_event_time),
            future_tolerance=round(self._settings.future_tolerance_seconds * 1_000_000),
            largest_quantity=self._settings.largest_quantity,
            largest_value_bytes=self._settings.largest_value_bytes,
        )

    def _load(self) -> None:
        skus = self._tables.read(PRODUCTS, ("sku",)).column("sku").to_pylist()
        places = self._tables.read(LOCATIONS, ("location_id", "latitude", "longitude")).to_pylist()
        base = self.without_catalog()
        if not skus or not places:
            log.warning("no catalog is loaded: products and locations are not checked (jobs/load_catalog.py)")
            self._limits, self._coordinates = base, {}
            return
        self._coordinates = {place["location_id"]: (place["latitude"], place["longitude"]) for place in places}
        self._limits = Limits(
            base.earliest_event_time,
            base.future_tolerance,
            base.largest_quantity,
            base.largest_value_bytes,
            frozenset(skus),
            frozenset(self._coordinates),
        )
