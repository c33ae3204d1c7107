"""A learned model of lateness: scores with reasons, stored as JSON and Parquet with their SHA-256."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.errors import UsageError
from pipelines.forecasting.files import sha256
from pipelines.shipments.risk.calibration import Platt
from pipelines.shipments.risk.columns import IDENTIFIER, SCHEDULED, ColumnMapping, canonical
from pipelines.shipments.risk.features import features, prediction_days, subject
from pipelines.shipments.risk.trees import Trees

LEVELS = (0.1, 0.5, 0.9)
MODEL_FILE, OUTCOMES_FILE = "model.json", "outcomes.parquet"
REASONS = 3


@dataclass(frozen=True)
class RiskModel:
    """What `train_risk` learned.

    Attributes:
        names: features, in the order of the trees.
        medians: of the training, what a feature is replaced by to see what it contributes.
        lateness: log-odds of being late; `delays`: days at the quantiles `LEVELS`.
        widening: days by which the interval is widened at both ends.
        outcomes: the canonical deliveries that histories are taken from.
    """

    mapping: ColumnMapping
    names: tuple[str, ...]
    medians: tuple[float, ...]
    lateness: Trees
    delays: tuple[Trees, ...]
    platt: Platt
    widening: float
    notice_days: float
    outcomes: pd.DataFrame

    def score(
        self,
        frame: pd.DataFrame,
        *,
        known: pd.DataFrame | None = None,
        as_of: pd.Series | None = None,
        reasons: bool = True,
    ) -> pd.DataFrame:
        """Chance of being late and expected arrival of shipments, in the columns of the mapping.

        Args:
            frame: shipments; a `delivered` column, where there is one, is not looked at.
            known: deliveries after the training, in the same columns: they carry the histories on, each from the day
                on which its outcome was known. None: histories end with the training.
            as_of: the day of each prediction; None: `notice_days` before the scheduled day.
            reasons: with the top reasons, which take most of the time.

        Returns:
            identifier, late_probability, expected_arrival, earliest_arrival, latest_arrival (80 % interval; days) and
            reasons (a list of texts), a row for each of `frame` with its index.
        """
        rows = canonical(frame, self.mapping)
        at = prediction_days(rows, self.notice_days) if as_of is None else _days(as_of)
        x = self._features(rows, at, known)
        probability = self.platt(self.lateness.sums(x))
        delays = np.sort(np.column_stack([tree.sums(x) for tree in self.delays]), axis=1)
        due = rows[SCHEDULED].to_numpy(float)
        ends = (due + delays[:, 1], due + delays[:, 0] - self.widening, due + delays[:, -1] + self.widening)
        arrivals = [np.rint(end).astype("datetime64[D]").astype("datetime64[s]") for end in ends]
        scored = pd.DataFrame(
            {
                IDENTIFIER: rows[IDENTIFIER].to_numpy(),
                "late_probability": probability,
                **dict(zip(("expected_arrival", "earliest_arrival", "latest_arrival"), arrivals, strict=True)),
            },
            index=frame.index,
        )
        if reasons:
            scored["reasons"] = self._reasons(x, probability)
        return scored

    def _features(self, rows: pd.DataFrame, at: np.ndarray, known: pd.DataFrame | None) -> np.ndarray:
        outcomes = self.outcomes
        if known is not None:
            outcomes = pd.concat([outcomes, canonical(known, self.mapping)], ignore_index=True)
            outcomes = outcomes.reindex(columns=self.outcomes.columns)
        found = features(rows, at, outcomes)
        return found.reindex(columns=list(self.names)).to_numpy(float)

    def _reasons(self, x: np.ndarray, probability: np.ndarray) -> list[list[str]]:
        """Subjects whose features, set to the training's median, would lower the chance of being late most."""
        subjects = np.array([subject(name) for name in self.names])
        medians = np.array(self.medians)
        kinds = list(dict.fromkeys(subjects.tolist()))
        gains = np.empty((len(x), len(kinds)))
        for place, kind in enumerate(kinds):
            gains[:, place] = probability - self.platt(self.lateness.sums(np.where(subjects == kind, medians, x)))
        order = np.argsort(-np.abs(gains), axis=1, kind="stable")[:, :REASONS]
        return [
            [f"{kinds[place]}: {100 * gains[row, place]:+.1f} points" for place in places]
            for row, places in enumerate(order)
        ]

    # Files -----------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> str:
        """Write the model's files into an empty folder; returns the SHA-256 that loading asks for."""
        folder.mkdir(parents=True, exist_ok=True)
        self.outcomes.to_parquet(folder / OUTCOMES_FILE)
        stored = {
            "mapping": self.mapping.model_dump(mode="json"),
            "names": self.names,
            "medians": self.medians,
            "lateness": self.lateness.as_json(),
            "delays": [tree.as_json() for tree in self.delays],
            "platt": [self.platt.slope, self.platt.intercept],
            "widening": self.widening,
            "notice_days": self.notice_days,
            "outcomes_sha256": sha256(folder / OUTCOMES_FILE),
        }
        text = json.dumps(stored, allow_nan=False)
        (folder / MODEL_FILE).write_text(text, encoding="utf-8")
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def load(cls, folder: Path, digest: str) -> RiskModel:
        """Read a model that `save` wrote.

        Raises:
            UsageError: the files are not those that were saved.
        """
        text = (folder / MODEL_FILE).read_bytes()
        if (found := hashlib.sha256(text).hexdigest()) != digest:
            raise UsageError(f"{folder / MODEL_FILE} has SHA-256 {found}, expected {digest}: train again")
        stored = json.loads(text)
        if (found := sha256(folder / OUTCOMES_FILE)) != stored["outcomes_sha256"]:
            raise UsageError(f"{folder / OUTCOMES_FILE} has SHA-256 {found}, not the one saved: train again")
        return cls(
            mapping=ColumnMapping.model_validate(stored["mapping"]),
            names=tuple(stored["names"]),
            medians=tuple(stored["medians"]),
            lateness=Trees.from_json(stored["lateness"]),
            delays=tuple(Trees.from_json(tree) for tree in stored["delays"]),
            platt=Platt(*stored["platt"]),
            widening=stored["widening"],
            notice_days=stored["notice_days"],
            outcomes=pd.read_parquet(folder / OUTCOMES_FILE),
        )


def _days(moments: pd.Series) -> np.ndarray:
    return pd.to_datetime(moments).to_numpy().astype("datetime64[D]").astype(float)
