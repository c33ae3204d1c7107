"""A training of lateness, of tracked shipments or of a delivery file: learned, judged, tracked, put in force."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.errors import MissingDataError
from pipelines.forecasting.tracking import start_run
from pipelines.io.delta import Tables
from pipelines.io.ownership import ownership
from pipelines.io.published import Published, in_force, publish
from pipelines.operations.settings import Settings
from pipelines.shipments.risk.columns import DELIVERED, SCHEDULED, ColumnMapping, canonical
from pipelines.shipments.risk.deliveries import ARTEFACT, OWN, deliveries, load_model, model_folder
from pipelines.shipments.risk.history import late
from pipelines.shipments.risk.model import RiskModel, first_key
from pipelines.shipments.risk.scores import key_rates, scores
from pipelines.shipments.risk.training import Learning, decided, seen_on, train_risk

log = logging.getLogger("stockcast.shipments")

JUDGED_SHARE = 0.2
"""The newest deliveries, which challenger, champion and the suppliers' rates are judged on."""
TOLERANCE = 1.02
"""A challenger whose Brier score is so many times the champion's is still put in force: it knows more."""
RATES_TOLERANCE = 1.05
"""The first model may be so much worse than the suppliers' rates: they know nothing of lanes, carriers and arrivals."""
OWNER = "train_shipment_risk"
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Source:
    """What is learned from, and the name that its models are put in force under.

    The chain's tracking looks at `ARTEFACT` alone: a model of another file has another name.
    """

    frame: pd.DataFrame
    mapping: ColumnMapping
    artefact: str


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
    frame = deliveries(tables, as_of)
    if frame.empty:
        raise MissingDataError("no shipment was promised yet; track some first (jobs/track_shipments.py)")
    return release(settings, tables, Source(frame, OWN, ARTEFACT), as_of, now, learning)


def release(
    settings: Settings, tables: Tables, source: Source, as_of: date, now: datetime, learning: Learning | None = None
) -> RiskReport:
    """`train_and_release` of any deliveries.

    Raises:
        UsageError: the columns do not fit the mapping.
        MissingDataError, LeakageError, OwnershipError: see `train_and_release`.
    """
    learning = learning or Learning(model=settings.shipments.risk_model)
    with ownership(settings, OWNER):
        model = train_risk(source.frame, source.mapping, as_of, learning)
        judged = _Judged.of(source, as_of)
        challenger = judged.scores(train_risk(source.frame, source.mapping, judged.cutoff, learning))
        pointer = in_force(tables, source.artefact)
        # The champion has seen some of these days; that is an advantage which a challenger must make up for.
        champion = None
        if pointer is not None:
            champion = judged.scores(load_model(settings, pointer.version, source.artefact))
        released, reason = _verdict(challenger, champion, judged.rates())
        version = _store(settings, model, as_of, source.artefact)
        told = {"as_of": str(as_of), "deliveries": judged.deliveries, "model": learning.model}
        run = _track(settings, source.artefact, version, challenger, told, released)
        if released:
            with ownership(settings, "publishing"):
                publish(tables, Published(source.artefact, version, as_of, run, now))
    report = RiskReport(version, as_of, judged.deliveries, challenger, champion, judged.rates(), released, reason)
    log.info("%s", report)
    return report


@dataclass(frozen=True)
class _Judged:
    """The newest deliveries (`frame`), what was known by `as_of` (`seen`), and the rates of what came before.

    A model is followed: each delivery is told from the outcomes known on the day before it is due.
    """

    cutoff: date
    deliveries: int
    frame: pd.DataFrame
    seen: pd.DataFrame
    late: np.ndarray
    suppliers: np.ndarray
    before: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, source: Source, as_of: date) -> _Judged:
        everything = canonical(source.frame, source.mapping)
        day = float((as_of - _EPOCH).days)
        arrived = (everything[DELIVERED] <= day).to_numpy()
        outcome = source.frame.get(source.mapping.delivered, pd.Series(pd.NaT, index=source.frame.index))
        # Nothing of what came after that day, not even that it came.
        seen = source.frame.assign(**{source.mapping.delivered: outcome.where(arrived)})
        rows = everything.assign(**{DELIVERED: everything[DELIVERED].where(arrived)})
        known = arrived | (rows[SCHEDULED] < day).to_numpy()
        edge = float(int(np.quantile(rows[SCHEDULED][known], 1 - JUDGED_SHARE)))
        newer = known & (rows[SCHEDULED] > edge).to_numpy()
        earlier = decided(*seen_on(rows, _EPOCH + timedelta(days=int(edge))))
        own = first_key(rows)
        return cls(
            cutoff=_EPOCH + timedelta(days=int(edge)),
            deliveries=int(known.sum()),
            frame=seen[newer],
            seen=seen[(rows[SCHEDULED] > edge).to_numpy()],
            late=late(rows[newer]),
            suppliers=rows[own][newer].to_numpy(),
            before=(earlier[own].to_numpy(), late(earlier)),
        )

    def scores(self, model: RiskModel) -> dict[str, float]:
        """Of a model."""
        return scores(self.late, model.score(self.frame, known=self.seen, reasons=False)["late_probability"].to_numpy())

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


def _store(settings: Settings, model: RiskModel, as_of: date, artefact: str) -> str:
    """Write the files under the name that says what they hold; returns the version."""
    parent = model_folder(settings, "x", artefact).parent
    parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=parent, prefix=".draft-"))
    version = f"risk-{as_of:%Y%m%d}-{model.save(draft)}"
    target = model_folder(settings, version, artefact)
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    return version


def _track(
    settings: Settings,
    artefact: str,
    version: str,
    found: Mapping[str, float],
    told: Mapping[str, object],
    released: bool,
) -> str | None:
    """The training as an MLflow run; None where MLflow is away, which stops nothing."""
    try:
        run = start_run(settings, version[:24], told)
        for name, value in found.items():
            run.client.log_metric(run.run_id, name, value)
        run.client.set_tag(run.run_id, "stockcast.kind", artefact)
        run.client.set_tag(run.run_id, "stockcast.alias", "champion" if released else "challenger")
        run.client.log_artifacts(run.run_id, str(model_folder(settings, version, artefact)), "model")
        run.finish(succeeded=True)
    except Exception:
        log.exception("the training of lateness could not be tracked; the model is used all the same")
        return None
    return run.run_id
