"""The nightly training of lateness on the chain's own shipments: learned, judged, tracked, put in force."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.errors import MissingDataError
from pipelines.forecasting.tracking import start_run
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.io.published import Published, in_force, publish
from pipelines.operations.settings import Settings
from pipelines.shipments.risk.columns import DELIVERED, KEY, SCHEDULED, canonical
from pipelines.shipments.risk.deliveries import ARTEFACT, OWN, deliveries, load_model, model_folder
from pipelines.shipments.risk.history import late
from pipelines.shipments.risk.model import RiskModel
from pipelines.shipments.risk.scores import key_rates, scores
from pipelines.shipments.risk.training import Learning, known_as_of, train_risk

log = logging.getLogger("stockcast.shipments")

JUDGED_SHARE = 0.2
"""The newest deliveries, which challenger, champion and the suppliers' rates are judged on."""
TOLERANCE = 1.02
"""A challenger whose Brier score is so many times the champion's is still put in force: it knows more."""
RATES_TOLERANCE = 1.05
"""The first model may be so much worse than the suppliers' rates: they know nothing of lanes, carriers and arrivals."""
OWNER = "train_shipment_risk"


@dataclass(frozen=True)
class RiskReport:
    """What a training came to.

    Attributes:
        challenger, champion, rates: scores on the newest deliveries, each by a model that did not see them; champion
            None where none was in force.
        released: whether the challenger was put in force; `reason`: why or why not.
    """

    version: str
    as_of: date
    deliveries: int
    challenger: Mapping[str, float]
    champion: Mapping[str, float] | None
    rates: Mapping[str, float]
    released: bool
    reason: str

    def __str__(self) -> str:
        told = ", ".join(f"{name} {value:.3f}" for name, value in self.challenger.items())
        return f"{self.version} from {self.deliveries} deliveries: {told}; {self.reason}"


def train_and_release(
    settings: Settings, tables: Tables, as_of: date, now: datetime, learning: Learning | None = None
) -> RiskReport:
    """Learn from all shipments up to `as_of`; put the model in force unless it is worse than what there is.

    The judgement is of the same learning from all but the newest deliveries, so nothing is judged on what it saw.

    Raises:
        MissingDataError: too few deliveries to learn from.
        LeakageError: see `train_risk`.
        OwnershipError: another process is training.
    """
    with ownership(settings, OWNER):
        frame = deliveries(tables, as_of)
        if frame.empty:
            raise MissingDataError("no shipment was promised yet; track some first (jobs/track_shipments.py)")
        rows = known_as_of(canonical(frame, OWN), as_of)
        model = train_risk(frame, OWN, as_of, learning)
        judged = _Judged.of(frame, rows, as_of)
        challenger = judged.scores(train_risk(judged.earlier, OWN, judged.cutoff, learning))
        pointer = in_force(tables, ARTEFACT)
        # The champion has seen some of these days; that is an advantage which a challenger must make up for.
        champion = None if pointer is None else judged.scores(load_model(settings, pointer.version))
        released, reason = _verdict(challenger, champion, judged.rates())
        version = _store(settings, model, as_of)
        run = _track(settings, version, challenger, {"as_of": str(as_of), "deliveries": len(rows)}, released)
        if released:
            with ownership(settings, "publishing"):
                publish(tables, Published(ARTEFACT, version, as_of, run, now))
    report = RiskReport(version, as_of, len(rows), challenger, champion, judged.rates(), released, reason)
    log.info("%s", report)
    return report


@dataclass(frozen=True)
class _Judged:
    """The newest deliveries, and what came before them."""

    earlier: pd.DataFrame
    cutoff: date
    frame: pd.DataFrame
    late: np.ndarray
    suppliers: np.ndarray
    before: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, frame: pd.DataFrame, rows: pd.DataFrame, as_of: date) -> _Judged:
        edge = float(np.quantile(rows[SCHEDULED], 1 - JUDGED_SHARE))
        day = date.fromordinal(date(1970, 1, 1).toordinal() + int(edge))
        promised = pd.to_datetime(frame["promised"], utc=True).dt.date
        newer = rows[SCHEDULED] > edge
        own = KEY + "supplier"
        known = rows[~newer & (rows[DELIVERED] <= edge)]
        return cls(
            earlier=frame[promised <= day],
            cutoff=day,
            frame=frame.set_index("shipment_id", drop=False).loc[rows.identifier[newer]],
            late=late(rows[newer]),
            suppliers=rows[own][newer].to_numpy(),
            before=(known[own].to_numpy(), late(known)),
        )

    def scores(self, model: RiskModel) -> dict[str, float]:
        """Of a model."""
        return scores(self.late, model.score(self.frame, reasons=False)["late_probability"].to_numpy())

    def rates(self) -> dict[str, float]:
        """Of each supplier's rate so far."""
        return scores(self.late, key_rates(*self.before, self.suppliers))


def _verdict(
    challenger: Mapping[str, float], champion: Mapping[str, float] | None, rates: Mapping[str, float]
) -> tuple[bool, str]:
    found = f"Brier {challenger['brier']:.4f}"
    if champion is not None and challenger["brier"] > TOLERANCE * champion["brier"]:
        return False, f"not put in force: {found}, the model in force {champion['brier']:.4f}"
    if champion is None and challenger["brier"] > RATES_TOLERANCE * rates["brier"]:
        return False, f"not put in force: {found}, the suppliers' own rates {rates['brier']:.4f}"
    return True, f"put in force: {found}, the suppliers' own rates {rates['brier']:.4f}"


def _store(settings: Settings, model: RiskModel, as_of: date) -> str:
    """Write the files under the name that says what they hold; returns the version."""
    parent = model_folder(settings, "x").parent
    parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=parent, prefix=".draft-"))
    version = f"risk-{as_of:%Y%m%d}-{model.save(draft)}"
    target = model_folder(settings, version)
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    return version


def _track(
    settings: Settings, version: str, found: Mapping[str, float], told: Mapping[str, object], released: bool
) -> str | None:
    """The training as an MLflow run; None where MLflow is away, which stops nothing."""
    try:
        run = start_run(settings, version[:24], told)
        for name, value in found.items():
            run.client.log_metric(run.run_id, name, value)
        run.client.set_tag(run.run_id, "stockcast.kind", ARTEFACT)
        run.client.set_tag(run.run_id, "stockcast.alias", "champion" if released else "challenger")
        run.client.log_artifacts(run.run_id, str(model_folder(settings, version)), "model")
        run.finish(succeeded=True)
    except Exception:
        log.exception("the training of lateness could not be tracked; the model is used all the same")
        return None
    return run.run_id
