"""The chain's own shipments as a delivery file, and what a learned model says of those under way."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.tables import SHIPMENTS
from pipelines.errors import StockcastError
from pipelines.io.delta import Tables
from pipelines.io.published import in_force
from pipelines.operations.settings import Settings
from pipelines.shipments.risk.columns import ColumnMapping
from pipelines.shipments.risk.model import RiskModel
from pipelines.shipments.risk.training import SOON
from pipelines.shipments.tracking import CANCELLED, Shipment

log = logging.getLogger("stockcast.shipments")

ARTEFACT = "shipment_risk"
LOOK_SECONDS = 30.0
"""How often a running tracker looks for a newer model."""

OWN = ColumnMapping(
    scheduled="promised",
    delivered="delivered",
    keys={
        "supplier": "supplier_id",
        "destination": "destination",
        "carrier": "carrier_id",
        "mode": "mode",
        "origin": "origin",
    },
    milestones={"started": "started"},
    identifier="shipment_id",
)
_COLUMNS = OWN.columns()


def deliveries(tables: Tables, as_of: date) -> pd.DataFrame:
    """Shipments promised up to `SOON` days after `as_of`, in the columns of `OWN`; called-off ones are left out."""
    end = datetime.combine(as_of + timedelta(days=1 + SOON), datetime.min.time(), UTC)
    where = (pc.field("promised") < pa.scalar(end, pa.timestamp("us", "UTC"))) & (pc.field("state") != CANCELLED)
    frame: pd.DataFrame = tables.read(SHIPMENTS, _COLUMNS, where).to_pandas()
    return frame


def model_folder(settings: Settings, version: str, artefact: str = ARTEFACT) -> Path:
    """Where a version's files are."""
    return settings.home_path / "models" / artefact / version


def load_model(settings: Settings, version: str, artefact: str = ARTEFACT) -> RiskModel:
    """A version that was released; its name ends with the SHA-256 of its files."""
    return RiskModel.load(model_folder(settings, version, artefact), version.rpartition("-")[2])


class RiskAssessor:
    """What the model in force says of shipments under way; nothing while there is none."""

    def __init__(self, settings: Settings, tables: Tables) -> None:
        self._settings, self._tables = settings, tables
        self._model: RiskModel | None = None
        self._version: str | None = None
        self._looked_at = -LOOK_SECONDS

    def __call__(self, shipments: Mapping[str, Shipment], now: datetime) -> dict[str, dict[str, Any]]:
        """See `pipelines.shipments.tracker.Assess`. One that is overdue is late for certain, and comes after now."""
        self._look()
        promised = {name: shipment for name, shipment in shipments.items() if shipment.promised is not None}
        if self._model is None or not promised:
            return {}
        columns = [name for name in _COLUMNS if name not in ("shipment_id", "delivered")]
        frame = pd.DataFrame(
            [{column: getattr(shipment, column) for column in columns} for shipment in promised.values()],
            columns=columns,
        ).assign(shipment_id=list(promised))
        scored = self._model.score(frame, as_of=pd.Series([pd.Timestamp(now).tz_localize(None)] * len(frame)))
        rows = zip(promised.items(), scored.to_dict("records"), strict=True)
        return {name: _assessed(row, shipment, now) for (name, shipment), row in rows}

    def _look(self) -> None:
        if time.monotonic() - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        pointer = in_force(self._tables, ARTEFACT)
        if pointer is None or pointer.version == self._version:
            return
        try:
            self._model, self._version = load_model(self._settings, pointer.version), pointer.version
            log.info("lateness is judged by %s", pointer.version)
        except (OSError, StockcastError):
            log.exception("the lateness model %s cannot be read; the one before it goes on", pointer.version)


def _assessed(row: Mapping[Any, Any], shipment: Shipment, now: datetime) -> dict[str, Any]:
    names = ("expected_arrival", "earliest_arrival", "latest_arrival")
    # Days become the time of day that was promised.
    promised = shipment.promised or now
    within = promised - datetime.combine(promised.date(), datetime.min.time(), UTC)
    arrivals = {name: max(row[name].to_pydatetime().replace(tzinfo=UTC) + within, now) for name in names}
    overdue = promised.date() < now.date()
    return {"late_probability": 1.0 if overdue else row["late_probability"], **arrivals, "reasons": row["reasons"]}
